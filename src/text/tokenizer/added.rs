//! Tokens beside the vocabulary. In: the files that may name them. Out: what is added, in the order that decides its ids, as
//! transformers 5 has it (`PreTrainedTokenizerBase._from_pretrained`, `TokenizersBackend.__init__`).

use super::folder::Folder;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use tokenizers::AddedToken;

/// Special tokens with a name, in transformers' order.
const NAMES: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

/// What a `tokenizer.json` says of tokens beside its vocabulary.
#[derive(Debug, Default, Deserialize)]
pub(super) struct InFile {
    #[serde(default)]
    pub(super) added_tokens: Vec<Value>,
    #[serde(default)]
    padding: Value,
}

/// What a folder adds to its vocabulary.
#[derive(Debug)]
pub(super) struct Added {
    /// In the order in which they are added. What the vocabulary has keeps its id.
    pub(super) tokens: Vec<AddedToken>,
    named: Vec<(String, String)>,
}

impl Added {
    /// What `folder` and its `tokenizer.json` name; `defaults` are the class's names.
    pub(super) fn of(folder: &Folder, file: &InFile, defaults: &[(&str, &str)]) -> Self {
        let mut fields = folder.config.clone();
        let mut by_id: BTreeMap<u64, AddedToken> = BTreeMap::new();
        if let Some(decoder) = fields.get("added_tokens_decoder").and_then(Value::as_object) {
            for (id, value) in decoder {
                if let (Ok(id), Some(token)) = (id.parse(), token(value, false)) {
                    by_id.insert(id, token);
                }
            }
        } else {
            fields.extend(folder.special.clone());
            let special: Vec<String> = NAMES
                .iter()
                .filter_map(|name| fields.get(*name))
                .chain(listed(&fields))
                .filter_map(|value| Some(token(value, true)?.content))
                .collect();
            for (text, id) in &folder.added {
                if let Some(id) = id.as_u64() {
                    let special = special.contains(text);
                    by_id.insert(id, AddedToken::from(text.clone(), special));
                }
            }
            for value in &file.added_tokens {
                if let (Some(id), Some(token)) = (value["id"].as_u64(), token(value, false)) {
                    by_id.insert(id, token);
                }
            }
        }
        if let Some(token) = file.padding.get("pad_token") {
            fields.entry("pad_token").or_insert_with(|| token.clone());
        }
        let mut named: Vec<(String, AddedToken)> = Vec::new();
        let mut name = |name: &str, value: Option<&Value>| {
            if let Some(token) = value.and_then(|value| token(value, true)) {
                named.push((name.to_owned(), token));
            }
        };
        for known in NAMES {
            let default = defaults.iter().find(|(name, _)| *name == known);
            let default = default.map(|(_, text)| Value::from(*text));
            name(known, fields.get(known).or(default.as_ref()));
        }
        // Names of a model's own, such as `image_token`.
        for (key, value) in &fields {
            if key.ends_with("_token") && !NAMES.contains(&key.as_str()) {
                name(key, Some(value));
            }
        }
        for (key, text) in defaults {
            if !NAMES.contains(key) && !fields.contains_key(*key) {
                name(key, Some(&Value::from(*text)));
            }
        }
        if let Some(extra) = fields.get("extra_special_tokens").and_then(Value::as_object) {
            for (key, value) in extra {
                name(key, Some(value));
            }
        }
        let place = |name: &String| folder.order.iter().position(|known| known == name);
        named.sort_by_key(|(name, _)| (!NAMES.contains(&name.as_str())).then(|| place(name)));
        let is_named = |text: &str| named.iter().any(|(_, token)| token.content == text);
        let mut tokens: Vec<AddedToken> = by_id.into_values().collect();
        for token in &mut tokens {
            token.special |= is_named(&token.content);
        }
        let extra = listed(&fields).filter_map(|value| token(value, true));
        for token in named.iter().map(|(_, token)| token.clone()).chain(extra) {
            if tokens.iter().all(|known| known.content != token.content) {
                tokens.push(token);
            }
        }
        let named = named
            .into_iter()
            .map(|(name, token)| (name, token.content))
            .collect();
        Self { tokens, named }
    }

    /// The text of a named token.
    pub(super) fn named(&self, name: &str) -> Option<&str> {
        let found = self.named.iter().find(|(known, _)| known == name);
        found.map(|(_, text)| text.as_str())
    }
}

/// Further special tokens, by the newer name or else the older one.
fn listed(fields: &serde_json::Map<String, Value>) -> impl Iterator<Item = &Value> {
    let list = |name: &str| {
        fields
            .get(name)
            .and_then(Value::as_array)
            .filter(|list| !list.is_empty())
    };
    let newer = fields
        .get("extra_special_tokens")
        .filter(|value| value.as_object().is_some_and(|o| !o.is_empty()));
    let found = match newer {
        Some(_) => None,
        None => list("extra_special_tokens").or_else(|| list("additional_special_tokens")),
    };
    found.into_iter().flatten()
}

/// A token as a text, or as an object with its properties; `special` is what a text is.
fn token(value: &Value, special: bool) -> Option<AddedToken> {
    if let Some(text) = value.as_str() {
        return Some(AddedToken::from(text, special));
    }
    let text = value.get("content")?.as_str()?;
    let flag = |name: &str| value.get(name).and_then(Value::as_bool);
    let is_special = special || flag("special").unwrap_or(false);
    Some(AddedToken {
        content: text.to_owned(),
        single_word: flag("single_word").unwrap_or(false),
        lstrip: flag("lstrip").unwrap_or(false),
        rstrip: flag("rstrip").unwrap_or(false),
        normalized: flag("normalized").unwrap_or(!is_special),
        special: is_special,
    })
}
