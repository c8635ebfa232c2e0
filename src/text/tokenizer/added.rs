//! Tokens beside the vocabulary. In: the files that may name them. Out: what is added, in the order that decides its ids, as
//! transformers 5 has it (`PreTrainedTokenizerBase._from_pretrained`, `TokenizersBackend.__init__`).

use super::folder::Folder;
use serde::Deserialize;
use serde_json::{Map, Value};
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
    /// In the order in which they are added; a later one of the same text has the last word on its properties. What the vocabulary
    /// has keeps its id.
    pub(super) tokens: Vec<AddedToken>,
    named: Vec<(String, Named)>,
    extra: Vec<Named>,
}

/// A token that a file names by its text alone, or with properties.
#[derive(Debug, Clone, PartialEq)]
enum Named {
    Text(String),
    Token(AddedToken),
}

impl Named {
    fn of(value: &Value) -> Option<Self> {
        match value.as_str() {
            Some(text) => Some(Self::Text(text.to_owned())),
            None => token(value, false).map(Self::Token),
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Token(token) => &token.content,
        }
    }

    fn token(&self) -> AddedToken {
        match self {
            Self::Text(text) => AddedToken::from(text.clone(), true),
            Self::Token(token) => token.clone(),
        }
    }
}

impl Added {
    /// What `folder` and its `tokenizer.json` name; `defaults` are the class's names. `kept`: the tokenizer has those of the file already.
    pub(super) fn of(folder: &Folder, file: &InFile, defaults: &[(&str, &str)], kept: bool) -> Self {
        let mut fields = folder.config.clone();
        // Tokens with names of a model's own; the older name of the list counts where the newer one says nothing.
        let mut by_name = Map::new();
        match fields.get("extra_special_tokens") {
            Some(Value::Object(names)) if !names.is_empty() => {
                by_name.extend(names.clone());
                fields.remove("extra_special_tokens");
            }
            Some(Value::Array(list)) if !list.is_empty() => {}
            _ => older_name(&mut fields),
        }
        let mut by_id: BTreeMap<u64, AddedToken> = BTreeMap::new();
        if let Some(decoder) = fields.get("added_tokens_decoder").and_then(Value::as_object) {
            for (id, value) in decoder {
                if let (Ok(id), Some(token)) = (id.parse(), token(value, false)) {
                    by_id.insert(id, token);
                }
            }
        } else {
            for (name, value) in &folder.special {
                let value = match (name.as_str(), value, fields.get(name)) {
                    ("extra_special_tokens", Value::Array(more), Some(Value::Array(list))) => {
                        Value::from_iter(list.iter().chain(more).cloned())
                    }
                    // With properties, it is special whatever else is said.
                    (_, Value::Object(token), _) if token.contains_key("content") => {
                        let mut token = token.clone();
                        token.insert("special".into(), true.into());
                        token.into()
                    }
                    _ => value.clone(),
                };
                fields.insert(name.clone(), value);
            }
            let special: Vec<String> = NAMES
                .iter()
                .filter_map(|name| fields.get(*name))
                .chain(listed(&fields))
                .filter_map(|value| Some(Named::of(value)?.text().to_owned()))
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
        if !fields.contains_key("extra_special_tokens") {
            older_name(&mut fields);
        }
        if let Some(token) = file.padding.get("pad_token") {
            fields.entry("pad_token").or_insert_with(|| token.clone());
        }
        let named = named(folder, (&fields, &by_name), defaults, &by_id);
        let extra: Vec<Named> = listed(&fields).filter_map(Named::of).collect();
        let in_file = file.added_tokens.iter().filter(|_| kept);
        let mut known: Vec<&str> = in_file.filter_map(|token| token["content"].as_str()).collect();
        known.extend(by_id.values().map(|token| token.content.as_str()));
        let mut more: Vec<Named> = Vec::new();
        for token in named.iter().map(|(_, token)| token).chain(&extra) {
            if !known.contains(&token.text()) && !more.contains(token) {
                more.push(token.clone());
            }
        }
        let is_named = |text: &str| named.iter().any(|(_, token)| token.text() == text);
        let mut tokens: Vec<AddedToken> = by_id.values().cloned().collect();
        tokens.extend(more.iter().map(Named::token));
        for token in &mut tokens {
            token.special |= is_named(&token.content);
        }
        Self { tokens, named, extra }
    }

    /// Every special token once more, by its text alone or, `with_properties`, as it was named: what some classes add at last.
    pub(super) fn again(&self, with_properties: bool) -> Vec<AddedToken> {
        let all = self.named.iter().map(|(_, token)| token).chain(&self.extra);
        all.map(|token| match with_properties {
            true => AddedToken {
                special: true,
                ..token.token()
            },
            false => AddedToken::from(token.text(), true),
        })
        .collect()
    }

    /// The text of a named token.
    pub(super) fn named(&self, name: &str) -> Option<&str> {
        let found = self.named.iter().find(|(known, _)| known == name);
        found.map(|(_, token)| token.text())
    }
}

/// The named tokens in transformers' order, then those with names of a model's own, in the file's order.
fn named(
    folder: &Folder,
    (fields, by_name): (&Map<String, Value>, &Map<String, Value>),
    defaults: &[(&str, &str)],
    by_id: &BTreeMap<u64, AddedToken>,
) -> Vec<(String, Named)> {
    let mut named: Vec<(String, Named)> = Vec::new();
    for name in NAMES {
        let default = defaults.iter().find(|(known, _)| *known == name);
        let found = match fields.get(name) {
            Some(value) => Named::of(value),
            None => default.map(|(_, text)| Named::Text((*text).to_owned())),
        };
        let Some(found) = found else {
            continue;
        };
        // What a file says of its properties counts more.
        let said = by_id.values().rfind(|token| token.content == found.text());
        let said = said.filter(|_| fields.contains_key(name));
        named.push((
            name.to_owned(),
            said.map_or(found, |token| Named::Token(token.clone())),
        ));
    }
    let mut own: Map<String, Value> = fields.clone();
    own.retain(|key, _| key.ends_with("_token") && !NAMES.contains(&key.as_str()));
    own.extend(by_name.clone());
    let own = own
        .iter()
        .filter_map(|(key, value)| Some((key.clone(), Named::of(value)?)));
    let mut own: Vec<(String, Named)> = own.collect();
    own.sort_by_key(|(name, _)| folder.order.iter().position(|known| known == name));
    let classes = defaults
        .iter()
        .filter(|(key, _)| !NAMES.contains(key) && !fields.contains_key(*key));
    own.extend(classes.map(|(key, text)| ((*key).to_owned(), Named::Text((*text).to_owned()))));
    named.extend(own);
    named
}

/// Puts the list of further special tokens under its newer name.
fn older_name(fields: &mut Map<String, Value>) {
    if let Some(list) = fields.remove("additional_special_tokens") {
        fields.insert("extra_special_tokens".into(), list);
    }
}

/// Further special tokens.
fn listed(fields: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    let list = fields.get("extra_special_tokens").and_then(Value::as_array);
    list.into_iter().flatten()
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
