//! What `--overwrite` may remove. In: a folder. Out: whether all that it holds is a checkpoint's; a mistyped path must not cost
//! somebody their files.

use super::side_files::{JOURNAL, holds_weights};
use serde_json::Value;
use std::path::Path;

/// Files that lie beside weights, whoever wrote them.
const SIDE_FILES: [&str; 45] = [
    ".gitattributes",
    ".DS_Store",
    JOURNAL,
    "README.md",
    "LICENSE",
    "NOTICE",
    "USE_POLICY",
    "added_tokens.json",
    "all_results.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "config_sentence_transformers.json",
    "eval_results.json",
    "generation_config.json",
    "hf_quant_config.json",
    "image_processor_config.json",
    "merges.txt",
    "model_index.json",
    "modules.json",
    "params.json",
    "preprocessor_config.json",
    "processor_config.json",
    "pruning_report.json",
    "quantization_config.json",
    "quantize_config.json",
    "recipe.yaml",
    "recovery_report.json",
    "report.html",
    "sentence_bert_config.json",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "spm.model",
    "tekken.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "train_results.json",
    "trainer_state.json",
    "video_preprocessor_config.json",
    "vocab.bpe",
    "vocab.json",
    "vocab.txt",
    "vocab.model",
];

/// What file names begin with that have several endings: licences, and the code that some models bring along.
const SIDE_PREFIXES: [&str; 9] = [
    "LICENSE",
    "LICENCE",
    "NOTICE",
    "USE_POLICY",
    "configuration_",
    "modeling_",
    "tokenization_",
    "processing_",
    "image_processing_",
];

/// What the names of weight files begin with, and of what a training leaves beside them.
const WEIGHT_PREFIXES: [&str; 10] = [
    "adapter_model",
    "consolidated",
    "flax_model",
    "model",
    "optimizer",
    "pytorch_model",
    "rng_state",
    "scheduler",
    "tf_model",
    "training_args",
];

/// How deep folders in a checkpoint are looked into.
const DEPTH: usize = 3;

/// Whether `folder` holds a checkpoint and nothing else. Files that `source`, of which the new checkpoint is made, has under the
/// same names are a checkpoint's too.
///
/// # Errors
/// What the folder is instead, or what it holds, as the end of a sentence.
pub(super) fn replaceable(folder: &Path, source: &Path) -> Result<(), String> {
    let config = std::fs::read(folder.join("config.json")).map_err(|_| "has no config.json of a model")?;
    let config: Value = crate::json::parse_bytes(&config).unwrap_or_default();
    if !config["model_type"].is_string() && !config["architectures"].is_array() {
        return Err("has no config.json of a model".into());
    }
    let mut weights = false;
    contents(folder, "", source, 0, &mut weights)?;
    match weights {
        true => Ok(()),
        false => Err("has no weights".into()),
    }
}

fn contents(
    folder: &Path,
    place: &str,
    source: &Path,
    depth: usize,
    weights: &mut bool,
) -> Result<(), String> {
    let unreadable = |e: std::io::Error| format!("cannot be looked into ({e})");
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let place = format!("{place}{name}");
        let foreign = || format!("holds `{place}`, which no checkpoint has");
        if entry.file_type().map_err(unreadable)?.is_dir() {
            if depth == DEPTH || name.starts_with('.') {
                return Err(foreign());
            }
            contents(&entry.path(), &format!("{place}/"), source, depth + 1, weights)?;
        } else if is_weight_file(&name) {
            *weights = true;
        } else if !is_side_file(&name) && !source.join(&place).is_file() {
            return Err(foreign());
        }
    }
    Ok(())
}

fn is_weight_file(name: &str) -> bool {
    holds_weights(name) && WEIGHT_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn is_side_file(name: &str) -> bool {
    SIDE_FILES.contains(&name) || SIDE_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_folder_with_anything_else_stays() {
        let root = tempfile::tempdir().unwrap();
        let (folder, source) = (root.path().join("out"), root.path().join("source"));
        for path in [folder.join("1_Pooling"), source.join("1_Pooling")] {
            fs::create_dir_all(path).unwrap();
        }
        let write = |name: &str| fs::write(folder.join(name), "").unwrap();
        let check = || replaceable(&folder, &source);
        assert_eq!(check().unwrap_err(), "has no config.json of a model");
        for no_model in ["{}", "{", "[]", r#"{"name": "web", "version": 1}"#] {
            fs::write(folder.join("config.json"), no_model).unwrap();
            assert_eq!(check().unwrap_err(), "has no config.json of a model");
        }
        fs::write(folder.join("config.json"), r#"{"model_type": "llama"}"#).unwrap();
        assert_eq!(check().unwrap_err(), "has no weights");
        for name in [
            "model-00001-of-00002.safetensors",
            "model.safetensors.index.json",
            "LICENSE.txt",
            "modeling_own.py",
            "1_Pooling/config.json",
        ] {
            write(name);
        }
        check().unwrap();
        for foreign in ["notes.txt", "train.py", "1_Pooling/thesis.tex", "data.npy"] {
            write(foreign);
            let said = check().unwrap_err();
            assert!(said.contains(foreign), "{said}");
            fs::write(source.join(foreign), "").unwrap();
            check().unwrap();
            fs::remove_file(source.join(foreign)).unwrap();
            fs::remove_file(folder.join(foreign)).unwrap();
        }
        for foreign in [".git", "src"] {
            fs::create_dir(folder.join(foreign)).unwrap();
            write(&format!("{foreign}/main"));
            assert!(check().unwrap_err().contains(foreign));
            fs::remove_dir_all(folder.join(foreign)).unwrap();
        }
        check().unwrap();
    }
}
