//! Wanda (Sun et al., arXiv 2306.11695): keep the largest `|W_ij| · ‖X_j‖₂` within each output row.

use super::{LayerProblem, Solution, SolveInfo, download};
use crate::error::{Error, Result};
use crate::pattern::Pattern;
use burn::tensor::Tensor;
use fista_pruner_backends::SolverOps;
use rayon::prelude::*;

/// Keeps the largest scores of each row (Eq. 1); the kept weights stay as they are.
///
/// # Errors
/// When the device fails.
pub fn prune<B: SolverOps>(problem: &LayerProblem<B>, pattern: Pattern) -> Result<Solution> {
    let values = download(problem.weight.clone())?;
    let (m, n) = problem.shape();
    // ‖X_j‖₂ up to the common factor √p, which ranks nothing.
    let norms: Vec<f32> = diagonal(problem)?.iter().map(|g| g.max(0.0).sqrt()).collect();
    let mut scores = vec![0.0; values.len()];
    scores
        .par_chunks_mut(n.max(1))
        .zip(values.par_chunks(n.max(1)))
        .for_each(|(scores, row)| {
            for ((score, w), norm) in scores.iter_mut().zip(row).zip(&norms) {
                *score = w.abs() * norm;
            }
        });
    let keep = pattern.keep_largest_per_row(&scores, m, n);
    Ok(Solution::masked(values, keep, SolveInfo::direct()))
}

/// `diag(G)`, `n` values.
///
/// # Errors
/// When the device fails, or a value is not finite.
pub(super) fn diagonal<B: SolverOps>(problem: &LayerProblem<B>) -> Result<Vec<f32>> {
    let n = problem.shape().1;
    let eye = Tensor::<B, 2>::eye(n, &problem.gram.device());
    let diagonal = download((problem.gram.clone() * eye).sum_dim(0))?;
    if diagonal.iter().all(|g| g.is_finite()) {
        Ok(diagonal)
    } else {
        Err(Error::NotFinite {
            what: "the Gram matrix",
            operator: problem.name.clone(),
        })
    }
}
