//! Text to token ids and back. In: a model folder's `tokenizer.json`, or `vocab.json` and `merges.txt` as the OPT
//! checkpoints have. Out: ids with the tokenizer's own default special tokens, for `calibration`, `eval` and `generate`.

use super::pieces::Token;
use super::{ChatTemplate, Conversation, TokenizerError};
use crate::error::{Error, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use tokenizers::decoders::byte_level::ByteLevel as ByteLevelDecoder;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, Tokenizer as Inner};

/// A model's tokenizer.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: Inner,
    largest: u32,
    dir: PathBuf,
    /// Read when the first conversation comes.
    chat_template: OnceLock<ChatTemplate>,
}

impl Tokenizer {
    /// Reads the tokenizer of a model folder. Truncation and padding that the file may ask for are switched off: a text
    /// is tokenised whole.
    ///
    /// # Errors
    /// When the folder has neither `tokenizer.json` nor `vocab.json` with `merges.txt`, or they cannot be read.
    pub fn open(dir: &Path) -> Result<Self> {
        let json = dir.join("tokenizer.json");
        let (vocab, merges) = (dir.join("vocab.json"), dir.join("merges.txt"));
        let inner = if json.exists() {
            let bytes = std::fs::read(&json).map_err(Error::io("read", &json))?;
            Inner::from_bytes(bytes).map_err(|e| invalid(&json, e))?
        } else if vocab.exists() && merges.exists() {
            byte_level(dir, &vocab, &merges)?
        } else {
            return Err(TokenizerError::Missing {
                dir: dir.to_path_buf(),
                found: found(dir),
            }
            .into());
        };
        Self::new(inner, dir).map_err(|e| invalid(&json, e).into())
    }

    fn new(mut inner: Inner, dir: &Path) -> tokenizers::Result<Self> {
        inner.with_truncation(None)?;
        inner.with_padding(None);
        let largest = inner
            .get_vocab(true)
            .into_values()
            .max()
            .ok_or("it has no tokens")?;
        Ok(Self {
            inner,
            largest,
            dir: dir.to_path_buf(),
            chat_template: OnceLock::new(),
        })
    }

    /// The ids of `text`, with the special tokens that the tokenizer adds by default (OPT: a leading `</s>`).
    ///
    /// # Errors
    /// When the tokenizer has no token for a part of the text and none for unknown text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, true).map_err(failed)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The ids of `text` and nothing else, as the continuation of another text needs them.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_without_special_tokens(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, false).map_err(failed)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The tokens of `text` and nothing else, with their places.
    pub(super) fn tokens(&self, text: &str) -> Result<Vec<Token>> {
        let encoding = self.inner.encode(text, false).map_err(failed)?;
        let places = encoding.get_ids().iter().zip(encoding.get_offsets());
        Ok(places
            .map(|(&id, &(start, end))| Token { id, start, end })
            .collect())
    }

    /// A conversation as the text that the model's chat template makes of it; special tokens are in the text.
    ///
    /// # Errors
    /// When the model folder has no chat template, or the template refuses the conversation.
    pub fn render(&self, conversation: &Conversation) -> Result<String> {
        let template = match self.chat_template.get() {
            Some(template) => template,
            None => {
                let template = ChatTemplate::open(&self.dir)?;
                self.chat_template.get_or_init(|| template)
            }
        };
        template.render(conversation)
    }

    /// The text of `ids`, without special tokens.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        Ok(self.inner.decode(ids, true).map_err(failed)?)
    }

    /// The id of a token by its exact text, added tokens included.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The exact text of a token, added tokens included.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// One more than the largest id, added tokens included.
    pub fn vocab_size(&self) -> usize {
        self.largest as usize + 1
    }

    /// Checks that the model has an embedding for every id. Unused embeddings are fine: many models pad theirs.
    ///
    /// # Errors
    /// When an id is too large for `model_vocab` embeddings.
    pub fn check_vocabulary(&self, model_vocab: usize) -> Result<()> {
        if self.vocab_size() > model_vocab {
            return Err(TokenizerError::TooLarge {
                largest: self.largest,
                model_vocab,
            }
            .into());
        }
        Ok(())
    }
}

