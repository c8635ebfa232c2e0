//! A checkpoint and the decoder that its configuration describes, checked against each other.

use super::{Checkpoint, CheckpointError};
use crate::error::{ConfigError, Error, ModelError, Result};
use crate::json;
use crate::text::Tokenizer;
use fista_pruner_models::{Decoder, ModelConfig, RopePrecision};
use std::path::Path;

/// A model on disk, ready to be streamed.
#[derive(Debug)]
pub struct Model {
    /// Its files.
    pub checkpoint: Checkpoint,
    /// Its shape and names.
    pub decoder: Decoder,
    /// As the user knows it; of the hub, with the commit.
    pub name: String,
    /// Whether it is the built-in demo, which has text of its own.
    pub is_demo: bool,
}

impl Checkpoint {
    /// The decoder that its configuration describes, with the names that its tensors have.
    ///
    /// # Errors
    /// When the architecture is not supported, or the tensors are not named as its are.
    pub(crate) fn decoder(&self, precision: RopePrecision) -> Result<Decoder> {
        let config = ModelConfig::from_json(&json::strict(json::without_mark(self.config_json())));
        let config = config.map_err(|error| {
            let reason = error.to_string();
            CheckpointError::Config {
                file: self.dir().join("config.json"),
                reason: reason.strip_prefix("config.json: ").unwrap_or(&reason).to_owned(),
            }
        })?;
        let decoder = Decoder::new(config.with_rope_precision(precision), self);
        decoder.map_err(|error| match (error, self.tensors().next()) {
            (ModelError::UnknownLayout { family, tried }, Some((example, info))) => CheckpointError::Names {
                file: self.dir().join(&info.file),
                family,
                tried,
                example: example.to_owned(),
            }
            .into(),
            (error, _) => error.into(),
        })
    }
}

impl Model {
    /// Opens a folder in Hugging Face layout. Every tensor that the decoder will ask for is checked to be there, with
    /// its shape, so that nothing is found missing in the middle of a run.
    ///
    /// # Errors
    /// When a file is missing or damaged, the architecture is not supported, or a tensor is missing or of another shape.
    pub fn open(dir: &Path) -> Result<Self> {
        Self::open_with(dir, RopePrecision::F32)
    }

    /// As [`Model::open`], with rotation frequencies rounded as in a model that was cast to half precision in memory.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn open_with(dir: &Path, precision: RopePrecision) -> Result<Self> {
        let checkpoint = Checkpoint::open(dir)?;
        let decoder = checkpoint.decoder(precision)?;
        let model = Self {
            checkpoint,
            decoder,
            name: dir.display().to_string(),
            is_demo: false,
        };
        for (name, shape) in model.decoder.tensors() {
            model.checkpoint.expect(&name, &shape)?;
        }
        model.warn();
        Ok(model)
    }

    /// Says what the weights have more or less of than the configuration lets one expect.
    fn warn(&self) {
        let dir = self.dir().display();
        let layers = self.decoder.config().num_layers();
        let first = self.decoder.layer_prefix(0);
        let before = first.strip_suffix("0.").unwrap_or(&first);
        let layer = |name: &str| {
            name.strip_prefix(before)?
                .split('.')
                .next()?
                .parse::<usize>()
                .ok()
        };
        let names = self.checkpoint.tensors().map(|(name, _)| name);
        if let Some(last) = names.filter_map(layer).max().filter(|last| *last >= layers) {
            tracing::warn!(
                "`{dir}/config.json`: `num_hidden_layers` is {layers}, but the weights have layers up to {last}: those from {layers} \
                 on are not used and not pruned"
            );
        }
        if self.decoder.head_weight().is_err() {
            tracing::warn!(
                "`{dir}` has no `lm_head.weight`: the model can be pruned, but predicts no tokens"
            );
        }
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        self.checkpoint.dir()
    }

    /// Its tokenizer, which refuses texts with tokens that the model has no embedding for.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let embeddings = self.decoder.config().vocab_size();
        Ok(Tokenizer::open(self.dir())?.with_embeddings(embeddings))
    }

    /// The tokens of a window: what was asked for, or the model's longest sequence, at most
    /// [`Model::DEFAULT_SEQ_LEN`].
    ///
    /// # Errors
    /// When more is asked for than the model has positions. Rotary positions have no end; beyond the longest sequence there is a
    /// warning.
    pub fn seq_len(&self, asked: Option<usize>) -> Result<usize> {
        let config = self.decoder.config();
        let longest = config.max_positions();
        match asked {
            None => Ok(longest.min(Self::DEFAULT_SEQ_LEN)),
            Some(seq_len) if seq_len > longest && config.position_limit().is_none() => {
                tracing::warn!(
                    "sequences of {seq_len} tokens are longer than the model was made for: `{}/config.json` has \
                     `max_position_embeddings` {longest}",
                    self.dir().display()
                );
                Ok(seq_len)
            }
            Some(seq_len) if seq_len >= 2 && seq_len <= longest => Ok(seq_len),
            Some(seq_len) => Err(Error::from(ConfigError::Setting {
                setting: "‹seq-len›",
                reason: format!("{seq_len} is not between 2 and {longest}, the model's longest sequence"),
            })),
        }
    }

    /// What SparseGPT's and most published tables use, and the most that OPT and LLaMA 1 have.
    pub const DEFAULT_SEQ_LEN: usize = 2048;
}
