//! Rows of data files. In: a path. Out: one text or conversation a row, or all its fields, and the hash of the file's bytes;
//! plain text is read whole. `documents` and `published` make documents and texts of them, `eval::tasks` makes questions.

use super::document::{Document, FIELDS, Object, document, missing};
use super::{DataError, parquet};
use crate::error::{Error, Result};
use flate2::read::MultiGzDecoder;
use minijinja::value::Value;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use sha2::{Digest, Sha256};
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    None,
    Gzip,
    Zstandard,
}

/// Whether the file has rows with fields, as opposed to plain text.
pub(crate) fn has_rows(file: &Path) -> bool {
    is_json(file) || is_parquet(file)
}

/// Hands every row's text or conversation to `row`, blank ones too, and the file's bytes to the hash.
pub(crate) fn read_rows(
    file: &Path,
    field: Option<&str>,
    hasher: &mut Sha256,
    row: &mut dyn FnMut(Document),
) -> Result<()> {
    if is_parquet(file) {
        return parquet::read_column(file, hashed(file, hasher)?, field, row);
    }
    let mut document = |_, text: &str| json_document(text, field).map(&mut *row);
    read_json_lines(file, hasher, &mut document)
}

/// What the rows of a file are called, and counted as.
pub(crate) fn unit(file: &Path) -> &'static str {
    if is_parquet(file) { "row" } else { "line" }
}

/// Hands the number of every row, counted from 1, and all its fields to `row`, and the file's bytes to the hash. A file that is
/// not parquet by its name has one JSON object a line.
pub(crate) fn read_objects(
    file: &Path,
    hasher: &mut Sha256,
    row: &mut dyn FnMut(usize, Object),
) -> Result<()> {
    if is_parquet(file) {
        return parquet::read_objects(file, hashed(file, hasher)?, row);
    }
    let mut object = |line, text: &str| {
        let fields = serde_json::from_str(text).map_err(|e| format!("not a JSON object: {e}"))?;
        row(line, fields);
        Ok(())
    };
    read_json_lines(file, hasher, &mut object)
}

/// Opens a file that is not read in order, once its bytes went to the hash.
fn hashed(file: &Path, hasher: &mut Sha256) -> Result<File> {
    let mut bytes = File::open(file).map_err(Error::io("open", file))?;
    std::io::copy(&mut bytes, hasher).map_err(Error::io("read", file))?;
    Ok(bytes)
}

/// A text file whole.
pub(crate) fn read_plain(path: &Path, hasher: &mut Sha256) -> Result<String> {
    let mut bytes = Vec::new();
    open(path, hasher)?
        .read_to_end(&mut bytes)
        .map_err(Error::io("read", path))?;
    String::from_utf8(bytes).map_err(|e| {
        let valid = &e.as_bytes()[..e.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|&&b| b == b'\n').count();
        DataError::NotUtf8 {
            file: path.to_path_buf(),
            line,
        }
        .into()
    })
}

fn packing(file: &Path) -> Packing {
    match file.extension() {
        Some(e) if e.eq_ignore_ascii_case("gz") => Packing::Gzip,
        Some(e) if e.eq_ignore_ascii_case("zst") => Packing::Zstandard,
        _ => Packing::None,
    }
}

/// By the extension before that of the packing.
fn is_json(file: &Path) -> bool {
    let inner = match packing(file) {
        Packing::None => file.to_path_buf(),
        _ => file.with_extension(""),
    };
    let is = |e: &str| {
        inner
            .extension()
            .is_some_and(|found| found.eq_ignore_ascii_case(e))
    };
    ["jsonl", "ndjson", "json"].into_iter().any(is)
}

/// Whether the file's name says that it holds token ids.
pub fn is_token_file(file: &Path) -> bool {
    file.extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("safetensors"))
}

fn is_parquet(file: &Path) -> bool {
    file.extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("parquet"))
}

/// Feeds everything that is read from the file to a hash.
struct Hashed<'a> {
    file: File,
    hasher: &'a mut Sha256,
}

impl Read for Hashed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        Ok(n)
    }
}

/// Opens a file for reading lines, decompressed where its name says so.
fn open<'a>(path: &Path, hasher: &'a mut Sha256) -> Result<Box<dyn BufRead + 'a>> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let hashed = BufReader::with_capacity(1 << 16, Hashed { file, hasher });
    // Both decoders read several members or frames up to the end, so that the hash covers the whole file.
    Ok(match packing(path) {
        Packing::None => Box::new(hashed),
        Packing::Gzip => Box::new(BufReader::new(MultiGzDecoder::new(hashed))),
        Packing::Zstandard => {
            let decoder =
                zstd::stream::read::Decoder::with_buffer(hashed).map_err(Error::io("read", path))?;
            Box::new(BufReader::new(decoder))
        }
    })
}

