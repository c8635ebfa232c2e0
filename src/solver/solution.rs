//! What a solver gives: the pruned weight, and what was done for it.

use super::problem::{CHUNK, LayerProblem, download};
use crate::error::Result;
use fista_pruner_backends::SolverOps;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

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
    /// Relative squared error of the warm start, where there is one; of whole columns, that before the refit.
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
    pub(crate) fn direct() -> Self {
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
    /// What is added to the operator's bias `[m]`, where that changes too.
    pub bias: Option<Vec<f32>>,
}

impl Solution {
    /// A weight cut to the entries it keeps.
    pub(crate) fn masked(mut values: Vec<f32>, keep: Vec<bool>, info: SolveInfo) -> Self {
        let pairs = values.par_iter_mut().zip(&keep).with_min_len(CHUNK);
        pairs
            .filter(|(_, keep)| !**keep)
            .for_each(|(value, _)| *value = 0.0);
        Self {
            values,
            keep,
            info,
            bias: None,
        }
    }
}

/// The weight as it is.
pub(crate) fn dense<B: SolverOps>(problem: &LayerProblem<B>) -> Result<Solution> {
    let values = download(problem.weight.clone())?;
    let keep = vec![true; values.len()];
    Ok(Solution {
        values,
        keep,
        info: SolveInfo::direct(),
        bias: None,
    })
}
