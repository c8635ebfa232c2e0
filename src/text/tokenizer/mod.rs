//! Text to token ids and back. In: a model folder's `tokenizer.json`, or `vocab.json` and `merges.txt`, with the files that say more of
//! them. Out: the ids that transformers 5 gives, with the tokenizer's own default special tokens, for `calibration`, `eval` and
//! `generate`.

mod added;
mod class;
pub(super) mod folder;

use super::{ChatTemplate, Conversation, TokenizerError};
use crate::error::Result;
use crate::json::{parse, without_mark};
use crate::system::{Panicked, guarded};
use added::{Added, InFile};
use class::{Class, Reading};
use folder::{Folder, invalid, text};
use serde::Deserialize;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use tokenizers::models::ModelWrapper;
use tokenizers::processors::template::{SpecialToken, TemplateProcessing};
use tokenizers::{Encoding, Tokenizer as Inner};

/// A model's tokenizer.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: Inner,
    largest: u32,
    /// Ids that the model has an embedding for.
    embeddings: usize,
    dir: PathBuf,
    /// Read when the first conversation comes.
    chat_template: OnceLock<ChatTemplate>,
}

/// A token and the bytes of the text that it stands for. Tokens of one character's bytes all have the whole character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) id: u32,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// What is taken of a `tokenizer.json` by classes that make the rest themselves.
#[derive(Deserialize)]
struct File {
    model: Model,
    #[serde(default)]
    post_processor: Value,
    #[serde(flatten)]
    in_file: InFile,
}

#[derive(Deserialize)]
struct Model {
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    vocab: Value,
    #[serde(default)]
    merges: Value,
}

impl Tokenizer {
    /// Reads the tokenizer of a model folder, by the class of transformers that reads it. Truncation, padding and dropout that the
    /// files may ask for are switched off: a text is tokenised whole, and always in the same way. A warning names what cannot be
    /// honoured.
    ///
    /// # Errors
    /// When the folder has neither `tokenizer.json` nor `vocab.json` with `merges.txt`, when they cannot be read, or when these two
    /// belong to a class whose way to split words is not known here.
    pub fn open(dir: &Path) -> Result<Self> {
        let folder = Folder::open(dir)?;
        let file = dir.join("tokenizer.json");
        let read = guarded(|| match text(&file)? {
            Some(json) => from_json(&folder, &file, &json),
            None => from_vocabulary(&folder),
        });
        let (mut inner, read_from) = read.unwrap_or_else(|Panicked(why)| Err(invalid(&file, why).into()))?;
        inner.with_truncation(None).map_err(|e| invalid(&read_from, e))?;
        inner.with_padding(None);
        if let ModelWrapper::BPE(bpe) = inner.get_model()
            && bpe.dropout.is_some()
        {
            let mut bpe = bpe.clone();
            bpe.dropout = None;
            inner.with_model(bpe);
        }
        inner.set_encode_special_tokens(folder.flag("split_special_tokens").unwrap_or(false));
        if folder.flag("fix_mistral_regex") == Some(true) {
            folder.warn(
                "fix_mistral_regex",
                "not honoured; words are split as tokenizer.json says",
            );
        }
        let ids = inner.get_vocab(true).into_values();
        let largest = ids.max().ok_or_else(|| invalid(&read_from, "it has no tokens"))?;
        Ok(Self {
            inner,
            largest,
            embeddings: usize::MAX,
            dir: dir.to_path_buf(),
            chat_template: OnceLock::new(),
        })
    }

    /// The same for a model with that many embeddings: a text with a token beyond them is refused. Other tokens beyond them harm
    /// nobody, and neither do embeddings without a token, as many models have them.
    #[must_use]
    pub fn with_embeddings(self, embeddings: usize) -> Self {
        Self { embeddings, ..self }
    }

    fn run(
        &self,
        text: &str,
        encode: impl FnOnce(&Inner) -> tokenizers::Result<Encoding>,
    ) -> Result<Encoding> {
        let encoding =
            guarded(|| encode(&self.inner)).map_err(|Panicked(reason)| TokenizerError::Failed { reason })?;
        let encoding = encoding.map_err(failed)?;
        let beyond = encoding
            .get_ids()
            .iter()
            .position(|id| *id as usize >= self.embeddings);
        if let Some(at) = beyond {
            let id = encoding.get_ids()[at];
            let near = encoding.get_offsets()[at];
            return Err(TokenizerError::Beyond {
                dir: self.dir.clone(),
                token: self
                    .token(id)
                    .or_else(|| text.get(near.0..near.1).map(str::to_owned))
                    .unwrap_or_default(),
                id,
                embeddings: self.embeddings,
            }
            .into());
        }
        Ok(encoding)
    }

