//! What a recovery did. Written beside the weights as `recovery_report.json`.

use crate::error::{Error, Result};
use crate::eval::PerplexityScore;
use crate::report::ModelReport;
use crate::text::WindowsSummary;
use serde::{Deserialize, Serialize};

/// The name of the report inside an output folder.
pub const FILE_NAME: &str = "recovery_report.json";

/// Version of the report's layout; a change that breaks readers raises it.
pub const VERSION: u32 = 1;

/// How a loss went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// What was trained: `model.layers.3 attention`, `model.layers.3 mlp` or `model`.
    pub name: String,
    /// The loss on all windows before.
    pub before: f64,
    /// The loss of each step, on that step's windows.
    pub steps: Vec<f64>,
    /// The loss on all windows after, of the weights as they are stored.
    pub after: f64,
    /// Whether the new weights were worse, so that the old ones stay.
    pub kept_old: bool,
    /// Seconds it took, in this and earlier runs.
    pub seconds: f64,
}

/// What came of [`recover`](super::recover).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recovered {
    /// The loss that the curves show.
    pub loss: String,
    /// One curve a part that was trained on its own.
    pub curves: Vec<Curve>,
    /// Operators whose weights were adapted.
    pub operators: usize,
    /// Their weights.
    pub weights: usize,
    /// The zeros among them, before and after.
    pub zeros: usize,
    /// Steps or layers that an earlier, interrupted run had done.
    pub resumed: usize,
}

/// A whole run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecoveryReport {
    /// [`VERSION`].
    pub report_version: u32,
    /// Name and version of the program.
    pub program: String,
    /// The pruned model.
    pub model: ModelReport,
    /// The dense model, where the method needs it.
    pub dense: Option<ModelReport>,
    /// The output folder.
    pub output: String,
    /// The device.
    pub device: String,
    /// The method with its settings.
    pub settings: super::Recovery,
    /// The text it was adapted on.
    pub calibration: WindowsSummary,
    /// Perplexity before and after, where text to evaluate on was named.
    pub evaluation: Option<RecoveryEvaluation>,
    /// What was done.
    #[serde(flatten)]
    pub recovered: Recovered,
    /// Seconds of this run.
    pub seconds: f64,
    /// Most memory that the process had, where the system tells it.
    pub peak_host_bytes: Option<u64>,
}

/// Perplexity before and after.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecoveryEvaluation {
    /// The text.
    pub data: WindowsSummary,
    /// The pruned model.
    pub pruned: PerplexityScore,
    /// The recovered model.
    pub recovered: PerplexityScore,
}

impl RecoveryReport {
    /// As it is stored.
    ///
    /// # Errors
    /// When a number is not finite.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec_pretty(self).map_err(|e| Error::internal(format!("the report is no JSON: {e}")))
    }
}
