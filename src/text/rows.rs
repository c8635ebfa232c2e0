//! Rows of data files. In: a path. Out: one text or conversation a row, or all its fields, and the hash of the file's bytes;
//! plain text is read whole. `documents` and `published` make documents and texts of them, `eval::tasks` makes questions.

use super::document::{Document, FIELDS, Object, document, missing};
use super::{DataError, parquet};
use crate::error::{Error, Result};
use crate::json;
use flate2::bufread::GzDecoder;
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

/// Hands every row's text or conversation to `row`, blank ones too, and the file's bytes to the hash. Rows whose text is null, as
/// in tables with holes, are passed over, with a warning that counts them.
pub(crate) fn read_rows(
    file: &Path,
    field: Option<&str>,
    hasher: &mut Sha256,
    row: &mut dyn FnMut(Document),
) -> Result<()> {
    let mut nulls = 0;
    let mut document = |found: Option<Document>| match found {
        Some(document) => row(document),
        None => nulls += 1,
    };
    if is_parquet(file) {
        parquet::read_column(file, hashed(file, hasher)?, field, &mut document)?;
    } else {
        let mut parsed = |_, text: &str| json_document(text, field).map(&mut document);
        read_json(file, hasher, &mut parsed)?;
    }
    if nulls > 0 {
        let field = field.map_or(String::new(), |field| format!(" in `{field}`"));
        tracing::warn!(
            "`{}`: rows left out because their text is null{field}: {nulls}",
            file.display()
        );
    }
    Ok(())
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
        let fields = json::parse(text).map_err(|e| format!("not a JSON object: {e}"))?;
        row(line, fields);
        Ok(())
    };
    read_json(file, hasher, &mut object)
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
    let text = utf8(path, bytes, 1)?;
    if let Some(what) = looks_like(path, &text) {
        tracing::warn!(
            "`{}` looks like {what}, and is read as plain text, marks and all",
            path.display()
        );
    }
    Ok(text)
}

fn utf8(path: &Path, bytes: Vec<u8>, first_line: usize) -> Result<String> {
    String::from_utf8(bytes).map_err(|e| {
        let valid = &e.as_bytes()[..e.utf8_error().valid_up_to()];
        let line = first_line + valid.iter().filter(|&&b| b == b'\n').count();
        let file = path.to_path_buf();
        DataError::NotUtf8 { file, line }.into()
    })
}

/// What a plain text seems to be instead, with what to do.
fn looks_like(path: &Path, text: &str) -> Option<&'static str> {
    const TABLE: &str = "a table (convert its column of texts to .jsonl or .parquet)";
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let first = json::without_mark(lines.next()?).trim();
    let is_json = |text: &str| json::parse::<IgnoredAny>(text).is_ok();
    if first.starts_with('{') && is_json(first) {
        return Some("JSON lines (name it .jsonl)");
    }
    if first.starts_with(['{', '[']) && first.len() < 100 && is_json(text) {
        return Some("JSON (name it .json)");
    }
    if ["csv", "tsv"].into_iter().any(|e| has_extension(path, e)) {
        return Some(TABLE);
    }
    // A heading that names a column of texts, and as many cells in the next lines.
    let cells = |line: &str, mark: char| line.matches(mark).count();
    let is_table = |mark: char| {
        let names = first.split(mark).map(|name| name.trim_matches('"'));
        let named = names.clone().any(|name| FIELDS.contains(&name));
        named
            && cells(first, mark) > 0
            && lines
                .next()
                .is_some_and(|line| cells(line, mark) >= cells(first, mark))
    };
    [',', '\t', ';'].into_iter().any(is_table).then_some(TABLE)
}

fn has_extension(file: &Path, extension: &str) -> bool {
    file.extension()
        .is_some_and(|found| found.eq_ignore_ascii_case(extension))
}

fn packing(file: &Path) -> Packing {
    match file {
        _ if has_extension(file, "gz") => Packing::Gzip,
        _ if has_extension(file, "zst") => Packing::Zstandard,
        _ => Packing::None,
    }
}

/// By the extension before that of the packing.
fn is_json(file: &Path) -> bool {
    let inner = match packing(file) {
        Packing::None => file.to_path_buf(),
        _ => file.with_extension(""),
    };
    ["jsonl", "jsonlines", "ndjson", "json"]
        .into_iter()
        .any(|e| has_extension(&inner, e))
}

