//! The program's command line as a whole: every subcommand with its arguments, and where it is done.

use super::args::Global;
use super::compare::{self, CompareArgs};
use super::documents::{self, CompletionsArgs, ManArgs};
use super::eval::{self, EvalArgs};
use super::generate::{self, GenerateArgs};
use super::inspect::{self, InspectArgs};
use super::mask::{self, MaskCommand};
use super::merge::{self, MergeArgs};
use super::pack::{self, PackArgs, UnpackArgs};
use super::prune::{self, PruneArgs};
use super::recover::{self, RecoverArgs};
use super::report::{self, ReportArgs};
use super::solve::{self, SolveArgs};
use super::verify::{self, VerifyArgs};
use crate::error::Result;
use clap::{CommandFactory, Parser, Subcommand};

/// Prunes trained language models layer by layer: a Hugging Face checkpoint in, a sparse one out.
#[derive(Debug, Parser)]
#[command(name = "fista-pruner", version, max_term_width = 110)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) global: Global,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Prune a checkpoint.
    Prune(Box<PruneArgs>),
    /// Measure a checkpoint's perplexity, or its accuracy on zero-shot tasks.
    Eval(EvalArgs),
    /// Show the sparsity of every linear operator, without running the model.
    Inspect(InspectArgs),
    /// Continue a prompt.
    Generate(GenerateArgs),
    /// Prune in several ways in one pass over the model, and show their errors, perplexities and times in one table.
    Compare(Box<CompareArgs>),
    /// Make the page of a finished run again, from its pruning_report.json.
    Report(ReportArgs),
    /// Prune one matrix from saved statistics.
    Solve(Box<SolveArgs>),
    /// Make one checkpoint of the parts that `prune --shard` has written.
    Merge(MergeArgs),
    /// Write a pruned checkpoint without its zeros. Every command reads the result as it is.
    Pack(PackArgs),
    /// Write the checkpoint that a packed one was made from, byte for byte.
    Unpack(UnpackArgs),
    /// Write a pruned checkpoint's mask to a file, or give a dense checkpoint the zeros of one.
    #[command(subcommand)]
    Mask(MaskCommand),
    /// Adapt the surviving weights of a pruned checkpoint; every zero stays.
    Recover(Box<RecoverArgs>),
    /// Check a finished checkpoint: names, shapes, formats, pattern, finite values, and that nothing else has changed.
    Verify(VerifyArgs),
    /// Print a script that completes this program's commands and flags in a shell.
    Completions(CompletionsArgs),
    /// Print a manual page, or write them all.
    Man(ManArgs),
}

impl Arguments {
    /// Does what the command line asks for.
    ///
    /// # Errors
    /// Those of the subcommand.
    pub(crate) fn run(&self) -> Result<()> {
        let global = &self.global;
        match &self.command {
            Command::Prune(args) => prune::run(args, global),
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
            Command::Completions(args) => documents::completions(args, Self::command()),
            Command::Man(args) => documents::man(args, Self::command()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }
}
