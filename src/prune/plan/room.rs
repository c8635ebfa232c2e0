//! How much there is to do, and where it may lie.

use serde::Serialize;
use std::ops::Range;

/// Where hidden states wait; [`crate::prune::StateStore`] is the thing itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StatePlace {
    /// On the device.
    Device,
    /// In the host's memory.
    Host,
    /// In files.
    Disk,
}

impl StatePlace {
    /// Every place, with the name the command line uses.
    pub const ALL: [(&'static str, Self); 3] = [
        ("device", Self::Device),
        ("host", Self::Host),
        ("disk", Self::Disk),
    ];
}

/// How much there is to do, and where.
#[derive(Debug, Clone)]
pub struct Room {
    /// Calibration tokens.
    pub tokens: usize,
    /// Tokens that perplexity is measured on, before and after.
    pub evaluation_tokens: usize,
    /// Tokens of a calibration window.
    pub window: usize,
    /// The layers to prune.
    pub layers: Range<usize>,
    /// Devices that the layers are divided among.
    pub devices: usize,
    /// Whether the device computes in the host's memory.
    pub device_is_host: bool,
    /// Where hidden states wait.
    pub states: StatePlace,
    /// As [`crate::prune::Source::offload`].
    pub offload: bool,
}
