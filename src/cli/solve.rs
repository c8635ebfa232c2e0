//! `solve`: one matrix from saved statistics.

use super::args::Global;
use super::help::MODEL;
use super::solver_args::SolverArgs;
use super::{inputs, show};
use crate::error::Result;
use crate::prune::SolveRun;
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct SolveArgs {
    /// A file of `prune --save-statistics`, or your own: NAME.weight [out, in], NAME.gram [in, in] (X* X*ᵀ, called Hessian in
    /// SparseGPT and GPTQ), and if the original model has other inputs, NAME.cross (X X*ᵀ) and NAME.dense_gram (X Xᵀ).
    #[arg(long, value_name = "FILE", help_heading = MODEL)]
    statistics: PathBuf,
    /// NAME of the linear layer in the file.
    #[arg(long, value_name = "NAME", help_heading = MODEL)]
    operator: String,
    /// Write the pruned weight to this safetensors file, as NAME.weight.
    #[arg(long, value_name = "FILE", help_heading = MODEL)]
    output: Option<PathBuf>,
    /// Replace the file if it exists.
    #[arg(long, requires = "output", help_heading = MODEL)]
    overwrite: bool,
    #[command(flatten)]
    solver: SolverArgs,
}

pub(crate) fn run(args: &SolveArgs, global: &Global) -> Result<()> {
    let run = SolveRun {
        statistics: args.statistics.clone(),
        operator: args.operator.clone(),
        pattern: args.solver.sparsity,
        solver: args.solver.config(None)?,
        output: args.output.clone(),
        overwrite: args.overwrite,
        device: inputs::device(global)?,
    };
    show::result(global.format, &run.run()?, |outcome| {
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
