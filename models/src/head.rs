//! From the last layer's output to logits or to the negative log likelihood of given tokens, the latter without ever
//! holding the logits of more than a few tokens.

use crate::config::ModelConfig;
use crate::error::ModelError;
use crate::opt;
use crate::parts::{LayerNorm, Loader, NamedShape, RmsNorm, apply_linear, linear_tensors};
use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::activation::softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};

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
    /// Shape `[vocab, columns]`.
    weight: Tensor<B, 2>,
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
    /// `weight` is `[vocab, columns]`.
    pub(crate) fn load(
        config: &ModelConfig,
        weight: Tensor<B, 2>,
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
        let [vocab, columns] = self.weight.dims();
        self.before_weight(hidden)
            .reshape([batch * tokens, columns])
            .matmul(self.weight.clone().transpose())
            .reshape([batch, tokens, vocab])
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
        let parts = self.by_chunks(hidden, targets, MAX_LOGITS, |logits, targets| {
            (nll(logits.clone(), targets), logits.argmax(1))
        });
        let (nll, best) = parts.into_iter().unzip();
        (
            Tensor::cat(nll, 0).reshape(shape),
            Tensor::cat(best, 0).reshape(shape),
        )
    }

    fn nll_in_chunks(
        &self,
        hidden: Tensor<B, 3>,
        targets: Tensor<B, 2, Int>,
        max_logits: usize,
    ) -> Tensor<B, 2> {
        let shape = targets.dims();
        Tensor::cat(self.by_chunks(hidden, targets, max_logits, nll), 0).reshape(shape)
    }

    /// What `f` makes of logits `[rows, vocab]` and targets `[rows, 1]`, a few rows at a time.
    fn by_chunks<T>(
        &self,
        hidden: Tensor<B, 3>,
        targets: Tensor<B, 2, Int>,
        max_logits: usize,
        f: impl Fn(Tensor<B, 2>, Tensor<B, 2, Int>) -> T,
    ) -> Vec<T> {
        let [batch, tokens, _] = hidden.dims();
        let [vocab, columns] = self.weight.dims();
        let rows = batch * tokens;
        let x = self.before_weight(hidden).reshape([rows, columns]);
        let targets = targets.reshape([rows, 1]);
        let chunk = (max_logits / vocab).max(1);
        let parts = (0..rows).step_by(chunk).map(|start| {
            let these = start..(start + chunk).min(rows);
            let logits = x
                .clone()
                .slice_dim(0, these.clone())
                .matmul(self.weight.clone().transpose());
            f(logits, targets.clone().slice_dim(0, these))
        });
        parts.collect()
    }
}

/// `ln Σ exp(l) - l[target]` of each row, `[rows, 1]`, from logits `[rows, vocab]` and targets `[rows, 1]`.
fn nll<B: Backend>(logits: Tensor<B, 2>, targets: Tensor<B, 2, Int>) -> Tensor<B, 2> {
    let target = logits.clone().gather(1, targets);
    log_sum_exp(logits) - target
}

/// Columns whose exponentials are summed at once. One f32 sum over a whole vocabulary is off by some 1e-5 of itself on
/// backends that add one by one, which is more than perplexities should differ by.
const SUM_COLUMNS: usize = 256;

/// `ln Σ exp` of each row: `[rows, columns]` to `[rows, 1]`, by blocks of columns and then over the blocks.
fn log_sum_exp<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 2> {
    let [rows, columns] = x.dims();
    if columns <= 2 * SUM_COLUMNS {
        return log_sum_exp_at_once(x);
    }
    let blocks = columns / SUM_COLUMNS;
    let whole = blocks * SUM_COLUMNS;
    let main = x
        .clone()
        .slice_dim(1, 0..whole)
        .reshape([rows * blocks, SUM_COLUMNS]);
    let mut parts = vec![log_sum_exp_at_once(main).reshape([rows, blocks])];
    if whole < columns {
        parts.push(log_sum_exp_at_once(x.slice_dim(1, whole..columns)));
    }
    log_sum_exp(Tensor::cat(parts, 1))
}

