//! ℓ0 operator splitting, the family of ALPS (Meng et al., arXiv 2406.07831): the support itself is the variable.
//!
//! In scaled columns (see [`super::scaled`]), ADMM on
//!
//! ```text
//! min 1/2 tr((B−W) G (B−W)ᵀ) + tr((B−W) Pᵀ)   subject to   B = D,  D has the pattern
//! ```
//!
//! With the scaled dual `u` the steps are
//!
//! ```text
//! B = W + (ρ (D − u − W) − P) (G + ρI)⁻¹        Z = B + u        D = H(Z)        u = Z − D
//! ```
//!
//! where `H` keeps the largest entries. ρ grows by a fixed factor a step, the inverse is renewed every few steps, and ρ
//! stays what it was between renewals. The published code grows ρ by the number of entries that moved and takes up to 300
//! steps of two products each; here a step is one product.

use super::inverse::Inverse;
use super::{LayerProblem, Solution, SolveInfo, StopReason, download, scaled};
use crate::config::{SolverConfig, Threshold};
use crate::error::Result;
use crate::pattern::Pattern;
use fista_pruner_backends::{Selection, SolverOps, SplittingStep};

/// Chooses the support by splitting; the values are those of the last `D`, to be polished.
///
/// # Errors
/// When `G` is not finite, cannot be inverted, or the device fails.
pub fn prune<B: SolverOps>(
    problem: &LayerProblem<B>,
    pattern: Pattern,
    config: &SolverConfig,
) -> Result<Solution> {
    let (m, n) = problem.shape();
    let scaled = scaled::scale(problem)?;
    let weight = scaled.problem.weight.clone();
    let drift = scaled.problem.drift.clone();
    let threshold = config.threshold_or(Threshold::Matrix);
    let config = &config.l0;
    let selection = match (pattern, threshold) {
        (Pattern::Unstructured(_), Threshold::Matrix) => Selection::AllBut(pattern.zeros(m, n)),
        (Pattern::Unstructured(_), Threshold::Row) => Selection::AllButInRow(pattern.zeros(m, n) / m),
        (Pattern::NOfM { n, m }, _) => Selection::InGroups { n, m },
    };
    let split = |moved, dual, rho: f64, dual_factor: f64| {
        let (rho, dual_factor) = (rho as f32, dual_factor as f32);
        let step = SplittingStep {
            selection,
            rho,
            dual_factor,
        };
        B::splitting_step(moved, weight.clone(), dual, drift.clone(), step)
    };
    let mut rho = config.rho;
    let mut inverse = Inverse::new(&problem.name, scaled.problem.gram.clone(), rho)?;
    // Z = W: D is the dense weight cut to the pattern, and there is no dual yet.
    let nothing = weight.zeros_like();
    let (mut right, mut dual) = split(nothing.clone(), nothing, rho, 0.0);
    for step in 1..config.steps {
        let moved = right.matmul(inverse.matrix());
        let next = match step % config.refresh {
            0 => rho * config.growth.powi(config.refresh as i32),
            _ => rho,
        };
        (right, dual) = split(moved, dual, next, rho / next);
        if next != rho {
            rho = next;
            inverse.shift(rho)?;
        }
    }
    let mut values = download(right.matmul(inverse.matrix()) + weight.clone() + dual)?;
    let keep = pattern.keep_within(threshold, &values, m, n);
    scaled.unscale(&mut values);
    let info = SolveInfo {
        iterations: config.steps,
        stop_reason: StopReason::Iterations,
        ..SolveInfo::direct()
    };
    Ok(Solution::masked(values, keep, info))
}
