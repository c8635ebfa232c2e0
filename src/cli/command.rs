//! The program's command line as a whole: every subcommand with its arguments, and where it is done.

use super::args::Global;
use super::compare::{self, CompareArgs};
use super::documents::{self, CompletionsArgs, ManArgs};
use super::eval::{self, EvalArgs};
use super::examples::with_examples;
use super::generate::{self, GenerateArgs};
use super::help::in_order;
use super::inspect::{self, InspectArgs};
use super::mask::{self, MaskCommand};
use super::merge::{self, MergeArgs};
use super::pack::{self, PackArgs, UnpackArgs};
use super::prune::{self, PruneArgs};
use super::recover::{self, RecoverArgs};
use super::report::{self, ReportArgs};
use super::shrink::{self, ShrinkArgs};
use super::solve::{self, SolveArgs};
use super::verify::{self, VerifyArgs};
use crate::error::Result;
use clap::{CommandFactory, Parser, Subcommand};

/// Sets a part of the weights of a trained language model to zero, and changes the other weights so that each layer's output stays
/// almost the same. Input and output are Hugging Face checkpoints.
#[derive(Debug, Parser)]
#[command(
    name = "fista-pruner", version, long_version = LONG_VERSION, max_term_width = 110, disable_help_flag = true,
    after_help = "fista-pruner SUBCOMMAND --help explains a subcommand. A first try: fista-pruner prune --output pruned"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) global: Global,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Prune a model.
    Prune(Box<PruneArgs>),
    /// Structured pruning: remove whole MLP channels, attention heads and layers. The result is a smaller dense model.
    Shrink(Box<ShrinkArgs>),
    /// Measure the perplexity of a model, or its accuracy on zero-shot tasks.
    Eval(EvalArgs),
    /// Show the shape and the sparsity of every linear layer. The model is not run.
    Inspect(InspectArgs),
    /// Continue a prompt.
    Generate(GenerateArgs),
    /// Compare pruning methods on one model: errors, perplexities and times in one table. No model is written.
    Compare(Box<CompareArgs>),
    /// Write the report page of a finished run again, from its pruning_report.json.
    Report(ReportArgs),
    /// Prune one linear layer from saved calibration statistics.
    Solve(Box<SolveArgs>),
    /// Make one model of the parts that `prune --shard` wrote.
    Merge(MergeArgs),
    /// Write a smaller copy of a pruned model, without the zeros. Nothing is lost, and every command reads it.
    Pack(PackArgs),
    /// Undo `pack`: write the plain model, byte for byte.
    Unpack(UnpackArgs),
    /// Save which weights a pruned model keeps, or set the same zeros in a dense model.
    #[command(subcommand)]
    Mask(MaskCommand),
    /// Fine-tune the remaining weights of a pruned model. Every zero stays.
    Recover(Box<RecoverArgs>),
    /// Check a pruned model: names, shapes, formats, pattern, finite values, and that nothing else has changed.
    Verify(VerifyArgs),
    /// Print a script that lets a shell complete the commands and flags of this program.
    Completions(CompletionsArgs),
    /// Print a manual page, or write all of them to a folder.
    Man(ManArgs),
}

/// The command line with its headings in order and its examples.
pub(crate) fn program() -> clap::Command {
    with_examples(in_order(Arguments::command()))
}

/// The version, and what `build.rs` tells of the build: the commit, if there is one, and the features.
const LONG_VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("FISTA_PRUNER_BUILD"), ")");

impl Arguments {
    /// Does what the command line asks for.
    ///
    /// # Errors
    /// Those of the subcommand.
    pub(crate) fn run(&self) -> Result<()> {
        let global = &self.global;
        match &self.command {
            Command::Prune(args) => prune::run(args, global),
            Command::Shrink(args) => shrink::run(args, global),
            Command::Report(args) => report::run(args, global),
            Command::Eval(args) => eval::run(args, global),
            Command::Inspect(args) => inspect::run(args, global),
            Command::Generate(args) => generate::run(args, global),
            Command::Compare(args) => compare::run(args, global),
            Command::Solve(args) => solve::run(args, global),
            Command::Merge(args) => merge::run(args, global),
            Command::Pack(args) => pack::pack(args, global),
            Command::Unpack(args) => pack::unpack(args, global),
            Command::Mask(command) => mask::run(command, global),
            Command::Recover(args) => recover::run(args, global),
            Command::Verify(args) => verify::run(args, global),
            Command::Completions(args) => documents::completions(args, program()),
            Command::Man(args) => documents::man(args, program()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        program().debug_assert();
    }
}
