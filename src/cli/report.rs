//! `report`: the page of a finished run, made again from its JSON.

use super::args::Global;
use super::help::MODEL;
use super::show;
use crate::error::{ConfigError, Error, Result};
use crate::report::{HTML_NAME, Report, html};
use crate::system::{AtomicFile, Destination, FilePlace};
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
    /// The page to write. Default: report.html next to the JSON file, in place of an earlier page.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace the page of --output if it exists.
    #[arg(long, requires = "output")]
    overwrite: bool,
}

#[derive(Debug, Serialize)]
struct Outcome {
    input: String,
    output: String,
}

pub(crate) fn run(args: &ReportArgs, global: &Global) -> Result<()> {
    let (report, input) = Report::open(&args.input)?;
    let (output, destination) = match &args.output {
        Some(output) => {
            let destination = Destination::new(output, args.overwrite);
            (
                output.clone(),
                destination.apart_from(&args.input).apart_from(&input),
            )
        }
        // The page of this very run, which is made anew.
        None => {
            let output = input.with_file_name(HTML_NAME);
            (output.clone(), Destination::new(output, true))
        }
    };
    write(&destination.file_or_stream()?, html::page(&report).as_bytes())?;
    let outcome = Outcome {
        input: input.display().to_string(),
        output: output.display().to_string(),
    };
    show::result(global.format, &outcome, |outcome| {
        format!("wrote {}", outcome.output)
    })
}

/// Writes the page in place of an earlier one, and of nothing else.
fn write(place: &FilePlace, bytes: &[u8]) -> Result<()> {
    if let FilePlace::Plain(path) = place
        && path.exists()
        && !is_page(path)
    {
        return Err(Error::from(ConfigError::Setting {
            setting: "--output",
            reason: format!("`{}` exists and is no HTML page", path.display()),
        }));
    }
    let mut file = AtomicFile::open(place)?;
    file.write(bytes)?;
    file.finish()
}

/// Whether a file begins as a page does. What does not is not replaced: it could be weights.
fn is_page(path: &Path) -> bool {
    let mut start = [0u8; 15];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start.eq_ignore_ascii_case(b"<!doctype html>")
}
