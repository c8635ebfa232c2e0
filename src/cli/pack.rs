//! `pack` and `unpack`: a pruned checkpoint without its zeros, and back.

use super::args::Global;
use super::help::MODEL;
use super::{advice, show};
use crate::artifact::pack::compressed_tensors::{self, ExportSummary};
use crate::artifact::pack::{self, PackSummary, Sizes};
use crate::checkpoint::{Checkpoint, Model};
use crate::error::Result;
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(next_help_heading = MODEL)]
pub(crate) struct PackArgs {
    /// The folder of the pruned model.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// The folder for the packed model.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// The format. `packed`: every command of this program reads it, and `unpack` gives every byte back. `compressed-tensors`: for old
    /// versions of other programs; this program does not read it.
    #[arg(long, value_enum, default_value_t = Container::Packed)]
    container: Container,
    /// Replace the output folder if it exists.
    #[arg(long)]
    overwrite: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Container {
    Packed,
    CompressedTensors,
}

#[derive(Debug, Args)]
#[command(next_help_heading = MODEL)]
pub(crate) struct UnpackArgs {
    /// The folder of the packed model.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// The folder for the plain model.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Replace the output folder if it exists.
    #[arg(long)]
    overwrite: bool,
}

#[derive(Debug, Serialize)]
struct Outcome<T> {
    model: String,
    output: String,
    #[serde(flatten)]
    summary: T,
}

pub(crate) fn pack(args: &PackArgs, global: &Global) -> Result<()> {
    let (model, output) = (
        args.model.display().to_string(),
        args.output.display().to_string(),
    );
    match args.container {
        Container::Packed => {
            let source = Checkpoint::open(&args.model)?;
            let summary = pack::pack(&source, &args.output, args.overwrite)?;
            let outcome = Outcome {
                model,
                output,
                summary,
            };
            show::with_advice(
                global,
                &outcome,
                |o| packed_text(&o.summary, &o.output),
                |o| advice::packed(&o.output),
            )
        }
        Container::CompressedTensors => {
            let source = Model::open(&args.model)?;
            let summary = compressed_tensors::export(&source, &args.output, args.overwrite)?;
            let outcome = Outcome {
                model,
                output,
                summary,
            };
            show::result(global.format, &outcome, |o| exported_text(&o.summary, &o.output))
        }
    }
}

#[derive(Debug, Serialize)]
struct Unpacked {
    weight_files: Vec<String>,
}

pub(crate) fn unpack(args: &UnpackArgs, global: &Global) -> Result<()> {
    let source = Checkpoint::open(&args.model)?;
    let weight_files = pack::unpack(&source, &args.output, args.overwrite)?;
    let outcome = Outcome {
        model: args.model.display().to_string(),
        output: args.output.display().to_string(),
        summary: Unpacked { weight_files },
    };
    show::result(global.format, &outcome, |o| {
        format!(
            "{} weight files, byte for byte as they were packed\nwrote {}",
            o.summary.weight_files.len(),
            o.output
        )
    })
}

fn row(name: &str, sizes: &Sizes) -> Vec<String> {
    vec![
        name.to_owned(),
        sizes.count.to_string(),
        show::bytes(sizes.plain_bytes),
        show::bytes(sizes.packed_bytes),
        format!("{:.2} %", 100.0 * sizes.share()),
    ]
}

const HEADER: [&str; 5] = ["", "number", "plain", "packed", "share"];

fn packed_text(summary: &PackSummary, output: &str) -> String {
    let mut rows: Vec<Vec<String>> = summary
        .by_encoding
        .iter()
        .map(|(encoding, sizes)| row(&format!("tensors as {encoding}"), sizes))
        .collect();
    if rows.len() > 1 {
        rows.push(row("tensors packed", &summary.packed_tensors));
    }
    rows.push(row("tensors as they were", &summary.other_tensors));
    rows.push(row("weight files", &summary.weight_files));
    let mut text = show::table(&HEADER, &rows);
    if summary.converted {
        text += "\nthe source is in torch's format: unpacking gives safetensors files with the same tensors";
    }
    text + &not_copied(&summary.left_out) + &format!("\nwrote {output}")
}

fn exported_text(summary: &ExportSummary, output: &str) -> String {
    let rows = [
        row("linear layers", &summary.packed_tensors),
        row("weight files", &summary.weight_files),
    ];
    let format = serde_json::json!(summary.sparse_format);
    let mut text = show::table(&HEADER, &rows);
    text += &format!(
        "\nformat {}, which is read by",
        format.as_str().unwrap_or_default()
    );
    for reader in &summary.readers {
        text += &format!("\n- {reader}");
    }
    text + &not_copied(&summary.left_out) + &format!("\nwrote {output}")
}

fn not_copied(left_out: &[String]) -> String {
    left_out
        .iter()
        .map(|file| {
            format!("\nnot copied, it holds weights in another form or is no part of the model: {file}")
        })
        .collect()
}
