//! What a pruning run is asked to do: the same that the command `prune` is. `job` does it.

use super::plan::StatePlace;
use super::shard::Shard;
use super::{Allocation, Rates};
use crate::checkpoint::Model;
use crate::config::{PruneConfig, StructureConfig};
use crate::error::Result;
use crate::text::TokenWindows;
use fista_pruner_backends::DeviceSpec;
use std::path::PathBuf;
use std::time::Instant;

/// Everything that a run is asked to do.
#[derive(Debug, Clone)]
pub struct PruneRun<'a> {
    /// The dense model.
    pub model: &'a Model,
    /// The windows to calibrate with.
    pub calibration: &'a TokenWindows,
    /// The windows to measure perplexity on, before and after.
    pub evaluation: Option<&'a TokenWindows>,
    /// Which zeros, and how weights are chosen. The tokens computed at once are what memory allows.
    pub config: PruneConfig,
    /// How the zeros are spread over the operators.
    pub rates: Rates,
    /// Structured pruning: whole channels, heads and layers go, and the output is smaller; what `config` says of patterns does not
    /// count then.
    pub structure: Option<StructureConfig>,
    /// The folder to write to.
    pub output: PathBuf,
    /// Whether an earlier output is replaced.
    pub overwrite: bool,
    /// Whether to go on with the same run where it was killed, and to leave what is finished if this one ends early.
    pub resume: bool,
    /// Only a part of the layers, as a part for [`super::merge`].
    pub shard: Option<Shard>,
    /// Devices that [`open`](fista_pruner_backends::open) has opened, all of one kind.
    pub devices: Vec<DeviceSpec>,
    /// A folder for every operator's weight and statistics.
    pub save_statistics: Option<PathBuf>,
    /// Where hidden states wait; by default the first place that the budget allows.
    pub activations: Option<StatePlace>,
    /// As [`super::Source::offload`]; a budget switches it on where nothing else helps.
    pub offload: bool,
    /// Most bytes on the device.
    pub memory_budget: Option<u64>,
    /// Most bytes of RAM; together with `memory_budget` it decides where hidden states wait. Without it, the RAM that is free
    /// now: this changes no result, and warns where it is too little.
    pub host_memory: Option<u64>,
    /// When the work on it began, for the report's seconds.
    pub started: Instant,
}

impl<'a> PruneRun<'a> {
    /// A run on the first device that works, with nothing but what it must have.
    ///
    /// # Errors
    /// When no device can be opened.
    pub fn new(
        model: &'a Model,
        calibration: &'a TokenWindows,
        config: PruneConfig,
        output: impl Into<PathBuf>,
    ) -> Result<Self> {
        let (device, _) = fista_pruner_backends::open_default()?;
        Ok(Self::on(model, calibration, config, output, vec![device]))
    }

    /// A run on opened devices, with nothing but what it must have.
    pub fn on(
        model: &'a Model,
        calibration: &'a TokenWindows,
        config: PruneConfig,
        output: impl Into<PathBuf>,
        devices: Vec<DeviceSpec>,
    ) -> Self {
        Self {
            model,
            calibration,
            evaluation: None,
            config,
            rates: Rates::By(Allocation::Uniform),
            structure: None,
            output: output.into(),
            overwrite: false,
            resume: false,
            shard: None,
            devices,
            save_statistics: None,
            activations: None,
            offload: false,
            memory_budget: None,
            host_memory: None,
            started: Instant::now(),
        }
    }
}
