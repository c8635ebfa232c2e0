//! One document of a data file, and what the readers of rows share: the fields that are looked for, and errors that name them.

use super::{Conversation, DataError};
use crate::error::Error;
use minijinja::value::{Value, ValueKind};
use std::fmt;
use std::path::{Path, PathBuf};

/// One document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// Text, tokenised with the tokenizer's own special tokens.
    Text(String),
    /// Messages, for the model's chat template, which writes the special tokens itself.
    Chat(Conversation),
}

impl Document {
    pub(crate) fn is_blank(&self) -> bool {
        matches!(self, Self::Text(text) if text.trim().is_empty())
    }
}

impl From<String> for Document {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl PartialEq<&str> for Document {
    fn eq(&self, other: &&str) -> bool {
        matches!(self, Self::Text(text) if text == other)
    }
}

/// Fields that are looked for where none is named, in this order.
pub(crate) const FIELDS: [&str; 2] = ["text", "messages"];

/// All fields of a row by their names.
pub(crate) type Object = serde_json::Map<String, serde_json::Value>;

/// A value of a row as a document.
pub(crate) fn document(field: &str, value: Value) -> Result<Document, String> {
    match value.kind() {
        ValueKind::String => Ok(Document::Text(value.as_str().unwrap_or_default().to_owned())),
        ValueKind::Seq => Conversation::from_value(value)
            .map(Document::Chat)
            .map_err(|e| format!("`{field}`: {e}")),
        other => Err(format!(
            "`{field}` holds a {other}, neither a text nor a list of messages"
        )),
    }
}

/// That a row or a file has no field that was looked for.
pub(crate) fn missing(what: &str, field: Option<&str>) -> String {
    match field {
        Some(field) => format!("{what} has no field `{field}`"),
        None => format!("{what} has neither a field `{}` nor `{}`", FIELDS[0], FIELDS[1]),
    }
}

/// The path, for errors of readers that know none.
pub(crate) fn parquet_error(file: &Path, reason: impl fmt::Display) -> Error {
    let file: PathBuf = file.to_path_buf();
    let reason = reason.to_string();
    DataError::Parquet { file, reason }.into()
}
