//! The files of a tokenizer. In: a model folder. Out: their fields, and errors that name the file.

use crate::error::{Error, Result};
use crate::json;
use crate::text::TokenizerError;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The JSON files beside a vocabulary; empty where there is none.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) dir: PathBuf,
    /// `tokenizer_config.json`.
    pub(super) config: Map<String, Value>,
    /// `special_tokens_map.json`.
    pub(super) special: Map<String, Value>,
    /// `added_tokens.json`: ids by texts.
    pub(super) added: Map<String, Value>,
    /// Names in `tokenizer_config.json` and its `extra_special_tokens`, in the file's order.
    pub(super) order: Vec<String>,
    /// `config.json`, the model's.
    model: Map<String, Value>,
}

impl Folder {
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let object = |name: &str| read(&dir.join(name));
        let file = dir.join("tokenizer_config.json");
        let config = text(&file)?;
        Ok(Self {
            dir: dir.to_path_buf(),
            order: order(config.as_deref().unwrap_or_default()),
            config: parsed(&file, config)?,
            special: object("special_tokens_map.json")?,
            added: object("added_tokens.json")?,
            // Whoever opens the model says what is wrong with it.
            model: object("config.json").unwrap_or_default(),
        })
    }

    /// The class that reads the tokenizer in transformers, by the tokenizer's own file or the model's; without `Fast` at the end.
    pub(super) fn class(&self) -> Option<&str> {
        let named = [&self.config, &self.model]
            .into_iter()
            .find_map(|file| file.get("tokenizer_class")?.as_str());
        named.map(|class| class.strip_suffix("Fast").unwrap_or(class))
    }

    pub(super) fn model_type(&self) -> &str {
        self.model
            .get("model_type")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        self.config.get(name).and_then(Value::as_bool)
    }

    /// Says that a field of `tokenizer_config.json` cannot be honoured.
    pub(super) fn warn(&self, field: &str, why: &str) {
        let file = self.dir.join("tokenizer_config.json");
        tracing::warn!("`{}`, `{field}`: {why}", file.display());
    }
}

/// The names of an object, and of `extra_special_tokens` in it.
fn order(text: &str) -> Vec<String> {
    // These values keep the order of names.
    let object: minijinja::Value = json::parse(text).unwrap_or_default();
    let extra = object.get_attr("extra_special_tokens").unwrap_or_default();
    let names = |object: minijinja::Value| {
        object
            .try_iter()
            .into_iter()
            .flatten()
            .map(|name| name.to_string())
    };
    names(object).chain(names(extra)).collect()
}

/// The text of a file; `None` where there is none.
pub(super) fn text(file: &Path) -> Result<Option<String>> {
    match std::fs::read(file) {
        Ok(bytes) => Ok(Some(
            String::from_utf8(bytes).map_err(|_| invalid(file, "it is not UTF-8 text"))?,
        )),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::io("read", file)(source)),
    }
}

/// A JSON file; the default where there is none.
pub(in crate::text) fn read<T: DeserializeOwned + Default>(file: &Path) -> Result<T> {
    parsed(file, text(file)?)
}

fn parsed<T: DeserializeOwned + Default>(file: &Path, text: Option<String>) -> Result<T> {
    match text {
        Some(text) => Ok(json::parse(&text).map_err(|e| invalid(file, e))?),
        None => Ok(T::default()),
    }
}

pub(super) fn invalid(file: &Path, error: impl std::fmt::Display) -> TokenizerError {
    TokenizerError::Invalid {
        file: file.to_path_buf(),
        reason: error.to_string(),
    }
}
