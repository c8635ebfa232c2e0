//! What can be wrong with a task, its data or its settings, one variant each.

use std::path::PathBuf;

/// Why a task cannot be evaluated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// No data file of a task in the folder.
    #[error("`{}` has no data of the task {task}: none of {}", dir.display(), tried.join(", "))]
    Missing {
        /// The task's name.
        task: &'static str,
        /// The folder.
        dir: PathBuf,
        /// Names of files that were looked for.
        tried: Vec<String>,
    },

    /// A file whose rows cannot be had.
    #[error("`{}` cannot be read{place}: {reason}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Where in it, with a comma before; empty where that is not known.
        place: String,
        /// What is wrong with it.
        reason: String,
    },

    /// A row that is no question of the task.
    #[error("`{}`, {unit} {number}: not a row of {task}: {reason}", file.display())]
    Row {
        /// The task's name.
        task: &'static str,
        /// The file.
        file: PathBuf,
        /// `line`, or `row` of a parquet file.
        unit: &'static str,
        /// Counted from 1.
        number: usize,
        /// What is wrong with it.
        reason: String,
    },

    /// A file without rows.
    #[error("`{}` has no rows", file.display())]
    Empty {
        /// The file.
        file: PathBuf,
    },

    /// More examples than there are rows to take them from.
    #[error("{asked} examples a question cannot be drawn from the {rows} rows of `{}`", file.display())]
    TooFewExamples {
        /// Examples asked for.
        asked: usize,
        /// The file.
        file: PathBuf,
        /// Its rows.
        rows: usize,
    },

    /// A request that no log-likelihood can be given for.
    #[error("{task}, item {item}, choice {choice}: {reason}")]
    Request {
        /// The task's name.
        task: &'static str,
        /// Counted from 0.
        item: usize,
        /// Counted from 0.
        choice: usize,
        /// What is wrong with it.
        reason: String,
    },
}

impl TaskError {
    /// What the user can do about it, where there is something.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Missing { task, .. } => format!(
                "leave ‹task-data› out to fetch the data from the hub; or save the rows of its data set there as {task}.jsonl, \
                 one JSON object a line with the data set's own fields, or as {task}.parquet"
            ),
            Self::Row { .. } | Self::Unreadable { .. } => {
                "rows have the fields of the data set that the harness uses; docs/zero-shot.md lists them"
                    .into()
            }
            Self::TooFewExamples { .. } => "ask for fewer with ‹num-fewshot›, or give more rows".into(),
            Self::Empty { .. } | Self::Request { .. } => return None,
        };
        Some(hint)
    }
}
