//! `merge`: the parts of a run over several machines in, the checkpoint that one machine would have made out.

use super::args::{Global, ModelArgs};
use super::help::MODEL;
use super::text::report_text;
use super::{advice, inputs, show};
use crate::error::Result;
use crate::prune::{Parts, merge};
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(next_help_heading = MODEL)]
pub(crate) struct MergeArgs {
    /// The folder with all parts: the --output of `prune --shard`.
    #[arg(long, value_name = "DIR")]
    parts: PathBuf,
    /// The dense model, if it is no longer in the place where the parts found it.
    #[arg(long, value_name = "DIR|ID")]
    model: Option<PathBuf>,
    /// Branch, tag or commit of a model of the Hub. Default: main.
    #[arg(long, value_name = "REV", requires = "model")]
    revision: Option<String>,
    /// The folder for the pruned model.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Replace the output folder if it exists.
    #[arg(long)]
    overwrite: bool,
}

pub(crate) fn run(args: &MergeArgs, global: &Global) -> Result<()> {
    let parts = Parts::open(&args.parts)?;
    let found = parts.first().model.clone();
    let wanted = ModelArgs {
        model: Some(args.model.clone().unwrap_or(found)),
        revision: args.revision.clone(),
    };
    let model = inputs::model(&wanted, global)?;
    let report = merge(&parts, &model, &args.output, args.overwrite)?;
    show::with_advice(global, &report, report_text, |report| {
        advice::pruned(report, false)
    })
}
