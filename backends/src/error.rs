//! Why a device could not be used.

use crate::device::{DeviceKind, DeviceSpec};

/// Why a device could not be opened, or failed at work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The name is no device's.
    #[error("`{0}` is no device")]
    Unknown(String),
    /// A device that this program was built without.
    #[error("this program was built without the device `{device}` (cargo feature `{feature}`)")]
    NotCompiled {
        /// The device asked for.
        device: String,
        /// The cargo feature that adds it.
        feature: &'static str,
    },
    /// The device is compiled in but cannot be opened here.
    #[error("the device `{device}` cannot be opened: {reason}")]
    Unavailable {
        /// The device asked for.
        device: String,
        /// What is missing.
        reason: String,
    },
    /// The device computed a small known product wrongly, or failed at it.
    #[error("the device `{device}` failed its self-check: {reason}")]
    SelfCheck {
        /// The device asked for.
        device: String,
        /// What differed.
        reason: String,
    },
    /// The device gave up in the middle of the work.
    #[error("the device `{device}` failed: {reason}")]
    Failed {
        /// The device asked for.
        device: String,
        /// What it said.
        reason: String,
    },
}

impl DeviceError {
    /// What the user can do about it, where there is something.
    pub fn hint(&self) -> Option<String> {
        let kind = |device: &str| device.parse::<DeviceSpec>().ok().map(|spec| spec.kind);
        match self {
            Self::Unknown(_) => Some(format!("devices are {}", DeviceKind::ALL.map(DeviceKind::shown).join(", "))),
            Self::NotCompiled { feature, .. } => Some(format!(
                "build with `cargo build --release --features {feature}`, or choose another --device"
            )),
            Self::Unavailable { device, .. } => Some(match kind(device)? {
                DeviceKind::Wgpu | DeviceKind::Vulkan => "install the Vulkan loader and the GPU's driver (on Debian \
                     libvulkan1 and mesa-vulkan-drivers, or the vendor's), or choose another --device"
                    .to_owned(),
                DeviceKind::Cuda => "`nvidia-smi` lists the GPUs; without one choose another --device".to_owned(),
                _ => "choose another --device".to_owned(),
            }),
            Self::Failed { .. } => Some(
                "`--dry-run` says how much memory a run takes; fewer --samples, or a shorter --seq-len, take less"
                    .to_owned(),
            ),
            Self::SelfCheck { .. } => Some(
                "the driver or its libraries are broken or do not fit each other: update them, or choose another --device"
                    .to_owned(),
            ),
        }
    }
}
