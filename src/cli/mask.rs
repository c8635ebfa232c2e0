//! `mask export` and `mask apply`: a pruned model's mask without its weights.

use super::args::Global;
use super::help::MODEL;
use super::show;
use crate::artifact::mask::{self, MaskSummary};
use crate::checkpoint::Model;
use crate::error::Result;
use clap::{Args, Subcommand};
use serde::Serialize;
use std::path::{Path, PathBuf};

#[derive(Debug, Subcommand)]
pub(crate) enum MaskCommand {
    /// Write which weights a pruned model keeps, with one bit per weight.
    Export(ExportArgs),
    /// Write a dense model with the zeros of a mask. All other weights stay as they are.
    Apply(ApplyArgs),
}

#[derive(Debug, Args)]
#[command(next_help_heading = MODEL)]
pub(crate) struct ExportArgs {
    /// The folder of the pruned model.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// The file for the mask, in the safetensors format.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Replace the file if it exists.
    #[arg(long)]
    overwrite: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = MODEL)]
pub(crate) struct ApplyArgs {
    /// The folder of the dense model.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// A file that `mask export` wrote.
    #[arg(long, value_name = "FILE")]
    mask: PathBuf,
    /// The folder for the pruned model.
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
            "{} of {} weights are zero ({:.4}) in {} linear layers\nthe mask has {}",
            s.zeros,
            s.weights,
            s.sparsity,
            s.operators,
            show::bytes(s.file_bytes),
        );
        if s.without_mask > 0 {
            text += &format!(
                "\n{} linear layers have no mask and stay as they are",
                s.without_mask
            );
        }
        text + &format!("\nwrote {}", o.output)
    })
}
