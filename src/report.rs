//! 6. The record of a run: what went in, what was done to every operator, what came out. Written beside the weights as
//!    `pruning_report.json`.

use crate::memory::Memory;
use crate::pattern::Pattern;
use crate::solver::SolveInfo;
use serde::{Deserialize, Serialize};

/// The name of the report inside an output folder.
pub const FILE_NAME: &str = "pruning_report.json";

/// Version of the report's layout; a change that breaks readers raises it.
pub const VERSION: u32 = 1;

/// What happened to one operator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OperatorReport {
    /// Its full name in the checkpoint, without `.weight`.
    pub name: String,
    /// The decoder layer it belongs to.
    pub layer: usize,
    /// `[out, in]`.
    pub shape: [usize; 2],
    /// What it is stored as.
    pub dtype: String,
    /// The zeros it had to get.
    pub pattern: Pattern,
    /// Calibration tokens its statistics come from.
    pub tokens: usize,
    /// `‖V X* − W X‖² / ‖W X‖²` of the weight as stored, on the calibration data.
    pub relative_error: f64,
    /// Zeros of the weight as stored.
    pub zeros: usize,
    /// Their share.
    pub sparsity: f64,
    /// What the solver did.
    pub solver: SolveInfo,
    /// Seconds for this operator, statistics not included.
    pub seconds: f64,
}

/// A whole run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`VERSION`].
    pub report_version: u32,
    /// This program and its version.
    pub program: String,
    /// The dense model.
    pub model: ModelReport,
    /// Where the pruned model was written.
    pub output: String,
    /// The device.
    pub device: String,
    /// Every setting that shapes the result.
    pub settings: serde_json::Value,
    /// The calibration data.
    pub calibration: serde_json::Value,
    /// Zeros over all pruned operators, as a share.
    pub sparsity: f64,
    /// Seconds from reading the model to the finished output.
    pub seconds: f64,
    /// Largest resident memory of the process in bytes, where the system tells it.
    pub peak_host_bytes: Option<u64>,
    /// Files of the source that were not copied, because they hold the dense weights in another format.
    pub left_out: Vec<String>,
    /// Each pruned operator, in the order of pruning.
    pub operators: Vec<OperatorReport>,
}

/// The dense model a run began with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelReport {
    /// As the user named it.
    pub path: String,
    /// Its family.
    pub family: String,
    /// A hash of its configuration and of every weight file's layout.
    pub fingerprint: String,
}

/// Zeros over several operators, as a share of their weights.
pub fn overall_sparsity(operators: &[OperatorReport]) -> f64 {
    let zeros: usize = operators.iter().map(|o| o.zeros).sum();
    let weights: usize = operators.iter().map(|o| o.shape[0] * o.shape[1]).sum();
    zeros as f64 / weights.max(1) as f64
}

/// Largest resident memory of this process so far, in bytes; `None` where the system does not tell.
pub fn peak_host_bytes() -> Option<u64> {
    Memory::now().map(|memory| memory.peak)
}