fn failed(error: tokenizers::Error) -> TokenizerError {
    TokenizerError::Failed {
        reason: error.to_string(),
    }
}

fn invalid(file: &Path, error: impl std::fmt::Display) -> TokenizerError {
    TokenizerError::Invalid {
        file: file.to_path_buf(),
        reason: error.to_string(),
    }
}

/// The files of the folder that could be meant as a tokenizer.
fn found(dir: &Path) -> String {
    let known = [
        "tokenizer.model",
        "vocab.json",
        "merges.txt",
        "vocab.txt",
        "spiece.model",
        "tekken.json",
        "tokenizer_config.json",
    ];
    let there: Vec<&str> = known.into_iter().filter(|name| dir.join(name).exists()).collect();
    if there.is_empty() {
        "no tokenizer file at all".into()
    } else {
        there.join(", ")
    }
}

/// The byte-level BPE of GPT-2 and OPT from its two files; `tokenizer_config.json` and `special_tokens_map.json` say which
/// special tokens there are and whether texts begin with one.
fn byte_level(dir: &Path, vocab: &Path, merges: &Path) -> Result<Inner> {
    let config = json_object(&dir.join("tokenizer_config.json"))?;
    let map = json_object(&dir.join("special_tokens_map.json"))?;
    let special = |name: &str| {
        let value = config
            .get(name)
            .filter(|v| !v.is_null())
            .or_else(|| map.get(name))?;
        value
            .as_str()
            .or_else(|| value.get("content")?.as_str())
            .map(str::to_owned)
    };
    let flag = |name: &str| config.get(name).and_then(Value::as_bool).unwrap_or(false);
    let bpe = BPE::from_file(&vocab.to_string_lossy(), &merges.to_string_lossy());
    let mut inner = Inner::new(bpe.build().map_err(|e| invalid(vocab, e))?);
    inner.with_pre_tokenizer(Some(ByteLevel::new(flag("add_prefix_space"), true, true)));
    inner.with_decoder(Some(ByteLevelDecoder::default()));
    let names = ["bos_token", "eos_token", "unk_token", "pad_token"];
    let tokens: Vec<AddedToken> = names
        .into_iter()
        .filter_map(special)
        .map(|token| AddedToken::from(token, true))
        .collect();
    inner.add_special_tokens(&tokens);
    if flag("add_bos_token")
        && let Some(bos) = special("bos_token")
        && let Some(id) = inner.token_to_id(&bos)
    {
        // The template's language reserves some characters, so the token goes by a plain name in it.
        let template = TemplateProcessing::builder()
            .try_single("BOS $A")
            .map_err(|e| invalid(vocab, e))?
            .special_tokens(vec![
                tokenizers::processors::template::SpecialToken::new("BOS".into(), vec![id], vec![bos])
                    .map_err(|e| invalid(vocab, e))?,
            ])
            .build()
            .map_err(|e| invalid(vocab, e))?;
        inner.with_post_processor(Some(template));
    }
    Ok(inner)
}

