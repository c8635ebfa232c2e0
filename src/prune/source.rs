//! What a pass over the model works on: the model and the windows, which layers, and the branches that are pruned in it.

use super::Limits;
use super::sink::WeightSink;
use super::states::{StateStore, States};
use crate::checkpoint::Checkpoint;
use crate::config::PruneConfig;
use crate::error::Result;
use crate::report::OperatorReport;
use burn::tensor::{Int, Tensor, TensorData};
use fista_pruner_backends::SolverOps;
use fista_pruner_models::{Decoder, Layer, TensorSource};
use std::collections::HashSet;
use std::ops::Range;

/// Everything a run works on.
#[derive(Debug, Clone, Copy)]
pub struct PruneJob<'a> {
    /// The dense checkpoint.
    pub checkpoint: &'a Checkpoint,
    /// Its decoder.
    pub decoder: &'a Decoder,
    /// Calibration windows, all of one length.
    pub windows: &'a [Vec<u32>],
    /// What to do.
    pub config: &'a PruneConfig,
}

impl<'a> PruneJob<'a> {
    /// What it works on, without what it does.
    pub fn source(&self) -> Source<'a> {
        Source {
            checkpoint: self.checkpoint,
            decoder: self.decoder,
            windows: self.windows,
            batch_tokens: self.config.batch_tokens,
            states: StateStore::ON_DEVICE,
            offload: false,
        }
    }
}

/// What several runs over one model and one set of windows share.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The dense checkpoint.
    pub checkpoint: &'a Checkpoint,
    /// Its decoder.
    pub decoder: &'a Decoder,
    /// Calibration windows, all of one length.
    pub windows: &'a [Vec<u32>],
    /// Tokens computed at once on the device.
    pub batch_tokens: usize,
    /// Where hidden states wait.
    pub states: &'a StateStore,
    /// Whether the device holds of a layer only what the step at hand needs: its weights are read again for every step, and
    /// Gram matrices wait on the host. The result is the same to the last bit.
    pub offload: bool,
}

/// Which decoder layers a pass prunes. The model is run up to the first of them and not beyond the last.
#[derive(Clone)]
pub struct Span<'a> {
    /// The layers.
    pub layers: Range<usize>,
    /// The weights of the layers before them, as a pass before this one has pruned them. Without them only the dense model
    /// goes through those layers.
    pub before: Option<&'a dyn TensorSource>,
}

impl Span<'_> {
    /// All layers.
    pub fn whole(decoder: &Decoder) -> Self {
        Self {
            layers: 0..decoder.config().num_layers(),
            before: None,
        }
    }
}

impl Source<'_> {
    /// Calibration tokens, those of equal windows counted once: what a matrix can be fitted to.
    pub(crate) fn different_tokens(&self) -> usize {
        let different: HashSet<&Vec<u32>> = self.windows.iter().collect();
        different.into_iter().map(Vec::len).sum()
    }
}

/// One of several ways to prune the same model in one pass.
pub struct Branch<'a> {
    /// What to do; its `batch_tokens` is the source's.
    pub config: &'a PruneConfig,
    /// Where its weights go.
    pub sink: &'a mut dyn WeightSink,
}

/// What came of a branch.
#[derive(Debug, Clone, Default)]
pub struct BranchOutcome {
    /// One report an operator, in the order of pruning.
    pub operators: Vec<OperatorReport>,
    /// Seconds of what only this branch needed: its own hidden states and statistics, and its solver.
    pub seconds: f64,
}

/// A decoder layer in all its forms.
#[derive(Debug)]
pub struct Forms<B: SolverOps> {
    /// As it was.
    pub dense: Layer<B>,
    /// As each branch has pruned it; `None` where the branch leaves it out.
    pub pruned: Vec<Option<Layer<B>>>,
}

/// Callback after each decoder layer. It gets the layer's index and a function that returns the layer before and after pruning
/// (this may read it from disk).
pub type AfterLayer<'a, B> = dyn FnMut(usize, &dyn Fn() -> Result<Forms<B>>) -> Result<()> + 'a;

/// The model's hidden states before the first layer.
pub(crate) fn embed<'a, B: SolverOps>(source: &Source<'a>, device: &B::Device) -> Result<States<'a, B>> {
    let limits = Limits::of::<B>(source.decoder, device)?;
    let batch_tokens = limits.batch_tokens(source.batch_tokens, source.windows)?;
    let embedding = source.decoder.embedding::<B>(source.checkpoint, device)?;
    let batches = token_batches(source.windows, batch_tokens, device);
    States::of_hidden(
        batches.map(|ids| embedding.forward(ids, 0)),
        source.states,
        device,
    )
}

/// Token windows of one length as batches `[windows, tokens]` of at most `batch_tokens` tokens, at least one window each.
pub fn token_batches<'a, B: SolverOps>(
    windows: &'a [Vec<u32>],
    batch_tokens: usize,
    device: &'a B::Device,
) -> impl Iterator<Item = Tensor<B, 2, Int>> + 'a {
    let tokens = windows.first().map_or(1, Vec::len).max(1);
    windows.chunks((batch_tokens / tokens).max(1)).map(move |batch| {
        let ids: Vec<i64> = batch.iter().flatten().map(|id| i64::from(*id)).collect();
        Tensor::from_data(TensorData::new(ids, [batch.len(), tokens]), device)
    })
}
