//! What lies beside a checkpoint's weights. In: a source folder. Out: which of its files an output gets too, and which not.

use super::Checkpoint;
use super::layout::file_names;
use crate::error::{Error, Result};
use std::collections::BTreeSet;
use std::path::Path;

/// Extensions of files that hold weights, or hold them for another loader.
const WEIGHT_EXTENSIONS: [&str; 22] = [
    "safetensors",
    "bin",
    "pt",
    "pth",
    "ckpt",
    "pkl",
    "h5",
    "keras",
    "msgpack",
    "ot",
    "gguf",
    "ggml",
    "onnx",
    "onnx_data",
    "tflite",
    "mlmodel",
    "npz",
    "npy",
    "pdparams",
    "nemo",
    "engine",
    "distcp",
];

/// Names of the files beside a source's weights that an output gets too, and of what it does not get; see
/// [`CheckpointWriter::left_out`](super::CheckpointWriter::left_out).
pub(super) fn side_files(source: &Checkpoint) -> Result<(Vec<String>, Vec<String>)> {
    let used: BTreeSet<&str> = source
        .shards()
        .iter()
        .map(|shard| shard.file.name.as_str())
        .chain(source.index_name())
        .collect();
    let (mut copied, mut left_out) = (Vec::new(), Vec::new());
    for name in file_names(source.dir())? {
        if used.contains(name.as_str()) {
            continue;
        }
        let readable = source.dir().join(&name).is_file();
        if !readable || holds_weights(&name) {
            left_out.push(name);
        } else {
            copied.push(name);
        }
    }
    for entry in std::fs::read_dir(source.dir()).map_err(Error::io("read", source.dir()))? {
        let entry = entry.map_err(Error::io("read", source.dir()))?;
        if entry.path().is_dir() {
            left_out.push(format!("{}/", entry.file_name().to_string_lossy()));
        }
    }
    left_out.sort_unstable();
    Ok((copied, left_out))
}

/// Whether a file of that name holds weights, or is the index of such files.
pub(crate) fn holds_weights(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let extension = |name: &str| {
        Path::new(name)
            .extension()
            .is_some_and(|e| WEIGHT_EXTENSIONS.iter().any(|known| e == *known))
    };
    extension(&lower) || lower.strip_suffix(".index.json").is_some_and(extension)
}
