//! Evaluation on the way: while a pass over the model prunes it, the evaluation windows' hidden states follow the dense and
//! the pruned layers, so that perplexities before and after need no second pass and no stored model.

use super::perplexity::head_nll;
use crate::error::{Error, Result};
use crate::prune::{Forms, Source, States, embed};
use fista_pruner_backends::SolverOps;
use fista_pruner_models::{Layer, TensorSource};
use serde::{Deserialize, Serialize};

/// How likely a model finds the evaluation windows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// `exp(mean_nll)`; `None` where that is not finite, as a model that pruning has destroyed may have it.
    pub perplexity: Option<f64>,
    /// Mean negative log-likelihood per target, in nats.
    pub mean_nll: Option<f64>,
    /// Mean negative log-likelihood of each window.
    pub window_nll: Vec<Option<f64>>,
}

impl Score {
    /// From each window's mean negative log-likelihood; the windows have one length.
    pub fn of(window_nll: &[f64]) -> Self {
        let finite = |value: f64| Some(value).filter(|value| value.is_finite());
        let mean = window_nll.iter().sum::<f64>() / window_nll.len() as f64;
        Self {
            perplexity: finite(mean.exp()),
            mean_nll: finite(mean),
            window_nll: window_nll.iter().copied().map(finite).collect(),
        }
    }
}

/// Refuses windows that hold nothing to predict.
///
/// # Errors
/// When a window has fewer than two tokens; the message names `setting`.
pub(crate) fn check_windows(windows: &[Vec<u32>], setting: &'static str) -> Result<()> {
    if windows.first().map_or(0, Vec::len) < 2 {
        return Err(Error::Setting {
            setting,
            reason: "a window needs at least two tokens, one to read and one to predict".into(),
        });
    }
    Ok(())
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
        self.layer(&dense, &pruned.iter().collect::<Vec<_>>())
    }

    /// Takes every path through its own layer.
    ///
    /// # Errors
    /// When states cannot be kept.
    pub(crate) fn layer(&mut self, dense: &Layer<B>, pruned: &[&Layer<B>]) -> Result<()> {
        for (path, layer) in self.paths.iter_mut().zip(std::iter::once(&dense).chain(pruned)) {
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
            self.layer(&dense, &[&pruned])?;
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destroyed_model_has_a_score_that_json_can_hold() {
        let score = Score::of(&[2.0, 4.0]);
        assert_eq!(score.mean_nll, Some(3.0));
        assert_eq!(score.perplexity, Some(3f64.exp()));
        for (nll, mean) in [(1000.0, Some(1000.0)), (f64::NAN, None), (f64::INFINITY, None)] {
            let score = Score::of(&[nll]);
            assert_eq!((score.mean_nll, score.perplexity), (mean, None));
            let json = serde_json::to_string(&score).unwrap();
            assert_eq!(serde_json::from_str::<Score>(&json).unwrap(), score);
        }
    }

    #[test]
    fn a_window_has_something_to_predict() {
        assert!(check_windows(&[vec![1, 2]], "--eval-seq-len").is_ok());
        for windows in [vec![], vec![vec![1]]] {
            assert!(check_windows(&windows, "--eval-seq-len").is_err());
        }
    }
}
