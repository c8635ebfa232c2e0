//! `merge`: the parts of a run over several machines in, the checkpoint that one machine would have made out.

use super::args::{Global, ModelArgs};
use super::text::report_text;
use super::{inputs, show};
use crate::error::Result;
use crate::prune::{Parts, merge};
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct MergeArgs {
    /// The folder that all parts were written to: the --output of `prune --shard`.
    #[arg(long, value_name = "DIR")]
    parts: PathBuf,
    /// Folder to write the pruned checkpoint to.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// The dense model, where it is no longer where the parts found it.
    #[arg(long, value_name = "DIR|ID")]
    model: Option<PathBuf>,
    /// Branch, tag or commit of a model of the hub. Default: main.
    #[arg(long, value_name = "REV", requires = "model")]
    revision: Option<String>,
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
    show::result(global.format, &report, report_text)
}
