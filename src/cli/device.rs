//! The device of a run: the one named, or the first that works.

use super::args::Global;
use crate::error::Result;
use fista_pruner_backends::{DeviceSpec, open, open_default};

/// The device to use, opened once so that a wrong choice is known before the long work. Where none was named, says on
/// stderr which were passed over and why.
///
/// # Errors
/// When the device named, or every compiled-in one, cannot be opened.
pub(crate) fn choose(global: &Global) -> Result<DeviceSpec> {
    if let Some(device) = global.device {
        open(&device)?;
        return Ok(device);
    }
    let (device, passed_over) = open_default()?;
    for error in passed_over {
        tracing::warn!("{error}; using `{device}`");
    }
    Ok(device)
}
