//! Which files of a repository are needed. In: the list of its files. Out: those to fetch.

use super::Split;

/// Files beside the weights that the program, or whoever loads the pruned copy, reads. `config.json` is fetched first.
pub(crate) const SIDE_FILES: [&str; 12] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "chat_template.jinja",
    "chat_template.json",
];

/// Where a model's weights are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum WeightFiles {
    /// One file has them all.
    Single(String),
    /// Shards, named by an index.
    Indexed(String),
}

/// The weights in the order in which a checkpoint folder is searched: torch's files only where there are no others.
pub(crate) fn weights(files: &[String]) -> Option<WeightFiles> {
    let has = |name: &str| files.iter().any(|file| file == name);
    for stem in ["model.safetensors", "pytorch_model.bin"] {
        let index = format!("{stem}.index.json");
        if has(stem) {
            return Some(WeightFiles::Single(stem.to_owned()));
        }
        if has(&index) {
            return Some(WeightFiles::Indexed(index));
        }
    }
    let mut others = files
        .iter()
        .filter(|name| name.ends_with(".safetensors") && !name.contains('/'));
    match (others.next(), others.next()) {
        (Some(only), None) => Some(WeightFiles::Single(only.clone())),
        _ => None,
    }
}

/// Why no data file was chosen.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoChoice {
    /// None is of the split.
    None { candidates: Vec<String> },
    /// Several are, and are no parts of one another.
    Several { candidates: Vec<String> },
}

/// Words that say which split a file belongs to.
const SPLITS: [&str; 9] = [
    "train",
    "training",
    "test",
    "testing",
    "validation",
    "valid",
    "val",
    "dev",
    "eval",
];

/// The data files of a split: the first part of it for calibration, as SparseGPT takes C4's first; all parts for evaluation.
pub(crate) fn data_files(files: &[String], split: Split) -> Result<Vec<String>, NoChoice> {
    let candidates: Vec<&String> = files.iter().filter(|name| is_data(name)).collect();
    let names: &[&[&str]] = match split {
        Split::Train => &[&["train", "training"]],
        Split::Test => &[
            &["test", "testing"],
            &["validation", "valid", "val", "dev", "eval"],
        ],
    };
    let of = |names: &[&str]| -> Vec<String> {
        let matching = candidates
            .iter()
            .filter(|file| words(file).any(|w| names.contains(&w.as_str())));
        matching.map(|file| (*file).clone()).collect()
    };
    let mut found = names
        .iter()
        .map(|names| of(names))
        .find(|found| !found.is_empty())
        .unwrap_or_default();
    if found.is_empty() {
        return match candidates.as_slice() {
            // A file that names a split is of that one and no other.
            [only] if !words(only).any(|w| SPLITS.contains(&w.as_str())) => Ok(vec![(*only).clone()]),
            all => Err(NoChoice::None {
                candidates: all.iter().map(|name| (*name).clone()).collect(),
            }),
        };
    }
    found.sort();
    let series: std::collections::BTreeSet<String> = found.iter().map(|name| series(name)).collect();
    if series.len() > 1 {
        return Err(NoChoice::Several { candidates: found });
    }
    if split == Split::Train {
        found.truncate(1);
    }
    Ok(found)
}

/// How many parts a file's name says that the whole has: `…-00000-of-00004.…`.
pub(crate) fn parts(name: &str) -> Option<usize> {
    let (_, rest) = name.rsplit_once("-of-")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// A data file by its extension, with or without one for compression.
fn is_data(name: &str) -> bool {
    let plain = name.trim_end_matches(".gz").trim_end_matches(".zst");
    let base = plain.rsplit('/').next().unwrap_or(plain);
    let named_otherwise = ["dataset_info", "dataset_infos", "README", "LICENSE"];
    !base.starts_with('.')
        && !named_otherwise.iter().any(|other| base.starts_with(other))
        && [".parquet", ".jsonl", ".ndjson", ".json", ".txt"]
            .iter()
            .any(|e| plain.ends_with(e))
}

/// Words of a path in lower case.
fn words(path: &str) -> impl Iterator<Item = String> + '_ {
    path.split(|c: char| !c.is_ascii_alphanumeric())
        .map(str::to_ascii_lowercase)
}

