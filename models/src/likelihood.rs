//! How likely tokens are under logits that come a part of the vocabulary at a time: no device need hold, or be able to
//! bind, the logits or the head's weight of a large vocabulary as one tensor.

use burn::tensor::activation::softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};

/// Gathers the negative log likelihood of one target a row, from the logits of one part of the vocabulary after the other.
#[derive(Debug)]
pub(crate) struct Likelihood<B: Backend> {
    /// `[rows, 1]`.
    targets: Tensor<B, 2, Int>,
    /// Tokens in the parts so far.
    tokens: usize,
    /// `ln Σ exp` of each part, `[rows, 1]`.
    sums: Vec<Tensor<B, 2>>,
    /// The targets' logits, `[rows, 1]`; zero for those in parts to come.
    target_logits: Option<Tensor<B, 2>>,
}

impl<B: Backend> Likelihood<B> {
    /// `targets` is `[rows, 1]`.
    pub(crate) fn new(targets: Tensor<B, 2, Int>) -> Self {
        Self {
            targets,
            tokens: 0,
            sums: Vec::new(),
            target_logits: None,
        }
    }

    /// Takes the next part's logits, `[rows, part]`.
    pub(crate) fn add(&mut self, logits: Tensor<B, 2>) {
        let part = logits.dims()[1] as i64;
        let first = self.tokens as i64;
        let place = self.targets.clone() - first;
        let elsewhere = place
            .clone()
            .lower_elem(0)
            .bool_or(place.clone().greater_equal_elem(part));
        let found = logits
            .clone()
            .gather(1, place.clamp(0, part - 1))
            .mask_fill(elsewhere, 0.0);
        self.target_logits = Some(match self.target_logits.take() {
            Some(earlier) => earlier + found,
            None => found,
        });
        self.sums.push(log_sum_exp(logits));
        self.tokens += part as usize;
    }

    /// `ln Σ exp(l) − l[target]` over all parts, `[rows, 1]`.
    pub(crate) fn finish(self) -> Tensor<B, 2> {
        let sum = log_sum_exp(Tensor::cat(self.sums, 1));
        match self.target_logits {
            Some(logit) => sum - logit,
            None => sum,
        }
    }
}

/// The most likely token of each row, the first of equal ones, from the logits of one part of the vocabulary after the
/// other.
#[derive(Debug)]
pub(crate) struct Best<B: Backend> {
    tokens: usize,
    /// Logit and token, both `[rows, 1]`.
    best: Option<(Tensor<B, 2>, Tensor<B, 2, Int>)>,
}

impl<B: Backend> Default for Best<B> {
    fn default() -> Self {
        Self {
            tokens: 0,
            best: None,
        }
    }
}

impl<B: Backend> Best<B> {
    /// Takes the next part's logits, `[rows, part]`.
    pub(crate) fn add(&mut self, logits: Tensor<B, 2>) {
        let part = logits.dims()[1];
        let token = logits.clone().argmax(1);
        self.best = Some(match self.best.take() {
            None => (logits.max_dim(1), token),
            Some((logit, earlier)) => {
                let largest = logits.max_dim(1);
                let larger = largest.clone().greater(logit.clone());
                let token = token + self.tokens as i64;
                (
                    logit.mask_where(larger.clone(), largest),
                    earlier.mask_where(larger, token),
                )
            }
        });
        self.tokens += part;
    }

    /// `[rows, 1]`.
    ///
    /// # Panics
    /// When there was no part.
    pub(crate) fn finish(self) -> Tensor<B, 2, Int> {
        self.best.expect("a vocabulary has a token").1
    }
}

/// Columns whose exponentials are summed at once. One f32 sum over a whole vocabulary is off by some 1e-5 of itself on
/// backends that add one by one, which is more than perplexities should differ by.
const SUM_COLUMNS: usize = 256;

/// `ln Σ exp` of each row: `[rows, columns]` to `[rows, 1]`, by blocks of columns and then over the blocks.
fn log_sum_exp<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 2> {
    let [rows, columns] = x.dims();
    if columns == 1 {
        return x;
    }
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
    use burn::tensor::TensorData;

    type B = burn::backend::Flex;

    #[test]
    fn likelihood_of_an_impossible_token_is_finite() {
        let device = Default::default();
        let logits = Tensor::<B, 2>::from_floats([[500.0, -500.0, 499.0]], &device);
        for parts in [1, 2, 3] {
            let mut likelihood = Likelihood::new(Tensor::from_ints([[1]], &device));
            for part in logits.clone().split(parts, 1) {
                likelihood.add(part);
            }
            let nll = likelihood.finish().into_data().into_vec::<f32>().unwrap();
            assert!((nll[0] - 1_000.313_3).abs() < 1e-3, "{nll:?}");
        }
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
