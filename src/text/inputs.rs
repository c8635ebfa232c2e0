//! The token windows of a run by the names of its data: what to calibrate with, what to evaluate on. Used by the command line and
//! by programs that take the same names.

use super::locate::{DEMO, Files, is_demo_text, locate};
use super::{
    DataError, Documents, EvaluationText, TextLayout, TextOptions, TokenWindows, draw_windows,
    evaluation_windows, has_rows, is_token_file, read_documents, read_text, token_windows,
};
use crate::checkpoint::Model;
use crate::demo;
use crate::error::{ConfigError, Error, Result};
use crate::hub::{OpenHub, Split};
use crate::system::free_memory;
use bytesize::ByteSize;
use std::path::Path;

/// Text to calibrate with, and how windows are drawn from it.
#[derive(Debug, Clone, Default)]
pub struct CalibrationData {
    /// Files, published data sets, data sets of the hub, or `demo`. None: `demo` for the demo model.
    pub names: Vec<String>,
    /// What windows are drawn from; by default the stream for plain text, and documents for rows.
    pub draw: Option<DrawFrom>,
    /// Field of a row with the text or the messages.
    pub text_field: Option<String>,
    /// Number of windows; by default [`CalibrationData::SAMPLES`], or all of a file of token ids.
    pub samples: Option<usize>,
    /// Tokens of a window; by default the model's longest sequence, at most [`Model::DEFAULT_SEQ_LEN`].
    pub seq_len: Option<usize>,
    /// Seed of the draws.
    pub seed: u64,
    /// Windows that are drawn at most, as a plan needs them; the others are counted only.
    pub at_most: Option<usize>,
}

/// What calibration windows are drawn from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrawFrom {
    /// Single documents longer than a window.
    Documents,
    /// The stream that all documents make.
    Stream,
}

