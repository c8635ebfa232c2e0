//! What can be wrong with data files, one variant each.

use std::path::PathBuf;

/// Why data cannot be used for calibration or evaluation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// No text at all.
    #[error("`{}` holds no text", file.display())]
    Empty {
        /// The file.
        file: PathBuf,
    },

    /// Bytes that are no text.
    #[error("`{}` is not UTF-8 text: line {line}", file.display())]
    NotUtf8 {
        /// The file.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
    },

    /// Something else than text.
    #[error("`{}` is {what}", file.display())]
    Content {
        /// The file.
        file: PathBuf,
        /// What it is.
        what: &'static str,
    },

    /// A line that is not a JSON object with the text in it.
    #[error("`{}`, line {line}: {reason}", file.display())]
    Json {
        /// The file.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },

    /// A row of a parquet file, or the file itself, that cannot be read.
    #[error("`{}`: {reason}", file.display())]
    Parquet {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// Neither a file, nor a name, nor an id.
    #[error("there is no file `{name}`, and it is neither {known} nor the id of a data set (ORG/NAME)")]
    Unknown {
        /// What was given.
        name: String,
        /// The names there are.
        known: String,
    },

    /// A published data set, which has a protocol of its own, among other data.
    #[error("`{name}` has a protocol of its own and cannot be mixed with other data")]
    PublishedMixed {
        /// Its name.
        name: String,
    },

    /// Windows in a file that contradict what was asked for.
    #[error("{setting} asks for {asked}, and `{}` holds {windows} windows of {seq_len} tokens, which are used as they are", file.display())]
    WindowsDiffer {
        /// The file.
        file: PathBuf,
        /// The option.
        setting: &'static str,
        /// Its value.
        asked: usize,
        /// Windows in the file.
        windows: usize,
        /// Tokens of each.
        seq_len: usize,
    },

    /// Files of text and of token ids together.
    #[error("`{}` holds token ids and cannot be mixed with other data files", file.display())]
    Mixed {
        /// The file of token ids.
        file: PathBuf,
    },

    /// No document long enough for a window.
    #[error(
        "no document of {source_names} has more than {seq_len} tokens \
         (documents: {documents}, the longest: {longest} tokens, all together: {tokens} tokens)"
    )]
    NoLongDocument {
        /// The data files.
        source_names: String,
        /// Number of documents.
        documents: usize,
        /// Tokens of all documents together.
        tokens: usize,
        /// Tokens of the longest document.
        longest: usize,
        /// The window asked for.
        seq_len: usize,
    },

    /// A text too short for a window.
    #[error("{source_names} has {tokens} tokens, and windows of {seq_len} need at least {needed}")]
    TooFewTokens {
        /// The data files.
        source_names: String,
        /// Tokens there are.
        tokens: usize,
        /// Tokens needed.
        needed: usize,
        /// The window asked for.
        seq_len: usize,
    },

    /// A file of token ids without usable ids.
    #[error("`{}` holds no token ids that can be used: {reason}", file.display())]
    TokenIds {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },

    /// A token id that the model has no embedding for.
    #[error("`{}` holds the token id {id}, and the model has only {model_vocab} embeddings", file.display())]
    IdTooLarge {
        /// The file.
        file: PathBuf,
        /// The id.
        id: i64,
        /// Rows of the model's embedding.
        model_vocab: usize,
    },
}

