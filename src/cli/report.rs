//! `report`: the page of a finished run, made again from its JSON.

use super::args::{Global, ReportArgs};
use super::show;
use crate::error::{Error, Result};
use crate::report::{HTML_NAME, Report, html};
use serde::Serialize;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

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

/// Writes a file beside its place and renames it, so that there is always a whole one.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    if path.exists() && !is_page(path) {
        return Err(Error::Setting {
            setting: "--output",
            reason: format!("`{}` exists and is no HTML page", path.display()),
        });
    }
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let write = || {
        let mut file = builder().tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|e| e.error)
    };
    write().map_err(Error::io("write", path))?;
    Ok(())
}

/// Temporary files are their owner's alone; a page is as readable as other files of its maker.
fn builder() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".report-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder
}

/// Whether a file begins as a page does. What does not is not replaced: it could be weights.
fn is_page(path: &Path) -> bool {
    let mut start = [0u8; 15];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start.eq_ignore_ascii_case(b"<!doctype html>")
}
