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
use crate::config::{ComparisonGroup, Pattern, SolverConfig};
use crate::error::{Error, Result};
use burn::tensor::Tensor;
use fista_pruner_backends::{Selection, SolverOps, SplittingStep};

/// The last steps, whose products are all in f32; those before may be taken in TF32 where a device does that.
const EXACT_STEPS: usize = 10;

/// Chooses the support by splitting; the values are those of the last `D`, to be polished.
///
/// # Errors
/// When `G` is not finite, cannot be inverted, or the device fails.
pub fn prune<B: SolverOps>(
    problem: &LayerProblem<B>,
    pattern: Pattern,
    config: &SolverConfig,
) -> Result<Solution> {
    let alone = prune_together(vec![problem.clone()], &[pattern], config)?;
    alone
        .into_iter()
        .next()
        .ok_or_else(|| Error::internal("a problem has no solution"))
}

/// [`prune`] of operators that have one Gram matrix, side by side: ρ goes the same way for all, so one inverse serves them.
/// Where nobody else holds the problems, their own Gram matrix is gone once it is scaled.
pub(super) fn prune_together<B: SolverOps>(
    problems: Vec<LayerProblem<B>>,
    patterns: &[Pattern],
    config: &SolverConfig,
) -> Result<Vec<Solution>> {
    let threshold = config.threshold_or(ComparisonGroup::Matrix);
    let config = &config.l0;
    let Some(first) = problems.first() else {
        return Ok(Vec::new());
    };
    let name = first.name.clone();
    let scaled = scaled::scale(first)?;
    let operators: Vec<Operator<B>> = (problems.into_iter().zip(patterns))
        .map(|(problem, pattern)| Operator::new(scaled.like(&problem), *pattern, threshold))
        .collect();
    let mut rho = config.rho;
    let mut inverse = Inverse::new(&name, scaled.problem.gram.clone(), rho)?;
    // Z = W: D is the dense weight cut to the pattern, and there is no dual yet.
    let mut iterates: Vec<Iterate<B>> = operators
        .iter()
        .map(|operator| {
            let nothing = operator.weight.zeros_like();
            operator.split(nothing, operator.weight.clone(), rho, 0.0)
        })
        .collect();
    let exact_from = config.steps.saturating_sub(EXACT_STEPS);
    for step in 1..config.steps {
        let next = match step % config.refresh {
            0 => rho * config.growth.powi(config.refresh as i32),
            _ => rho,
        };
        iterates = (operators.iter().zip(iterates))
            .map(|(operator, (right, shifted))| {
                // A later step decides.
                let moved = if step < exact_from {
                    B::matmul_fast(right, inverse.matrix())
                } else {
                    B::matmul_f32(right, inverse.matrix())
                };
                operator.split(moved, shifted, next, rho / next)
            })
            .collect();
        if next != rho {
            rho = next;
            inverse.shift(rho)?;
        }
    }
    let mut solutions = Vec::with_capacity(operators.len());
    for (operator, (right, shifted)) in operators.into_iter().zip(iterates) {
        let [m, n] = operator.weight.dims();
        let mut values = download(B::matmul_f32(right, inverse.matrix()) + shifted)?;
        let keep = operator.pattern.keep_within(threshold, &values, m, n);
        scaled.unscale(&mut values);
        let info = SolveInfo {
            iterations: config.steps,
            stop_reason: StopReason::Iterations,
            ..SolveInfo::direct()
        };
        solutions.push(Solution::masked(values, keep, info));
    }
    Ok(solutions)
}

/// `ρ (D − u − W) − P`, the right-hand side of the next step, and `W + u`, the weight with the dual.
type Iterate<B> = (Tensor<B, 2>, Tensor<B, 2>);

/// An operator in scaled columns.
struct Operator<B: SolverOps> {
    weight: Tensor<B, 2>,
    drift: Option<Tensor<B, 2>>,
    pattern: Pattern,
    selection: Selection,
}

impl<B: SolverOps> Operator<B> {
    fn new(scaled: LayerProblem<B>, pattern: Pattern, threshold: ComparisonGroup) -> Self {
        let (m, n) = scaled.shape();
        let selection = match (pattern, threshold) {
            // Columns have a solver of their own.
            (Pattern::Columns { .. }, _) | (Pattern::Unstructured(_), ComparisonGroup::Matrix) => {
                Selection::AllBut(pattern.zeros(m, n))
            }
            (Pattern::Unstructured(_), ComparisonGroup::Row) => {
                Selection::AllButInRow(pattern.zeros(m, n) / m)
            }
            (Pattern::NOfM { n, m }, _) => Selection::InGroups { n, m },
        };
        Self {
            weight: scaled.weight,
            drift: scaled.drift,
            pattern,
            selection,
        }
    }

    fn split(&self, moved: Tensor<B, 2>, shifted: Tensor<B, 2>, rho: f64, dual_factor: f64) -> Iterate<B> {
        let step = SplittingStep {
            selection: self.selection,
            rho: rho as f32,
            dual_factor: dual_factor as f32,
        };
        B::splitting_step(moved, self.weight.clone(), shifted, self.drift.clone(), step)
    }
}
