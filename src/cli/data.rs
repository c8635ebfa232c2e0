//! The token windows of a run: from local files, from data sets of the hub, or from the built-in text.

use super::args::{CalibrationArgs, DrawFrom, EvaluationArgs, TextArgs};
use super::hub;
use super::model::Chosen;
use crate::calibration::{
    DataError, Documents, EvaluationText, Published, TextLayout, TextOptions, TokenWindows, draw_windows,
    evaluation_windows, has_rows, is_token_file, read_documents, read_text, token_windows,
};
use crate::demo;
use crate::error::{Error, Result};
use crate::eval::check_windows;
use crate::hub::{DatasetId, Fetched, Split};
use crate::tokenizer::Tokenizer;
use std::path::{Path, PathBuf};

/// The name of the built-in text.
pub(crate) const DEMO: &str = "demo";

/// Calibration windows where --samples is not given. Paper: 128.
const SAMPLES: usize = 128;

/// How many calibration windows of which length, drawn how.
pub(crate) struct Draw {
    pub(crate) samples: Option<usize>,
    pub(crate) seq_len: Option<usize>,
    pub(crate) seed: u64,
}

/// Local files, and what to call them.
struct Files {
    paths: Vec<PathBuf>,
    names: Vec<String>,
    /// Whose protocol they are used with.
    published: Option<Published>,
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
    let documents = match names {
        [] if !chosen.is_demo => {
            let reason = "a model needs text to be calibrated on: name files, `c4`, `wikitext2`, `ptb`, a data set of the \
                          hub, or `demo`";
            return Err(setting("--calibration", reason));
        }
        [] => demo::calibration_documents()?,
        [name] if is_demo_text(name) => demo::calibration_documents()?,
        names => {
            let files = locate(names, Split::Train, chosen.quiet)?;
            if let [file] = files.paths.as_slice()
                && is_token_file(file)
            {
                let mut windows = given_windows(chosen, &files, file, draw.seq_len)?;
                first_windows(&mut windows, file, "--samples", draw.samples)?;
                return Ok(windows);
            }
            documents(&files, text)?
        }
    };
    let tokenizer = tokenizer(chosen)?;
    let seq_len = chosen.model.seq_len(draw.seq_len)?;
    draw_windows(
        &tokenizer,
        &documents,
        draw.samples.unwrap_or(SAMPLES),
        seq_len,
        draw.seed,
    )
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
    let windows = evaluation(chosen, name, text.text_field.as_deref(), cut)?;
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
    text_field: Option<&str>,
    (seq_len, max_windows): (Option<usize>, Option<usize>),
) -> Result<TokenWindows> {
    let text = if is_demo_text(name) {
        demo::evaluation_text()
    } else {
        let files = locate(&[name.to_owned()], Split::Test, chosen.quiet)?;
        if let [file] = files.paths.as_slice()
            && is_token_file(file)
        {
            let mut windows = given_windows(chosen, &files, file, seq_len)?;
            match max_windows {
                Some(0) => return Err(setting("--max-windows", "must be at least 1")),
                Some(most) => windows.truncate(most),
                None => {}
            }
            return Ok(windows);
        }
        evaluation_text(&files, text_field)?
    };
    let tokenizer = tokenizer(chosen)?;
    evaluation_windows(&tokenizer, &text, chosen.model.seq_len(seq_len)?, max_windows)
}

fn documents(files: &Files, text: &TextArgs) -> Result<Documents> {
    let field = text.text_field.as_deref();
    let mut documents = match files.published {
        Some(_) if text.draw.is_some() => {
            return Err(setting("--draw", "a named data set has a protocol of its own"));
        }
        Some(published) => published.documents(&files.paths, field)?,
        None => {
            // Documents that are stored one by one are meant to be, and may be too many to be tokenised all.
            let documents = files.paths.iter().any(|file| has_rows(file));
            let layout = match text.draw {
                Some(DrawFrom::Documents) => TextLayout::Auto,
                None if documents => TextLayout::Auto,
                Some(DrawFrom::Stream) | None => TextLayout::Joined,
            };
            let field = field.map(str::to_owned);
            read_documents(&files.paths, &TextOptions { layout, field })?
        }
    };
    documents.source.names.clone_from(&files.names);
    Ok(documents)
}

fn evaluation_text(files: &Files, field: Option<&str>) -> Result<EvaluationText> {
    let mut text = match files.published {
        Some(published) => published.evaluation_text(&files.paths, field)?,
        None => {
            let field = field.map(str::to_owned);
            read_text(
                &files.paths,
                &TextOptions {
                    field,
                    ..TextOptions::default()
                },
            )?
        }
    };
    text.source.names.clone_from(&files.names);
    Ok(text)
}

/// Finished windows. They are used as they are, so a length that contradicts them is an error; they must fit the model too.
fn given_windows(
    chosen: &Chosen,
    files: &Files,
    file: &Path,
    seq_len: Option<usize>,
) -> Result<TokenWindows> {
    let mut windows = token_windows(file, chosen.model.decoder.config().vocab_size())?;
    windows.source.names.clone_from(&files.names);
    if let Some(asked) = seq_len.filter(|asked| *asked != windows.seq_len) {
        return Err(differ(&windows, file, "--seq-len", asked));
    }
    chosen.model.seq_len(Some(windows.seq_len))?;
    Ok(windows)
}

fn first_windows(
    windows: &mut TokenWindows,
    file: &Path,
    option: &'static str,
    asked: Option<usize>,
) -> Result<()> {
    match asked {
        Some(0) => return Err(setting(option, "must be at least 1")),
        Some(asked) if asked > windows.ids.len() => return Err(differ(windows, file, option, asked)),
        Some(asked) => windows.truncate(asked),
        None => {}
    }
    Ok(())
}

fn differ(windows: &TokenWindows, file: &Path, setting: &'static str, asked: usize) -> Error {
    DataError::WindowsDiffer {
        file: file.to_path_buf(),
        setting,
        asked,
        windows: windows.ids.len(),
        seq_len: windows.seq_len,
    }
    .into()
}

/// The built-in text, unless a file has its name.
fn is_demo_text(name: &str) -> bool {
    name == DEMO && !Path::new(name).is_file()
}

/// What names stand for, as local files. A path that exists wins over everything else that a name could mean.
fn locate(names: &[String], split: Split, quiet: bool) -> Result<Files> {
    let mut files = Files {
        paths: Vec::new(),
        names: Vec::new(),
        published: None,
    };
    let mut all = None;
    for name in names {
        let (published, found) = locate_one(name, split, || match &mut all {
            Some(hub) => Ok(hub),
            empty => Ok(empty.insert(hub::open(quiet)?)),
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

fn setting(setting: &'static str, reason: &str) -> Error {
    Error::Setting {
        setting,
        reason: reason.to_owned(),
    }
}

/// The model's tokenizer, checked against its vocabulary.
///
/// # Errors
/// When it cannot be read or does not fit.
pub(crate) fn tokenizer(chosen: &Chosen) -> Result<Tokenizer> {
    let tokenizer = Tokenizer::open(&chosen.dir)?;
    tokenizer.check_vocabulary(chosen.model.decoder.config().vocab_size())?;
    Ok(tokenizer)
}