/// `ln Σ exp` as `max - ln(largest probability)`: that probability is at least `1 / columns`, so that its logarithm
/// loses nothing, and softmax is the one exponential that all backends have a fast kernel for.
fn log_sum_exp_at_once<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 2> {
    let largest = x.clone().max_dim(1);
    let probability = softmax(x, 1).max_dim(1);
    largest - probability.log()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use burn::tensor::activation::log_softmax;
    use burn::tensor::{DType, Distribution, TensorData};

    type B = burn::backend::Flex;

    #[test]
    fn likelihood_is_the_logits_log_softmax_across_chunks_of_any_size() {
        let device = Default::default();
        let (batch, tokens, columns, vocab) = (2, 5, 8, 11);
        let head = Head::<B> {
            rms_norm: None,
            layer_norm: None,
            project_out: None,
            weight: Tensor::random([vocab, columns], Distribution::Normal(0.0, 3.0), &device),
        };
        let hidden = Tensor::random([batch, tokens, columns], Distribution::Normal(0.0, 3.0), &device);
        let ids: Vec<i64> = (0..(batch * tokens) as i64).map(|i| i * 7 % 11).collect();
        let targets =
            Tensor::<B, 2, Int>::from_data(TensorData::new(ids, [batch, tokens]), (&device, DType::I64));
        let expected = log_softmax(head.forward(hidden.clone()), 2)
            .gather(2, targets.clone().unsqueeze_dim(2))
            .neg()
            .into_data()
            .into_vec::<f32>()
            .unwrap();
        for max_logits in [1, 2 * vocab, 3 * vocab + 1, 10 * vocab, MAX_LOGITS] {
            let nll = head.nll_in_chunks(hidden.clone(), targets.clone(), max_logits);
            assert_eq!(nll.dims(), [batch, tokens]);
            let nll = nll.into_data().into_vec::<f32>().unwrap();
            for (found, expected) in nll.iter().zip(&expected) {
                assert!((found - expected).abs() < 2e-5, "{found} {expected}");
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
            let head = Head::<B> {
                rms_norm: None,
                layer_norm: None,
                project_out: None,
                weight: Tensor::from_data(TensorData::new(weight, [vocab, 2]), &device),
            };
            let hidden = Tensor::from_floats([[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, -1.0]]], &device);
            let targets = Tensor::from_ints([[2, 2, 5, 6]], &device);
            let (nll, best) = head.token_scores(hidden.clone(), targets.clone());
            let best: Vec<i64> = best.into_data().iter::<i64>().collect();
            assert_eq!(best, [2, 3, 2, 0]);
            let alone = head.token_nll(hidden, targets).into_data();
            assert_eq!(nll.into_data(), alone);
        }
    }

    #[test]
    fn likelihood_of_an_impossible_token_is_finite() {
        let device = Default::default();
        let logits = Tensor::<B, 2>::from_floats([[500.0, -500.0, 499.0]], &device);
        let targets = Tensor::<B, 2, Int>::from_ints([[1]], &device);
        let nll = nll(logits, targets).into_data().into_vec::<f32>().unwrap();
        assert!((nll[0] - 1_000.313_3).abs() < 1e-3, "{nll:?}");
    }

    #[test]
    fn sums_over_large_vocabularies_keep_their_digits() {
        let device = Default::default();
        for vocab in [511, 513, 768, 50_257] {
            let value = |i: usize| ((i * 7919 % 1009) as f32 / 1009.0 - 0.5) * 4.0;
            let values: Vec<f32> = (0..2 * vocab).map(value).collect();
            let exact = |row: &[f32]| row.iter().map(|x| f64::from(*x).exp()).sum::<f64>().ln();
            let expected: Vec<f64> = values.chunks(vocab).map(exact).collect();
            let x = Tensor::<B, 2>::from_data(TensorData::new(values, [2, vocab]), &device);
            let found = log_sum_exp(x).into_data().into_vec::<f32>().unwrap();
            for (found, expected) in found.iter().zip(expected) {
                let apart = (f64::from(*found) - expected).abs();
                assert!(apart < 2e-6, "{vocab}: {apart:e}");
            }
        }
    }
}
