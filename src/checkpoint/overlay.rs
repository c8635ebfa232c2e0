//! A checkpoint some of whose weights have other values, in memory.

use super::Checkpoint;
use burn::tensor::TensorData;
use fista_pruner_models::{SourceError, TensorSource};
use std::collections::BTreeMap;

/// A checkpoint with other weights.
#[derive(Debug)]
pub(crate) struct Overlay<'a> {
    checkpoint: &'a Checkpoint,
    /// Shapes and values by name.
    weights: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl<'a> Overlay<'a> {
    /// The checkpoint as it is.
    pub(crate) fn new(checkpoint: &'a Checkpoint) -> Self {
        Self {
            checkpoint,
            weights: BTreeMap::new(),
        }
    }

    /// Gives a tensor other values, row-major `[out, in]`.
    pub(crate) fn set<const D: usize>(&mut self, name: &str, shape: [usize; D], values: Vec<f32>) {
        self.weights.insert(name.to_owned(), (shape.to_vec(), values));
    }
}

impl TensorSource for Overlay<'_> {
    fn load(&self, name: &str, shape: &[usize]) -> Result<TensorData, SourceError> {
        match self.weights.get(name) {
            Some((found, values)) if found == shape => Ok(TensorData::new(values.clone(), shape.to_vec())),
            _ => self.checkpoint.load(name, shape),
        }
    }

    fn contains(&self, name: &str) -> bool {
        self.checkpoint.contains(name)
    }

    fn names(&self) -> Vec<&str> {
        self.checkpoint.names()
    }
}
