//! A task's data: rows with the field names of the data set that the harness uses. In: files, of a folder or fetched from the
//! hub. Out: the rows.

use super::{Task, TaskError};
use crate::error::{Error, Result};
use crate::hub::Fetched;
use crate::text::DataError;
use crate::text::rows::{read_objects, unit};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// A file of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it is called in messages and results: its path, or `ORG/NAME@COMMIT:FILE`.
    pub name: PathBuf,
}

impl From<Fetched> for TaskFile {
    fn from(fetched: Fetched) -> Self {
        Self {
            path: fetched.path,
            name: fetched.name.into(),
        }
    }
}

/// The files of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskFiles {
    /// The questions.
    pub evaluation: TaskFile,
    /// Where examples come from, if not from the questions.
    pub training: Option<TaskFile>,
}

/// One row: its fields, and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The fields by name.
    pub fields: Map<String, Value>,
    /// Its line, or its row in a parquet file, counted from 1.
    pub number: usize,
}

/// The rows of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskData {
    /// The rows in order, at least one.
    pub rows: Vec<Row>,
    /// The file, as [`TaskFile::name`] has it.
    pub file: PathBuf,
    /// SHA-256 in hex of the file's bytes.
    pub sha256: String,
}

/// What follows a task's name in the names of its files; of several files in a folder the first is taken.
const ENDINGS: [&str; 6] = [
    ".jsonl",
    ".jsonl.gz",
    ".jsonl.zst",
    ".json",
    ".ndjson",
    ".parquet",
];

impl TaskFiles {
    /// The files of a task in a folder: `TASK.jsonl`, `.jsonl.gz`, `.jsonl.zst`, `.json`, `.ndjson` or `.parquet`, and the same with
    /// `TASK.train`.
    ///
    /// # Errors
    /// [`TaskError::Missing`] where there are no questions.
    pub fn in_folder(task: Task, dir: &Path) -> Result<Self> {
        let find = |stem: &str| {
            let paths = ENDINGS.iter().map(|end| dir.join(format!("{stem}{end}")));
            let path = paths.into_iter().find(|path| path.exists())?;
            let name = path.clone();
            Some(TaskFile { path, name })
        };
        let evaluation = find(task.name()).ok_or_else(|| TaskError::Missing {
            task: task.name(),
            dir: dir.to_path_buf(),
            tried: ENDINGS.map(|end| format!("{}{end}", task.name())).to_vec(),
        })?;
        let training = find(&format!("{}.train", task.name()));
        Ok(Self { evaluation, training })
    }
}

/// Reads the rows of a file.
///
/// # Errors
/// What makes it unreadable, and [`TaskError::Empty`].
pub fn task_data(file: &TaskFile) -> Result<TaskData> {
    let (mut hasher, mut rows) = (Sha256::new(), Vec::new());
    read_objects(&file.path, &mut hasher, &mut |number, fields| {
        rows.push(Row { fields, number });
    })
    .map_err(|error| unreadable(file, error))?;
    if rows.is_empty() {
        return Err(TaskError::Empty {
            file: file.name.clone(),
        }
        .into());
    }
    Ok(TaskData {
        rows,
        file: file.name.clone(),
        sha256: format!("{:x}", hasher.finalize()),
    })
}

/// The reader's errors speak of texts to calibrate on.
fn unreadable(file: &TaskFile, error: Error) -> Error {
    let (place, reason) = match error {
        Error::Data(DataError::Json { line, reason, .. }) => (format!(", line {line}"), reason),
        Error::Data(DataError::NotUtf8 { line, .. }) => (format!(", line {line}"), "not UTF-8 text".into()),
        Error::Data(DataError::Parquet { reason, .. }) => (String::new(), reason),
        other => return other,
    };
    let file = file.name.clone();
    TaskError::Unreadable { file, place, reason }.into()
}

impl TaskData {
    /// What its rows are counted as: `line` or `row`.
    pub(super) fn unit(&self) -> &'static str {
        unit(&self.file)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::io::Write;

    fn read(task: Task, dir: &Path) -> Result<TaskData> {
        task_data(&TaskFiles::in_folder(task, dir)?.evaluation)
    }

    #[test]
    fn rows_plain_and_compressed() {
        let dir = tempfile::tempdir().unwrap();
        let text = "\u{feff}{\"text\": \"a b\"}\r\n\n{\"text\": \"c d\"}";
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text.as_bytes()).unwrap();
        let gzip = gzip.finish().unwrap();
        let zstandard = zstd::stream::encode_all(text.as_bytes(), 1).unwrap();
        let name = |end: &str| dir.path().join(format!("lambada_openai.{end}"));
        for (end, bytes) in [
            ("jsonl.zst", zstandard.as_slice()),
            ("jsonl.gz", &gzip),
            ("jsonl", text.as_bytes()),
        ] {
            std::fs::write(name(end), bytes).unwrap();
            let data = read(Task::LambadaOpenai, dir.path()).unwrap();
            assert_eq!(data.file, name(end));
            assert_eq!(data.sha256, format!("{:x}", Sha256::digest(bytes)));
            assert_eq!(data.rows[1].fields["text"], "c d");
            assert_eq!(data.rows.iter().map(|row| row.number).collect::<Vec<_>>(), [1, 3]);
        }
        let files = || TaskFiles::in_folder(Task::LambadaOpenai, dir.path()).unwrap();
        assert_eq!(files().training, None);
        std::fs::write(name("train.jsonl"), text).unwrap();
        assert_eq!(task_data(&files().training.unwrap()).unwrap().rows.len(), 2);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let data = |end: &str, text: &[u8]| {
            let path = dir.path().join(format!("piqa{end}"));
            std::fs::write(&path, text).unwrap();
            let error = read(Task::Piqa, dir.path()).unwrap_err();
            std::fs::remove_file(path).unwrap();
            error
        };
        assert!(matches!(
            data(".jsonl", b"\n"),
            Error::Task(TaskError::Empty { .. })
        ));
        for (end, text, said) in [
            (".jsonl", &b"{}\n[1]"[..], ", line 2: not a JSON object"),
            (".json", b"{}\n{\"a\": 1} x", ", line 2: not a JSON object"),
            (".ndjson", b"{}\n\n\xff", ", line 3: not UTF-8"),
            (".parquet", b"PAR1", "piqa.parquet` cannot be read"),
        ] {
            let error = data(end, text);
            assert!(matches!(error, Error::Task(TaskError::Unreadable { .. })));
            assert!(error.to_string().contains(said), "{error}");
        }
        let missing = read(Task::Rte, dir.path()).unwrap_err();
        assert!(missing.to_string().contains("rte.jsonl"), "{missing}");
        assert!(missing.hint().unwrap().contains("`task_data`"));
    }
}
