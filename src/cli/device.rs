//! The device of a run: the one named, or the first that works.

use super::args::Global;
use crate::error::{Error, Result};
use fista_pruner_backends::{DeviceSpec, open, open_default};

/// The device to use, opened once so that a wrong choice is known before the long work. Where none was named, says on
/// stderr which were passed over and why.
///
/// # Errors
/// When the device named, or every compiled-in one, cannot be opened.
pub(crate) fn choose(global: &Global) -> Result<DeviceSpec> {
    match choose_all(global)?[..] {
        [device] => Ok(device),
        _ => Err(Error::Setting {
            setting: "--device",
            reason: "only `prune` works on several devices".into(),
        }),
    }
}

/// The devices to use, at least one, all of one kind; as [`choose`].
///
/// # Errors
/// As [`choose`], and when the devices are of several kinds, whose results would differ.
pub(crate) fn choose_all(global: &Global) -> Result<Vec<DeviceSpec>> {
    if let Some(first) = global.device.first() {
        if let Some(other) = global.device.iter().find(|device| device.kind != first.kind) {
            return Err(Error::Setting {
                setting: "--device",
                reason: format!("`{first}` and `{other}` are of two kinds, whose results differ a little"),
            });
        }
        for device in &global.device {
            open(device)?;
        }
        return Ok(global.device.clone());
    }
    let (device, passed_over) = open_default()?;
    for error in passed_over {
        tracing::warn!("{error}; using `{device}`");
    }
    Ok(vec![device])
}

/// Their names, as they were given.
pub(crate) fn names(devices: &[DeviceSpec]) -> String {
    let names: Vec<String> = devices.iter().map(ToString::to_string).collect();
    names.join(",")
}
