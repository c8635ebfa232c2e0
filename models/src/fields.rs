//! Typed look-ups in a JSON object, with errors that name the field: what `config.rs`, `rope.rs` and `activation.rs`
//! read a `config.json` through.

use crate::error::ModelError;
use serde_json::{Map, Value};

/// The fields of one JSON object. `null` and absence are the same unless a method says otherwise.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    map: &'a Map<String, Value>,
    /// Prefix of field names in errors: empty at the top, `rope_parameters.` inside that object.
    path: &'static str,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(map: &'a Map<String, Value>, path: &'static str) -> Self {
        Self { map, path }
    }

    fn wrong<T>(&self, name: &str, expected: &str, found: &Value) -> Result<T, ModelError> {
        let path = self.path;
        Err(ModelError::Config(format!(
            "`{path}{name}` must be {expected}, found {found}"
        )))
    }

    /// Whether the field is there, be it `null`.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.map.contains_key(name)
    }

    /// The value, unless absent or `null`.
    pub(crate) fn value(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// A count of at least one, if given. One that Python wrote as `64.0` is the same; none of a model is above `u32::MAX`.
    pub(crate) fn size(&self, name: &str) -> Result<Option<usize>, ModelError> {
        let Some(value) = self.value(name) else {
            return Ok(None);
        };
        let whole = value.as_f64().filter(|number| number.fract() == 0.0);
        match whole {
            Some(size) if (1.0..=f64::from(u32::MAX)).contains(&size) => Ok(Some(size as usize)),
            Some(size) if size > 1.0 => self.wrong(name, "an integer below 2^32", value),
            _ => self.wrong(name, "an integer of at least 1", value),
        }
    }

    /// A count of at least one with a default for absence; an explicit `null` is an error.
    pub(crate) fn size_or(&self, name: &str, default: usize) -> Result<usize, ModelError> {
        match self.map.get(name) {
            Some(null @ Value::Null) => self.wrong(name, "an integer of at least 1", null),
            _ => Ok(self.size(name)?.unwrap_or(default)),
        }
    }

    /// A count where absence and `null` mean different things, as in `sliding_window`.
    pub(crate) fn size_or_null(
        &self,
        name: &str,
        absent: Option<usize>,
    ) -> Result<Option<usize>, ModelError> {
        if self.has(name) {
            self.size(name)
        } else {
            Ok(absent)
        }
    }

    /// A finite number, if given.
    pub(crate) fn number(&self, name: &str) -> Result<Option<f64>, ModelError> {
        let Some(value) = self.value(name) else {
            return Ok(None);
        };
        match value.as_f64().filter(|number| number.is_finite()) {
            Some(number) => Ok(Some(number)),
            None => self.wrong(name, "a number", value),
        }
    }

    /// A finite number above zero, if given.
    pub(crate) fn positive(&self, name: &str) -> Result<Option<f64>, ModelError> {
        match self.number(name)? {
            Some(number) if number <= 0.0 => self.wrong(name, "a number above 0", &Value::from(number)),
            other => Ok(other),
        }
    }

    /// A finite number above zero that must be there.
    pub(crate) fn required_positive(&self, name: &str) -> Result<f64, ModelError> {
        self.positive(name)?.ok_or_else(|| {
            let path = self.path;
            ModelError::Config(format!("`{path}{name}` is missing"))
        })
    }

    /// A list of numbers above zero that must be there.
    pub(crate) fn required_numbers(&self, name: &str) -> Result<Vec<f64>, ModelError> {
        let path = self.path;
        let value = self
            .value(name)
            .ok_or_else(|| ModelError::Config(format!("`{path}{name}` is missing")))?;
        let numbers: Option<Vec<f64>> = value.as_array().and_then(|list| {
            list.iter()
                .map(|item| item.as_f64().filter(|n| n.is_finite() && *n > 0.0))
                .collect()
        });
        match numbers {
            Some(numbers) => Ok(numbers),
            None => self.wrong(name, "a list of numbers above 0", value),
        }
    }

    /// A flag with a default for absence; `null` is false, as it is in Python.
    pub(crate) fn flag(&self, name: &str, default: bool) -> Result<bool, ModelError> {
        match self.map.get(name) {
            None => Ok(default),
            Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => self.wrong(name, "true or false", other),
        }
    }

    /// A text with a default for absence; an explicit `null` is an error.
    pub(crate) fn text_or(&self, name: &str, default: &'a str) -> Result<&'a str, ModelError> {
        match self.map.get(name) {
            None => Ok(default),
            Some(Value::String(text)) => Ok(text),
            Some(other) => self.wrong(name, "a text", other),
        }
    }

    /// A text, if given.
    pub(crate) fn text(&self, name: &str) -> Result<Option<&'a str>, ModelError> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => self.wrong(name, "a text", other),
        }
    }

    /// A list of texts, if given.
    pub(crate) fn texts(&self, name: &str) -> Result<Option<Vec<&'a str>>, ModelError> {
        let Some(value) = self.value(name) else {
            return Ok(None);
        };
        let texts: Option<Vec<&str>> = value
            .as_array()
            .and_then(|list| list.iter().map(Value::as_str).collect());
        match texts {
            Some(texts) => Ok(Some(texts)),
            None => self.wrong(name, "a list of texts", value),
        }
    }

    /// A nested object; an empty one counts as absent, as it does in Python's `a or b`.
    pub(crate) fn object(
        &self,
        name: &'static str,
        path: &'static str,
    ) -> Result<Option<Fields<'a>>, ModelError> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::Object(map)) if map.is_empty() => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Fields::new(map, path))),
            Some(other) => self.wrong(name, "an object", other),
        }
    }
}
