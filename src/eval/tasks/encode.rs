//! Contexts and continuations as token ids, by the harness's rules (`_encode_pair` and `_loglikelihood_tokens`).

use crate::error::{Error, Result};
use crate::eval::Request;
use crate::text::Tokenizer;
use serde_json::Value;
use std::path::Path;

/// Encodes pairs of texts.
#[derive(Debug)]
pub struct PairEncoder<'a> {
    tokenizer: &'a Tokenizer,
    /// Stands for an empty context.
    prefix: Option<Prefix>,
    /// The most tokens that the model reads.
    max_length: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Prefix {
    id: u32,
    text: String,
}

impl<'a> PairEncoder<'a> {
    /// For the model in `dir`, which reads at most `max_length` tokens.
    pub fn new(tokenizer: &'a Tokenizer, dir: &Path, max_length: usize) -> Self {
        Self {
            tokenizer,
            prefix: prefix(tokenizer, dir),
            max_length,
        }
    }

    /// A request for each context and what is to follow it. Contexts that are the same are encoded once.
    ///
    /// # Errors
    /// [`Error::Tokenizer`], and otherwise the number of the pair with what is wrong with it.
    pub fn encode(&self, pairs: &[(String, String)]) -> Result<Vec<Request>, (usize, EncodeError)> {
        let mut last: Option<(&str, Vec<u32>)> = None;
        let mut requests = Vec::with_capacity(pairs.len());
        for (index, (context, continuation)) in pairs.iter().enumerate() {
            let failed = |error| (index, error);
            let spaces = context.trim_end_matches(super::question::is_space);
            let tokens = match last.take() {
                Some((same, tokens)) if same == spaces => tokens,
                _ if spaces.is_empty() => Vec::new(),
                _ => self.tokens(spaces).map_err(|e| failed(e.into()))?,
            };
            let pair = self.pair(context, continuation, &tokens).map_err(failed)?;
            requests.push(self.request(pair).map_err(failed)?);
            last = Some((spaces, tokens));
        }
        Ok(requests)
    }

    /// Tokens of the context and of the continuation. Blanks at the context's end belong to the continuation, whose
    /// tokens are what the two together have beyond the context's own, `before`.
    fn pair(
        &self,
        context: &str,
        continuation: &str,
        before: &[u32],
    ) -> Result<(Vec<u32>, Vec<u32>), EncodeError> {
        if before.is_empty() {
            let whole = format!("{context}{continuation}");
            let mut tokens = self.tokenizer.encode_without_special_tokens(&whole)?;
            let prefix = self.prefix.as_ref().ok_or(EncodeError::NoPrefix)?;
            if tokens.first() == Some(&prefix.id) {
                let rest = tokens.split_off(1);
                return Ok((tokens, rest));
            }
            return Ok((vec![prefix.id], tokens));
        }
        let mut whole = self.tokens(&format!("{context}{continuation}"))?;
        let continuation = whole.split_off(before.len().min(whole.len()));
        Ok((before.to_vec(), continuation))
    }

    /// With the special tokens that the tokenizer adds by itself, unless the text begins with the prefix already.
    fn tokens(&self, text: &str) -> Result<Vec<u32>> {
        match &self.prefix {
            Some(prefix) if text.starts_with(&prefix.text) => {
                self.tokenizer.encode_without_special_tokens(text)
            }
            _ => self.tokenizer.encode(text),
        }
    }

    /// Cuts off what is too long, from the left; the last token is predicted, never read.
    fn request(&self, (mut tokens, targets): (Vec<u32>, Vec<u32>)) -> Result<Request, EncodeError> {
        if targets.is_empty() {
            return Err(EncodeError::Empty);
        }
        if targets.len() > self.max_length {
            return Err(EncodeError::TooLong {
                tokens: targets.len(),
                max_length: self.max_length,
            });
        }
        tokens.extend(&targets);
        tokens.pop();
        let excess = tokens.len().saturating_sub(self.max_length);
        Ok(Request {
            inputs: tokens.split_off(excess),
            targets,
        })
    }
}

/// Why a pair of texts is no request.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The tokenizer failed.
    #[error(transparent)]
    Failed(Box<Error>),

    /// Nothing to predict.
    #[error("the choice adds no token to its context")]
    Empty,

    /// More to predict than the model can read.
    #[error("the choice has {tokens} tokens, and the model reads at most {max_length}")]
    TooLong {
        /// Tokens of the choice.
        tokens: usize,
        /// The model's positions.
        max_length: usize,
    },

    /// An empty context and nothing to put in its place.
    #[error(
        "its context is empty, and the tokenizer names neither a token that begins nor one that ends a text"
    )]
    NoPrefix,
}

impl From<Error> for EncodeError {
    fn from(error: Error) -> Self {
        Self::Failed(Box::new(error))
    }
}

/// The token that begins a text, or else the one that ends it: of the tokenizer's files, or else of `config.json`.
/// Files that are missing or damaged name none.
fn prefix(tokenizer: &Tokenizer, dir: &Path) -> Option<Prefix> {
    let files = ["tokenizer_config.json", "special_tokens_map.json", "config.json"];
    let files = files.map(|name| {
        let bytes = std::fs::read(dir.join(name)).ok()?;
        crate::json::parse_bytes::<Value>(&bytes).ok()
    });
    let named = |name: &str| {
        files[..2].iter().flatten().find_map(|file| {
            let value = file.get(name)?;
            let text = value.as_str().or_else(|| value.get("content")?.as_str())?;
            let id = tokenizer.token_id(text)?;
            Some(Prefix {
                id,
                text: text.to_owned(),
            })
        })
    };
    let numbered = |name: &str| {
        let value = files[2].as_ref()?.get(name)?;
        // LLaMA 3.1 has several tokens that end a text; the first is as good as any.
        let id = value.as_u64().or_else(|| value.as_array()?.first()?.as_u64())?;
        let id = u32::try_from(id).ok()?;
        let text = tokenizer.token(id)?;
        Some(Prefix { id, text })
    };
    named("bos_token")
        .or_else(|| named("eos_token"))
        .or_else(|| numbered("bos_token_id"))
        .or_else(|| numbered("eos_token_id"))
}