/// What a file that is not read begins with, and how that is named.
const NOT_READ: [(&[u8], &str); 8] = [
    (b"\xFD7zXZ\0", "compressed with xz"),
    (b"BZh", "compressed with bzip2"),
    (b"\x04\x22\x4D\x18", "compressed with lz4"),
    (b"PK\x03\x04", "a zip archive"),
    (b"7z\xBC\xAF", "a 7z archive"),
    (b"%PDF-", "a PDF document"),
    (b"\xFF\xFE", "text in UTF-16"),
    (b"\xFE\xFF", "text in UTF-16"),
];

/// How a file is packed: by its first bytes, or else by its name.
fn packing_of(file: &Path, first: &[u8]) -> Result<Packing> {
    let not_read = |what| {
        let file = file.to_path_buf();
        Err(DataError::Content { file, what }.into())
    };
    if let Some((_, what)) = NOT_READ.iter().find(|(magic, _)| first.starts_with(magic)) {
        return not_read(what);
    }
    if first.starts_with(b"PAR1") {
        return not_read("a parquet file, and its name does not end in .parquet");
    }
    Ok(match first {
        [0x1F, 0x8B, ..] => Packing::Gzip,
        [0x28, 0xB5, 0x2F, 0xFD, ..] => Packing::Zstandard,
        _ => packing(file),
    })
}

/// Whether the file's name says that it holds token ids.
pub fn is_token_file(file: &Path) -> bool {
    has_extension(file, "safetensors")
}

fn is_parquet(file: &Path) -> bool {
    has_extension(file, "parquet")
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

/// Opens a file for reading lines, decompressed where it is packed.
fn open<'a>(path: &'a Path, hasher: &'a mut Sha256) -> Result<Box<dyn BufRead + 'a>> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let mut hashed = BufReader::with_capacity(1 << 16, Hashed { file, hasher });
    let first = hashed.fill_buf().map_err(Error::io("read", path))?;
    // Both decoders read several members or frames up to the end, so that the hash covers the whole file.
    Ok(match packing_of(path, first)? {
        Packing::None => Box::new(hashed),
        Packing::Gzip => Box::new(BufReader::new(Members::new(path, hashed))),
        Packing::Zstandard => {
            let decoder =
                zstd::stream::read::Decoder::with_buffer(hashed).map_err(Error::io("read", path))?;
            Box::new(BufReader::new(decoder))
        }
    })
}

/// The members of a gzip file, one after the other. As gzip does, it passes over zeros behind them, and warns of anything else.
struct Members<'a, R> {
    path: &'a Path,
    state: Member<R>,
}

enum Member<R> {
    In(GzDecoder<R>),
    Behind(R),
    Over,
}

impl<'a, R: BufRead> Members<'a, R> {
    fn new(path: &'a Path, file: R) -> Self {
        let state = Member::In(GzDecoder::new(file));
        Self { path, state }
    }

    /// What comes after a member.
    fn behind(&self, mut file: R) -> std::io::Result<Member<R>> {
        loop {
            let rest = file.fill_buf()?;
            let zeros = rest.iter().take_while(|byte| **byte == 0).count();
            match rest.get(zeros) {
                Some(0x1F) => {
                    file.consume(zeros);
                    return Ok(Member::In(GzDecoder::new(file)));
                }
                Some(_) => {
                    tracing::warn!(
                        "`{}`: what follows the gzip data is left out",
                        self.path.display()
                    );
                    std::io::copy(&mut file, &mut std::io::sink())?;
                    return Ok(Member::Over);
                }
                None if zeros == 0 => return Ok(Member::Over),
                None => file.consume(zeros),
            }
        }
    }
}

impl<R: BufRead> Read for Members<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            self.state = match std::mem::replace(&mut self.state, Member::Over) {
                Member::In(mut decoder) => {
                    let read = decoder.read(buffer)?;
                    if read > 0 || buffer.is_empty() {
                        self.state = Member::In(decoder);
                        return Ok(read);
                    }
                    Member::Behind(decoder.into_inner())
                }
                Member::Behind(file) => self.behind(file)?,
                Member::Over => return Ok(0),
            };
        }
    }
}

