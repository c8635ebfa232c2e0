//! `*.index.json`, which says in which shard each tensor lies. In: its text. Out: tensor → plain file name.

use super::CheckpointError;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Component, Path};

/// An index, sorted by tensor.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(crate) struct Index {
    #[serde(default)]
    pub(crate) metadata: serde_json::Map<String, serde_json::Value>,
    pub(crate) weight_map: BTreeMap<String, String>,
}

impl Index {
    /// Reads and validates `dir/name`: every shard is the plain name of a file of that folder.
    pub(crate) fn read(dir: &Path, name: &str) -> Result<Self> {
        let file = dir.join(name);
        let text = std::fs::read(&file).map_err(Error::io("read", &file))?;
        let index: Self = crate::json::parse_bytes(&text).map_err(|e| CheckpointError::Index {
            file: file.clone(),
            reason: e.to_string(),
        })?;
        if index.weight_map.is_empty() {
            let reason = "its weight_map is empty".into();
            return Err(CheckpointError::Index { file, reason }.into());
        }
        match index.weight_map.values().find(|shard| !is_plain_name(shard)) {
            Some(shard) => Err(CheckpointError::IndexPath {
                file,
                shard: shard.clone(),
            }
            .into()),
            None => Ok(index),
        }
    }
}

/// Whether `name` is one path component that is neither `.` nor `..`, on every platform.
pub(crate) fn is_plain_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!((components.next(), components.next()), (Some(Component::Normal(only)), None) if only == name)
        && !name.contains(['/', '\\', ':', '\0'])
}

#[cfg(test)]
mod tests {
    use super::is_plain_name;

    #[test]
    fn only_files_of_the_folder_itself_are_plain() {
        for name in [
            "model.safetensors",
            "..hidden",
            "model-00001-of-00002.safetensors",
        ] {
            assert!(is_plain_name(name), "{name}");
        }
        for name in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "/etc/passwd",
            "a/",
            "./a",
            "a\\b",
            "c:x",
        ] {
            assert!(!is_plain_name(name), "{name}");
        }
    }
}
