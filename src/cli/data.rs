//! The token windows of a run: from named files, or from the built-in text.

use super::args::{CalibrationArgs, EvaluationArgs, TextArgs};
use super::model::Chosen;
use crate::calibration::{
    TextLayout, TextOptions, TokenWindows, draw_windows, evaluation_windows, is_token_file, read_documents,
    read_text, token_windows,
};
use crate::demo;
use crate::error::{Error, Result};
use crate::eval::check_windows;
use crate::tokenizer::Tokenizer;
use std::path::{Path, PathBuf};

/// The name of the built-in text.
pub(crate) const DEMO: &str = "demo";

/// How many calibration windows of which length, drawn how.
pub(crate) struct Draw {
    pub(crate) samples: usize,
    pub(crate) seq_len: Option<usize>,
    pub(crate) seed: u64,
}

/// Windows to calibrate with, as the arguments say.
///
/// # Errors
/// As [`calibration`].
pub(crate) fn calibration_of(chosen: &Chosen, args: &CalibrationArgs) -> Result<TokenWindows> {
    let draw = Draw {
        samples: args.samples,
        seq_len: args.seq_len,
        seed: args.seed,
    };
    calibration(chosen, &args.calibration, &args.text, &draw)
}

/// Windows to calibrate with.
///
/// # Errors
/// When no data is named for a model that is not the demo, or the data cannot be used.
pub(crate) fn calibration(
    chosen: &Chosen,
    names: &[String],
    text: &TextArgs,
    draw: &Draw,
) -> Result<TokenWindows> {
    let config = chosen.model.decoder.config();
    if let [file] = names
        && is_token_file(Path::new(file))
    {
        return checked(chosen, token_windows(Path::new(file), config.vocab_size())?);
    }
    let documents = match names {
        [] if !chosen.is_demo => {
            return Err(Error::Setting {
                setting: "--calibration",
                reason: "a model needs text to be calibrated on: name one or more files, or `demo`".into(),
            });
        }
        [] => demo::calibration_documents()?,
        [name] if name == DEMO => demo::calibration_documents()?,
        files => {
            let files: Vec<PathBuf> = files.iter().map(PathBuf::from).collect();
            let layout = if text.join {
                TextLayout::Joined
            } else {
                TextLayout::Auto
            };
            read_documents(
                &files,
                &TextOptions {
                    layout,
                    field: text.text_field.clone(),
                },
            )?
        }
    };
    let tokenizer = tokenizer(chosen)?;
    let seq_len = chosen.model.seq_len(draw.seq_len)?;
    draw_windows(&tokenizer, &documents, draw.samples, seq_len, draw.seed)
}

/// Windows to evaluate on while pruning, as the arguments say; the demo model has a text of its own.
///
/// # Errors
/// As [`evaluation`]; when a window holds nothing to predict; when windows are described but no data is named.
pub(crate) fn evaluation_of(
    chosen: &Chosen,
    args: &EvaluationArgs,
    text: &TextArgs,
) -> Result<Option<TokenWindows>> {
    let cut = (args.eval_seq_len, args.max_windows);
    let name = match &args.data {
        Some(name) => name,
        None if chosen.is_demo => DEMO,
        None if cut == (None, None) => return Ok(None),
        None => {
            return Err(Error::Setting {
                setting: "--eval-seq-len/--max-windows",
                reason: "there is nothing to evaluate on: name it with --data".into(),
            });
        }
    };
    let windows = evaluation(chosen, name, &text.text_field, cut)?;
    check_windows(&windows.ids, "--eval-seq-len")?;
    Ok(Some(windows))
}

/// Windows to evaluate on.
///
/// # Errors
/// When the data cannot be used.
pub(crate) fn evaluation(
    chosen: &Chosen,
    name: &str,
    text_field: &str,
    (seq_len, max_windows): (Option<usize>, Option<usize>),
) -> Result<TokenWindows> {
    let path = Path::new(name);
    if is_token_file(path) {
        let mut windows = token_windows(path, chosen.model.decoder.config().vocab_size())?;
        match max_windows {
            Some(0) => {
                return Err(Error::Setting {
                    setting: "--max-windows",
                    reason: "must be at least 1".into(),
                });
            }
            Some(most) => windows.truncate(most),
            None => {}
        }
        return checked(chosen, windows);
    }
    let text = if name == DEMO {
        demo::evaluation_text()
    } else {
        read_text(
            path,
            &TextOptions {
                field: text_field.to_owned(),
                ..TextOptions::default()
            },
        )?
    };
    let tokenizer = tokenizer(chosen)?;
    evaluation_windows(&tokenizer, &text, chosen.model.seq_len(seq_len)?, max_windows)
}

fn tokenizer(chosen: &Chosen) -> Result<Tokenizer> {
    let tokenizer = Tokenizer::open(&chosen.dir)?;
    tokenizer.check_vocabulary(chosen.model.decoder.config().vocab_size())?;
    Ok(tokenizer)
}

/// Finished windows must fit the model too.
fn checked(chosen: &Chosen, windows: TokenWindows) -> Result<TokenWindows> {
    chosen.model.seq_len(Some(windows.seq_len))?;
    Ok(windows)
}
