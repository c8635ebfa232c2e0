//! JSON as Python writes it: with NaN and Infinity, halves of surrogate pairs, and sometimes a mark before the text. In: text. Out:
//! the same as every reader takes it.

use serde::de::DeserializeOwned;
use std::borrow::Cow;

/// Parses JSON, or else what Python takes for it; see [`strict`].
///
/// # Errors
/// What is wrong with it as JSON.
pub(crate) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    parse_by(without_mark(text), |text| serde_json::from_str(text))
}

/// As [`parse`], by a parser of the caller's.
///
/// # Errors
/// What is wrong with it as JSON.
pub(crate) fn parse_by<T>(
    text: &str,
    parse: impl Fn(&str) -> Result<T, serde_json::Error>,
) -> Result<T, serde_json::Error> {
    parse(text).or_else(|error| match strict(text) {
        Cow::Owned(text) => parse(&text),
        Cow::Borrowed(_) => Err(error),
    })
}

/// As [`parse`], from the bytes of a file.
///
/// # Errors
/// What is wrong with it as JSON.
pub(crate) fn parse_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    match std::str::from_utf8(bytes) {
        Ok(text) => parse(text),
        Err(_) => serde_json::from_slice(bytes),
    }
}

/// Takes the byte order mark off that some editors put before a text.
pub(crate) fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// The text with null for NaN, Infinity and -Infinity, and U+FFFD for every escaped half of a surrogate pair.
pub(crate) fn strict(text: &str) -> Cow<'_, str> {
    const NUMBERS: [&str; 3] = ["NaN", "-Infinity", "Infinity"];
    let mut out = String::new();
    let mut copied = 0;
    let mut at = 0;
    let mut in_string = false;
    let bytes = text.as_bytes();
    let mut replace = |from: usize, to: usize, by: &str| {
        out.push_str(&text[copied..from]);
        out.push_str(by);
        copied = to;
    };
    while at < bytes.len() {
        match bytes[at] {
            b'"' => in_string = !in_string,
            b'\\' if in_string => {
                let half = surrogate(bytes, at);
                match (half, half.and_then(|_| surrogate(bytes, at + 6))) {
                    (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => at += 11,
                    (Some(_), _) => {
                        replace(at, at + 6, "\\ufffd");
                        at += 5;
                    }
                    (None, _) => at += 1,
                }
            }
            b'N' | b'I' | b'-' if !in_string => {
                if let Some(number) = NUMBERS.iter().find(|number| text[at..].starts_with(**number)) {
                    replace(at, at + number.len(), "null");
                    at += number.len() - 1;
                }
            }
            _ => {}
        }
        at += 1;
    }
    match copied {
        0 => Cow::Borrowed(text),
        _ => Cow::Owned(out + &text[copied..]),
    }
}

/// The half of a surrogate pair that `\uXXXX` at this place stands for.
fn surrogate(bytes: &[u8], at: usize) -> Option<u32> {
    let escape = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    let code = u32::from_str_radix(std::str::from_utf8(escape).ok()?, 16).ok()?;
    (0xD800..=0xDFFF).contains(&code).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn what_python_writes() {
        for (text, expected) in [
            ("\u{feff}{\"a\": 1}", json!({"a": 1})),
            (
                r#"{"a": NaN, "b": [Infinity, -Infinity, -1], "NaN": "NaN \" Infinity"}"#,
                json!({"a": null, "b": [null, null, -1], "NaN": "NaN \" Infinity"}),
            ),
            (
                r#"["\ud83d\ude00", "\ud83d", "\ude00\ud83d x", "\\ud83d", "\u00e9"]"#,
                json!(["\u{1f600}", "\u{fffd}", "\u{fffd}\u{fffd} x", "\\ud83d", "\u{e9}"]),
            ),
        ] {
            assert_eq!(parse::<Value>(text).unwrap(), expected, "{text}");
        }
        for wrong in ["", "{", "NaNa", r#"{"a": Nan}"#, "[-]"] {
            assert!(parse::<Value>(wrong).is_err(), "{wrong}");
        }
        let plain = r#"{"a": "x", "n": -1.5e3}"#;
        assert!(matches!(strict(plain), Cow::Borrowed(_)));
    }
}