/// What parts of one whole share: the folder, and the name up to its first number.
fn series(name: &str) -> String {
    let (folder, base) = name.rsplit_once('/').unwrap_or(("", name));
    let stem = base.split(|c: char| c.is_ascii_digit()).next().unwrap_or(base);
    format!("{folder}/{stem}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn safetensors_before_torch() {
        let single = |name: &str| Some(WeightFiles::Single(name.into()));
        assert_eq!(
            weights(&list(&["pytorch_model.bin", "model.safetensors", "tf_model.h5"])),
            single("model.safetensors")
        );
        assert_eq!(
            weights(&list(&["pytorch_model.bin", "flax_model.msgpack"])),
            single("pytorch_model.bin")
        );
        assert_eq!(
            weights(&list(&[
                "model-00001-of-00002.safetensors",
                "model.safetensors.index.json"
            ])),
            Some(WeightFiles::Indexed("model.safetensors.index.json".into()))
        );
        assert_eq!(weights(&list(&["x.safetensors"])), single("x.safetensors"));
        assert_eq!(
            weights(&list(&["onnx/x.safetensors", "a.safetensors"])),
            single("a.safetensors")
        );
        for none in [&["tf_model.h5"][..], &["a.safetensors", "b.safetensors"], &[]] {
            assert_eq!(weights(&list(none)), None);
        }
    }

    #[test]
    fn splits_by_their_names() {
        let files = list(&[
            "README.md",
            "dataset_infos.json",
            "data/test-00001-of-00002.parquet",
            "data/test-00000-of-00002.parquet",
            "data/train-00001-of-00002-9a8b.parquet",
            "data/train-00000-of-00002-1c2d.parquet",
        ]);
        assert_eq!(
            data_files(&files, Split::Train).unwrap(),
            ["data/train-00000-of-00002-1c2d.parquet"]
        );
        assert_eq!(
            data_files(&files, Split::Test).unwrap(),
            [
                "data/test-00000-of-00002.parquet",
                "data/test-00001-of-00002.parquet"
            ]
        );
        assert_eq!(
            [parts("data/test-00001-of-00002.parquet"), parts("test.parquet")],
            [Some(2), None]
        );
        let converted = list(&[
            "penn_treebank/test/0000.parquet",
            "penn_treebank/train/0000.parquet",
        ]);
        assert_eq!(
            data_files(&converted, Split::Test).unwrap(),
            ["penn_treebank/test/0000.parquet"]
        );
        let validation = list(&["a-validation.jsonl.gz", "a-train.jsonl.gz"]);
        assert_eq!(
            data_files(&validation, Split::Test).unwrap(),
            ["a-validation.jsonl.gz"]
        );
        assert_eq!(
            data_files(&list(&["only.jsonl.zst", "x.bin"]), Split::Test).unwrap(),
            ["only.jsonl.zst"]
        );
    }

    #[test]
    fn what_is_not_clear_is_not_guessed() {
        let several = list(&[
            "wikitext-103-raw-v1/train-00000-of-00002.parquet",
            "wikitext-2-raw-v1/train-00000-of-00001.parquet",
        ]);
        assert!(matches!(
            data_files(&several, Split::Train),
            Err(NoChoice::Several { .. })
        ));
        let none = list(&["a.jsonl", "b.jsonl"]);
        assert!(
            matches!(data_files(&none, Split::Train), Err(NoChoice::None { candidates }) if candidates.len() == 2)
        );
        // As a cache has it where only the other split was ever fetched.
        let other = list(&["wikitext-2-raw-v1/test-00000-of-00001.parquet"]);
        assert!(matches!(
            data_files(&other, Split::Train),
            Err(NoChoice::None { .. })
        ));
        assert!(matches!(data_files(&[], Split::Test), Err(NoChoice::None { .. })));
    }
}
