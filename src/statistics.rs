//! What a solver needs to know of an operator's inputs, gathered batch by batch: no activation is kept.
//!
//! Legend as in [`crate::solver`]; here activations are `[tokens, n]`, as the decoders give them. Sums over batches are
//! compensated, so that a Gram matrix of many small batches equals that of one large batch to f32's last digits.

use crate::error::{Error, Result};
use crate::solver::{LayerProblem, not_below_zero};
use burn::tensor::Tensor;
use fista_pruner_backends::SolverOps;

/// A compensated running sum of `[n, n]` products.
#[derive(Debug, Clone)]
struct Sum<B: SolverOps> {
    sum: Tensor<B, 2>,
    compensation: Tensor<B, 2>,
}

impl<B: SolverOps> Sum<B> {
    fn add(this: &mut Option<Self>, term: Tensor<B, 2>) {
        let (sum, compensation) = match this.take() {
            Some(Self { sum, compensation }) => B::compensated_add(sum, compensation, term),
            None => {
                let zeros = term.zeros_like();
                (term, zeros)
            }
        };
        *this = Some(Self { sum, compensation });
    }
}

/// Gathers the statistics of one group of operators that share their input.
#[derive(Debug, Clone)]
pub struct Accumulator<B: SolverOps> {
    /// `X* X*ᵀ`
    gram: Option<Sum<B>>,
    /// `(X* − X) X*ᵀ`
    drift: Option<Sum<B>>,
    /// `(X* − X)(X* − X)ᵀ`
    drift_gram: Option<Sum<B>>,
    tokens: usize,
}

impl<B: SolverOps> Default for Accumulator<B> {
    fn default() -> Self {
        Self {
            gram: None,
            drift: None,
            drift_gram: None,
            tokens: 0,
        }
    }
}

impl<B: SolverOps> Accumulator<B> {
    /// Adds a batch where the operator's real input is the target's input: `x [tokens, n]`.
    pub fn add(&mut self, x: Tensor<B, 2>) {
        self.tokens += x.dims()[0];
        Sum::add(&mut self.gram, x.clone().transpose().matmul(x));
    }

    /// Adds a batch of dense inputs `dense [tokens, n]` and the inputs that the operator really gets, `real`, of the
    /// same shape and for the same tokens.
    pub fn add_pair(&mut self, dense: Tensor<B, 2>, real: Tensor<B, 2>) {
        let difference = real.clone() - dense;
        Sum::add(
            &mut self.drift,
            difference.clone().transpose().matmul(real.clone()),
        );
        Sum::add(
            &mut self.drift_gram,
            difference.clone().transpose().matmul(difference),
        );
        self.add(real);
    }

    /// The statistics, divided by the number of tokens.
    ///
    /// # Errors
    /// When there was no token, or an activation of `operator` was not finite.
    pub fn finish(self, operator: &str) -> Result<Statistics<B>> {
        let scale = 1.0 / self.tokens.max(1) as f64;
        let per_token = |sum: Sum<B>| sum.sum.mul_scalar(scale);
        let gram = self.gram.map(per_token).ok_or_else(|| Error::Setting {
            setting: "--samples",
            reason: "no calibration tokens".into(),
        })?;
        // A sum over all entries is finite only if every entry is: infinities of both signs meet in a NaN.
        let total = B::inner(gram.clone(), gram.ones_like());
        if !total.is_finite() {
            return Err(Error::NotFinite {
                what: "the input activation",
                operator: operator.to_owned(),
            });
        }
        Ok(Statistics {
            gram,
            drift: self.drift.map(per_token),
            drift_gram: self.drift_gram.map(per_token),
            tokens: self.tokens,
        })
    }
}

/// Statistics of one group of operators, per token.
#[derive(Debug, Clone)]
pub struct Statistics<B: SolverOps> {
    /// `G = X* X*ᵀ / p`, `[n, n]`.
    pub gram: Tensor<B, 2>,
    /// `(X* − X) X*ᵀ / p`, `[n, n]`; `None` where `X* = X`.
    pub drift: Option<Tensor<B, 2>>,
    /// `(X* − X)(X* − X)ᵀ / p`, `[n, n]`; `None` where `X* = X`.
    pub drift_gram: Option<Tensor<B, 2>>,
    /// `p`.
    pub tokens: usize,
}

impl<B: SolverOps> Statistics<B> {
    /// The pruning problem of one operator of the group, with dense weight `W [m, n]`.
    pub fn problem(&self, name: &str, weight: Tensor<B, 2>) -> LayerProblem<B> {
        let mut problem = LayerProblem::new(name, weight.clone(), self.gram.clone());
        if let (Some(drift), Some(drift_gram)) = (&self.drift, &self.drift_gram) {
            let p = weight.clone().matmul(drift.clone());
            let energy = B::inner(weight.clone().matmul(drift_gram.clone()), weight.clone());
            let energy = not_below_zero(energy);
            // ‖W X‖² = ‖W X*‖² − 2 tr(W D X*ᵀ Wᵀ) + ‖W D‖², with D = X* − X.
            let target = problem.target_energy - 2.0 * B::inner(p.clone(), weight) + energy;
            problem.drift = Some(p);
            problem.drift_energy = energy;
            problem.target_energy = not_below_zero(target);
        }
        problem
    }

    /// `K = X X*ᵀ / p` and `X Xᵀ / p`, where they differ from `G`.
    pub fn cross(&self) -> Option<(Tensor<B, 2>, Tensor<B, 2>)> {
        let (drift, drift_gram) = (self.drift.clone()?, self.drift_gram.clone()?);
        let cross = self.gram.clone() - drift.clone();
        let dense = cross.clone() - drift.transpose() + drift_gram;
        Some((cross, dense))
    }
}