impl DataError {
    /// What the user can do about it, where there is something.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoLongDocument { tokens, seq_len, .. } if tokens > seq_len => format!(
                "use shorter windows (‹seq-len›), text with longer documents, or ‹draw› stream, which makes one stream of \
                 {tokens} tokens of them"
            ),
            Self::NoLongDocument { .. } | Self::TooFewTokens { .. } => {
                "give more text, or use shorter windows (‹seq-len›)".into()
            }
            Self::NotUtf8 { .. } => {
                "data files are .txt, .jsonl or .json (one object a line), their .gz or .zst, .parquet, or .safetensors with \
                 token ids"
                    .into()
            }
            Self::Content { .. } => {
                "data files are text in UTF-8, JSON, or parquet; .gz and .zst are read as they are. Unpack or convert it first".into()
            }
            Self::Json { .. } => {
                "a .jsonl file has one JSON object a line, with the text in its field `text` or a conversation in \
                 `messages`; ‹text-field› names another"
                    .into()
            }
            Self::Parquet { .. } => "‹text-field› names the column with the text or the conversations".into(),
            Self::Unknown { .. } => "check the path; see docs/data.md for what can be named".into(),
            Self::WindowsDiffer { setting, .. } => format!("leave {setting} out, or make another file of token ids"),
            Self::TokenIds { .. } => {
                "a .safetensors data file holds one tensor `input_ids` [windows, tokens] of I64, I32 or U32".into()
            }
            Self::IdTooLarge { .. } => "the ids were made with the tokenizer of another model".into(),
            Self::Empty { .. } | Self::Mixed { .. } | Self::PublishedMixed { .. } => return None,
        };
        Some(hint)
    }
}

/// What can be wrong with a tokenizer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The folder has no tokenizer that is read.
    #[error("`{}` has no tokenizer.json; it has {found}", dir.display())]
    Missing {
        /// The folder.
        dir: PathBuf,
        /// What lies there instead.
        found: String,
    },

    /// A file of the tokenizer that cannot be.
    #[error("`{}` is not a valid tokenizer file: {reason}", file.display())]
    Invalid {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// A vocabulary of a class whose way to split words is not known.
    #[error("`{}` names the class {class}, whose vocab.json and merges.txt are not read", file.display())]
    Class {
        /// The file.
        file: PathBuf,
        /// The class.
        class: String,
    },

    /// A text has a token that the model has no embedding for.
    #[error("the text has the token `{token}` of `{}`, whose id is {id}, and the model has only {embeddings} embeddings", dir.display())]
    Beyond {
        /// The tokenizer's folder.
        dir: PathBuf,
        /// The token.
        token: String,
        /// Its id.
        id: u32,
        /// Rows of the model's embedding.
        embeddings: usize,
    },

    /// Conversations need a template, and the folder has none.
    #[error("`{}` has no chat template", dir.display())]
    NoChatTemplate {
        /// The folder.
        dir: PathBuf,
    },

    /// A chat template that is not Jinja, or that refuses a conversation.
    #[error("the chat template in `{}` failed: {reason}", file.display())]
    ChatTemplate {
        /// The file that holds it.
        file: PathBuf,
        /// What the template or its engine said.
        reason: String,
    },

    /// A text that cannot be tokenised, or ids that cannot be turned into text.
    #[error("the tokenizer failed: {reason}")]
    Failed {
        /// What the tokenizer said.
        reason: String,
    },
}

impl TokenizerError {
    /// What the user can do about it, where there is something.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { found, .. } if found.contains("tokenizer.model") => Some(
                "a SentencePiece tokenizer.model is not read; save its fast form with transformers: \
                 AutoTokenizer.from_pretrained(DIR, use_fast=True).save_pretrained(DIR)"
                    .into(),
            ),
            Self::Missing { .. } => Some("copy tokenizer.json from where the model came from".into()),
            Self::Invalid { .. } => Some("fetch the file again".into()),
            Self::Class { .. } => Some(
                "save its tokenizer.json with transformers: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)".into(),
            ),
            Self::Beyond { .. } => {
                Some("the tokenizer belongs to another model, or tokens were added to it; use text without this token".into())
            }
            Self::NoChatTemplate { .. } => Some(
                "data of conversations needs a model with chat_template.jinja, or chat_template in tokenizer_config.json; \
                 use plain text with a base model"
                    .into(),
            ),
            Self::ChatTemplate { .. } | Self::Failed { .. } => None,
        }
    }
}