/// Hands every object of a JSON file with its line to `row`, which says what is wrong with it: one object a line, or, as the first
/// lines show, an array of objects, or objects of several lines.
fn read_json(
    path: &Path,
    hasher: &mut Sha256,
    row: &mut dyn FnMut(usize, &str) -> Result<(), String>,
) -> Result<()> {
    let mut reader = open(path, hasher)?;
    let mut raw = Vec::new();
    let mut begun = false;
    let wrong = |line, reason| {
        let file = path.to_path_buf();
        Error::from(DataError::Json { file, line, reason })
    };
    for line in 1.. {
        raw.clear();
        let read = reader.read_until(b'\n', &mut raw);
        if read.map_err(Error::io("read", path))? == 0 {
            break;
        }
        let text = std::str::from_utf8(&raw).map_err(|_| DataError::NotUtf8 {
            file: path.to_path_buf(),
            line,
        })?;
        let text = match line {
            1 => json::without_mark(text),
            _ => text,
        };
        if text.trim().is_empty() {
            continue;
        }
        let unfinished =
            || serde_json::from_str::<IgnoredAny>(&json::strict(text)).is_err_and(|e| e.is_eof());
        if !begun && (text.trim_start().starts_with('[') || unfinished()) {
            reader.read_to_end(&mut raw).map_err(Error::io("read", path))?;
            let text = utf8(path, raw, line)?;
            return each_value(json::without_mark(&text), &mut |before, value| {
                row(line + before, value)
            })
            .map_err(|(before, reason)| wrong(line + before, reason));
        }
        begun = true;
        row(line, text).map_err(|reason| wrong(line, reason))?;
    }
    Ok(())
}

/// Hands the values of an array, or of a text of several values, to `each`, with the line breaks before them. An error has them too.
fn each_value(
    text: &str,
    each: &mut dyn FnMut(usize, &str) -> Result<(), String>,
) -> Result<(), (usize, String)> {
    let bytes = text.as_bytes();
    let blanks = |at: usize| {
        at + bytes[at..]
            .iter()
            .take_while(|byte| byte.is_ascii_whitespace())
            .count()
    };
    let breaks = |from: usize, to: usize| bytes[from..to].iter().filter(|byte| **byte == b'\n').count();
    let refuse = |at: usize, reason: &str| Err((breaks(0, at), reason.to_owned()));
    let mut at = blanks(0);
    let array = bytes.get(at) == Some(&b'[');
    at += usize::from(array);
    let (mut counted, mut lines) = (0, 0);
    for value in 0.. {
        at = blanks(at);
        match bytes.get(at) {
            None if array => return refuse(at, "the array does not end"),
            None => break,
            Some(b']') if array => {
                let behind = blanks(at + 1);
                return match behind == bytes.len() {
                    true => Ok(()),
                    false => refuse(behind, "there is more behind the array"),
                };
            }
            Some(b',') if array && value > 0 => at = blanks(at + 1),
            Some(_) if array && value > 0 => return refuse(at, "there is no comma before this value"),
            Some(_) => {}
        }
        lines += breaks(counted, at);
        counted = at;
        let end = value_end(bytes, at);
        each(lines, &text[at..end]).map_err(|reason| (lines, reason))?;
        at = end;
    }
    Ok(())
}

/// Where the JSON value ends that begins at `at`.
fn value_end(bytes: &[u8], mut at: usize) -> usize {
    let begin = at;
    let mut depth = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at += 1;
                while bytes.get(at).is_some_and(|byte| *byte != b'"') {
                    at += 1 + usize::from(bytes[at] == b'\\');
                }
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth > 0 => depth -= 1,
            _ if depth == 0 && at > begin && (byte.is_ascii_whitespace() || b",]}".contains(byte)) => {
                return at;
            }
            _ => {}
        }
        at += 1;
        if depth == 0 && b"}]\"".contains(byte) {
            break;
        }
    }
    at.min(bytes.len())
}

