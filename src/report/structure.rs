//! What structured pruning has removed.

use crate::config::Shape;
use serde::{Deserialize, Serialize};

/// What structured pruning was decided on before the first layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// The shape.
    pub shape: Shape,
    /// Every shape that was looked at, where there was a choice.
    pub tried: Vec<TriedShape>,
    /// Layers in the order in which they may go, and the divergence from the dense model without that one and those before it.
    pub layer_order: Vec<(usize, f64)>,
    /// The mean loss of the masks of every step, where they were searched for.
    pub curve: Vec<f64>,
}

/// A shape that a search has looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TriedShape {
    /// The shape.
    pub shape: Shape,
    /// The share of the linear weights that it removes.
    pub removed: f64,
    /// Kullback-Leibler divergence from the dense model on held-out text, in nats a token.
    pub divergence: f64,
}

/// What structured pruning has removed, as a report has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StructureReport {
    /// Parameters of the dense model, embeddings included.
    pub parameters_before: usize,
    /// Parameters of the result.
    pub parameters_after: usize,
    /// The share of the decoder layers' linear weights that went.
    pub removed: f64,
    /// The share of all parameters that went.
    pub removed_of_all: f64,
    /// The result's sizes.
    pub shape: ShapeReport,
    /// What was decided on, and how.
    pub decision: Decision,
    /// What stays of each layer.
    pub kept: Vec<KeptReport>,
}

/// The sizes of a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShapeReport {
    /// Decoder layers.
    pub layers: usize,
    /// Hidden features of every MLP.
    pub mlp: usize,
    /// Heads of queries of every layer.
    pub heads: usize,
    /// Heads of keys and values of every layer.
    pub kv_heads: usize,
    /// The dense model's layers that are gone.
    pub dropped_layers: Vec<usize>,
}

/// What stays of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptReport {
    /// Its number in the dense model; in the result it is its place in the list.
    pub layer: usize,
    /// Channels of the MLP that stay, as ranges from the first to the one after the last.
    pub mlp: Vec<[usize; 2]>,
    /// Heads of keys and values that stay, in the same way.
    pub kv_heads: Vec<[usize; 2]>,
}

/// Rising numbers as ranges.
pub(crate) fn ranges(numbers: &[usize]) -> Vec<[usize; 2]> {
    let mut ranges: Vec<[usize; 2]> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some(last) if last[1] == *number => last[1] += 1,
            _ => ranges.push([*number, number + 1]),
        }
    }
    ranges
}
