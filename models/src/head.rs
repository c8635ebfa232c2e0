//! From the last layer's output to logits or to the negative log likelihood of given tokens, the latter without ever
//! holding the logits of more than a few tokens.

use crate::config::ModelConfig;
use crate::error::ModelError;
use crate::likelihood::{Best, Likelihood};
use crate::opt;
use crate::parts::{LayerNorm, Loader, NamedShape, RmsNorm, apply_linear, linear_tensors};
use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::activation::log_softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};
use fista_pruner_backends::product;

/// Logits held at once by [`Head::token_nll`], in elements (128 MB of f32).
const MAX_LOGITS: usize = 32 << 20;

/// The norm before the head, OPT's projection, and the head.
#[derive(Module, Debug)]
pub struct Head<B: Backend> {
    /// LLaMA and its relatives.
    rms_norm: Option<RmsNorm<B>>,
    /// OPT, unless it has none.
    layer_norm: Option<LayerNorm<B>>,
    /// OPT where the token table is narrower than the residual stream.
    project_out: Option<Linear<B>>,
    /// `[vocab, columns]`, in one or more runs of rows.
    weight: Vec<Tensor<B, 2>>,
}

/// Names, without prefix, and shapes of what comes before the head's weight.
pub(crate) fn norm_tensors(config: &ModelConfig) -> Vec<NamedShape> {
    match config {
        ModelConfig::Llama(config) => vec![("norm.weight".to_owned(), vec![config.hidden_size])],
        ModelConfig::Opt(config) => {
            let mut tensors = Vec::new();
            if config.final_norm {
                tensors.extend(opt::norm_tensors(config, "final_layer_norm"));
            }
            if config.embedding_size != config.hidden_size {
                let shape = [config.embedding_size, config.hidden_size];
                linear_tensors(&mut tensors, "project_out", shape, false);
            }
            tensors
        }
    }
}

impl<B: Backend> Head<B> {
    /// `weight` is `[vocab, columns]`, in one or more runs of rows.
    pub(crate) fn load(
        config: &ModelConfig,
        weight: Vec<Tensor<B, 2>>,
        loader: &Loader<'_, B>,
    ) -> Result<Self, ModelError> {
        let mut head = Self {
            rms_norm: None,
            layer_norm: None,
            project_out: None,
            weight,
        };
        match config {
            ModelConfig::Llama(config) => {
                let (hidden, epsilon) = (config.hidden_size, config.norm_epsilon);
                head.rms_norm = Some(loader.rms_norm("norm", hidden, epsilon)?);
            }
            ModelConfig::Opt(config) => {
                let (hidden, columns) = (config.hidden_size, config.embedding_size);
                if config.final_norm {
                    let norm = loader.layer_norm("final_layer_norm", hidden, config.norm_affine)?;
                    head.layer_norm = Some(norm);
                }
                if columns != hidden {
                    head.project_out = Some(loader.linear("project_out", [columns, hidden], false)?);
                }
            }
        }
        Ok(head)
    }

    /// What the head's weight is applied to: `[batch, tokens, hidden]` to `[batch, tokens, columns]`.
    fn before_weight(&self, hidden: Tensor<B, 3>) -> Tensor<B, 3> {
        let hidden = match (&self.rms_norm, &self.layer_norm) {
            (Some(norm), _) => norm.forward(hidden),
            (None, Some(norm)) => norm.forward(hidden),
            (None, None) => hidden,
        };
        match &self.project_out {
            Some(project_out) => apply_linear(project_out, hidden),
            None => hidden,
        }
    }

    /// Logits `[batch, tokens, vocab]` of the last layer's output `[batch, tokens, hidden]`.
    pub fn forward(&self, hidden: Tensor<B, 3>) -> Tensor<B, 3> {
        let [batch, tokens, _] = hidden.dims();
        let x = self.before_weight(hidden);
        let columns = x.dims()[2];
        let x = x.reshape([batch * tokens, columns]);
        let logits = Tensor::cat(self.logits(&x).collect(), 1);
        let vocab = logits.dims()[1];
        logits.reshape([batch, tokens, vocab])
    }

