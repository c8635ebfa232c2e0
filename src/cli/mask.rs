//! `mask export` and `mask apply`: a pruned model's mask without its weights.

use super::args::Global;
use super::show;
use crate::artifact::mask::{self, MaskSummary};
use crate::checkpoint::Model;
use crate::error::Result;
use clap::{Args, Subcommand};
use serde::Serialize;
use std::path::{Path, PathBuf};

#[derive(Debug, Subcommand)]
pub(crate) enum MaskCommand {
    /// Write which weights a pruned checkpoint keeps, a bit a weight.
    Export(ExportArgs),
    /// Write a dense checkpoint with the zeros of a mask; every other weight stays as it is.
    Apply(ApplyArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Folder of the pruned checkpoint.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// The mask's file, in safetensors.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Replace the file if it exists.
    #[arg(long)]
    overwrite: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// Folder of the dense checkpoint.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// A file that `mask export` wrote.
    #[arg(long, value_name = "FILE")]
    mask: PathBuf,
    /// Folder to write the pruned checkpoint to.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Replace the output folder if it exists.
    #[arg(long)]
    overwrite: bool,
}

#[derive(Debug, Serialize)]
struct Outcome {
    model: String,
    output: String,
    #[serde(flatten)]
    summary: MaskSummary,
}

pub(crate) fn run(command: &MaskCommand, global: &Global) -> Result<()> {
    match command {
        MaskCommand::Export(args) => {
            let summary = mask::export(&Model::open(&args.model)?, &args.output, args.overwrite)?;
            print(&args.model, &args.output, summary, global)
        }
        MaskCommand::Apply(args) => {
            let dense = Model::open(&args.model)?;
            let summary = mask::apply(&dense, &args.mask, &args.output, args.overwrite)?;
            print(&args.model, &args.output, summary, global)
        }
    }
}

fn print(model: &Path, output: &Path, summary: MaskSummary, global: &Global) -> Result<()> {
    let outcome = Outcome {
        model: model.display().to_string(),
        output: output.display().to_string(),
        summary,
    };
    show::result(global.format, &outcome, |o| {
        let s = &o.summary;
        let mut text = format!(
            "{} of {} weights are zero ({:.4}) in {} operators\nthe mask has {}",
            s.zeros,
            s.weights,
            s.sparsity,
            s.operators,
            show::bytes(s.file_bytes),
        );
        if s.without_mask > 0 {
            text += &format!("\n{} operators have no mask and stay as they are", s.without_mask);
        }
        text + &format!("\nwrote {}", o.output)
    })
}
