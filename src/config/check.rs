//! The check of a setting's range.

use crate::error::{ConfigError, Error, Result};

/// An error that names the flag, unless `ok`.
pub(super) fn check(ok: bool, setting: &'static str, reason: &str) -> Result<()> {
    if ok {
        return Ok(());
    }
    let reason = reason.to_owned();
    Err(Error::from(ConfigError::Setting { setting, reason }))
}
