//! What a solver needs to know of an operator's inputs, gathered batch by batch: no activation is kept.
//!
//! Legend as in [`crate::solver`]; here activations are `[tokens, n]`, as the decoders give them. Sums over batches are
//! compensated, so that a Gram matrix of many small batches equals that of one large batch to f32's last digits.

use crate::error::{ConfigError, Error, Result, SolverError};
use crate::solver::{LayerProblem, Means, download, not_below_zero};
use burn::tensor::Tensor;
use fista_pruner_backends::{GramSum, SolverOps};
use std::collections::BTreeMap;

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

/// Adds `x xᵀ` of a batch `x [tokens, n]`.
fn add_gram<B: SolverOps>(this: &mut Option<GramSum<B>>, x: Tensor<B, 2>) {
    let sum = this
        .take()
        .unwrap_or_else(|| GramSum::new(x.dims()[1], &x.device()));
    *this = Some(B::gram_update(sum, x));
}

/// Gathers the statistics of one group of operators that share their input.
#[derive(Debug, Clone)]
pub struct Accumulator<B: SolverOps> {
    /// `X* X*ᵀ`
    gram: Option<GramSum<B>>,
    /// `(X* − X) X*ᵀ`
    drift: Option<Sum<B>>,
    /// `(X* − X)(X* − X)ᵀ`
    drift_gram: Option<GramSum<B>>,
    keep_drift: bool,
    /// The share of `X* − X` that counts as drift.
    share: f64,
    on_outputs: Vec<OutputDrift<B>>,
    /// Sum of `X*` as `[1, n]`, where means are wanted.
    sum: Option<Sum<B>>,
    keep_means: bool,
    tokens: usize,
}

/// The drift of one operator, summed on its outputs.
#[derive(Debug, Clone)]
struct OutputDrift<B: SolverOps> {
    /// The operator's name.
    name: String,
    /// `W [m, n]`.
    weight: Tensor<B, 2>,
    /// `W (X* − X) X*ᵀ`, `[m, n]`.
    product: Option<Sum<B>>,
    /// `‖W (X* − X)‖²_F`.
    energy: f64,
    /// Sum of `W (X* − X)` as `[1, m]`, where means are wanted.
    sum: Option<Sum<B>>,
}

impl<B: SolverOps> Default for Accumulator<B> {
    fn default() -> Self {
        Self {
            gram: None,
            drift: None,
            drift_gram: None,
            keep_drift: true,
            share: 1.0,
            on_outputs: Vec::new(),
            sum: None,
            keep_means: false,
            tokens: 0,
        }
    }
}

impl<B: SolverOps> Accumulator<B> {
    /// For the named operators with their dense weights `[m, n]`: their drifts `P` and the energies `R` of these are summed on
    /// their outputs where that is less work than the matrices of the inputs' drift, which any operator's can be had from.
    /// `cross` asks for those matrices all the same, for [`Statistics::cross`].
    pub fn for_operators(operators: Vec<(String, Tensor<B, 2>)>, cross: bool) -> Self {
        let outputs: usize = operators.iter().map(|(_, weight)| weight.dims()[0]).sum();
        let inputs = operators.first().map_or(0, |(_, weight)| weight.dims()[1]);
        let on_outputs = !operators.is_empty() && sums_on_outputs(outputs, inputs);
        Self {
            keep_drift: cross || !on_outputs,
            on_outputs: (operators.into_iter().filter(|_| on_outputs))
                .map(|(name, weight)| OutputDrift {
                    name,
                    weight,
                    product: None,
                    energy: 0.0,
                    sum: None,
                })
                .collect(),
            ..Self::default()
        }
    }

    /// With the mean of the inputs.
    pub fn with_means() -> Self {
        Self {
            keep_means: true,
            ..Self::default()
        }
    }

    /// For operators of which whole columns go: as [`for_operators`](Self::for_operators), always summed on the outputs, where
    /// the target may be more than the operator's own, and with the means of inputs and drift.
    pub fn for_columns(operators: Vec<(String, Tensor<B, 2>)>) -> Self {
        let on_outputs = operators.into_iter().map(|(name, weight)| OutputDrift {
            name,
            weight,
            product: None,
            energy: 0.0,
            sum: None,
        });
        Self {
            keep_drift: false,
            on_outputs: on_outputs.collect(),
            ..Self::with_means()
        }
    }

