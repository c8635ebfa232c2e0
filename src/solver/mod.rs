//! Matrices only: from an operator's weight and its statistics to a weight with the pattern.
//!
//! Legend, for all of `solver/`:
//!
//! | symbol | shape | meaning |
//! |---|---|---|
//! | `W` | `[m, n]` | the dense weight, outputs by inputs |
//! | `V` | `[m, n]` | a candidate for the pruned weight |
//! | `X`, `X*` | `[n, p]` | dense input activation, and the input the operator really gets; columns are tokens |
//! | `G = X* X*ᵀ / p` | `[n, n]` | Gram matrix |
//! | `P = W (X* − X) X*ᵀ / p` | `[m, n]` | drift: `W G − C` with `C = W X X*ᵀ / p`; zero where `X* = X` |
//! | `R = ‖W (X* − X)‖²_F / p` | scalar | energy of the drift |
//! | `T = ‖W X‖²_F / p` | scalar | energy of the target |
//!
//! Everything is per token (divided by `p`), so that errors and λ do not depend on the amount of calibration data. The
//! error is taken in the centred form, which does not cancel in f32 (FISTAPruner, arXiv 2408.03728, Eq. 3, expanded
//! around `W`):
//!
//! ```text
//! ‖V X* − W X‖² / p = tr((V−W) G (V−W)ᵀ) + 2 tr((V−W) Pᵀ) + R
//! ```

pub mod fista;
mod inverse;
pub mod l0;
pub mod magnitude;
pub mod polish;
pub mod reference;
pub mod scaled;
pub mod sparsegpt;
mod together;
pub mod wanda;

pub(crate) use together::Together;
use together::with_ridge;

use crate::config::{SolverConfig, Threshold, WarmStart};
use crate::error::{Error, Result};
use crate::pattern::Pattern;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use fista_pruner_backends::SolverOps;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// One operator's pruning problem, on a device.
#[derive(Debug, Clone)]
pub struct LayerProblem<B: SolverOps> {
    /// The operator's full name, for errors.
    pub name: String,
    /// `W [m, n]`.
    pub weight: Tensor<B, 2>,
    /// `G [n, n]`.
    pub gram: Tensor<B, 2>,
    /// `P [m, n]`; `None` where `X* = X`.
    pub drift: Option<Tensor<B, 2>>,
    /// `R`.
    pub drift_energy: f64,
    /// `T`.
    pub target_energy: f64,
    /// Different calibration tokens behind `G`; `None` where that is not known.
    pub tokens: Option<usize>,
}

impl<B: SolverOps> LayerProblem<B> {
    /// A problem whose target is the operator's own dense output, `X* = X`.
    pub fn new(name: impl Into<String>, weight: Tensor<B, 2>, gram: Tensor<B, 2>) -> Self {
        let product = B::matmul_f32(weight.clone(), gram.clone());
        let target_energy = not_below_zero(B::inner(product, weight.clone()));
        Self {
            name: name.into(),
            weight,
            gram,
            drift: None,
            drift_energy: 0.0,
            target_energy,
            tokens: None,
        }
    }

    /// `(m, n)`: outputs and inputs.
    pub fn shape(&self) -> (usize, usize) {
        let [m, n] = self.weight.dims();
        (m, n)
    }

    /// The gradient of half the squared error, `(V − W) G + P`, `[m, n]`.
    pub fn gradient(&self, v: Tensor<B, 2>) -> Tensor<B, 2> {
        let gradient = B::matmul_f32(B::difference(v, self.weight.clone()), self.gram.clone());
        match &self.drift {
            Some(drift) => gradient + drift.clone(),
            None => gradient,
        }
    }

    /// `‖V X* − W X‖²_F / p`.
    pub fn squared_error(&self, v: Tensor<B, 2>) -> f64 {
        let difference = B::difference(v, self.weight.clone());
        let mut product = B::matmul_f32(difference.clone(), self.gram.clone());
        if let Some(drift) = &self.drift {
            product = product + drift.clone().mul_scalar(2.0);
        }
        not_below_zero(B::inner(product, difference) + self.drift_energy)
    }

    /// A squared error as a share of the target's energy; an operator without output has none.
    pub fn relative(&self, squared_error: f64) -> f64 {
        if self.target_energy > 0.0 {
            squared_error / self.target_energy
        } else {
            0.0
        }
    }

    pub(crate) fn upload(&self, values: Vec<f32>) -> Tensor<B, 2> {
        let (m, n) = self.shape();
        Tensor::from_data(TensorData::new(values, [m, n]), &self.weight.device())
    }
}

/// Numbers that a core takes at a time where there is next to nothing to do for each.
pub(crate) const CHUNK: usize = 1 << 14;

