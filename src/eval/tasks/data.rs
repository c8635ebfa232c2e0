//! A task's data file: one JSON object a line, with the field names of the data set that the harness uses.

use super::{Task, TaskError};
use crate::calibration::DataError;
use crate::error::{Error, Result};
use flate2::read::MultiGzDecoder;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Which rows of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// The questions: `TASK.jsonl`.
    Evaluation,
    /// Where examples come from: `TASK.train.jsonl`.
    Training,
}

/// One row: its fields, and the line that it stands on.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The fields by name.
    pub fields: Map<String, Value>,
    /// Counted from 1.
    pub line: usize,
}

/// The rows of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskData {
    /// The rows in order, at least one.
    pub rows: Vec<Row>,
    /// The file.
    pub file: PathBuf,
    /// SHA-256 in hex of the file's bytes.
    pub sha256: String,
}

/// Reads the rows of a task from a folder: `TASK.jsonl` or `TASK.jsonl.gz`.
///
/// # Errors
/// [`TaskError::Missing`] where there is no such file, and whatever makes it unreadable.
pub fn task_data(task: Task, dir: &Path, split: Split) -> Result<TaskData> {
    let names = file_names(task, split);
    match names.iter().map(|name| dir.join(name)).find(|file| file.exists()) {
        Some(file) => read(&file),
        None => Err(TaskError::Missing {
            task: task.name(),
            dir: dir.to_path_buf(),
            tried: names,
        }
        .into()),
    }
}

fn file_names(task: Task, split: Split) -> Vec<String> {
    let stem = match split {
        Split::Evaluation => task.name().to_owned(),
        Split::Training => format!("{}.train", task.name()),
    };
    [".jsonl", ".jsonl.gz"]
        .iter()
        .map(|end| format!("{stem}{end}"))
        .collect()
}

fn read(file: &Path) -> Result<TaskData> {
    let bytes = std::fs::read(file).map_err(Error::io("read", file))?;
    let sha256 = format!("{:x}", Sha256::digest(&bytes));
    let bytes = if file.extension().is_some_and(|end| end == "gz") {
        let mut text = Vec::new();
        MultiGzDecoder::new(bytes.as_slice())
            .read_to_end(&mut text)
            .map_err(Error::io("decompress", file))?;
        text
    } else {
        bytes
    };
    let rows = parse(file, &bytes)?;
    if rows.is_empty() {
        return Err(TaskError::Empty {
            file: file.to_path_buf(),
        }
        .into());
    }
    Ok(TaskData {
        rows,
        file: file.to_path_buf(),
        sha256,
    })
}

/// The object of each line that is not blank.
fn parse(file: &Path, bytes: &[u8]) -> Result<Vec<Row>> {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let mut rows = Vec::new();
    for (line, bytes) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        if bytes.trim_ascii().is_empty() {
            continue;
        }
        let fields = serde_json::from_slice(bytes).map_err(|error| DataError::Json {
            file: file.to_path_buf(),
            line,
            reason: format!("not a JSON object: {error}"),
        })?;
        rows.push(Row { fields, line });
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::io::Write;

    #[test]
    fn rows_plain_and_compressed() {
        let dir = tempfile::tempdir().unwrap();
        let text = "\u{feff}{\"text\": \"a b\"}\r\n\n{\"text\": \"c d\"}";
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text.as_bytes()).unwrap();
        std::fs::write(dir.path().join("lambada_openai.jsonl.gz"), gzip.finish().unwrap()).unwrap();
        let data = |split| task_data(Task::LambadaOpenai, dir.path(), split);
        let rows = data(Split::Evaluation).unwrap().rows;
        assert_eq!(rows[1].fields["text"], "c d");
        assert_eq!((rows.len(), rows[0].line, rows[1].line), (2, 1, 3));
        assert!(matches!(
            data(Split::Training),
            Err(Error::Task(TaskError::Missing { .. }))
        ));
        std::fs::write(dir.path().join("lambada_openai.train.jsonl"), text).unwrap();
        assert_eq!(data(Split::Training).unwrap().rows, rows);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let data = |text: &str| {
            std::fs::write(dir.path().join("piqa.jsonl"), text).unwrap();
            task_data(Task::Piqa, dir.path(), Split::Evaluation).unwrap_err()
        };
        assert!(matches!(data("\n"), Error::Task(TaskError::Empty { .. })));
        assert!(matches!(
            data("{}\n[1]"),
            Error::Data(DataError::Json { line: 2, .. })
        ));
        let missing = task_data(Task::Rte, dir.path(), Split::Evaluation).unwrap_err();
        assert!(missing.to_string().contains("rte.jsonl"), "{missing}");
        assert!(missing.hint().unwrap().contains("--task-data"));
    }
}
