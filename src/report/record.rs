//! The record of a run: what went in, what was done to every operator, what came out.

use super::{Decision, LayerSeconds, ReportError, StageSeconds, StructureReport};
use crate::checkpoint::Model;
use crate::config::Pattern;
use crate::error::{Error, Result};
use crate::eval::PerplexityScore as Score;
use crate::progress::Event;
use crate::solver::SolveInfo;
use crate::system::Memory;
use crate::text::WindowsSummary;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The name of the report inside an output folder.
pub const FILE_NAME: &str = "pruning_report.json";

/// The name of the page inside an output folder.
pub const HTML_NAME: &str = "report.html";

/// Both: what an output has beside its source's files.
pub const FILE_NAMES: [&str; 2] = [FILE_NAME, HTML_NAME];

/// Version of the report's layout; a change that breaks readers raises it.
pub const VERSION: u32 = 2;

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

impl OperatorReport {
    /// The event that tells of it, as pruned for the branch of that number.
    pub(crate) fn event(&self, branch: usize) -> Event<'_> {
        Event::Operator {
            name: &self.name,
            layer: self.layer,
            branch,
            relative_error: self.relative_error,
            sparsity: self.sparsity,
            seconds: self.seconds,
        }
    }
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
    pub calibration: WindowsSummary,
    /// Perplexity before and after, where it was measured.
    pub evaluation: Option<EvaluationReport>,
    /// Zeros over all pruned operators, as a share.
    pub sparsity: f64,
    /// Seconds from reading the model to the finished output.
    pub seconds: f64,
    /// Layers that an earlier, interrupted run had finished; their seconds are that run's.
    #[serde(default)]
    pub resumed_layers: usize,
    /// The same by stage.
    pub stage_seconds: StageSeconds,
    /// The loop's part of that by decoder layer.
    pub layer_seconds: Vec<LayerSeconds>,
    /// Largest resident memory of the process in bytes, where the system tells it.
    pub peak_host_bytes: Option<u64>,
    /// Files and folders of the source that were not copied: they hold the dense weights, or are no part of the model.
    pub left_out: Vec<String>,
    /// What structured pruning has removed: the output is smaller by it.
    #[serde(flatten)]
    pub structure: Option<StructureReport>,
    /// What structured pruning was decided on, in a part: its weights are cut when the parts are merged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncut: Option<Decision>,
    /// Allocations that were compared on held-out windows; the first of the smallest divergence was taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tried_allocations: Vec<TriedAllocation>,
    /// Each pruned operator, in the order of pruning.
    pub operators: Vec<OperatorReport>,
}

/// An allocation that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TriedAllocation {
    /// How far its rates are from uniform ones, 0, towards those that the layers' divergences ask for, 1.
    pub share: f64,
    /// Kullback-Leibler divergence from the dense model on held-out windows, in nats a token, pruned by `fast`.
    pub divergence: f64,
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

impl ModelReport {
    pub(crate) fn of(model: &Model) -> Self {
        Self {
            path: model.name.clone(),
            family: model.decoder.config().family().to_string(),
            fingerprint: model.checkpoint.fingerprint(),
        }
    }
}

/// This program and its version.
pub(crate) fn program() -> String {
    format!("fista-pruner {}", env!("CARGO_PKG_VERSION"))
}

/// Perplexity of the dense and of the pruned model on the same windows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvaluationReport {
    /// The data, and how it was cut.
    pub data: WindowsSummary,
    /// The model as it was.
    pub dense: Score,
    /// The model as it is stored now.
    pub pruned: Score,
}

impl Report {
    /// The report as the JSON document that is stored.
    ///
    /// # Errors
    /// Never for what a run records; a report made by hand could hold what JSON cannot.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec_pretty(self).map_err(|e| Error::internal(format!("the report is no JSON: {e}")))
    }

    /// Reads a report from its file, or from the folder of a pruned model. Gives the file's path too.
    ///
    /// # Errors
    /// When there is no such file, or it is not a report of this version's layout.
    pub fn open(input: &Path) -> Result<(Self, PathBuf)> {
        let path = if input.is_dir() {
            input.join(FILE_NAME)
        } else {
            input.to_path_buf()
        };
        let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
        let refuse = |reason: String| {
            Error::from(ReportError {
                path: path.clone(),
                reason,
            })
        };
        let json: serde_json::Value =
            crate::json::parse_bytes(&bytes).map_err(|e| refuse(format!("it is no JSON: {e}")))?;
        match json["report_version"].as_u64() {
            Some(version) if version == u64::from(VERSION) => {}
            Some(version) => {
                return Err(refuse(format!(
                    "its layout has version {version}; this program reads version {VERSION}"
                )));
            }
            None => return Err(refuse("it has no `report_version`".into())),
        }
        let report = serde_json::from_value(json).map_err(|e| refuse(e.to_string()))?;
        Ok((report, path))
    }

    /// Mean relative squared error over the operators.
    pub fn mean_error(&self) -> f64 {
        let sum: f64 = self.operators.iter().map(|o| o.relative_error).sum();
        sum / self.operators.len().max(1) as f64
    }
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

/// Bytes in the unit that suits them.
pub(crate) fn bytes(count: u64) -> String {
    indicatif::DecimalBytes(count).to_string()
}
