//! Masked least squares: the best weights on a fixed support (ALPS, arXiv 2406.07831, Algorithm 2).
//!
//! Minimises the operator's error over all `V` that are zero where the mask is, by conjugate gradients on every row at
//! once with the gradient masked and `diag(G)` as preconditioner. The support never changes, and no row ends worse than it
//! began: each row's step length is exact for a convex quadratic.

use super::{CHUNK, LayerProblem, Solution, download, wanda};
use crate::error::Result;
use burn::tensor::{Tensor, TensorData};
use fista_pruner_backends::SolverOps;
use rayon::prelude::*;

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
        ..
    } = solution;
    let start = problem.upload(values);
    let ones = keep.par_iter().with_min_len(CHUNK);
    let mask = problem.upload(ones.map(|k| f32::from(u8::from(*k))).collect());
    let polished = conjugate_gradients(problem, start.clone(), mask, iterations)?;
    info.polish_iterations = iterations;
    let values = download(polished.unwrap_or(start))?;
    Ok(Solution::masked(values, keep, info))
}

/// Preconditioned conjugate gradients per row, from `start` on the support `mask`, both `[m, n]`. Nothing where rounding
/// undid what exact arithmetic promises.
fn conjugate_gradients<B: SolverOps>(
    problem: &LayerProblem<B>,
    start: Tensor<B, 2>,
    mask: Tensor<B, 2>,
    iterations: usize,
) -> Result<Option<Tensor<B, 2>>> {
    let diagonal = wanda::diagonal(problem)?;
    let preconditioner = inverse(&diagonal, &problem.weight.device());
    let gradient = problem.gradient(start.clone());
    let mut state = B::conjugate_start(start.clone(), gradient, mask.clone(), preconditioner.clone());
    let first = state.residual.clone();
    for _ in 0..iterations {
        let image = B::matmul_f32(state.direction.clone(), problem.gram.clone());
        state = B::conjugate_step(state, image, mask.clone(), preconditioner.clone());
    }
    // The objective is quadratic: between two points of the support it changes by the mean gradient along the way, and
    // that takes no further product.
    let gained = B::conjugate_gain(start, first, &state);
    Ok((gained >= 0.0).then_some(state.point))
}

/// `1 / diag(G)` as `[1, n]`, one where an input is always zero.
fn inverse<B: SolverOps>(diagonal: &[f32], device: &B::Device) -> Tensor<B, 2> {
    let inverse: Vec<f32> = diagonal
        .iter()
        .map(|g| if *g > 0.0 { 1.0 / g } else { 1.0 })
        .collect();
    let n = inverse.len();
    Tensor::from_data(TensorData::new(inverse, [1, n]), device)
}
