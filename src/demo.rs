//! The small model and the text that the program carries, so that it can be tried without a download. In: the files of
//! `demo/`, compiled in. Out: a model folder on disk, documents to calibrate with, and a text to evaluate, for
//! `prune` and `eval` when they are given none.

use crate::error::{Error, Result};
use crate::text::{Documents, EvaluationText, TextLayout};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The files of the model folder, sorted by name.
const MODEL_FILES: [(&str, &[u8]); 4] = [
    ("config.json", include_bytes!("../demo/opt-mini/config.json")),
    (
        "model.safetensors",
        include_bytes!("../demo/opt-mini/model.safetensors"),
    ),
    (
        "tokenizer.json",
        include_bytes!("../demo/opt-mini/tokenizer.json"),
    ),
    (
        "tokenizer_config.json",
        include_bytes!("../demo/opt-mini/tokenizer_config.json"),
    ),
];

const EVALUATION: &str = include_str!("../demo/evaluation.txt");
const CALIBRATION: &str = include_str!("../demo/calibration.txt");

/// The folder of the demo model. It is unpacked under the system's folder for temporary files, and used again as long as
/// its files are what they should be.
///
/// # Errors
/// When the folder cannot be written.
pub fn model() -> Result<PathBuf> {
    unpack(&std::env::temp_dir())
}

/// Whether a model with this configuration is the demo, or made from it.
pub(crate) fn is_configuration(json: &str) -> bool {
    MODEL_FILES.contains(&("config.json", json.as_bytes()))
}

/// The stories to calibrate with, as one stream: none of them alone fills a window of 512 tokens.
///
/// # Errors
/// Never; the text is not blank.
pub fn calibration_documents() -> Result<Documents> {
    Documents::from_text("demo/calibration.txt", CALIBRATION, TextLayout::Joined)
}

/// The stories to evaluate on: 17 windows of 512 tokens. Calibration does not see them.
pub fn evaluation_text() -> EvaluationText {
    EvaluationText::from_text("demo/evaluation.txt", EVALUATION)
}

/// Unpacks the model into a folder of `parent` whose name tells its content.
fn unpack(parent: &Path) -> Result<PathBuf> {
    let folder = parent.join(format!("fista-pruner-opt-mini-{}", &content_sha256()[..16]));
    if is_intact(&folder) {
        return Ok(folder);
    }
    // Short enough to be waited for by an interruption, which would leave the temporary folder.
    let _hold = crate::system::cleanup::hold();
    let partial = tempfile::Builder::new()
        .prefix("fista-pruner-opt-mini.partial-")
        .tempdir_in(parent)
        .map_err(Error::io("create a folder in", parent))?;
    for (name, bytes) in MODEL_FILES {
        let path = partial.path().join(name);
        std::fs::write(&path, bytes).map_err(Error::io("write", &path))?;
    }
    publish(partial, &folder)?;
    Ok(folder)
}

/// Renames the complete folder into place. Several processes may do this at once: an intact folder is never removed, and
/// a damaged one is moved aside in one step.
fn publish(mut partial: TempDir, folder: &Path) -> Result<()> {
    let mut result = std::fs::rename(partial.path(), folder);
    if result.is_err() && !is_intact(folder) {
        let trash = tempfile::tempdir_in(folder.parent().unwrap_or(folder))
            .map_err(Error::io("create a folder beside", folder))?;
        // Failing is fine where another process was faster; whether it was shows below.
        let _ = std::fs::rename(folder, trash.path().join("damaged"));
        result = std::fs::rename(partial.path(), folder);
    }
    match result {
        Ok(()) => partial.disable_cleanup(true),
        Err(_) if is_intact(folder) => {}
        Err(source) => return Err(Error::io("rename to", folder)(source)),
    }
    Ok(())
}

fn content_sha256() -> String {
    let mut hasher = Sha256::new();
    for (name, bytes) in MODEL_FILES {
        hasher.update((name.len() as u64).to_le_bytes());
        hasher.update(name);
        hasher.update((bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    }
    format!("{:x}", hasher.finalize())
}

/// Whether the folder holds exactly the model's files, byte for byte.
fn is_intact(folder: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return false;
    };
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    names.iter().eq(MODEL_FILES.iter().map(|(name, _)| *name))
        && MODEL_FILES
            .iter()
            .all(|(name, bytes)| std::fs::read(folder.join(name)).is_ok_and(|found| found == *bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::text::{Tokenizer, draw_windows, evaluation_windows};

    /// SHA-256 of the sample of TinyStories that reference results were computed on, and the first of its token ids.
    const WHOLE_SHA256: &str = "51449c33b579f8b12e776dcbfa58ef47bab69f6ab7f44e972b7d98c4cfcac7fd";
    const WHOLE_TOKENS: usize = 75_157;
    const FIRST_IDS: [u32; 12] = [2, 2030, 672, 15, 262, 967, 1187, 1324, 371, 632, 839, 262];

    #[test]
    fn the_model_is_unpacked_once_and_repaired() {
        let parent = tempfile::tempdir().unwrap();
        let folder = unpack(parent.path()).unwrap();
        let checkpoint = Checkpoint::open(&folder).unwrap();
        assert_eq!(
            checkpoint
                .info("model.decoder.embed_tokens.weight")
                .unwrap()
                .shape,
            [4096, 192]
        );
        let written = std::fs::metadata(folder.join("config.json"))
            .unwrap()
            .modified()
            .unwrap();
        assert_eq!(unpack(parent.path()).unwrap(), folder);
        assert_eq!(
            std::fs::metadata(folder.join("config.json"))
                .unwrap()
                .modified()
                .unwrap(),
            written
        );
        std::fs::write(folder.join("config.json"), "{}").unwrap();
        std::fs::write(folder.join("extra"), "").unwrap();
        assert_eq!(unpack(parent.path()).unwrap(), folder);
        assert!(is_intact(&folder));
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 1);
    }

    #[test]
    fn several_processes_may_unpack_at_once() {
        let parent = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| unpack(parent.path()).unwrap()))
                .collect();
            for thread in threads {
                assert!(is_intact(&thread.join().unwrap()));
            }
        });
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_first_windows_are_those_of_the_whole_sample() {
        let parent = tempfile::tempdir().unwrap();
        let tokenizer = Tokenizer::open(&unpack(parent.path()).unwrap()).unwrap();
        let whole = EvaluationText::from_text("whole", &format!("{EVALUATION}{CALIBRATION}"));
        assert_eq!(whole.source.sha256, WHOLE_SHA256);
        let whole = evaluation_windows(&tokenizer, &whole, 512, Some(16)).unwrap();
        assert_eq!(whole.total_tokens, WHOLE_TOKENS);
        let head = evaluation_windows(&tokenizer, &evaluation_text(), 512, None).unwrap();
        assert!(head.ids.len() >= 17);
        assert_eq!(head.ids[..16], whole.ids);
        assert_eq!(head.ids[0][..12], FIRST_IDS);
        let drawn = draw_windows(&tokenizer, &calibration_documents().unwrap(), 8, 512, 0).unwrap();
        assert_eq!(
            (drawn.ids.len(), drawn.source.names),
            (8, vec!["demo/calibration.txt".to_owned()])
        );
    }
}
