//! Which files of a folder hold its weights, and in which format. In: a folder. Out: their names, and the index where there
//! is one. The reader opens what is found here.

use super::index::Index;
use super::{CheckpointError, packed};
use crate::error::{Error, Result};
use std::path::Path;

/// The formats of weight files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WeightFormat {
    Safetensors,
    Pytorch,
    Packed,
}

/// Which files of a folder hold its weights.
pub(super) struct Layout {
    pub(super) format: WeightFormat,
    pub(super) index: Option<(String, Index)>,
    pub(super) files: Vec<String>,
}

impl WeightFormat {
    /// The file that holds the shard which an index names.
    pub(super) fn file_name(self, shard: &str) -> String {
        match self {
            Self::Packed => packed::packed_name(shard),
            Self::Safetensors | Self::Pytorch => shard.to_owned(),
        }
    }
}

impl Layout {
    /// Looks for the weights of the folder `dir`.
    pub(super) fn find(dir: &Path) -> Result<Self> {
        let single = |format, file: &str| {
            Ok(Self {
                format,
                index: None,
                files: vec![file.to_owned()],
            })
        };
        let exists = |name: &str| dir.join(name).exists();
        if exists("model.safetensors") {
            single(WeightFormat::Safetensors, "model.safetensors")
        } else if exists("model.safetensors.index.json") {
            Self::indexed(dir, WeightFormat::Safetensors, "model.safetensors.index.json")
        } else if exists("pytorch_model.bin") {
            single(WeightFormat::Pytorch, "pytorch_model.bin")
        } else if exists("pytorch_model.bin.index.json") {
            Self::indexed(dir, WeightFormat::Pytorch, "pytorch_model.bin.index.json")
        } else if exists("model.packed.safetensors") {
            single(WeightFormat::Packed, "model.packed.safetensors")
        } else if exists("model.packed.safetensors.index.json") {
            Self::indexed(dir, WeightFormat::Packed, "model.packed.safetensors.index.json")
        } else {
            let others = file_names(dir)?;
            let ending = |ends: &[&str]| -> Vec<&String> {
                let weights = others.iter().filter(|name| !is_beside_weights(name));
                weights
                    .filter(|name| ends.iter().any(|end| name.ends_with(end)))
                    .collect()
            };
            let torch = ending(&[".bin", ".pt", ".pth", ".ckpt"]);
            let mut found = ending(&[".safetensors"]).into_iter();
            match (found.next(), found.next()) {
                (Some(only), None) if only.ends_with(packed::SUFFIX) => single(WeightFormat::Packed, only),
                (Some(only), None) => single(WeightFormat::Safetensors, only),
                (Some(_), Some(_)) => Err(no_weights(
                    dir,
                    "it has several .safetensors files and no index".into(),
                )),
                (None, _) if torch.len() == 1 => single(WeightFormat::Pytorch, torch[0]),
                (None, _) if adapter_base(dir).is_some() => {
                    let (dir, base) = (dir.to_path_buf(), adapter_base(dir).flatten());
                    Err(CheckpointError::Adapter { dir, base }.into())
                }
                (None, _) if others.len() == 1 => Err(no_weights(dir, "it only has a config.json".into())),
                (None, _) => Err(no_weights(dir, format!("it has {}", others.join(", ")))),
            }
        }
    }

    fn indexed(dir: &Path, format: WeightFormat, name: &str) -> Result<Self> {
        let index = Index::read(dir, name)?;
        let mut files: Vec<String> = index.weight_map.values().map(|s| format.file_name(s)).collect();
        files.sort_unstable();
        files.dedup();
        for shard in &files {
            let file = dir.join(shard);
            if !file.exists() {
                let tensor = index
                    .weight_map
                    .iter()
                    .find(|(_, s)| format.file_name(s) == *shard)
                    .map(|(tensor, _)| tensor.clone());
                return Err(CheckpointError::MissingShard {
                    file,
                    tensor: tensor.unwrap_or_default(),
                }
                .into());
            }
        }
        Ok(Self {
            format,
            index: Some((name.to_owned(), index)),
            files,
        })
    }
}

/// The name of an adapter's configuration.
pub(super) const ADAPTER_CONFIG: &str = "adapter_config.json";

/// Whether the folder has a LoRA adapter, and the base model that its configuration names.
pub(super) fn adapter_base(dir: &Path) -> Option<Option<String>> {
    let text = std::fs::read(dir.join(ADAPTER_CONFIG)).ok()?;
    let config: serde_json::Value = crate::json::parse_bytes(&text).unwrap_or_default();
    Some(config["base_model_name_or_path"].as_str().map(str::to_owned))
}

/// Files with tensors that are no model's: of an adapter, and of a training.
pub(super) fn is_beside_weights(name: &str) -> bool {
    const BESIDE: [&str; 5] = ["adapter_", "optimizer", "rng_state", "scheduler", "training_args"];
    BESIDE.iter().any(|prefix| name.starts_with(prefix))
}

fn no_weights(dir: &Path, found: String) -> Error {
    CheckpointError::NoWeights {
        dir: dir.to_path_buf(),
        found,
    }
    .into()
}

/// Names of the folder's entries other than folders, sorted.
pub(crate) fn file_names(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(Error::io("read", dir))? {
        let entry = entry.map_err(Error::io("read", dir))?;
        if !entry.path().is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}