/// Hands every line that is not blank with its number to `row`, which says what is wrong with it.
fn read_json_lines(
    path: &Path,
    hasher: &mut Sha256,
    row: &mut dyn FnMut(usize, &str) -> Result<(), String>,
) -> Result<()> {
    let mut reader = open(path, hasher)?;
    let mut raw = Vec::new();
    for line in 1.. {
        raw.clear();
        let read = reader.read_until(b'\n', &mut raw);
        if read.map_err(Error::io("read", path))? == 0 {
            break;
        }
        let file = || path.to_path_buf();
        let text = std::str::from_utf8(&raw).map_err(|_| DataError::NotUtf8 { file: file(), line })?;
        let text = match line {
            1 => text.strip_prefix('\u{feff}').unwrap_or(text),
            _ => text,
        };
        if text.trim().is_empty() {
            continue;
        }
        row(line, text).map_err(|reason| DataError::Json {
            file: file(),
            line,
            reason,
        })?;
    }
    Ok(())
}

fn json_document(text: &str, field: Option<&str>) -> Result<Document, String> {
    let mut json = serde_json::Deserializer::from_str(text);
    let found = Fields(field)
        .deserialize(&mut json)
        .and_then(|found| json.end().map(|()| found))
        .map_err(|e| format!("not a JSON object: {e}"))?;
    match found {
        Some((name, value)) => document(&name, value),
        None => Err(missing("the object", field)),
    }
}

/// Takes the named field of an object, or the first of [`FIELDS`] that it has, and passes over the others without keeping
/// them.
struct Fields<'a>(Option<&'a str>);

impl<'de> DeserializeSeed<'de> for Fields<'_> {
    type Value = Option<(String, Value)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = Option<(String, Value)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let rank = |name: &str| match self.0 {
            Some(field) => (field == name).then_some(0),
            None => FIELDS.iter().position(|field| *field == name),
        };
        let mut found: Option<(usize, String, Value)> = None;
        while let Some(key) = map.next_key::<String>()? {
            match rank(&key) {
                Some(rank) if found.as_ref().is_none_or(|(best, ..)| rank <= *best) => {
                    found = Some((rank, key, map.next_value()?));
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found.map(|(_, name, value)| (name, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(name: &str, bytes: &[u8], field: Option<&str>) -> Result<Vec<Document>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let (mut hasher, mut rows) = (Sha256::new(), Vec::new());
        read_rows(&path, field, &mut hasher, &mut |row| rows.push(row))?;
        assert_eq!(hasher.finalize(), Sha256::digest(bytes));
        Ok(rows)
    }

    const CHAT: &str = r#"{"messages": [{"role": "user", "content": "q"}], "text": "t"}"#;

    #[test]
    fn text_before_messages_unless_named() {
        assert_eq!(rows("a.jsonl", CHAT.as_bytes(), None).unwrap(), ["t"]);
        for (field, json) in [
            (Some("messages"), CHAT.to_owned()),
            (None, CHAT.replace("\"text\"", "\"other\"")),
        ] {
            let found = rows("a.ndjson", json.as_bytes(), field).unwrap();
            assert!(matches!(found.as_slice(), [Document::Chat(_)]), "{found:?}");
        }
        assert_eq!(
            rows("a.jsonl", CHAT.replace("\"t\"", "\"\"").as_bytes(), None).unwrap(),
            [""]
        );
    }

    #[test]
    fn zstandard_of_several_frames() {
        let frame = |text: &str| zstd::stream::encode_all(text.as_bytes(), 1).unwrap();
        let packed = [frame("{\"text\": \"a\"}\n"), frame("{\"text\": \"b\"}")].concat();
        assert_eq!(rows("a.jsonl.zst", &packed, None).unwrap(), ["a", "b"]);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt.zst");
        std::fs::write(&path, frame("plain")).unwrap();
        assert_eq!(read_plain(&path, &mut Sha256::new()).unwrap(), "plain");
        assert!(rows("a.jsonl.zst", &packed[..packed.len() - 3], None).is_err());
    }

    #[test]
    fn what_is_no_document_is_named() {
        let reason = |json: &str, field| match rows("a.jsonl", json.as_bytes(), field) {
            Err(Error::Data(DataError::Json { reason, line: 1, .. })) => reason,
            other => panic!("{other:?}"),
        };
        assert!(reason(r#"{"text": 7}"#, None).contains("`text` holds a number"));
        assert!(reason(CHAT, Some("body")).contains("no field `body`"));
        assert!(reason("{}", None).contains("neither a field `text` nor `messages`"));
        assert!(reason(r#"{"messages": [{"content": "q"}]}"#, None).contains("message 0"));
        assert!(reason(r#"{"messages": []}"#, None).contains("no messages"));
        assert!(reason("[1]", None).contains("not a JSON object"));
    }
}
