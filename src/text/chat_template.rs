//! Conversations as the text that a chat model was trained on. In: a list of messages and the model folder's template
//! (`chat_template.jinja`, `chat_template.json`, or `chat_template` in `tokenizer_config.json`). Out: text, for `tokenizer`.
//!
//! The template is Jinja with transformers' settings: blocks are trimmed, `break` and `continue` are known, and there are
//! `raise_exception`, `strftime_now` and Python's `tojson`. One thing differs: `strftime_now` gives the same date every day,
//! so that a run can be repeated.

use crate::error::{Error, Result};
use crate::text::TokenizerError;
use crate::text::tokenizer::folder::read;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value, ValueKind};
use minijinja::{Environment, ErrorKind, context};
use serde::Serialize;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A list of messages, each an object with `role` and mostly `content`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation(Value);

impl Conversation {
    /// Takes any value that is a non-empty list of objects with a `role`.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn new(messages: impl Serialize) -> Result<Self, String> {
        Self::from_value(Value::from(Serde(messages)))
    }

    pub(crate) fn from_value(messages: Value) -> Result<Self, String> {
        if messages.kind() != ValueKind::Seq {
            return Err(format!("it holds a {}, not a list of messages", messages.kind()));
        }
        let mut count = 0;
        for message in messages.try_iter().map_err(|e| e.to_string())? {
            let role = message.get_attr("role").unwrap_or_default();
            if message.kind() != ValueKind::Map || role.as_str().is_none() {
                return Err(format!("message {count} is not an object with a `role`"));
            }
            count += 1;
        }
        match count {
            0 => Err("it has no messages".into()),
            _ => Ok(Self(messages)),
        }
    }
}

/// A model's template with the special tokens that it may name.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    tokens: Vec<(&'static str, String)>,
    file: PathBuf,
}

/// Special tokens by the names that templates know them by.
const TOKENS: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "pad_token",
    "sep_token",
    "cls_token",
    "mask_token",
];

const NAME: &str = "chat_template";

impl ChatTemplate {
    /// Reads the template of a model folder. Of several in `tokenizer_config.json`, it is the one named `default`.
    ///
    /// # Errors
    /// When there is none, a file cannot be read, or it is not Jinja.
    pub fn open(dir: &Path) -> Result<Self> {
        let config_file = dir.join("tokenizer_config.json");
        let config: serde_json::Value = read(&config_file)?;
        let map: serde_json::Value = read(&dir.join("special_tokens_map.json"))?;
        let (file, source) = match source(dir, &config_file, &config)? {
            Some(found) => found,
            None => {
                return Err(TokenizerError::NoChatTemplate {
                    dir: dir.to_path_buf(),
                }
                .into());
            }
        };
        let token = |name: &'static str| {
            let found = [&config, &map].into_iter().find_map(|file| {
                let value = file.get(name)?;
                value.as_str().or_else(|| value.get("content")?.as_str())
            });
            found.map(|token| (name, token.to_owned()))
        };
        let mut environment = environment();
        environment
            .add_template_owned(NAME, without_generation_marks(&source))
            .map_err(|e| template_error(&file, &e))?;
        Ok(Self {
            environment,
            tokens: TOKENS.into_iter().filter_map(token).collect(),
            file,
        })
    }

    /// The text of a conversation, complete with the special tokens that the template writes. `add_generation_prompt` is
    /// off: the conversation is over.
    ///
    /// # Errors
    /// When the template refuses the conversation or uses what is not there.
    pub fn render(&self, conversation: &Conversation) -> Result<String> {
        let tokens = Value::from_pairs(self.tokens.iter().map(|(name, token)| (*name, token.as_str())));
        let variables = context! {
            messages => &conversation.0,
            add_generation_prompt => false,
            tools => Value::from(()),
            documents => Value::from(()),
            ..tokens
        };
        let template = self.environment.get_template(NAME);
        template
            .and_then(|template| template.render(variables))
            .map_err(|e| template_error(&self.file, &e))
    }
}