impl DrawFrom {
    /// Both, with the names the command line uses.
    pub const ALL: [(&'static str, Self); 2] = [("documents", Self::Documents), ("stream", Self::Stream)];
}

/// Text to measure perplexity on.
#[derive(Debug, Clone, Default)]
pub struct EvaluationData {
    /// A file, a published data set, a data set of the hub, or `demo`, which is also what no name means.
    pub name: Option<String>,
    /// Field of a row with the text or the messages.
    pub text_field: Option<String>,
    /// Tokens of a window; by default as in [`CalibrationData::seq_len`].
    pub seq_len: Option<usize>,
    /// Only the first windows.
    pub max_windows: Option<usize>,
}

impl CalibrationData {
    /// Calibration windows where their number is not given. Paper (arXiv 2408.03728, Sec. 4.1): 128.
    pub const SAMPLES: usize = 128;

    /// Windows to calibrate with.
    ///
    /// # Errors
    /// When no data is named for a model that is not the demo, or the data cannot be used.
    pub fn windows(&self, model: &Model, hub: &mut OpenHub<'_>) -> Result<TokenWindows> {
        let windows = self.drawn(model, hub)?;
        let seed = self.seed;
        Ok(TokenWindows { seed, ..windows })
    }

    fn drawn(&self, model: &Model, hub: &mut OpenHub<'_>) -> Result<TokenWindows> {
        let documents = match self.names.as_slice() {
            [] if !model.is_demo => {
                let reason = "a model needs text to be calibrated on: name files, `c4`, `wikitext2`, `ptb`, a data set of the \
                              hub, or `demo`";
                return Err(setting("‹calibration›", reason));
            }
            [] => demo::calibration_documents()?,
            [name] if is_demo_text(name) => demo::calibration_documents()?,
            names => {
                let files = locate(names, Split::Train, hub)?;
                if let [file] = files.paths.as_slice()
                    && is_token_file(file)
                {
                    let mut windows = given_windows(model, &files, file, self.seq_len)?;
                    first_windows(&mut windows, file, "‹samples›", self.samples)?;
                    return Ok(windows);
                }
                self.documents(&files)?
            }
        };
        let samples = self.samples.unwrap_or(Self::SAMPLES);
        let seq_len = model.seq_len(self.seq_len)?;
        let drawn = samples.min(self.at_most.unwrap_or(usize::MAX));
        room_for(drawn, seq_len)?;
        let windows = draw_windows(&model.tokenizer()?, &documents, drawn, seq_len, self.seed)?;
        let undrawn = samples - drawn;
        Ok(TokenWindows { undrawn, ..windows })
    }

    fn documents(&self, files: &Files) -> Result<Documents> {
        let field = self.text_field.as_deref();
        let mut documents = match files.published {
            Some(_) if self.draw.is_some() => {
                return Err(setting("‹draw›", "a named data set has a protocol of its own"));
            }
            Some(published) => published.documents(&files.paths, field)?,
            None => {
                // Documents that are stored one by one are meant to be, and may be too many to be tokenised all.
                let documents = files.paths.iter().any(|file| has_rows(file));
                let layout = match self.draw {
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
}

impl EvaluationData {
    /// Windows to evaluate on.
    ///
    /// # Errors
    /// When the data cannot be used.
    pub fn windows(&self, model: &Model, hub: &mut OpenHub<'_>) -> Result<TokenWindows> {
        let name = self.name.as_deref().unwrap_or(DEMO);
        let text = if is_demo_text(name) {
            demo::evaluation_text()
        } else {
            let files = locate(&[name.to_owned()], Split::Test, hub)?;
            if let [file] = files.paths.as_slice()
                && is_token_file(file)
            {
                let mut windows = given_windows(model, &files, file, self.seq_len)?;
                match self.max_windows {
                    Some(0) => return Err(setting("‹eval-samples›", "must be at least 1")),
                    Some(most) => windows.truncate(most),
                    None => {}
                }
                return Ok(windows);
            }
            evaluation_text(&files, self.text_field.as_deref())?
        };
        let seq_len = model.seq_len(self.seq_len)?;
        evaluation_windows(&model.tokenizer()?, &text, seq_len, self.max_windows)
    }

    /// Windows to evaluate on beside other work: none where no data is named, but for the demo model, which has a text of its
    /// own.
    ///
    /// # Errors
    /// As [`EvaluationData::windows`]; when a window holds nothing to predict; when windows are described but no data is named.
    pub fn beside(&self, model: &Model, hub: &mut OpenHub<'_>) -> Result<Option<TokenWindows>> {
        if self.name.is_none() && !model.is_demo {
            return match (self.seq_len, self.max_windows) {
                (None, None) => Ok(None),
                _ => Err(setting(
                    "‹eval-seq-len›/‹eval-samples›",
                    "there is nothing to evaluate on: name it with ‹eval-data›",
                )),
            };
        }
        let windows = self.windows(model, hub)?;
        windows.check("‹eval-seq-len›")?;
        Ok(Some(windows))
    }
}

/// Refuses more windows than the memory has room for.
fn room_for(windows: usize, seq_len: usize) -> Result<()> {
    let bytes = 4 * (windows as u64).saturating_mul(seq_len as u64);
    match free_memory() {
        Some(free) if free < bytes => {
            let (bytes, free) = (
                ByteSize::b(bytes).display().si(),
                ByteSize::b(free).display().si(),
            );
            let reason =
                format!("{windows} windows of {seq_len} tokens take {bytes}, and {free} of memory is free");
            Err(setting("‹samples›", &reason))
        }
        _ => Ok(()),
    }
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
fn given_windows(model: &Model, files: &Files, file: &Path, seq_len: Option<usize>) -> Result<TokenWindows> {
    let mut windows = token_windows(file, model.decoder.config().vocab_size())?;
    windows.source.names.clone_from(&files.names);
    if let Some(asked) = seq_len.filter(|asked| *asked != windows.seq_len) {
        return Err(differ(&windows, file, "‹seq-len›", asked));
    }
    model.seq_len(Some(windows.seq_len))?;
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

fn setting(setting: &'static str, reason: &str) -> Error {
    Error::from(ConfigError::Setting {
        setting,
        reason: reason.to_owned(),
    })
}
