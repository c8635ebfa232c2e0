//! Wanda (Sun et al., arXiv 2306.11695): keep the largest `|W_ij| · ‖X_j‖₂` within each output row.

use super::{LayerProblem, Solution, SolveInfo, download};
use crate::config::{ComparisonGroup, Pattern};
use crate::error::{Error, Result, SolverError};
use burn::tensor::s;
use fista_pruner_backends::SolverOps;
use rayon::prelude::*;

/// Keeps the largest scores, as published of each row (Eq. 1); the kept weights stay as they are.
///
/// # Errors
/// When the device fails.
pub fn prune<B: SolverOps>(
    problem: &LayerProblem<B>,
    pattern: Pattern,
    threshold: ComparisonGroup,
) -> Result<Solution> {
    let values = download(problem.weight.clone())?;
    let (m, n) = problem.shape();
    let keep = pattern.keep_within(threshold, &scores(problem)?, m, n);
    Ok(Solution::masked(values, keep, SolveInfo::direct()))
}

/// `|W_ij| · ‖X_j‖₂ / √p`, `[m, n]` row-major.
///
/// # Errors
/// When `G` is not finite or the device fails.
pub fn scores<B: SolverOps>(problem: &LayerProblem<B>) -> Result<Vec<f32>> {
    let mut scores = download(problem.weight.clone())?;
    let n = problem.shape().1.max(1);
    let norms: Vec<f32> = diagonal(problem)?.iter().map(|g| g.max(0.0).sqrt()).collect();
    scores.par_chunks_mut(n).for_each(|row| {
        for (score, norm) in row.iter_mut().zip(&norms) {
            *score = score.abs() * norm;
        }
    });
    Ok(scores)
}

/// `diag(G)`, `n` values.
///
/// # Errors
/// When the device fails, or a value is not finite.
pub(super) fn diagonal<B: SolverOps>(problem: &LayerProblem<B>) -> Result<Vec<f32>> {
    let n = problem.shape().1;
    // Every `n + 1`-st entry of the rows, one after the other.
    let entries = problem.gram.clone().reshape([n * n]);
    let diagonal = download(entries.slice(s![0..n * n; n as isize + 1]))?;
    if diagonal.iter().all(|g| g.is_finite()) {
        Ok(diagonal)
    } else {
        Err(Error::from(SolverError::NotFinite {
            what: "the Gram matrix",
            operator: problem.name.clone(),
        }))
    }
}