/// The template and the file it is in.
fn source(dir: &Path, config_file: &Path, config: &serde_json::Value) -> Result<Option<(PathBuf, String)>> {
    let file = dir.join("chat_template.jinja");
    if file.exists() {
        let text = std::fs::read_to_string(&file).map_err(Error::io("read", &file))?;
        return Ok(Some((file, text)));
    }
    let file = dir.join("chat_template.json");
    let own: serde_json::Value = read(&file)?;
    for (file, json) in [(file.as_path(), &own), (config_file, config)] {
        let text = match json.get("chat_template") {
            Some(serde_json::Value::Array(several)) => several
                .iter()
                .find(|entry| entry["name"] == "default")
                .and_then(|entry| entry["template"].as_str()),
            Some(one) => one.as_str(),
            None => None,
        };
        if let Some(text) = text {
            return Ok(Some((file.to_path_buf(), text.to_owned())));
        }
    }
    Ok(None)
}

fn template_error(file: &Path, error: &minijinja::Error) -> Error {
    TokenizerError::ChatTemplate {
        file: file.to_path_buf(),
        reason: error.to_string(),
    }
    .into()
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_syntax(
        SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .unwrap_or_default(),
    );
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_filter("tojson", to_json);
    environment.add_function("strftime_now", strftime);
    environment.add_function(
        "raise_exception",
        |message: String| -> Result<Value, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        },
    );
    environment
}

/// transformers marks what an assistant said with `{% generation %}` blocks, which print what is in them.
fn without_generation_marks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        // `{%}` does not end itself.
        let Some(length) = rest[start + 2..].find("%}") else {
            break;
        };
        let (tag, after) = rest[start..].split_at(length + 4);
        let word = tag[2..tag.len() - 2].trim_matches(['-', '+']).trim();
        out.push_str(&rest[..start]);
        match word {
            "generation" => out.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => out.push_str(&tag.replace("endgeneration", "endif")),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out + rest
}

/// The date that LLaMA 3.1's own template falls back on, 26 July 2024, a Friday, at midnight.
fn strftime(format: String) -> Result<String, minijinja::Error> {
    let mut out = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        out.push_str(match letters.next() {
            Some('Y') => "2024",
            Some('y') => "24",
            Some('m') => "07",
            Some('B') => "July",
            Some('b' | 'h') => "Jul",
            Some('d' | 'e') => "26",
            Some('A') => "Friday",
            Some('a') => "Fri",
            Some('j') => "208",
            Some('H' | 'M' | 'S') => "00",
            Some('I') => "12",
            Some('p') => "AM",
            Some('F') => "2024-07-26",
            Some('T') => "00:00:00",
            Some('%') => "%",
            other => {
                let other = other.map(String::from).unwrap_or_default();
                let message = format!("strftime_now does not know `%{other}`");
                return Err(minijinja::Error::new(ErrorKind::InvalidOperation, message));
            }
        });
    }
    Ok(out)
}

/// Python's `json.dumps(value, ensure_ascii=False, indent=indent)`.
fn to_json(value: &Value, options: Kwargs) -> Result<Value, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    // What transformers' filter takes besides; none changes what is written here.
    let _: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let mut bytes = Vec::new();
    let written = match indent {
        Some(indent) => {
            let indent = " ".repeat(indent);
            let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter))
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(
            &mut bytes,
            PythonSpacing,
        )),
    };
    let failed = |e: String| minijinja::Error::new(ErrorKind::BadSerialization, e);
    written.map_err(|e| failed(e.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|e| failed(e.to_string()))?;
    Ok(Value::from_safe_string(text))
}

/// JSON with a blank after each comma and colon.
struct PythonSpacing;

impl serde_json::ser::Formatter for PythonSpacing {
    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
mod tests;