    /// The ids of `text`, with the special tokens that the tokenizer adds by default (OPT: a leading `</s>`).
    ///
    /// # Errors
    /// When the tokenizer has no token for a part of the text and none for unknown text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.run(text, |inner| inner.encode_fast(text, true))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The ids of `text` and nothing else, as the continuation of another text needs them.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_without_special_tokens(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.run(text, |inner| inner.encode_fast(text, false))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The tokens of `text` and nothing else, with their places.
    pub(super) fn tokens(&self, text: &str) -> Result<Vec<Token>> {
        let encoding = self.run(text, |inner| inner.encode(text, false))?;
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
}

fn failed(error: tokenizers::Error) -> TokenizerError {
    TokenizerError::Failed {
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

/// The tokenizer of a `tokenizer.json`, and the file.
fn from_json(folder: &Folder, file: &Path, json: &str) -> Result<(Inner, PathBuf)> {
    let as_it_is = |in_file: &InFile| -> Result<Inner> {
        let mut inner: Inner = without_mark(json).parse().map_err(|e| invalid(file, e))?;
        inner
            .add_tokens(Added::of(folder, in_file, &[], true).tokens)
            .map_err(|e| invalid(file, e))?;
        Ok(inner)
    };
    let not_built = |class: &str| {
        let why = "transformers makes this class's tokenizer anew; it is read from tokenizer.json as it is";
        folder.warn("tokenizer_class", &format!("{class}: {why}"));
    };
    let inner = match Reading::of(folder, Some(json)) {
        Reading::By(class) => {
            let parsed: File = parse(json).map_err(|e| invalid(file, e))?;
            let model = parsed.model;
            if model.kind.as_deref().is_some_and(|kind| kind != "BPE") || !model.vocab.is_object() {
                not_built(&format!("{class:?}"));
                as_it_is(&parsed.in_file)?
            } else {
                let beside = Some((parsed.in_file, parsed.post_processor));
                by_class(class, folder, file, (model.vocab, model.merges), beside)?
            }
        }
        reading => {
            if let Reading::Unknown(class) = reading {
                not_built(&class);
            }
            as_it_is(&parse(json).map_err(|e| invalid(file, e))?)?
        }
    };
    Ok((inner, file.to_path_buf()))
}

/// The tokenizer that a class makes of a vocabulary and its merges from `file`, with what a `tokenizer.json` has beside them.
fn by_class(
    class: Class,
    folder: &Folder,
    file: &Path,
    (vocab, merges): (Value, Value),
    beside: Option<(InFile, Value)>,
) -> Result<Inner> {
    let has_json = beside.is_some();
    let (in_file, processor) = beside.unwrap_or_default();
    let added = Added::of(folder, &in_file, class.defaults(), false);
    let built = class.build(folder, &added, vocab, merges, processor);
    let make = || -> tokenizers::Result<Inner> {
        let mut inner: Inner = built.to_string().parse()?;
        inner.add_tokens(class.tokens(&added))?;
        if built["post_processor"].is_null() {
            surround(&mut inner, &added, class.around(folder, has_json))?;
        }
        Ok(inner)
    };
    Ok(make().map_err(|e| invalid(file, e))?)
}

/// The tokenizer of `vocab.json` and `merges.txt`, and the first of them.
fn from_vocabulary(folder: &Folder) -> Result<(Inner, PathBuf)> {
    let dir = &folder.dir;
    let file = dir.join("vocab.json");
    let (Some(vocab), Some(merges)) = (text(&file)?, text(&dir.join("merges.txt"))?) else {
        return Err(TokenizerError::Missing {
            dir: dir.clone(),
            found: found(dir),
        }
        .into());
    };
    let class = match Reading::of(folder, None) {
        Reading::By(class) => class,
        Reading::AsItIs => {
            folder.warn(
                "tokenizer_class",
                "names no class that has vocab.json; words are split as GPT-2 does",
            );
            Class::Gpt2
        }
        Reading::Unknown(class) => {
            let file = dir.join("tokenizer_config.json");
            return Err(TokenizerError::Class { file, class }.into());
        }
    };
    let vocab: Value = parse(&vocab).map_err(|e| invalid(&file, e))?;
    let merges: Vec<[&str; 2]> = merges
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.starts_with("#version") && !line.trim().is_empty())
        .map(|(number, line)| match line.trim_end().split_once(' ') {
            Some((left, right)) => Ok([left, right]),
            None => Err(invalid(
                &dir.join("merges.txt"),
                format!("line {} is no pair", number + 1),
            )),
        })
        .collect::<Result<_, _>>()?;
    let inner = by_class(class, folder, &file, (vocab, serde_json::json!(merges)), None)?;
    Ok((inner, file))
}

/// Has named tokens put before and after every text.
fn surround(inner: &mut Inner, added: &Added, around: [Option<&str>; 2]) -> tokenizers::Result<()> {
    // The template's language reserves some characters, so the tokens go by plain names in it.
    let [before, after] = around.map(|name| {
        let text = added.named(name?)?;
        Some((text.to_owned(), inner.token_to_id(text)?))
    });
    let place =
        |name: &str, token: &Option<(String, u32)>| token.as_ref().map_or(String::new(), |_| name.to_owned());
    let template = format!("{} $A {}", place("BEFORE", &before), place("AFTER", &after));
    let tokens: Vec<SpecialToken> = [("BEFORE", before), ("AFTER", after)]
        .into_iter()
        .filter_map(|(name, token)| {
            token.map(|(text, id)| SpecialToken::new(name.into(), vec![id], vec![text]))
        })
        .collect::<tokenizers::Result<_>>()?;
    let processor = TemplateProcessing::builder()
        .try_single(template.trim())?
        .special_tokens(tokens)
        .build()?;
    inner.with_post_processor(Some(processor));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
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
        let small = tokenizer.clone().with_embeddings(ids[1] as usize + 1);
        assert_eq!(small.encode("Once").unwrap(), ids[..2]);
        let error = small.with_embeddings(ids[1] as usize).encode("Once").unwrap_err();
        assert!(matches!(error, Error::Tokenizer(TokenizerError::Beyond { id, .. }) if id == ids[1]));
    }

    /// What transformers' AutoTokenizer gives for folders of many kinds; `make.py` beside the file makes it.
    #[test]
    fn folders_as_transformers_reads_them() {
        let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizers/cases.json");
        let cases: Value = serde_json::from_slice(&fs::read(cases).unwrap()).unwrap();
        let made = |name: &Value| &cases["vocabularies"][name.as_str().unwrap()];
        let texts = cases["texts"].as_array().unwrap();
        let mut wrong = Vec::new();
        for folder in cases["folders"].as_array().unwrap() {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("config.json"), r#"{"model_type": "llama"}"#).unwrap();
            for (name, content) in folder["files"].as_object().unwrap() {
                let mut content = content.clone();
                let text = match &content["$"] {
                    Value::Null if content.is_string() => content.as_str().unwrap().to_owned(),
                    Value::Null => {
                        if let Some(vocabulary) = content["model"].get("$").map(made) {
                            content["model"]["vocab"] = vocabulary["vocab"].clone();
                            content["model"]["merges"] = vocabulary["merges"].clone();
                        }
                        content.to_string()
                    }
                    vocabulary if name == "merges.txt" => {
                        let merges = made(vocabulary)["merges"].as_array().unwrap();
                        let pair = |pair: &Value| match pair.as_str() {
                            Some(pair) => pair.to_owned(),
                            None => format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()),
                        };
                        let lines: Vec<String> = merges.iter().map(pair).collect();
                        format!("#version: 0.2\n{}\n", lines.join("\n"))
                    }
                    vocabulary => made(vocabulary)["vocab"].to_string(),
                };
                fs::write(dir.path().join(name), text).unwrap();
            }
            let tokenizer = Tokenizer::open(dir.path()).unwrap();
            let bare = folder.get("bare").unwrap_or(&folder["ids"]);
            for (place, text) in texts.iter().enumerate() {
                let text = text.as_str().unwrap();
                let found = [
                    (tokenizer.encode(text).unwrap(), &folder["ids"][place]),
                    (
                        tokenizer.encode_without_special_tokens(text).unwrap(),
                        &bare[place],
                    ),
                ];
                for (ids, expected) in found {
                    if serde_json::json!(ids) != *expected {
                        wrong.push(format!("{}: {text:?}: {ids:?}, not {expected}", folder["name"]));
                    }
                }
            }
        }
        assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    }

    #[test]
    fn two_files_of_a_class_that_is_not_known_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("vocab.json", r#"{"a": 0, "b": 1, "ab": 2}"#);
        write("merges.txt", "#version: 0.2\na b\n");
        let open = |class: &str| {
            write(
                "tokenizer_config.json",
                &format!(r#"{{"tokenizer_class": "{class}"}}"#),
            );
            Tokenizer::open(dir.path())
        };
        assert_eq!(open("GPT2TokenizerFast").unwrap().encode("ab").unwrap(), [2]);
        match open("CLIPTokenizer") {
            Err(Error::Tokenizer(error @ TokenizerError::Class { .. })) => {
                let said = error.to_string();
                assert!(
                    said.contains("CLIPTokenizer") && said.contains("tokenizer_config.json"),
                    "{said}"
                );
            }
            other => panic!("{other:?}"),
        }
        write("merges.txt", "#version: 0.2\nab\n");
        assert!(
            open("GPT2Tokenizer")
                .unwrap_err()
                .to_string()
                .contains("merges.txt")
        );
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
