//! Evaluation on the way: while a pass over the model prunes it, the evaluation windows' hidden states follow the dense and
//! the pruned layers, so that perplexities before and after need no second pass and no stored model.

use super::perplexity::head_nll;
use crate::error::Result;
use crate::prune::{Forms, Source, States, embed};
use crate::solver::download;
use fista_pruner_backends::SolverOps;
use fista_pruner_models::{Layer, TensorSource};

/// Mean Kullback-Leibler divergence, in nats a token, of what follows from the last layer's output `other` from what follows from
/// `dense`.
///
/// # Errors
/// When a tensor cannot be read, or the device fails.
pub(crate) fn divergence<B: SolverOps>(
    source: Source<'_>,
    dense: &States<'_, B>,
    other: &States<'_, B>,
    device: &B::Device,
) -> Result<f64> {
    let head = source.decoder.head::<B>(source.checkpoint, device)?;
    let (mut sum, mut count) = (0.0, 0usize);
    for (dense, other) in dense.iter().zip(other.iter()) {
        let values = download(head.divergence(dense?.input, other?.input))?;
        count += values.len();
        sum += values.into_iter().map(f64::from).sum::<f64>();
    }
    Ok(sum / count.max(1) as f64)
}

/// Hidden states of the evaluation windows along several models: the dense one's, then each pruned one's. Without windows
/// nothing is computed.
pub(crate) struct Along<'a, B: SolverOps> {
    /// Its windows are the evaluation's.
    source: Source<'a>,
    /// The hidden states of each model; they share memory until the models part.
    paths: Vec<States<'a, B>>,
}

impl<'a, B: SolverOps> Along<'a, B> {
    /// Embeds the windows of `source` for the dense model and `pruned` others.
    ///
    /// # Errors
    /// When a tensor cannot be read, or the device fails.
    pub(crate) fn new(source: Source<'a>, pruned: usize, device: &B::Device) -> Result<Self> {
        let start = match source.windows {
            [] => States::none(source.states, device),
            _ => embed::<B>(&source, device)?,
        };
        let paths = vec![start; pruned + 1];
        Ok(Self { source, paths })
    }

    /// Takes every path through its own model's layer; for [`crate::prune::AfterLayer`].
    ///
    /// # Errors
    /// When the layers cannot be read, or states cannot be kept.
    pub(crate) fn forms(&mut self, forms: &dyn Fn() -> Result<Forms<B>>) -> Result<()> {
        if self.source.windows.is_empty() {
            return Ok(());
        }
        let Forms { dense, pruned } = forms()?;
        self.layer(&dense, &pruned.iter().map(Option::as_ref).collect::<Vec<_>>())
    }

    /// Takes every path through its own layer, if it has one.
    ///
    /// # Errors
    /// When states cannot be kept.
    pub(crate) fn layer(&mut self, dense: &Layer<B>, pruned: &[Option<&Layer<B>>]) -> Result<()> {
        let layers = std::iter::once(Some(dense)).chain(pruned.iter().copied());
        for (path, layer) in self.paths.iter_mut().zip(layers) {
            let Some(layer) = layer else {
                continue;
            };
            let none = States::none(self.source.states, path.device());
            *path = std::mem::replace(path, none).map_hidden(|hidden| layer.forward(hidden))?;
        }
        Ok(())
    }

    /// Takes the paths through all layers, the dense model's and those of one whose pruned weights `pruned` holds.
    ///
    /// # Errors
    /// When a tensor cannot be read, or states cannot be kept.
    pub(crate) fn all_layers(&mut self, pruned: &dyn TensorSource, device: &B::Device) -> Result<()> {
        let source = self.source;
        if source.windows.is_empty() {
            return Ok(());
        }
        for layer in 0..source.decoder.config().num_layers() {
            let dense = source.decoder.layer::<B>(layer, source.checkpoint, device)?;
            let pruned = source.decoder.layer::<B>(layer, pruned, device)?;
            self.layer(&dense, &[Some(&pruned)])?;
        }
        Ok(())
    }

    /// Mean Kullback-Leibler divergence of each pruned model from the dense one, in nats a token; empty without windows.
    ///
    /// # Errors
    /// When a tensor cannot be read, or the device fails.
    pub(crate) fn divergences(self, device: &B::Device) -> Result<Vec<f64>> {
        let Some((dense, pruned)) = self
            .paths
            .split_first()
            .filter(|_| !self.source.windows.is_empty())
        else {
            return Ok(Vec::new());
        };
        let of = |path| divergence::<B>(self.source, dense, path, device);
        pruned.iter().map(of).collect()
    }

    /// Mean negative log-likelihood of each window, in the dense model and then in each pruned one; empty without windows.
    ///
    /// # Errors
    /// When a tensor cannot be read, or the device fails.
    pub(crate) fn finish(self, device: &B::Device) -> Result<Vec<Vec<f64>>> {
        let source = self.source;
        if source.windows.is_empty() {
            return Ok(Vec::new());
        }
        self.paths
            .into_iter()
            .map(|path| {
                let model = (source.checkpoint, source.decoder);
                let hidden = path.iter().map(|state| Ok(state?.input));
                head_nll::<B>(model, hidden, source.windows, device)
            })
            .collect()
    }
}
