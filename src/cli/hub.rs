//! The hub of a run: the environment's settings, and a bar for downloads.

use super::progress::DownloadBar;
use crate::error::Result;
use crate::hub::{Hub, HubConfig};

/// The hub that the environment describes. Nothing is sent before a file is asked for.
///
/// # Errors
/// When a variable has a value that makes no sense.
pub(crate) fn open(quiet: bool) -> Result<Hub<'static>> {
    let config = HubConfig::from_variables(|name| std::env::var(name).ok())?;
    let mut bar = DownloadBar::new(quiet);
    Ok(Hub::new(config, move |transfer| bar.show(&transfer)))
}