    /// Logits of rows `x [rows, columns]`: `[rows, part]` of each part of the vocabulary.
    fn logits<'a>(&'a self, x: &'a Tensor<B, 2>) -> impl Iterator<Item = Tensor<B, 2>> + 'a {
        let part = |weight: &Tensor<B, 2>| product(x.clone(), weight.clone().transpose());
        self.weight.iter().map(part)
    }

    /// Negative log likelihood, in nats, of `targets` `[batch, tokens]`, where target `t` is what should follow token
    /// `t` of `hidden` `[batch, tokens, hidden]`. The result has the shape of `targets`.
    ///
    /// Targets must be below the vocabulary's size.
    pub fn token_nll(&self, hidden: Tensor<B, 3>, targets: Tensor<B, 2, Int>) -> Tensor<B, 2> {
        self.nll_in_chunks(hidden, targets, MAX_LOGITS)
    }

    /// As [`Self::token_nll`], with the most likely token in place of each target beside it.
    pub fn token_scores(
        &self,
        hidden: Tensor<B, 3>,
        targets: Tensor<B, 2, Int>,
    ) -> (Tensor<B, 2>, Tensor<B, 2, Int>) {
        let shape = targets.dims();
        let parts = self.by_chunks(hidden, targets, MAX_LOGITS, |x, targets| {
            let mut likelihood = Likelihood::new(targets);
            let mut best = Best::default();
            for logits in self.logits(&x) {
                best.add(logits.clone());
                likelihood.add(logits);
            }
            (likelihood.finish(), best.finish())
        });
        let (nll, best) = parts.into_iter().unzip();
        (
            Tensor::cat(nll, 0).reshape(shape),
            Tensor::cat(best, 0).reshape(shape),
        )
    }

    /// Kullback-Leibler divergence, in nats, of the next token's distribution after `other` from that after `hidden`, both
    /// `[batch, tokens, hidden]`; gives `[batch · tokens]`.
    pub fn divergence(&self, hidden: Tensor<B, 3>, other: Tensor<B, 3>) -> Tensor<B, 1> {
        let flat = |hidden: Tensor<B, 3>| -> Tensor<B, 2> { self.before_weight(hidden).flatten(0, 1) };
        let (x, y) = (flat(hidden), flat(other));
        let rows = x.dims()[0];
        let vocab: usize = self.weight.iter().map(|part| part.dims()[0]).sum();
        let chunk = (MAX_LOGITS / vocab.max(1)).max(1);
        let parts = (0..rows).step_by(chunk).map(|start| {
            let these = start..(start + chunk).min(rows);
            let log_p = |x: &Tensor<B, 2>| {
                let x = x.clone().slice_dim(0, these.clone());
                log_softmax(Tensor::cat(self.logits(&x).collect(), 1), 1)
            };
            let (p, q) = (log_p(&x), log_p(&y));
            ((p.clone() - q) * p.exp()).sum_dim(1).flatten(0, 1)
        });
        Tensor::cat(parts.collect(), 0)
    }

    fn nll_in_chunks(
        &self,
        hidden: Tensor<B, 3>,
        targets: Tensor<B, 2, Int>,
        max_logits: usize,
    ) -> Tensor<B, 2> {
        let shape = targets.dims();
        let parts = self.by_chunks(hidden, targets, max_logits, |x, targets| {
            let mut likelihood = Likelihood::new(targets);
            self.logits(&x).for_each(|logits| likelihood.add(logits));
            likelihood.finish()
        });
        Tensor::cat(parts, 0).reshape(shape)
    }

