//! What a recovery works on, and the hidden states of windows that every method begins with.

use super::config::Recovery;
use crate::checkpoint::Model;
use crate::error::{ConfigError, Error, Result};
use crate::prune::token_batches;
use crate::report::Report;
use burn::tensor::Tensor;
use fista_pruner_backends::SolverOps;
use std::path::Path;

/// Everything a recovery works on.
#[derive(Debug, Clone, Copy)]
pub struct RecoverJob<'a> {
    /// The pruned model. Whatever is zero in its operators stays zero.
    pub pruned: &'a Model,
    /// The dense model that it was made from, for [`Recovery::Block`] and [`Recovery::Distill`].
    pub dense: Option<&'a Model>,
    /// Of a structurally pruned model the layers of the dense one that it has kept: all of its operators are trained then, not only
    /// those with zeros. See [`kept_layers`].
    pub kept_layers: Option<&'a [usize]>,
    /// Token windows, all of one length.
    pub windows: &'a [Vec<u32>],
    /// How.
    pub recovery: &'a Recovery,
    /// A folder for what is done, in which an interrupted run finds it again; see [`remove_checkpoints`](super::remove_checkpoints).
    pub checkpoints: Option<&'a Path>,
}

impl<'a> RecoverJob<'a> {
    /// The dense model, for a method that needs it.
    pub(super) fn dense_for(&self, method: &str) -> Result<&'a Model> {
        self.dense.ok_or_else(|| {
            Error::from(ConfigError::Setting {
                setting: "‹dense›",
                reason: format!("`{method}` learns from the dense model: name that model"),
            })
        })
    }
}

/// The layers of the dense model that a structurally pruned one has kept, as the report beside it says.
pub fn kept_layers(model: &Model) -> Option<Vec<usize>> {
    let (report, _) = Report::open(model.dir()).ok()?;
    let kept: Vec<usize> = report.structure?.kept.iter().map(|kept| kept.layer).collect();
    (kept.len() == model.decoder.config().num_layers()).then_some(kept)
}

/// Tokens of a batch of one window: fewer than any window has.
const ONE_WINDOW: usize = 1;

/// Hidden states `[1, tokens, hidden]`, a window each.
pub(crate) type Hidden<B> = Vec<Tensor<B, 3>>;

/// What enters the first layer.
pub(crate) fn window_states<B: SolverOps>(
    model: &Model,
    windows: &[Vec<u32>],
    device: &B::Device,
) -> Result<Hidden<B>> {
    let embedding = model.decoder.embedding::<B>(&model.checkpoint, device)?;
    let batches = token_batches::<B>(windows, ONE_WINDOW, device);
    Ok(batches.map(|ids| embedding.forward(ids, 0)).collect())
}
