//! Where Algorithm 1 starts.

use super::ridge::with_ridge;
use super::solution::dense;
use super::{LayerProblem, Solution, admm, magnitude, sparsegpt, wanda};
use crate::config::{ComparisonGroup, Pattern, SolverConfig, WarmStart};
use crate::error::Result;
use fista_pruner_backends::SolverOps;

/// The start of Algorithm 1. For a dense start nothing is cut yet.
pub(crate) fn warm_start<B: SolverOps>(
    problem: &LayerProblem<B>,
    pattern: Pattern,
    config: &SolverConfig,
) -> Result<Solution> {
    match config.warm_start {
        WarmStart::Magnitude => {
            magnitude::prune(problem, pattern, config.threshold_or(ComparisonGroup::Matrix))
        }
        WarmStart::Wanda => wanda::prune(problem, pattern, config.threshold_or(ComparisonGroup::Row)),
        WarmStart::SparseGpt => sparsegpt::prune(problem, pattern, &config.sparsegpt),
        WarmStart::Admm => {
            let mut pulled = vec![problem.clone()];
            with_ridge(&mut pulled, config.ridge)?;
            admm::prune(&pulled[0], pattern, config)
        }
        WarmStart::Dense => dense(problem),
    }
}