/// The text or conversation of an object; `None` where it is null.
fn json_document(text: &str, field: Option<&str>) -> Result<Option<Document>, String> {
    let found = json::parse_by(text, |text| {
        let mut json = serde_json::Deserializer::from_str(text);
        let found = Fields(field).deserialize(&mut json)?;
        json.end().map(|()| found)
    });
    match found.map_err(|e| format!("not a JSON object: {e}"))? {
        Some((_, value)) if value.is_none() => Ok(None),
        Some((name, value)) => document(&name, value).map(Some),
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
    use std::io::Write;

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
    fn json_as_people_have_it() {
        for (name, text) in [
            ("a.jsonlines", "{\"text\": \"a\"}\r\n{\"text\": \"b\"}\r\n"),
            ("a.json", "[{\"text\": \"a\"}, {\"text\": \"b\"}]"),
            (
                "a.jsonl",
                "\u{feff}\n [\n{\"text\": \"a\"\n},\n {\"x\": [\"]\", {}], \"text\": \"b\"}\n]\n",
            ),
            ("a.json", "{\n  \"text\": \"a\"\n}\n{\n  \"text\": \"b\"\n}"),
            (
                "a.jsonl",
                "{\"x\": NaN, \"text\": \"a\"}\n{\"x\": [-Infinity], \"text\": \"b\"}",
            ),
            (
                "a.jsonl",
                "{\"text\": \"a\"}\n{\"text\": null}\n{\"text\": NaN}\n{\"text\": \"b\"}",
            ),
        ] {
            assert_eq!(rows(name, text.as_bytes(), None).unwrap(), ["a", "b"], "{text}");
        }
        assert_eq!(
            rows("a.jsonl", br#"{"text": "a\ud83d"}"#, None).unwrap(),
            ["a\u{fffd}"]
        );
        for (text, at, what) in [
            (
                "[{\"text\": \"a\"},\n{\"text\": \"b\"},\n]",
                3,
                "not a JSON object",
            ),
            ("[{\"text\": \"a\"}\n{\"text\": \"b\"}]", 2, "no comma"),
            ("\n[{\"text\": \"a\"}\n", 3, "does not end"),
            ("[{\"text\": \"a\"}]\nx", 2, "behind the array"),
            ("[1]", 1, "not a JSON object"),
            ("[\"text\", 2]", 1, "not a JSON object"),
            ("{\"text\":", 1, "EOF"),
            ("{\"text\": \"a\"}\n[{\"text\": \"b\"}]", 2, "not a JSON object"),
        ] {
            match rows("a.json", text.as_bytes(), None) {
                Err(Error::Data(DataError::Json { line, reason, .. })) => {
                    assert!(line == at && reason.contains(what), "{text}: {line}, {reason}");
                }
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn gzip_with_more_behind_it() {
        let pack = |text: &str| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(text.as_bytes()).unwrap();
            encoder.finish().unwrap()
        };
        let (a, b) = (pack("{\"text\": \"a\"}\n"), pack("{\"text\": \"b\"}\n"));
        let zeros = vec![0; 100_000];
        for behind in [&[][..], &zeros, b"garbage", &[&zeros[..], b"garbage"].concat()] {
            let file = [&a[..], &zeros[..3], &b, behind].concat();
            assert_eq!(rows("a.jsonl.gz", &file, None).unwrap(), ["a", "b"]);
        }
        // Known by its first bytes where the name does not say it.
        assert_eq!(rows("a.jsonl", &a, None).unwrap(), ["a"]);
        assert!(rows("a.jsonl.gz", &a[..a.len() - 3], None).is_err());
        assert!(rows("a.jsonl.gz", b"{\"text\": \"a\"}", None).is_err());
    }

    #[test]
    fn what_is_no_text_is_said() {
        for (bytes, expected) in [
            (&b"PK\x03\x04..."[..], "zip"),
            (b"\xFD7zXZ\0..", "xz"),
            (b"BZh91AY", "bzip2"),
            (b"PAR1....", "parquet"),
            (b"\xFF\xFEa\0", "UTF-16"),
        ] {
            for name in ["a.txt", "a.jsonl", "a.json.gz"] {
                match rows(name, bytes, None) {
                    Err(Error::Data(DataError::Content { what, .. })) => assert!(what.contains(expected)),
                    other => panic!("{other:?}"),
                }
            }
        }
        let looks = |name: &str, text: &str| looks_like(Path::new(name), text).unwrap_or_default();
        assert!(looks("a.txt", "{\"text\": \"a\"}\n{}").contains(".jsonl"));
        assert!(looks("a", "[\n{\"text\": NaN}\n]").contains("name it .json)"));
        for (name, text) in [
            ("a.csv", "a b"),
            ("a.txt", "id,text\n1,\"a, b\"\n"),
            ("a", "text\tid\nx\t1"),
        ] {
            assert!(looks(name, text).contains("a table"), "{text}");
        }
        for plain in [
            "text, and more\nof it",
            "{curly} words",
            "[1] a note",
            "",
            "a text\nb",
        ] {
            assert_eq!(looks_like(Path::new("a.txt"), plain), None, "{plain}");
        }
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
