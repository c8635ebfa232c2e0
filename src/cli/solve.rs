//! `solve`: one matrix from saved statistics.

use super::args::{Global, Preset, SolveArgs, SolverArgs};
use super::{device, show};
use crate::config::{FistaConfig, L0Config, Method, SolverConfig, SparseGptConfig};
use crate::error::{Error, Result};
use crate::saved::{self, SavedOperator};
use crate::solver::{self, SolveInfo};
use fista_pruner_backends::{DeviceJob, SolverOps, dispatch_opened};
use fista_pruner_models::Family;
use serde::Serialize;
use std::time::Instant;

/// The solver's settings: the preset for the family, with what was set on top.
///
/// # Errors
/// When a value is out of its range.
pub(crate) fn solver_config(args: &SolverArgs, family: Option<Family>) -> Result<SolverConfig> {
    let preset = match (args.preset, args.method) {
        (Some(Preset::Best), _) => SolverConfig::best(family),
        (Some(Preset::Fast), _) => SolverConfig::fast(family),
        (Some(Preset::Paper), _) => SolverConfig::paper(family),
        (None, Some(method)) if method != Method::L0 => SolverConfig::improved(method, family),
        (None, _) => SolverConfig::best(family),
    };
    let l0 = preset.l0;
    let fista = preset.fista;
    let config = SolverConfig {
        method: args.method.unwrap_or(preset.method),
        warm_start: args.warm_start.unwrap_or(preset.warm_start),
        fista: FistaConfig {
            lambda: args.lambda.unwrap_or(fista.lambda),
            lambda_max: args.lambda_max.unwrap_or(fista.lambda_max),
            search: args.lambda_search.unwrap_or(fista.search),
            iterations: args.iterations.unwrap_or(fista.iterations),
            tolerance: args.tolerance.unwrap_or(fista.tolerance),
            patience: args.patience.unwrap_or(fista.patience),
            xi: args.xi.unwrap_or(fista.xi),
            epsilon: args.epsilon.unwrap_or(fista.epsilon),
            max_rounds: args.max_rounds.or(fista.max_rounds),
            scaling: args.scaling.unwrap_or(fista.scaling),
            lambda_unit: args.lambda_unit.unwrap_or(fista.lambda_unit),
            restart: args.restart.unwrap_or(fista.restart),
        },
        sparsegpt: SparseGptConfig {
            block: args.block.unwrap_or(preset.sparsegpt.block),
            damping: args.damping.unwrap_or(preset.sparsegpt.damping),
        },
        l0: L0Config {
            steps: args.l0_steps.unwrap_or(l0.steps),
            rho: args.rho.unwrap_or(l0.rho),
            growth: args.rho_growth.unwrap_or(l0.growth),
            refresh: args.l0_refresh.unwrap_or(l0.refresh),
        },
        threshold: args.threshold.or(preset.threshold),
        ridge: args.ridge.unwrap_or(preset.ridge),
        polish: args.polish.unwrap_or(preset.polish),
    };
    config.validate()?;
    Ok(config)
}

#[derive(Debug, Serialize)]
struct Outcome {
    operator: String,
    shape: [usize; 2],
    relative_error: f64,
    sparsity: f64,
    zeros: usize,
    iterations: usize,
    stop_reason: solver::StopReason,
    seconds: f64,
    solver: SolveInfo,
    #[serde(skip)]
    values: Vec<f32>,
}

struct Job {
    operator: SavedOperator,
    args: SolverArgs,
}

impl DeviceJob for Job {
    type Output = Result<Outcome>;

    fn run<B: SolverOps>(self, device: &B::Device) -> Result<Outcome> {
        let config = solver_config(&self.args, None)?;
        let problem = self.operator.problem::<B>(device)?;
        let started = Instant::now();
        let solution = solver::solve(&problem, self.args.sparsity, &config)?;
        let seconds = started.elapsed().as_secs_f64();
        let (outputs, inputs) = problem.shape();
        self.args
            .sparsity
            .check(&problem.name, &solution.values, outputs, inputs)?;
        let zeros = solution.values.iter().filter(|v| **v == 0.0).count();
        let squared_error = problem.squared_error(problem.upload(solution.values.clone()));
        Ok(Outcome {
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

pub(crate) fn run(args: &SolveArgs, global: &Global) -> Result<()> {
    if let Some(output) = &args.output
        && output.exists()
    {
        return Err(Error::Setting {
            setting: "--output",
            reason: format!("`{}` exists already", output.display()),
        });
    }
    let operator = saved::read(&args.statistics, &args.operator)?;
    let job = Job {
        operator,
        args: args.solver.clone(),
    };
    let outcome = dispatch_opened(&device::choose(global)?, job)??;
    if let Some(output) = &args.output {
        let tensor = (
            format!("{}.weight", args.operator),
            outcome.shape.to_vec(),
            outcome.values.clone(),
        );
        saved::write(output, &[tensor])?;
    }
    show::result(global.format, &outcome, |outcome| {
        format!(
            "{} {}x{}: relative error {:.6}, sparsity {:.4}, {} iterations ({:?}), {:.2} s",
            outcome.operator,
            outcome.shape[0],
            outcome.shape[1],
            outcome.relative_error,
            outcome.sparsity,
            outcome.iterations,
            outcome.stop_reason,
            outcome.seconds
        )
    })
}
