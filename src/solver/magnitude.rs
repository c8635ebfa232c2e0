//! Magnitude pruning: keep the largest `|W|`, of the whole matrix, of each row, or of each group.

use super::{LayerProblem, Solution, SolveInfo, download};
use crate::config::{ComparisonGroup, Pattern};
use crate::error::Result;
use fista_pruner_backends::SolverOps;

/// Keeps the largest `|W|`; the kept weights stay as they are.
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
    let keep = pattern.keep_within(threshold, &values, m, n);
    Ok(Solution::masked(values, keep, SolveInfo::direct()))
}