    /// Targets are `W (s X + (1 − s) X*)`: that share of `X* − X` counts as drift.
    pub fn towards(self, share: f64) -> Self {
        Self { share, ..self }
    }

    /// Adds a batch where the operator's real input is the target's input: `x [tokens, n]`.
    pub fn add(&mut self, x: Tensor<B, 2>) {
        self.tokens += x.dims()[0];
        if self.keep_means {
            Sum::add(&mut self.sum, x.clone().sum_dim(0));
        }
        add_gram(&mut self.gram, x);
    }

    /// Adds a batch of dense inputs `dense [tokens, n]` and the inputs that the operator really gets, `real`, of the
    /// same shape and for the same tokens.
    pub fn add_pair(&mut self, dense: Tensor<B, 2>, real: Tensor<B, 2>) {
        self.add_towards(dense, real, None);
    }

    /// As [`add_pair`](Self::add_pair); the operators' targets are `W X` and `more` `[tokens, m]`, which counts as drift. Only for
    /// drifts that are summed on outputs.
    pub fn add_towards(&mut self, dense: Tensor<B, 2>, real: Tensor<B, 2>, more: Option<Tensor<B, 2>>) {
        let mut difference = real.clone() - dense;
        if self.share != 1.0 {
            difference = difference.mul_scalar(self.share);
        }
        for operator in &mut self.on_outputs {
            let mut outputs = B::matmul_f32(difference.clone(), operator.weight.clone().transpose());
            if let Some(more) = more.clone() {
                outputs = outputs - more;
            }
            if self.keep_means {
                Sum::add(&mut operator.sum, outputs.clone().sum_dim(0));
            }
            operator.energy += B::inner(outputs.clone(), outputs.clone());
            Sum::add(
                &mut operator.product,
                B::matmul_f32(outputs.transpose(), real.clone()),
            );
        }
        if self.keep_drift {
            let product = B::matmul_f32(difference.clone().transpose(), real.clone());
            Sum::add(&mut self.drift, product);
            add_gram(&mut self.drift_gram, difference);
        }
        self.add(real);
    }

    /// The statistics, divided by the number of tokens.
    ///
    /// # Errors
    /// When there was no token, or an activation of `operator` was not finite.
    pub fn finish(self, operator: &str) -> Result<Statistics<B>> {
        let scale = 1.0 / self.tokens.max(1) as f64;
        let per_token = |sum: GramSum<B>| B::gram_matrix(sum).mul_scalar(scale);
        let gram = self.gram.map(per_token).ok_or_else(|| {
            Error::from(ConfigError::Setting {
                setting: "‹samples›",
                reason: "no calibration tokens".into(),
            })
        })?;
        // A sum over all entries is finite only if every entry is: infinities of both signs meet in a NaN.
        let total = B::inner(gram.clone(), gram.ones_like());
        if !total.is_finite() {
            return Err(Error::from(SolverError::NotFinite {
                what: "the input activation",
                operator: operator.to_owned(),
            }));
        }
        let mean = |sum: Sum<B>| sum.sum.mul_scalar(scale);
        let on_outputs = self.on_outputs.into_iter().filter_map(|operator| {
            let drift = OutputStatistics {
                product: mean(operator.product?),
                energy: operator.energy * scale,
                mean: operator.sum.map(mean),
            };
            Some((operator.name, drift))
        });
        Ok(Statistics {
            gram,
            drift: self.drift.map(|drift| drift.sum.mul_scalar(scale)),
            drift_gram: self.drift_gram.map(per_token),
            on_outputs: on_outputs.collect(),
            mean: self.sum.map(mean),
            tokens: self.tokens,
        })
    }
}

/// The drift of one operator, per token.
#[derive(Debug, Clone)]
pub struct OutputStatistics<B: SolverOps> {
    /// `P = W (X* − X) X*ᵀ / p`, `[m, n]`.
    pub product: Tensor<B, 2>,
    /// `R = ‖W (X* − X)‖²_F / p`.
    pub energy: f64,
    /// The mean of `W (X* − X)`, `[1, m]`, where means were wanted.
    pub mean: Option<Tensor<B, 2>>,
}

