//! `verify`: a finished checkpoint, checked from its files alone.

use super::args::Global;
use super::help::MODEL;
use super::show;
use crate::artifact::verify::{Verification, verify};
use crate::config::Pattern;
use crate::error::{ArtifactError, Error, Result};
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(next_help_heading = MODEL)]
pub(crate) struct VerifyArgs {
    /// The folder of the model to check, packed or not.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// The folder of the dense model that it was made from. Everything except the pruned linear layers must be the same.
    #[arg(long, value_name = "DIR")]
    source: Option<PathBuf>,
    /// The sparsity that pruned linear layers must have: a fraction (0.5), a percentage (50%), or n:m (2:4). Default: the one in
    /// pruning_report.json.
    #[arg(long, value_name = "PATTERN", value_parser = str::parse::<Pattern>)]
    sparsity: Option<Pattern>,
}

#[derive(Debug, Serialize)]
struct Outcome {
    model: String,
    source: Option<String>,
    #[serde(flatten)]
    found: Verification,
}

pub(crate) fn run(args: &VerifyArgs, global: &Global) -> Result<()> {
    let found = verify(&args.model, args.source.as_deref(), args.sparsity)?;
    let problems = found.problems.len();
    let outcome = Outcome {
        model: args.model.display().to_string(),
        source: args.source.as_ref().map(|s| s.display().to_string()),
        found,
    };
    show::result(global.format, &outcome, text)?;
    if problems == 0 {
        return Ok(());
    }
    Err(Error::from(ArtifactError::Unverified {
        path: args.model.clone(),
        problems,
    }))
}

fn text(outcome: &Outcome) -> String {
    let found = &outcome.found;
    let pattern = found.pattern.map_or("none".to_owned(), |p| p.to_string());
    let mut text = format!(
        "model      {}\nread       {} tensors, {} of them as pruned linear layers with sparsity {:.4}\npattern    {pattern}",
        outcome.model, found.tensors, found.operators, found.sparsity,
    );
    if let Some(source) = &outcome.source {
        text += &format!(
            "\ncompared   {} tensors and {} side files with {source}",
            found.tensors_compared, found.files_compared
        );
    }
    for note in &found.notes {
        text += &format!("\nnote       {note}");
    }
    for problem in &found.problems {
        text += &format!("\nWRONG      {}: {}", problem.subject, problem.message);
    }
    if found.ok {
        text += "\nno problem was found";
    }
    text
}
