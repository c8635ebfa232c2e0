//! When the hub is opened: once a file of it is needed, and not before.

use super::{Hub, HubConfig, HubError, Transfer};

/// Opens the hub. Nothing is sent before a file is asked for.
pub type OpenHub<'a> = dyn FnMut() -> Result<Hub<'static>, HubError> + 'a;

/// The hub that the environment describes, without a word about downloads.
///
/// # Errors
/// When a variable has a value that makes no sense.
pub fn from_environment() -> Result<Hub<'static>, HubError> {
    from_environment_telling(|_| {})
}

/// The hub that the environment describes; `told` hears of downloads.
///
/// # Errors
/// As [`from_environment`].
pub fn from_environment_telling(told: impl FnMut(Transfer<'_>) + 'static) -> Result<Hub<'static>, HubError> {
    let config = HubConfig::from_variables(|name| std::env::var(name).ok())?;
    Ok(Hub::new(config, told))
}
