//! What structured pruning is decided on before the first layer, and how the solver is told.

use crate::config::{PruneConfig, Shape, StructureConfig};
use crate::error::Result;
use crate::report::Decision;
use fista_pruner_models::Decoder;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What is decided before the first layer is pruned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Decided {
    pub(crate) decision: Decision,
    /// Scores of units by operator, where the method has them made before.
    pub(crate) scores: BTreeMap<String, Vec<f32>>,
}

impl Decided {
    /// The shape that can be told before any work: the only one, or the first of several, of the last layers.
    ///
    /// # Errors
    /// As [`StructureConfig::shapes`].
    pub(crate) fn provisional(asked: &StructureConfig, decoder: &Decoder) -> Result<Self> {
        let config = decoder.config();
        let order: Vec<usize> = (1..config.num_layers())
            .rev()
            .take(asked.most_layers(config))
            .collect();
        let shapes = asked.shapes(config, &order)?;
        let shape = shapes.into_iter().next().unwrap_or_else(|| Shape::whole(config));
        Ok(Self::only(shape))
    }

    pub(super) fn only(shape: Shape) -> Self {
        Self {
            decision: Decision {
                shape,
                tried: Vec::new(),
                layer_order: Vec::new(),
                curve: Vec::new(),
            },
            scores: BTreeMap::new(),
        }
    }

    /// Tells the solver.
    pub(crate) fn apply(&self, asked: &StructureConfig, decoder: &Decoder, config: &mut PruneConfig) {
        let shape = &self.decision.shape;
        config.solver.columns = Some(asked.columns());
        config.patterns = shape.patterns(decoder, asked);
        config.dropped = Some(shape.dropped.iter().copied().collect());
        config.scores = self.scores.clone();
    }
}