/// A JSON file's object; empty where there is no such file.
fn json_object(file: &Path) -> Result<serde_json::Map<String, Value>> {
    match std::fs::read(file) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).map_err(|e| invalid(file, e))?),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(serde_json::Map::new()),
        Err(source) => Err(Error::io("read", file)(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn demo_tokenizer() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/opt-mini")
    }

    const TEXT: &str = " Once upon a time, there's 12\n\n résumé 日本 </s> end";

    #[test]
    fn encodes_with_default_special_tokens_and_decodes() {
        let tokenizer = Tokenizer::open(&demo_tokenizer()).unwrap();
        let ids = tokenizer.encode("Once upon a time").unwrap();
        assert_eq!(ids[0], tokenizer.token_id("</s>").unwrap());
        assert_eq!(
            ids[1..],
            tokenizer
                .encode_without_special_tokens("Once upon a time")
                .unwrap()
        );
        assert_eq!(tokenizer.decode(&ids).unwrap(), "Once upon a time");
        assert_eq!(tokenizer.vocab_size(), 4096);
        tokenizer.check_vocabulary(4096).unwrap();
        tokenizer.check_vocabulary(5000).unwrap();
        let error = tokenizer.check_vocabulary(4095).unwrap_err();
        assert!(matches!(
            error,
            Error::Tokenizer(TokenizerError::TooLarge {
                largest: 4095,
                model_vocab: 4095
            })
        ));
    }

    #[test]
    fn truncation_and_padding_of_the_file_are_off() {
        let dir = tempfile::tempdir().unwrap();
        let text = fs::read_to_string(demo_tokenizer().join("tokenizer.json")).unwrap();
        let mut json: Value = serde_json::from_str(&text).unwrap();
        json["truncation"] = serde_json::json!({
            "direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0
        });
        json["padding"] = serde_json::json!({
            "strategy": {"Fixed": 50}, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 1, "pad_type_id": 0, "pad_token": "<pad>"
        });
        fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
        let plain = Tokenizer::open(&demo_tokenizer()).unwrap().encode(TEXT).unwrap();
        assert_eq!(Tokenizer::open(dir.path()).unwrap().encode(TEXT).unwrap(), plain);
    }

    #[test]
    fn vocab_and_merges_give_the_same_ids() {
        let dir = tempfile::tempdir().unwrap();
        let text = fs::read_to_string(demo_tokenizer().join("tokenizer.json")).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        fs::write(dir.path().join("vocab.json"), json["model"]["vocab"].to_string()).unwrap();
        let merge = |m: &Value| match m {
            Value::String(pair) => pair.clone(),
            pair => format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()),
        };
        let merges: Vec<String> = json["model"]["merges"]
            .as_array()
            .unwrap()
            .iter()
            .map(merge)
            .collect();
        fs::write(
            dir.path().join("merges.txt"),
            format!("#version: 0.2\n{}\n", merges.join("\n")),
        )
        .unwrap();
        let config = r#"{"add_bos_token": true, "bos_token": {"content": "</s>"}, "eos_token": "</s>", "pad_token": "<pad>"}"#;
        fs::write(dir.path().join("tokenizer_config.json"), config).unwrap();
        let (built, read) = (
            Tokenizer::open(dir.path()).unwrap(),
            Tokenizer::open(&demo_tokenizer()).unwrap(),
        );
        assert_eq!(built.encode(TEXT).unwrap(), read.encode(TEXT).unwrap());
        assert_eq!(
            built.decode(&built.encode(TEXT).unwrap()).unwrap(),
            read.decode(&read.encode(TEXT).unwrap()).unwrap()
        );
        // What transformers' GPT2Tokenizer makes of the same files.
        assert_eq!(
            built.encode("a </s> b <pad>x").unwrap(),
            [2, 68, 224, 2, 284, 224, 1, 91]
        );
        fs::remove_file(dir.path().join("tokenizer_config.json")).unwrap();
        let without_bos = Tokenizer::open(dir.path()).unwrap().encode("a b").unwrap();
        assert_eq!(without_bos, read.encode_without_special_tokens("a b").unwrap());
    }

    #[test]
    fn a_missing_or_damaged_tokenizer_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = |dir: &Path| match Tokenizer::open(dir) {
            Err(Error::Tokenizer(error)) => error,
            other => panic!("{other:?}"),
        };
        assert!(error(dir.path()).to_string().contains("no tokenizer file"));
        fs::write(dir.path().join("tokenizer.model"), "x").unwrap();
        assert!(error(dir.path()).hint().unwrap().contains("SentencePiece"));
        fs::write(dir.path().join("tokenizer.json"), "{").unwrap();
        assert!(matches!(error(dir.path()), TokenizerError::Invalid { .. }));
    }
}
