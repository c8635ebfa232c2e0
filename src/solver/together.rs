//! The operators of one group, solved side by side: they see the same inputs, so they have one Gram matrix, and what is made
//! of it serves all of them. In: problems, patterns. Out: a solution each, the same to the last bit as of each alone.

use super::ridge::with_ridge;
use super::solution::dense;
use super::{
    LayerProblem, Solution, SolverError, admm, columns, download, fista, magnitude, polish, sparsegpt, wanda,
};
use crate::config::{ComparisonGroup, Method, Pattern, SolverConfig};
use crate::error::{Error, Result};
use burn::tensor::{Tensor, TensorData};
use fista_pruner_backends::SolverOps;

/// Problems with one Gram matrix.
pub(crate) struct Together<B: SolverOps> {
    problems: Vec<LayerProblem<B>>,
    /// The Gram matrix on the host, while it is not on the device; the problems have one of a single zero then.
    away: Option<TensorData>,
}

impl<B: SolverOps> Together<B> {
    /// Of problems whose Gram matrices are one and the same.
    pub(crate) fn new(problems: Vec<LayerProblem<B>>) -> Self {
        Self { problems, away: None }
    }

    /// Keeps the Gram matrix on the host, and on the device only while it is worked with. It leaves the device once nobody
    /// else holds it.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn offloaded(mut self) -> Result<Self> {
        if let Some(first) = self.problems.first_mut() {
            let device = first.gram.device();
            // Not an empty one, which a GPU has no memory of.
            let nothing = Tensor::zeros([1, 1], &device);
            let gram = std::mem::replace(&mut first.gram, nothing.clone());
            for problem in &mut self.problems {
                problem.gram = nothing.clone();
            }
            let shape = gram.dims();
            self.away = Some(TensorData::new(download(gram)?, shape));
        }
        Ok(self)
    }

    /// The problems with their Gram matrix, on the device.
    pub(crate) fn problems(&self) -> Vec<LayerProblem<B>> {
        let mut problems = self.problems.clone();
        if let (Some(data), Some(first)) = (&self.away, self.problems.first()) {
            let gram = Tensor::from_data(data.clone(), &first.weight.device());
            for problem in &mut problems {
                problem.gram = gram.clone();
            }
        }
        problems
    }

    /// Chooses the operators' weights by the configured method, with a pattern each.
    ///
    /// # Errors
    /// As [`super::solve`]; the error names the operator, or the first of them for what is wrong with the Gram matrix.
    pub(crate) fn solve(&self, patterns: &[Pattern], config: &SolverConfig) -> Result<Vec<Solution>> {
        for (problem, pattern) in self.problems.iter().zip(patterns) {
            pattern.check_inputs(&problem.name, problem.shape().1)?;
            if !(problem.target_energy.is_finite() && problem.drift_energy.is_finite()) {
                return Err(Error::from(SolverError::NotFinite {
                    what: "the output activation",
                    operator: problem.name.clone(),
                }));
            }
        }
        let mut solutions: Vec<Option<Solution>> = Vec::with_capacity(self.problems.len());
        let mut sparse = Vec::new();
        for (index, (problem, pattern)) in self.problems.iter().zip(patterns).enumerate() {
            let (m, n) = problem.shape();
            // Whole columns may be fitted to something else even where all stay.
            let whole = pattern.zeros(m, n) == 0 && !matches!(pattern, Pattern::Columns { .. });
            solutions.push(whole.then(|| dense(problem)).transpose()?);
            if !whole {
                sparse.push(index);
            }
        }
        if !sparse.is_empty() {
            let patterns: Vec<Pattern> = sparse.iter().map(|i| patterns[*i]).collect();
            let chosen = self.choose(&sparse, &patterns, config)?;
            for (index, solution) in sparse.into_iter().zip(chosen) {
                solutions[index] = Some(solution);
            }
        }
        Ok(solutions.into_iter().flatten().collect())
    }

    /// Solutions of the problems with these numbers, polished.
    fn choose(&self, which: &[usize], patterns: &[Pattern], config: &SolverConfig) -> Result<Vec<Solution>> {
        let stated = || {
            let mut all: Vec<Option<LayerProblem<B>>> = self.problems().into_iter().map(Some).collect();
            let these = which.iter().filter_map(|i| all[*i].take());
            these.collect::<Vec<_>>()
        };
        let pulled = || {
            let mut problems = stated();
            with_ridge(&mut problems, config.ridge)?;
            Ok::<_, Error>(problems)
        };
        let each = |solve: &dyn Fn(&LayerProblem<B>, Pattern) -> Result<Solution>| {
            let problems = stated();
            let pairs = problems.iter().zip(patterns);
            pairs
                .map(|(problem, pattern)| solve(problem, *pattern))
                .collect::<Result<Vec<_>>>()
        };
        if let Some(columns) = &config.columns {
            return each(&|p, pattern| columns::prune(p, pattern, columns, config.ridge));
        }
        let mut held = None;
        let chosen = match config.method {
            Method::Magnitude => each(&|p, pattern| {
                magnitude::prune(p, pattern, config.threshold_or(ComparisonGroup::Matrix))
            })?,
            Method::Wanda => {
                each(&|p, pattern| wanda::prune(p, pattern, config.threshold_or(ComparisonGroup::Row)))?
            }
            Method::SparseGpt => each(&|p, pattern| sparsegpt::prune(p, pattern, &config.sparsegpt))?,
            Method::Fista => each(&|p, pattern| fista::prune(p, pattern, config))?,
            Method::Admm => {
                let problems = pulled()?;
                // What is polished later need not be made again where there is room for it.
                held = (self.away.is_none() && config.polish > 0).then(|| problems.clone());
                admm::prune_together(problems, patterns, config)?
            }
        };
        // Most published methods have no use for a ridge, nor for a polish.
        let polished = if config.polish > 0 {
            let problems = match held {
                Some(problems) => problems,
                None => pulled()?,
            };
            problems
                .iter()
                .zip(chosen)
                .map(|(problem, solution)| polish::polish(problem, solution, config.polish))
                .collect::<Result<Vec<_>>>()?
        } else {
            chosen
        };
        for (index, solution) in which.iter().zip(&polished) {
            if solution.values.iter().any(|v| !v.is_finite()) {
                return Err(Error::from(SolverError::NotFinite {
                    what: "the solution",
                    operator: self.problems[*index].name.clone(),
                }));
            }
        }
        Ok(polished)
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
    solutions
        .into_iter()
        .next()
        .ok_or_else(|| Error::internal("a problem has no solution"))
}
