//! Masked least squares: the best weights on a fixed support (ALPS, arXiv 2406.07831, Algorithm 2).
//!
//! Minimises the operator's error over all `V` that are zero where the mask is, by conjugate gradients on every row at
//! once with the gradient masked and `diag(G)` as preconditioner. The support never changes, and no row ends worse than it
//! began: each row's step length is exact for a convex quadratic.

use super::{LayerProblem, Solution, download, wanda};
use crate::error::Result;
use burn::tensor::{Tensor, TensorData};
use fista_pruner_backends::SolverOps;

/// Improves `solution` by `iterations` conjugate-gradient steps, one `m × n × n` product each.
///
/// # Errors
/// When the device fails.
pub fn polish<B: SolverOps>(
    problem: &LayerProblem<B>,
    solution: Solution,
    iterations: usize,
) -> Result<Solution> {
    if iterations == 0 {
        return Ok(solution);
    }
    let Solution {
        values,
        keep,
        mut info,
    } = solution;
    let start = problem.upload(values);
    let mask = problem.upload(keep.iter().map(|k| f32::from(u8::from(*k))).collect());
    let polished = conjugate_gradients(problem, start.clone(), mask, iterations)?;
    // Rounding can undo what exact arithmetic promises; then the start stays.
    let (before, after) = (
        problem.squared_error(start.clone()),
        problem.squared_error(polished.clone()),
    );
    info.polish_iterations = iterations;
    let values = download(if after <= before { polished } else { start })?;
    Ok(Solution::masked(values, keep, info))
}

/// Preconditioned conjugate gradients per row, from `v` on the support `mask`, both `[m, n]`.
fn conjugate_gradients<B: SolverOps>(
    problem: &LayerProblem<B>,
    mut v: Tensor<B, 2>,
    mask: Tensor<B, 2>,
    iterations: usize,
) -> Result<Tensor<B, 2>> {
    let preconditioner = inverse_diagonal(problem)?;
    // The residual is the negative gradient on the support.
    let mut residual = problem.gradient(v.clone()).neg() * mask.clone();
    let mut direction = residual.clone() * preconditioner.clone();
    let mut energy = (residual.clone() * direction.clone()).sum_dim(1);
    for _ in 0..iterations {
        let image = direction.clone().matmul(problem.gram.clone()) * mask.clone();
        let curvature = (direction.clone() * image.clone()).sum_dim(1);
        let step = quotient(energy.clone(), curvature);
        v = v + direction.clone() * step.clone();
        residual = residual - image * step;
        let preconditioned = residual.clone() * preconditioner.clone();
        let next = (residual.clone() * preconditioned.clone()).sum_dim(1);
        let momentum = quotient(next.clone(), energy);
        direction = preconditioned + direction * momentum;
        energy = next;
    }
    Ok(v)
}

/// `a / b` for rows, zero where `b` is not positive: such a row is done.
fn quotient<B: SolverOps>(a: Tensor<B, 2>, b: Tensor<B, 2>) -> Tensor<B, 2> {
    let done = b.clone().lower_equal_elem(f32::MIN_POSITIVE);
    (a / b).mask_fill(done, 0.0)
}

/// `1 / diag(G)` as `[1, n]`, one where an input is always zero.
fn inverse_diagonal<B: SolverOps>(problem: &LayerProblem<B>) -> Result<Tensor<B, 2>> {
    let inverse: Vec<f32> = wanda::diagonal(problem)?
        .into_iter()
        .map(|g| if g > 0.0 { 1.0 / g } else { 1.0 })
        .collect();
    let n = inverse.len();
    Ok(Tensor::from_data(
        TensorData::new(inverse, [1, n]),
        &problem.weight.device(),
    ))
}
