//! A file that is no report.

use std::path::PathBuf;

/// A file that is no report of a pruning run, or one of another version.
#[derive(Debug, thiserror::Error)]
#[error("`{}` cannot be used as a report: {reason}", path.display())]
pub struct ReportError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

impl ReportError {
    pub(crate) fn hint(&self) -> Option<String> {
        let advice = "give the folder of a pruned model, or the pruning_report.json in it, made by this version of `prune`";
        Some(advice.to_owned())
    }
}