/// Statistics of one group of operators, per token.
#[derive(Debug, Clone)]
pub struct Statistics<B: SolverOps> {
    /// `G = X* X*ᵀ / p`, `[n, n]`.
    pub gram: Tensor<B, 2>,
    /// `(X* − X) X*ᵀ / p`, `[n, n]`; `None` where `X* = X`, or where nobody asked for it.
    pub drift: Option<Tensor<B, 2>>,
    /// `(X* − X)(X* − X)ᵀ / p`, `[n, n]`; `None` where `X* = X`, or where nobody asked for it.
    pub drift_gram: Option<Tensor<B, 2>>,
    /// The drift by operator, where it was summed on the outputs; else `drift` and `drift_gram` give it.
    pub on_outputs: BTreeMap<String, OutputStatistics<B>>,
    /// The mean of `X*`, `[1, n]`, where means were wanted.
    pub mean: Option<Tensor<B, 2>>,
    /// `p`.
    pub tokens: usize,
}

/// Whether drifts are summed on the outputs of operators with that many outputs in all. A token costs `2 · outputs · inputs`
/// multiplications that way, and `3/2 · inputs²` by matrices of the inputs. Nothing but shapes decides, so that it is the same
/// in every run.
pub(crate) fn sums_on_outputs(outputs: usize, inputs: usize) -> bool {
    4 * outputs <= 3 * inputs
}

impl<B: SolverOps> Statistics<B> {
    /// Of no token: every one of `inputs` counts the same, so that errors are those of the weights.
    pub(crate) fn of_nothing(inputs: usize, device: &B::Device) -> Self {
        Self {
            gram: Tensor::eye(inputs, device),
            drift: None,
            drift_gram: None,
            on_outputs: BTreeMap::new(),
            mean: None,
            tokens: 0,
        }
    }

    /// The pruning problem of one operator of the group, with dense weight `W [m, n]`.
    ///
    /// Where its inputs have drifted and the energy of that was not gathered for it, the energy is not a number, and
    /// solving reports it.
    pub fn problem(&self, name: &str, weight: Tensor<B, 2>) -> LayerProblem<B> {
        let mut problem = LayerProblem::new(name, weight.clone(), self.gram.clone());
        let drift = match (self.on_outputs.get(name), &self.drift, &self.drift_gram) {
            (Some(known), _, _) => Some((known.product.clone(), known.energy)),
            (None, Some(drift), Some(drift_gram)) => {
                let energy = B::inner(B::matmul_f32(weight.clone(), drift_gram.clone()), weight.clone());
                Some((B::matmul_f32(weight.clone(), drift.clone()), energy))
            }
            (None, Some(_), None) => Some((weight.zeros_like(), f64::NAN)),
            (None, None, _) if !self.on_outputs.is_empty() => Some((weight.zeros_like(), f64::NAN)),
            (None, None, _) => None,
        };
        if let Some((p, energy)) = drift {
            let energy = not_below_zero(energy);
            // ‖W X‖² = ‖W X*‖² − 2 tr(W D X*ᵀ Wᵀ) + ‖W D‖², with D = X* − X.
            let target = problem.target_energy - 2.0 * B::inner(p.clone(), weight) + energy;
            problem.drift = Some(p);
            problem.drift_energy = energy;
            problem.target_energy = not_below_zero(target);
        }
        problem
    }

    /// The means that were gathered for an operator with that many outputs.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn means(&self, name: &str, outputs: usize) -> Result<Option<Means>> {
        let Some(mean) = self.mean.clone() else {
            return Ok(None);
        };
        let drift = self.on_outputs.get(name).and_then(|drift| drift.mean.clone());
        Ok(Some(Means {
            input: download(mean)?,
            drift: drift.map_or(Ok(vec![0.0; outputs]), download)?,
        }))
    }

    /// `K = X X*ᵀ / p` and `X Xᵀ / p`, where they differ from `G` and the drift's Gram matrix was kept.
    pub fn cross(&self) -> Option<(Tensor<B, 2>, Tensor<B, 2>)> {
        let (drift, drift_gram) = (self.drift.clone()?, self.drift_gram.clone()?);
        let cross = self.gram.clone() - drift.clone();
        let dense = cross.clone() - drift.transpose() + drift_gram;
        Some((cross, dense))
    }
}
