//! Where a pass puts what it makes: weights, statistics, and that a layer is finished.

use crate::checkpoint::CheckpointWriter;
use crate::error::Result;
use crate::report::OperatorReport;

/// Where pruned weights and, if wanted, statistics go.
pub trait WeightSink {
    /// Takes the weight `[out, in]` of the tensor `name`; entries not in `keep` are zero.
    ///
    /// # Errors
    /// When it cannot be stored.
    fn weight(&mut self, name: &str, values: &[f32], keep: &[bool]) -> Result<()>;

    /// Whether [`WeightSink::statistics`] is to be called at all.
    fn wants_statistics(&self) -> bool {
        false
    }

    /// Takes what one operator was pruned from, before it is solved.
    ///
    /// # Errors
    /// When it cannot be stored.
    fn statistics(&mut self, _operator: SavedStatistics) -> Result<()> {
        Ok(())
    }

    /// A decoder layer is complete; `operators` are the reports of what was pruned in it.
    ///
    /// # Errors
    /// When what belongs to it cannot be stored.
    fn layer_done(&mut self, _layer: usize, _operators: &[OperatorReport]) -> Result<()> {
        Ok(())
    }
}

/// A sink that keeps nothing, for runs whose figures are all that is wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct NullSink;

impl WeightSink for NullSink {
    fn weight(&mut self, _name: &str, _values: &[f32], _keep: &[bool]) -> Result<()> {
        Ok(())
    }
}

/// An operator's weight and statistics on the host, in the layout that `solve` reads.
#[derive(Debug, Clone)]
pub struct SavedStatistics {
    /// The operator's full name.
    pub name: String,
    /// `m`, outputs.
    pub outputs: usize,
    /// `n`, inputs.
    pub inputs: usize,
    /// Different calibration tokens, where that is known.
    pub tokens: Option<usize>,
    /// `W [m, n]`.
    pub weight: Vec<f32>,
    /// `G = X* X*ᵀ / p`, `[n, n]`.
    pub gram: Vec<f32>,
    /// `X X*ᵀ / p` and `X Xᵀ / p`, `[n, n]`, where `X*` differs from `X`.
    pub cross: Option<(Vec<f32>, Vec<f32>)>,
}

/// Weights go straight into the new checkpoint.
impl WeightSink for CheckpointWriter {
    fn weight(&mut self, name: &str, values: &[f32], keep: &[bool]) -> Result<()> {
        self.write_weight(name, values, keep)
    }
}
