//! A checkpoint and the decoder that its configuration describes, checked against each other.

use super::Checkpoint;
use crate::error::{ConfigError, Error, Result};
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
        let config = ModelConfig::from_json(checkpoint.config_json())?.with_rope_precision(precision);
        let decoder = Decoder::new(config, &checkpoint)?;
        let model = Self {
            checkpoint,
            decoder,
            name: dir.display().to_string(),
            is_demo: false,
        };
        for (name, shape) in model.decoder.tensors() {
            model.checkpoint.expect(&name, &shape)?;
        }
        Ok(model)
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
    /// When more is asked for than the model has positions.
    pub fn seq_len(&self, asked: Option<usize>) -> Result<usize> {
        let longest = self.decoder.config().max_positions();
        match asked {
            None => Ok(longest.min(Self::DEFAULT_SEQ_LEN)),
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
