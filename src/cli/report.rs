//! `report`: the page of a finished run, made again from its JSON.

use super::args::Global;
use super::help::MODEL;
use super::show;
use crate::error::{ConfigError, Error, Result};
use crate::report::{HTML_NAME, Report, html};
use crate::system::AtomicFile;
use clap::Args;
use serde::Serialize;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
#[command(next_help_heading = MODEL)]
pub(crate) struct ReportArgs {
    /// The folder of the pruned model, or its pruning_report.json.
    #[arg(long, value_name = "DIR|FILE")]
    input: PathBuf,
    /// The page to write. It replaces an earlier page. Default: report.html next to the JSON file.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Outcome {
    input: String,
    output: String,
}

pub(crate) fn run(args: &ReportArgs, global: &Global) -> Result<()> {
    let (report, input) = Report::open(&args.input)?;
    let output = args
        .output
        .clone()
        .unwrap_or_else(|| input.with_file_name(HTML_NAME));
    replace(&output, html::page(&report).as_bytes())?;
    let outcome = Outcome {
        input: input.display().to_string(),
        output: output.display().to_string(),
    };
    show::result(global.format, &outcome, |outcome| {
        format!("wrote {}", outcome.output)
    })
}

/// Writes the page in place of an earlier one, and of nothing else.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    if path.exists() && !is_page(path) {
        return Err(Error::from(ConfigError::Setting {
            setting: "--output",
            reason: format!("`{}` exists and is no HTML page", path.display()),
        }));
    }
    let mut file = AtomicFile::create(path)?;
    file.write(bytes)?;
    file.finish()
}

/// Whether a file begins as a page does. What does not is not replaced: it could be weights.
fn is_page(path: &Path) -> bool {
    let mut start = [0u8; 15];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start.eq_ignore_ascii_case(b"<!doctype html>")
}