/// A sum of squares that rounding may have taken below zero. Unlike `f64::max`, it keeps what is not a number.
pub(crate) fn not_below_zero(value: f64) -> f64 {
    if value < 0.0 { 0.0 } else { value }
}

/// Row-major values of a matrix on the host.
///
/// # Errors
/// When the device reports a failure.
pub(crate) fn download<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Result<Vec<f32>> {
    let failed = |reason: String| Error::DeviceFailed { reason };
    let data = tensor.try_into_data().map_err(|e| failed(e.to_string()))?;
    data.convert::<f32>()
        .into_vec::<f32>()
        .map_err(|e| failed(format!("{e:?}")))
}

/// Why a solver stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The method has no iterations.
    Direct,
    /// The iterations asked for are done.
    Iterations,
    /// T rounds in a row did not lower the error.
    Patience,
    /// A round lowered the error by less than ε of it.
    SmallGain,
    /// Nothing is left to gain: the error is zero.
    Exact,
}

/// One round of Algorithm 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// λ of the round.
    pub lambda: f64,
    /// FISTA iterations taken.
    pub iterations: usize,
    /// Relative squared error before rounding.
    pub continuous_error: f64,
    /// Relative squared error after rounding.
    pub rounded_error: f64,
    /// Whether the round became the best so far.
    pub accepted: bool,
}

/// What a solver did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SolveInfo {
    /// Iterations over all rounds.
    pub iterations: usize,
    /// Why it stopped.
    pub stop_reason: StopReason,
    /// Relative squared error of the warm start, where there is one.
    pub warm_start_error: Option<f64>,
    /// Rounds of Algorithm 1.
    pub rounds: Vec<Round>,
    /// Damping that the factorisation used, relative to the mean diagonal, where one was made.
    pub damping: Option<f64>,
    /// Whether that is more than was asked for, because the matrix was not positive definite with less.
    pub damping_raised: bool,
    /// Conjugate-gradient steps on the final support.
    pub polish_iterations: usize,
}

impl SolveInfo {
    fn direct() -> Self {
        Self {
            iterations: 0,
            stop_reason: StopReason::Direct,
            warm_start_error: None,
            rounds: Vec::new(),
            damping: None,
            damping_raised: false,
            polish_iterations: 0,
        }
    }
}

/// A pruned weight.
#[derive(Debug, Clone)]
pub struct Solution {
    /// `V [m, n]` row-major; entries not kept are zero.
    pub values: Vec<f32>,
    /// `true` where the pattern keeps an entry, `[m, n]` row-major.
    pub keep: Vec<bool>,
    /// What the solver did.
    pub info: SolveInfo,
}

impl Solution {
    /// A weight cut to the entries it keeps.
    fn masked(mut values: Vec<f32>, keep: Vec<bool>, info: SolveInfo) -> Self {
        let pairs = values.par_iter_mut().zip(&keep).with_min_len(CHUNK);
        pairs
            .filter(|(_, keep)| !**keep)
            .for_each(|(value, _)| *value = 0.0);
        Self { values, keep, info }
    }
}

/// Chooses the operator's weight by the configured method.
///
/// # Errors
/// When statistics or results are not finite, no damping makes the Gram matrix positive definite, or the device fails.
pub fn solve<B: SolverOps>(
    problem: &LayerProblem<B>,
    pattern: Pattern,
    config: &SolverConfig,
) -> Result<Solution> {
    let alone = Together::new(vec![problem.clone()]);
    let solutions = alone.solve(&[pattern], config)?;
    solutions.into_iter().next().ok_or_else(|| Error::Internal {
        what: "a problem has no solution".into(),
    })
}

/// The weight as it is.
fn dense<B: SolverOps>(problem: &LayerProblem<B>) -> Result<Solution> {
    let values = download(problem.weight.clone())?;
    let keep = vec![true; values.len()];
    Ok(Solution {
        values,
        keep,
        info: SolveInfo::direct(),
    })
}

/// The start of Algorithm 1. For a dense start nothing is cut yet.
fn warm_start<B: SolverOps>(
    problem: &LayerProblem<B>,
    pattern: Pattern,
    config: &SolverConfig,
) -> Result<Solution> {
    match config.warm_start {
        WarmStart::Magnitude => magnitude::prune(problem, pattern, config.threshold_or(Threshold::Matrix)),
        WarmStart::Wanda => wanda::prune(problem, pattern, config.threshold_or(Threshold::Row)),
        WarmStart::SparseGpt => sparsegpt::prune(problem, pattern, &config.sparsegpt),
        WarmStart::L0 => {
            let mut pulled = vec![problem.clone()];
            with_ridge(&mut pulled, config.ridge)?;
            l0::prune(&pulled[0], pattern, config)
        }
        WarmStart::Dense => dense(problem),
    }
}