    /// What `f` makes of what the head's weight is applied to, `[rows, columns]`, and of targets `[rows, 1]`, as many
    /// rows at a time as have no more than `max_logits` logits for any part of the vocabulary.
    fn by_chunks<T>(
        &self,
        hidden: Tensor<B, 3>,
        targets: Tensor<B, 2, Int>,
        max_logits: usize,
        f: impl Fn(Tensor<B, 2>, Tensor<B, 2, Int>) -> T,
    ) -> Vec<T> {
        let [batch, tokens, _] = hidden.dims();
        let rows = batch * tokens;
        let x = self.before_weight(hidden);
        let columns = x.dims()[2];
        let x = x.reshape([rows, columns]);
        let targets = targets.reshape([rows, 1]);
        let widest = self.weight.iter().map(|part| part.dims()[0]).max();
        let chunk = (max_logits / widest.unwrap_or(1).max(1)).max(1);
        let parts = (0..rows).step_by(chunk).map(|start| {
            let these = start..(start + chunk).min(rows);
            let slice = x.clone().slice_dim(0, these.clone());
            f(slice, targets.clone().slice_dim(0, these))
        });
        parts.collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use burn::tensor::{DType, Distribution, TensorData};

    type B = burn::backend::Flex;

    /// A head with nothing before its weight `[vocab, columns]`, cut into parts of at most `rows` rows.
    fn head(weight: Tensor<B, 2>, rows: usize) -> Head<B> {
        Head {
            rms_norm: None,
            layer_norm: None,
            project_out: None,
            weight: weight.split(rows, 0),
        }
    }

    #[test]
    fn likelihood_is_the_logits_log_softmax_across_chunks_of_any_size() {
        let device = Default::default();
        let (batch, tokens, columns, vocab) = (2, 5, 8, 11);
        let weight = Tensor::random([vocab, columns], Distribution::Normal(0.0, 3.0), &device);
        let whole = head(weight.clone(), vocab);
        let hidden = Tensor::random([batch, tokens, columns], Distribution::Normal(0.0, 3.0), &device);
        let ids: Vec<i64> = (0..(batch * tokens) as i64).map(|i| i * 7 % 11).collect();
        let targets =
            Tensor::<B, 2, Int>::from_data(TensorData::new(ids, [batch, tokens]), (&device, DType::I64));
        let expected = log_softmax(whole.forward(hidden.clone()), 2)
            .gather(2, targets.clone().unsqueeze_dim(2))
            .neg()
            .into_data()
            .into_vec::<f32>()
            .unwrap();
        for part in [1, 4, 10, vocab] {
            let head = head(weight.clone(), part);
            let logits = head.forward(hidden.clone()) - whole.forward(hidden.clone());
            assert!(logits.abs().max().into_scalar() < 1e-5);
            for max_logits in [1, 2 * vocab, 3 * vocab + 1, 10 * vocab, MAX_LOGITS] {
                let nll = head.nll_in_chunks(hidden.clone(), targets.clone(), max_logits);
                assert_eq!(nll.dims(), [batch, tokens]);
                let nll = nll.into_data().into_vec::<f32>().unwrap();
                for (found, expected) in nll.iter().zip(&expected) {
                    assert!((found - expected).abs() < 2e-5, "{found} {expected}");
                }
            }
        }
    }

    #[test]
    fn the_most_likely_token_is_the_first_of_equal_ones() {
        let device = Default::default();
        for vocab in [7, 300] {
            let mut weight = vec![0.0; vocab * 2];
            for token in [2, 5] {
                weight[token * 2] = 1.0;
            }
            weight[3 * 2 + 1] = 1.0;
            let weight = Tensor::<B, 2>::from_data(TensorData::new(weight, [vocab, 2]), &device);
            for part in [1, 3, 4, vocab] {
                let head = head(weight.clone(), part);
                let hidden =
                    Tensor::from_floats([[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, -1.0]]], &device);
                let targets = Tensor::from_ints([[2, 2, 5, 6]], &device);
                let (nll, best) = head.token_scores(hidden.clone(), targets.clone());
                let best: Vec<i64> = best.into_data().iter::<i64>().collect();
                assert_eq!(best, [2, 3, 2, 0]);
                let alone = head.token_nll(hidden, targets).into_data();
                assert_eq!(nll.into_data(), alone);
            }
        }
    }
}
