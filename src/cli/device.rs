//! The device of a run: the one named, or the first that works.

use super::args::Global;
use crate::error::Result;
use fista_pruner_backends::{DeviceSpec, open_default};

/// The device to use. Where none was named, says on stderr which were passed over and why.
///
/// # Errors
/// When no compiled-in device can be opened.
pub(crate) fn choose(global: &Global) -> Result<DeviceSpec> {
    if let Some(device) = global.device {
        return Ok(device);
    }
    let (device, passed_over) = open_default()?;
    for error in passed_over {
        tracing::warn!("{error}; using `{device}`");
    }
    Ok(device)
}
