//! Why a device could not be used.

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
}
