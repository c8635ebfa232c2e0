//! What lies beside a checkpoint's weights. In: a source folder. Out: which of its files an output gets too, and which not.

use super::Checkpoint;
use super::layout::{ADAPTER_CONFIG, file_names};
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

/// What an interrupted run leaves in its folder.
pub(crate) const JOURNAL: &str = ".journal.jsonl";
/// Folders that are copied have no more than this in all, and are no deeper.
const FOLDER_BYTES: u64 = 16 << 20;
const FOLDER_DEPTH: usize = 3;

/// Names of the files beside a source's weights that an output gets too, those of small folders as `1_Pooling/config.json`, and of
/// what it does not get; see [`CheckpointWriter::left_out`](super::CheckpointWriter::left_out). An adapter's configuration does not
/// go without its weights, and what an interrupted run wrote down is no concern of the next.
pub(crate) fn side_files(source: &Checkpoint) -> Result<(Vec<String>, Vec<String>)> {
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
        if !readable || holds_weights(&name) || [ADAPTER_CONFIG, JOURNAL].contains(&name.as_str()) {
            left_out.push(name);
        } else {
            copied.push(name);
        }
    }
    for entry in std::fs::read_dir(source.dir()).map_err(Error::io("read", source.dir()))? {
        let entry = entry.map_err(Error::io("read", source.dir()))?;
        if !entry.path().is_dir() {
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        let mut files = Vec::new();
        let mut room = FOLDER_BYTES;
        if is_side_folder(&name)
            && small_files(&entry.path(), &name, FOLDER_DEPTH, &mut room, &mut files).is_some()
            && !files.is_empty()
        {
            copied.extend(files);
        } else {
            left_out.push(format!("{name}/"));
        }
    }
    copied.sort_unstable();
    left_out.sort_unstable();
    Ok((copied, left_out))
}

/// Whether a folder of that name belongs to the model, and not to its history, to caches or to a training.
fn is_side_folder(name: &str) -> bool {
    const OTHERS: [&str; 4] = ["__pycache__", "logs", "runs", "wandb"];
    !name.starts_with('.') && !name.starts_with("checkpoint-") && !OTHERS.contains(&name)
}

/// Enters the files of a folder; `None` where there is too much, a link, or anything with weights.
fn small_files(
    folder: &Path,
    place: &str,
    depth: usize,
    room: &mut u64,
    files: &mut Vec<String>,
) -> Option<()> {
    for entry in std::fs::read_dir(folder).ok()? {
        let entry = entry.ok()?;
        let name = entry.file_name().into_string().ok()?;
        let (place, found) = (format!("{place}/{name}"), std::fs::metadata(entry.path()).ok()?);
        if entry.file_type().ok()?.is_dir() && depth > 1 && is_side_folder(&name) {
            small_files(&entry.path(), &place, depth - 1, room, files)?;
        } else if found.is_file() && !holds_weights(&name) {
            *room = room.checked_sub(found.len().max(1 << 10))?;
            files.push(place);
        } else {
            return None;
        }
    }
    Some(())
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
