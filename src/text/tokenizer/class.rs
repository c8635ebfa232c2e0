//! The classes of transformers 5 that make a tokenizer anew from its vocabulary, whatever else its file says. In: a folder. Out: the
//! class, and the tokenizer as that class makes it, in the form of a `tokenizer.json`.
//!
//! Sources: `models/auto/tokenization_auto.py` for which class reads a folder, and each class's own `__init__`.

use super::added::Added;
use super::folder::Folder;
use serde_json::{Value, json};
use tokenizers::AddedToken;

/// A class that makes its tokenizer itself; all of them are BPE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// OPT's too.
    Gpt2,
    GptNeoX,
    Qwen2,
    Llama,
    CodeLlama,
    Gemma,
    Cohere,
    Roberta,
}

/// How a folder is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reading {
    /// As its `tokenizer.json` says.
    AsItIs,
    By(Class),
    /// By a class that this program does not know.
    Unknown(String),
}

/// Classes that take `tokenizer.json` as it is.
const GENERIC: [&str; 5] = [
    "PreTrainedTokenizer",
    "PythonBackend",
    "TokenizersBackend",
    "MistralCommonBackend",
    "",
];

impl Class {
    fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "GPT2Tokenizer" | "CodeGenTokenizer" => Self::Gpt2,
            "GPTNeoXTokenizer" => Self::GptNeoX,
            "Qwen2Tokenizer" => Self::Qwen2,
            "LlamaTokenizer" => Self::Llama,
            "CodeLlamaTokenizer" => Self::CodeLlama,
            "GemmaTokenizer" => Self::Gemma,
            "CohereTokenizer" => Self::Cohere,
            "RobertaTokenizer" | "BartTokenizer" => Self::Roberta,
            _ => return None,
        })
    }

    /// Special tokens that the class has where no file names others.
    pub(super) fn defaults(self) -> &'static [(&'static str, &'static str)] {
        const END: &str = "<|endoftext|>";
        match self {
            Self::Gpt2 => &[("bos_token", END), ("eos_token", END), ("unk_token", END)],
            Self::GptNeoX => &[
                ("bos_token", END),
                ("eos_token", END),
                ("unk_token", END),
                ("pad_token", "<|padding|>"),
            ],
            Self::Qwen2 => &[("eos_token", END), ("unk_token", END), ("pad_token", END)],
            Self::Llama => &[
                ("bos_token", "<s>"),
                ("eos_token", "</s>"),
                ("unk_token", "<unk>"),
            ],
            Self::CodeLlama => &[
                ("bos_token", "<s>"),
                ("eos_token", "</s>"),
                ("unk_token", "<unk>"),
                ("prefix_token", "▁<PRE>"),
                ("middle_token", "▁<MID>"),
                ("suffix_token", "▁<SUF>"),
                ("eot_token", "▁<EOT>"),
                ("fill_token", "<FILL_ME>"),
            ],
            Self::Gemma => &[
                ("bos_token", "<bos>"),
                ("eos_token", "<eos>"),
                ("unk_token", "<unk>"),
                ("pad_token", "<pad>"),
                ("mask_token", "<mask>"),
            ],
            Self::Cohere => &[
                ("bos_token", "<BOS_TOKEN>"),
                ("eos_token", "<|END_OF_TURN_TOKEN|>"),
                ("unk_token", "<UNK>"),
                ("pad_token", "<PAD>"),
                ("cls_token", "<CLS>"),
                ("sep_token", "<SEP>"),
                ("mask_token", "<MASK_TOKEN>"),
            ],
            Self::Roberta => &[
                ("bos_token", "<s>"),
                ("eos_token", "</s>"),
                ("unk_token", "<unk>"),
                ("sep_token", "</s>"),
                ("cls_token", "<s>"),
                ("pad_token", "<pad>"),
                ("mask_token", "<mask>"),
            ],
        }
    }

    /// The class's tokenizer with a vocabulary and its merges; `processor` is that of the file, for classes that keep it.
    pub(super) fn build(
        self,
        folder: &Folder,
        added: &Added,
        vocab: Value,
        merges: Value,
        processor: Value,
    ) -> Value {
        let prefix = folder.flag("add_prefix_space");
        let legacy = folder.flag("legacy").unwrap_or(false);
        let byte_level = |prefix: bool, regex: bool| json!({"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": true, "use_regex": regex});
        let metaspace = |scheme: &str| json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": false});
        let spaces = json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "});
        let (bytes, fuse) = (json!({"type": "ByteFallback"}), json!({"type": "Fuse"}));
        let strip = json!({"type": "Strip", "content": " ", "start": 1, "stop": 0});
        let sequence = |kind: &str, list: Vec<Value>| json!({"type": "Sequence", kind: list});
        let nfc = json!({"type": "NFC"});
        let byte_prefix = prefix.unwrap_or(false);
        let word_prefix = prefix.unwrap_or(true);
        let byte_decoder = byte_level(true, true);
        let (normalizer, pre_tokenizer, decoder) = match self {
            Self::Gpt2 | Self::Roberta => (Value::Null, byte_level(byte_prefix, true), byte_decoder),
            Self::GptNeoX => (nfc, byte_level(byte_prefix, true), byte_decoder),
            Self::Qwen2 => {
                let split = json!({"type": "Split", "pattern": {"Regex": QWEN2}, "behavior": "Isolated", "invert": false});
                let parts = vec![split, byte_level(byte_prefix, false)];
                (nfc, sequence("pretokenizers", parts), byte_decoder)
            }
            Self::Cohere => {
                let digits = json!({"type": "Digits", "individual_digits": true});
                let parts = vec![digits, byte_level(byte_prefix, true)];
                (nfc, sequence("pretokenizers", parts), byte_decoder)
            }
            Self::Llama => {
                let scheme = match (word_prefix, legacy) {
                    (true, true) => "always",
                    (true, false) => "first",
                    (false, _) => "never",
                };
                let mut parts = vec![spaces, bytes, fuse];
                parts.extend(word_prefix.then_some(strip));
                (Value::Null, metaspace(scheme), sequence("decoders", parts))
            }
            Self::CodeLlama => {
                let scheme = if word_prefix { "first" } else { "never" };
                let parts = vec![spaces, bytes, fuse, strip];
                (Value::Null, metaspace(scheme), sequence("decoders", parts))
            }
            Self::Gemma => {
                let normalizer = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
                let split = json!({"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false});
                (normalizer, split, sequence("decoders", vec![spaces, bytes, fuse]))
            }
        };
        let by_words = matches!(self, Self::Llama | Self::CodeLlama | Self::Gemma);
        let unknown = match self {
            Self::CodeLlama | Self::Gemma => added.named("unk_token"),
            _ => None,
        };
        json!({
            "version": "1.0",
            "added_tokens": [],
            "normalizer": normalizer,
            "pre_tokenizer": pre_tokenizer,
            "post_processor": match self {
                Self::GptNeoX | Self::CodeLlama | Self::Roberta => Value::Null,
                _ => processor,
            },
            "decoder": decoder,
            "model": {
                "type": "BPE",
                "unk_token": unknown,
                "fuse_unk": by_words,
                "byte_fallback": by_words,
                "vocab": vocab,
                "merges": merges,
            },
        })
    }

    /// The tokens that the class adds.
    pub(super) fn tokens(self, added: &Added) -> Vec<AddedToken> {
        let again = match self {
            Self::Qwen2 => added.again(false),
            Self::Cohere => added.again(true),
            _ => Vec::new(),
        };
        added.tokens.iter().cloned().chain(again).collect()
    }

    /// Which named tokens are put before and after a text where no file's processor says it. `in_file`: there is a
    /// `tokenizer.json`, which has the last word on what `tokenizer_config.json` says of it.
    pub(super) fn around(self, folder: &Folder, in_file: bool) -> [Option<&'static str>; 2] {
        let flag = |name: &str| !in_file && folder.flag(name).unwrap_or(false);
        let bos = match self {
            Self::Roberta => return [Some("cls_token"), Some("sep_token")],
            Self::CodeLlama => in_file || folder.flag("add_bos_token").unwrap_or(true),
            _ => flag("add_bos_token"),
        };
        [
            bos.then_some("bos_token"),
            flag("add_eos_token").then_some("eos_token"),
        ]
    }
}

/// Qwen2's words.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl Reading {
    /// How transformers reads a folder. `file` is the text of its `tokenizer.json`.
    pub(super) fn of(folder: &Folder, file: Option<&str>) -> Self {
        let named = folder.class();
        // Classes that transformers has for a kind of model; for some it does not believe what the folder says.
        let (registered, believed) = match folder.model_type() {
            "opt" => (Some("GPT2Tokenizer"), true),
            "qwen2" => (Some("Qwen2Tokenizer"), false),
            "qwen3" => (Some("Qwen2Tokenizer"), true),
            "code_llama" => (Some("CodeLlamaTokenizer"), true),
            "gemma" => (Some("GemmaTokenizer"), true),
            "gpt_neox" => (Some("GPTNeoXTokenizer"), true),
            "mistral" => (Some("MistralCommonBackend"), true),
            _ => (None, true),
        };
        if let Some(file) = file {
            let byte_level = named == Some("LlamaTokenizer") && believed && file.contains("\"ByteLevel\"");
            let by_mistral = registered == Some("MistralCommonBackend");
            if byte_level || by_mistral {
                return Self::AsItIs;
            }
        }
        let class = match (named, registered) {
            (Some(_), Some(registered)) if !believed => registered,
            (Some(named), _) => named,
            (None, Some(registered)) => registered,
            // Without a word on it, a file is taken as it is, and two files as the oldest of the classes.
            (None, None) => "",
        };
        match Class::by_name(class) {
            Some(class) => Self::By(class),
            None if GENERIC.contains(&class) => Self::AsItIs,
            None => Self::Unknown(class.to_owned()),
        }
    }
}
