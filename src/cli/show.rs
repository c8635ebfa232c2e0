//! Results on stdout: tables for people, one JSON document for programs.

use super::args::{Format, Global};
use crate::error::{ConfigError, Error, Result};
pub(crate) use crate::report::bytes;
use fista_pruner_backends::DeviceSpec;
use serde::Serialize;
use std::io::Write;

/// Prints `value` as one JSON document, or what `text` makes of it.
///
/// # Errors
/// When stdout cannot be written.
pub(crate) fn result<T: Serialize>(format: Format, value: &T, text: impl FnOnce(&T) -> String) -> Result<()> {
    let output = match format {
        // `check` lets only `compare` ask for Markdown, and that makes its own.
        Format::Text | Format::Markdown => text(value),
        Format::Json => serde_json::to_string_pretty(value)
            .map_err(|e| Error::internal(format!("a result is no JSON: {e}")))?,
    };
    print(&output)
}

/// As [`result`], with advice below the text for people: what the numbers mean, and which command comes next. `--quiet` leaves it
/// out.
///
/// # Errors
/// As [`result`].
pub(crate) fn with_advice<T: Serialize>(
    global: &Global,
    value: &T,
    text: impl FnOnce(&T) -> String,
    advice: impl FnOnce(&T) -> String,
) -> Result<()> {
    result(global.format, value, |value| match global.quiet {
        true => text(value),
        false => format!("{}\n\n{}", text(value).trim_end(), advice(value)),
    })
}

/// A device of a report, as messages call it.
pub(crate) fn device(name: &str) -> String {
    let device = name.parse::<DeviceSpec>();
    device.map_or_else(|_| name.to_owned(), |device| device.shown())
}

/// Refuses a format that the command has not got, before any work.
///
/// # Errors
/// When `format` is Markdown and the command has no table for it.
pub(crate) fn check(format: Format, has_markdown: bool) -> Result<()> {
    match format {
        Format::Markdown if !has_markdown => Err(Error::from(ConfigError::Setting {
            setting: "--format",
            reason: "only `compare` has a table for Markdown; use text or json".into(),
        })),
        _ => Ok(()),
    }
}

/// Prints text, ended by one line break.
///
/// # Errors
/// When stdout cannot be written.
pub(crate) fn print(output: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    let written = writeln!(stdout, "{}", output.trim_end()).and_then(|()| stdout.flush());
    match written {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(Error::io("write", "standard output")),
    }
}

/// Rows in aligned columns; the first column to the left, the others to the right.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([header[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &[String]| {
        let mut line = String::new();
        for (column, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            let pad = " ".repeat(width - cell.chars().count());
            line += if column > 0 { "  " } else { "" };
            line += &if column == 0 {
                format!("{cell}{pad}")
            } else {
                format!("{pad}{cell}")
            };
        }
        line.trim_end().to_owned() + "\n"
    };
    let header: Vec<String> = header.iter().map(|h| (*h).to_owned()).collect();
    std::iter::once(&header)
        .chain(rows)
        .map(|row| line(row))
        .collect()
}

/// The same as a Markdown table.
pub(crate) fn markdown(header: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: Vec<&str>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(header.to_vec());
    text += &format!("|---|{}\n", "---:|".repeat(header.len().saturating_sub(1)));
    for row in rows {
        text += &line(row.iter().map(String::as_str).collect());
    }
    text
}

impl std::fmt::Display for crate::system::Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "memory {} (peak {})", bytes(self.resident), bytes(self.peak))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_tables() {
        assert_eq!([bytes(999), bytes(1_500_000)], ["999 B", "1.50 MB"]);
        let rows = [
            vec!["a".to_owned(), "10".to_owned()],
            vec!["bcd".to_owned(), "9".to_owned()],
        ];
        assert_eq!(table(&["x", "n"], &rows), "x     n\na    10\nbcd   9\n");
    }
}
