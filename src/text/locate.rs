//! What the names of a run's data stand for: files of this machine, published data sets, data sets of the hub, the built-in text.

use super::{DataError, Published};
use crate::error::{Error, Result};
use crate::hub::{DatasetId, Fetched, OpenHub, Split};
use std::path::{Path, PathBuf};

/// The name of the built-in text.
pub(crate) const DEMO: &str = "demo";

/// Local files, and what to call them.
pub(crate) struct Files {
    pub(crate) paths: Vec<PathBuf>,
    pub(crate) names: Vec<String>,
    /// Whose protocol they are used with.
    pub(crate) published: Option<Published>,
}

/// The built-in text, unless a file has its name.
pub(crate) fn is_demo_text(name: &str) -> bool {
    name == DEMO && !Path::new(name).is_file()
}

/// What names stand for, as local files. A path that exists wins over everything else that a name could mean.
pub(crate) fn locate(names: &[String], split: Split, hub: &mut OpenHub<'_>) -> Result<Files> {
    let mut files = Files {
        paths: Vec::new(),
        names: Vec::new(),
        published: None,
    };
    let mut opened = None;
    for name in names {
        let (published, found) = locate_one(name, split, || match &mut opened {
            Some(hub) => Ok(hub),
            empty => Ok(empty.insert(hub()?)),
        })?;
        if published.is_some() && names.len() > 1 {
            return Err(DataError::PublishedMixed { name: name.clone() }.into());
        }
        files.published = published;
        for file in found {
            files.paths.push(file.path);
            files.names.push(file.name);
        }
    }
    Ok(files)
}

fn locate_one<'h, 'a: 'h>(
    name: &str,
    split: Split,
    hub: impl FnOnce() -> Result<&'h mut crate::hub::Hub<'a>>,
) -> Result<(Option<Published>, Vec<Fetched>)> {
    if let Some(file) = local(name) {
        return Ok((None, vec![file]));
    }
    if let Some((published, path)) = name.split_once('=')
        && let Some(published) = Published::by_name(published)
    {
        return match local(path) {
            Some(file) => Ok((Some(published), vec![file])),
            None => Err(unknown(path)),
        };
    }
    if let Some(published) = Published::by_name(name) {
        return Ok((Some(published), hub()?.data(&published.file(split), split)?));
    }
    match DatasetId::parse(name).filter(|id| id.file.is_some() || !looks_like_a_file(name)) {
        Some(id) => Ok((None, hub()?.data(&id, split)?)),
        None => Err(unknown(name)),
    }
}

/// A file of this machine under its own name.
fn local(name: &str) -> Option<Fetched> {
    let path = PathBuf::from(name);
    path.exists().then(|| Fetched {
        name: path
            .file_name()
            .unwrap_or(path.as_os_str())
            .to_string_lossy()
            .into_owned(),
        path,
        commit: String::new(),
    })
}

/// `data/text.jsonl` is a misspelt path rather than a data set.
fn looks_like_a_file(name: &str) -> bool {
    let extensions = [
        ".txt",
        ".jsonl",
        ".ndjson",
        ".json",
        ".gz",
        ".zst",
        ".parquet",
        ".safetensors",
        ".csv",
    ];
    extensions
        .iter()
        .any(|extension| name.to_ascii_lowercase().ends_with(extension))
}

fn unknown(name: &str) -> Error {
    let known: Vec<String> = Published::ALL
        .iter()
        .map(|(name, _)| format!("`{name}`"))
        .collect();
    DataError::Unknown {
        name: name.to_owned(),
        known: format!("`{DEMO}`, {}", known.join(", ")),
    }
    .into()
}
