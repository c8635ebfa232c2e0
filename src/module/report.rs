//! What was done to a module.

use crate::config::Pattern;
use crate::solver::SolveInfo;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What happened to one `Linear`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinearReport {
    /// Its path in the module.
    pub path: String,
    /// `[out, in]`; burn's weight is `[in, out]`.
    pub shape: [usize; 2],
    /// The zeros it had to get.
    pub pattern: Pattern,
    /// Rows of input that its statistics come from.
    pub tokens: usize,
    /// `‖V X* − W X‖² / ‖W X‖²` of the weight in its own dtype, on the batches; with
    /// [`Correction::OwnTarget`](super::Correction::OwnTarget) `X` is `X*`.
    pub relative_error: f64,
    /// Zeros of the weight.
    pub zeros: usize,
    /// What the solver did.
    pub solver: SolveInfo,
    /// Seconds of the solver.
    pub seconds: f64,
}

/// A part of the module that has parameters and was left as it is, bit for bit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftAlone {
    /// Its path; empty for parameters of the module itself.
    pub path: String,
    /// The name of its type: `Conv2d`, or `Linear` for one that was not chosen.
    pub kind: String,
    /// Its parameters, those of its parts not counted.
    pub parameters: usize,
}

/// What happened to a module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModuleReport {
    /// The pruned layers, in the order in which the forward pass comes to them.
    pub layers: Vec<LinearReport>,
    /// Everything else that has parameters: first what is no `Linear`, then the `Linear` layers that were not chosen.
    pub left_alone: Vec<LeftAlone>,
}

impl ModuleReport {
    /// The report on the layer of that path.
    pub fn layer(&self, path: &str) -> Option<&LinearReport> {
        self.layers.iter().find(|layer| layer.path == path)
    }

    /// Zeros over all pruned layers, as a share of their weights.
    pub fn sparsity(&self) -> f64 {
        let zeros: usize = self.layers.iter().map(|layer| layer.zeros).sum();
        let weights: usize = self
            .layers
            .iter()
            .map(|layer| layer.shape[0] * layer.shape[1])
            .sum();
        zeros as f64 / weights.max(1) as f64
    }
}

impl fmt::Display for ModuleReport {
    /// A table, without a line break at its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths = self.layers.iter().map(|layer| &layer.path);
        let paths = paths.chain(self.left_alone.iter().map(|other| &other.path));
        let width = paths
            .map(|path| path.chars().count())
            .max()
            .unwrap_or(0)
            .max("layer".len());
        write!(
            f,
            "{:width$}  {:>13}  {:>8}  {:>10}  {:>9}",
            "layer", "out x in", "pattern", "zeros", "rel.error"
        )?;
        for layer in &self.layers {
            let [outputs, inputs] = layer.shape;
            write!(
                f,
                "\n{:width$}  {:>13}  {:>8}  {:>10}  {:>9.3e}",
                layer.path,
                format!("{outputs} x {inputs}"),
                layer.pattern.to_string(),
                layer.zeros,
                layer.relative_error
            )?;
        }
        for other in &self.left_alone {
            let (path, kind, parameters) = (&other.path, &other.kind, other.parameters);
            write!(f, "\n{path:width$}  {kind} left alone, {parameters} parameters")?;
        }
        Ok(())
    }
}
