//! One matrix from saved statistics, as the command `solve` does it.

use super::saved::{self, SavedOperator};
use crate::config::{Pattern, SolverConfig};
use crate::error::Result;
use crate::solver::{self, SolveInfo, StopReason};
use crate::system::Destination;
use fista_pruner_backends::{DeviceJob, DeviceSpec, SolverOps, dispatch_opened};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Instant;

/// Everything that solving one matrix needs.
#[derive(Debug, Clone)]
pub struct SolveRun {
    /// A file of saved statistics.
    pub statistics: PathBuf,
    /// The operator's name in it.
    pub operator: String,
    /// The zeros.
    pub pattern: Pattern,
    /// How weights are chosen.
    pub solver: SolverConfig,
    /// A file for the pruned weight.
    pub output: Option<PathBuf>,
    /// Whether a file that is there is replaced.
    pub overwrite: bool,
    /// A device that [`open`](fista_pruner_backends::open) has opened.
    pub device: DeviceSpec,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Solved {
    /// The operator's name.
    pub operator: String,
    /// `[out, in]`.
    pub shape: [usize; 2],
    /// `‖V X* − W X‖² / ‖W X‖²`.
    pub relative_error: f64,
    /// Share of zeros.
    pub sparsity: f64,
    /// Zeros.
    pub zeros: usize,
    /// Iterations over all rounds.
    pub iterations: usize,
    /// Why the solver stopped.
    pub stop_reason: StopReason,
    /// Seconds that it took.
    pub seconds: f64,
    /// What it did.
    pub solver: SolveInfo,
    /// The weight, row by row.
    #[serde(skip)]
    pub values: Vec<f32>,
}

impl SolveRun {
    /// Does it.
    ///
    /// # Errors
    /// When the statistics cannot be used, the output exists, or as [`solver::solve`].
    pub fn run(&self) -> Result<Solved> {
        let output = match &self.output {
            Some(output) => {
                let destination = Destination::new(output, self.overwrite).apart_from(&self.statistics);
                Some(destination.file()?)
            }
            None => None,
        };
        let operator = saved::read(&self.statistics, &self.operator)?;
        let solved = dispatch_opened(&self.device, Work { run: self, operator })??;
        if let Some(output) = &output {
            let name = format!("{}.weight", self.operator);
            saved::write(output, &[(name, solved.shape.to_vec(), solved.values.clone())])?;
        }
        Ok(solved)
    }
}

/// What runs on the device.
struct Work<'a> {
    run: &'a SolveRun,
    operator: SavedOperator,
}

impl DeviceJob for Work<'_> {
    type Output = Result<Solved>;

    fn run<B: SolverOps>(self, device: &B::Device) -> Self::Output {
        let pattern = self.run.pattern;
        let problem = self.operator.problem::<B>(device)?;
        let started = Instant::now();
        let solution = solver::solve(&problem, pattern, &self.run.solver)?;
        let seconds = started.elapsed().as_secs_f64();
        let (outputs, inputs) = problem.shape();
        pattern.check(&problem.name, &solution.values, outputs, inputs)?;
        let zeros = solution.values.iter().filter(|v| **v == 0.0).count();
        let squared_error = problem.squared_error(problem.upload(solution.values.clone()));
        Ok(Solved {
            operator: problem.name.clone(),
            shape: [outputs, inputs],
            relative_error: problem.relative(squared_error),
            sparsity: zeros as f64 / (outputs * inputs).max(1) as f64,
            zeros,
            iterations: solution.info.iterations,
            stop_reason: solution.info.stop_reason,
            seconds,
            solver: solution.info,
            values: solution.values,
        })
    }
}
