//! What is asked of a pruned module.

use super::paths::PathFilter;
use crate::config::{Pattern, SolverConfig};
use crate::error::{ConfigError, Error, Result};
use std::collections::BTreeMap;

/// What a layer's inputs and its target are once layers before it are pruned. `X` is the layer's input in the dense
/// module, `X*` its input in the module pruned so far, `W` and `V` its weight before and after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Correction {
    /// `‖V X − W X‖`: every layer for itself, on the dense module's activations. The batches are run through once.
    None,
    /// `‖V X* − W X‖`: every layer makes up for what those before it did. The program's `--propagate full`.
    DenseTarget,
    /// `‖V X* − W X*‖`: every layer on the input that it will have. The program's `--propagate true-sequential`.
    OwnTarget,
}

/// What to prune in a module, and how.
#[derive(Debug, Clone)]
pub struct ModuleConfig {
    /// Which `Linear` layers.
    pub layers: PathFilter,
    /// The zeros each of them must have, where `patterns` says nothing else. The groups of n:m lie along the inputs.
    pub pattern: Pattern,
    /// Layers, by path, with a pattern of their own.
    pub patterns: BTreeMap<String, Pattern>,
    /// How a layer's weights are chosen.
    pub solver: SolverConfig,
    /// Where inputs and targets come from.
    pub correction: Correction,
    /// Layers, in the order in which the forward pass comes to them, whose statistics are gathered in one pass over the
    /// batches. Few need less memory (two matrices `[in, in]` a layer, four with [`Correction::DenseTarget`]), many need
    /// fewer passes, and are corrected for less. `None`: all with [`Correction::None`], otherwise one.
    pub at_once: Option<usize>,
}

impl ModuleConfig {
    /// Every `Linear`, by the most accurate solver, each layer corrected for those before it.
    pub fn new(pattern: Pattern) -> Self {
        Self {
            layers: PathFilter::all(),
            pattern,
            patterns: BTreeMap::new(),
            solver: SolverConfig::best(None),
            correction: Correction::DenseTarget,
            at_once: None,
        }
    }

    /// The zeros that the layer of that path must have.
    pub fn pattern_for(&self, path: &str) -> Pattern {
        self.patterns.get(path).copied().unwrap_or(self.pattern)
    }

    pub(crate) fn validate(&self) -> Result<()> {
        self.solver.validate()?;
        if self.at_once == Some(0) {
            return Err(Error::from(ConfigError::Setting {
                setting: "at_once",
                reason: "must be at least 1".into(),
            }));
        }
        Ok(())
    }

    /// Layers in a pass, of `layers` in all.
    pub(crate) fn layers_at_once(&self, layers: usize) -> usize {
        let default = match self.correction {
            Correction::None => layers,
            Correction::DenseTarget | Correction::OwnTarget => 1,
        };
        self.at_once.unwrap_or(default).max(1)
    }
}
