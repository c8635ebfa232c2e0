//! Data files. In: paths. Out: documents, or one text, with a hash of what was read; `windows` tokenises them.
//!
//! By extension: `.jsonl` and `.json` hold one JSON object a line, with the text in a field; anything else is plain text,
//! whose documents a [`TextLayout`] tells apart. `.gz` behind either is decompressed.

use super::DataError;
use crate::error::{Error, Result};
use flate2::read::MultiGzDecoder;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// How documents are told apart in plain text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TextLayout {
    /// [`EndOfText`](Self::EndOfText) where a line is that mark; otherwise [`Paragraphs`](Self::Paragraphs) where a line
    /// is blank; otherwise [`Lines`](Self::Lines).
    #[default]
    Auto,
    /// Each line is a document.
    Lines,
    /// Blank lines separate documents.
    Paragraphs,
    /// Lines `<|endoftext|>` separate documents.
    EndOfText,
    /// All of it is one stream, from which windows are taken without regard to documents.
    Joined,
}

/// The line that separates documents in many published data sets.
const END_OF_TEXT: &str = "<|endoftext|>";

impl TextLayout {
    /// Every layout with its name.
    pub const ALL: [(&'static str, Self); 5] = [
        ("auto", Self::Auto),
        ("lines", Self::Lines),
        ("paragraphs", Self::Paragraphs),
        ("end-of-text", Self::EndOfText),
        ("joined", Self::Joined),
    ];
}

impl fmt::Display for TextLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL
            .iter()
            .find(|(_, layout)| layout == self)
            .map_or("", |&(name, _)| name);
        f.write_str(name)
    }
}

impl FromStr for TextLayout {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Self::ALL.iter().find(|&&(name, _)| name == text);
        found.map(|&(_, layout)| layout).ok_or_else(|| Error::Setting {
            setting: "the text layout",
            reason: format!(
                "`{text}` is none of {}",
                Self::ALL.map(|(name, _)| name).join(", ")
            ),
        })
    }
}

/// How data files are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextOptions {
    /// For plain text.
    pub layout: TextLayout,
    /// For JSON lines: the field with the text. C4 and most others call it "text".
    pub field: String,
}

impl Default for TextOptions {
    fn default() -> Self {
        Self {
            layout: TextLayout::Auto,
            field: "text".into(),
        }
    }
}

/// What was read, for the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataSource {
    /// Names of the files, in order.
    pub names: Vec<String>,
    /// SHA-256 in hex of their bytes as they lie on disk, one file after the other.
    pub sha256: String,
}

impl DataSource {
    /// The names in a sentence.
    pub(crate) fn in_words(&self) -> String {
        self.names
            .iter()
            .map(|name| format!("`{name}`"))
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// Documents of one or several files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Documents {
    /// The documents in order, none of them blank. With [`TextLayout::Joined`] there is exactly one.
    pub texts: Vec<String>,
    /// Whether windows are drawn from one stream instead of from single documents.
    pub joined: bool,
    /// Where they came from.
    pub source: DataSource,
}

impl Documents {
    /// Documents of a text in memory, under the name of a file.
    ///
    /// # Errors
    /// When the text is blank.
    pub fn from_text(name: &str, text: &str, layout: TextLayout) -> Result<Self> {
        let sha256 = format!("{:x}", Sha256::digest(text));
        let mut texts = Vec::new();
        split(text, layout, &mut texts);
        join(
            texts,
            layout,
            DataSource {
                names: vec![name.to_owned()],
                sha256,
            },
        )
    }
}

/// One text with where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvaluationText {
    /// The whole of it.
    pub text: String,
    /// Where it came from.
    pub source: DataSource,
}

impl EvaluationText {
    /// A text in memory, under the name of a file.
    pub fn from_text(name: &str, text: &str) -> Self {
        let sha256 = format!("{:x}", Sha256::digest(text));
        Self {
            text: text.to_owned(),
            source: DataSource {
                names: vec![name.to_owned()],
                sha256,
            },
        }
    }
}

/// Reads the documents of all `files`, one file after the other.
///
/// # Errors
/// When a file cannot be read or decompressed, is not UTF-8, has a line that is not a JSON object with the text in it, or
/// holds no text.
pub fn read_documents(files: &[PathBuf], options: &TextOptions) -> Result<Documents> {
    let mut hasher = Sha256::new();
    let mut texts = Vec::new();
    for file in files {
        let before = texts.len();
        if is_json(file) {
            read_json_lines(file, &options.field, &mut hasher, &mut texts)?;
        } else {
            let text = read_plain(file, &mut hasher)?;
            split(
                text.strip_prefix('\u{feff}').unwrap_or(&text),
                options.layout,
                &mut texts,
            );
        }
        if texts.len() == before {
            return Err(DataError::Empty { file: file.clone() }.into());
        }
    }
    let names = files.iter().map(|file| name_of(file)).collect();
    join(
        texts,
        options.layout,
        DataSource {
            names,
            sha256: format!("{:x}", hasher.finalize()),
        },
    )
}

/// Reads a file as one text: plain text unchanged, documents of JSON lines joined by a blank line.
///
/// # Errors
/// As [`read_documents`].
pub fn read_text(file: &Path, options: &TextOptions) -> Result<EvaluationText> {
    let mut hasher = Sha256::new();
    let text = if is_json(file) {
        let mut texts = Vec::new();
        read_json_lines(file, &options.field, &mut hasher, &mut texts)?;
        texts.join("\n\n")
    } else {
        read_plain(file, &mut hasher)?
    };
    if text.trim().is_empty() {
        return Err(DataError::Empty {
            file: file.to_path_buf(),
        }
        .into());
    }
    let sha256 = format!("{:x}", hasher.finalize());
    Ok(EvaluationText {
        text,
        source: DataSource {
            names: vec![name_of(file)],
            sha256,
        },
    })
}

fn join(mut texts: Vec<String>, layout: TextLayout, source: DataSource) -> Result<Documents> {
    let joined = layout == TextLayout::Joined;
    if joined && texts.len() > 1 {
        texts = vec![texts.join("\n\n")];
    }
    if texts.is_empty() {
        return Err(DataError::Empty {
            file: source.names.join(", ").into(),
        }
        .into());
    }
    Ok(Documents {
        texts,
        joined,
        source,
    })
}

fn name_of(file: &Path) -> String {
    file.file_name()
        .unwrap_or(file.as_os_str())
        .to_string_lossy()
        .into_owned()
}

fn is_gz(file: &Path) -> bool {
    file.extension().is_some_and(|e| e.eq_ignore_ascii_case("gz"))
}

/// By the extension before `.gz`.
fn is_json(file: &Path) -> bool {
    let inner = if is_gz(file) {
        file.with_extension("")
    } else {
        file.to_path_buf()
    };
    inner
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("jsonl") || e.eq_ignore_ascii_case("json"))
}

/// Appends the documents of plain text.
fn split(text: &str, layout: TextLayout, texts: &mut Vec<String>) {
    let is_mark = |line: &str| line.trim_end() == END_OF_TEXT;
    let is_blank = |line: &str| line.trim().is_empty();
    let separator: &dyn Fn(&str) -> bool = match layout {
        TextLayout::Joined => {
            if !is_blank(text) {
                texts.push(text.to_owned());
            }
            return;
        }
        TextLayout::Lines => {
            texts.extend(text.lines().filter(|line| !is_blank(line)).map(str::to_owned));
            return;
        }
        TextLayout::Auto if text.lines().any(is_mark) => &is_mark,
        // A blank line at the end is how many editors end a file.
        TextLayout::Auto if text.trim().lines().any(is_blank) => &is_blank,
        TextLayout::Auto => return split(text, TextLayout::Lines, texts),
        TextLayout::EndOfText => &is_mark,
        TextLayout::Paragraphs => &is_blank,
    };
    let mut document = Vec::new();
    for line in text.lines().map(Some).chain([None]) {
        match line {
            Some(line) if !separator(line) => document.push(line),
            _ => {
                let whole = document.join("\n");
                document.clear();
                if !is_blank(&whole) {
                    texts.push(whole);
                }
            }
        }
    }
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
    // The decoder for files of several members reads up to the end, so that the hash covers the whole file.
    Ok(if is_gz(path) {
        Box::new(BufReader::new(MultiGzDecoder::new(hashed)))
    } else {
        Box::new(hashed)
    })
}

fn read_plain(path: &Path, hasher: &mut Sha256) -> Result<String> {
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

/// Appends the text of each line; blank lines and blank texts are passed over.
fn read_json_lines(path: &Path, field: &str, hasher: &mut Sha256, texts: &mut Vec<String>) -> Result<()> {
    let mut reader = open(path, hasher)?;
    let mut raw = Vec::new();
    for line in 1.. {
        raw.clear();
        if reader
            .read_until(b'\n', &mut raw)
            .map_err(Error::io("read", path))?
            == 0
        {
            break;
        }
        let file = || path.to_path_buf();
        let text = std::str::from_utf8(&raw).map_err(|_| DataError::NotUtf8 { file: file(), line })?;
        let text = if line == 1 {
            text.strip_prefix('\u{feff}').unwrap_or(text)
        } else {
            text
        };
        if text.trim().is_empty() {
            continue;
        }
        let mut json = serde_json::Deserializer::from_str(text);
        let found = TextField(field)
            .deserialize(&mut json)
            .and_then(|found| json.end().map(|()| found));
        match found {
            Ok(Some(document)) if document.trim().is_empty() => {}
            Ok(Some(document)) => texts.push(document),
            Ok(None) => {
                let reason = format!("the object has no field `{field}`");
                return Err(DataError::Json {
                    file: file(),
                    line,
                    reason,
                }
                .into());
            }
            Err(e) => {
                let reason = format!("not a JSON object with a text `{field}`: {e}");
                return Err(DataError::Json {
                    file: file(),
                    line,
                    reason,
                }
                .into());
            }
        }
    }
    Ok(())
}

/// Takes one string field of an object and passes over the others without keeping them.
struct TextField<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for TextField<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for TextField<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<String>()? {
            if key == self.0 {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn texts(text: &str, layout: TextLayout) -> Vec<String> {
        Documents::from_text("t", text, layout).unwrap().texts
    }

    #[test]
    fn auto_finds_how_documents_are_separated() {
        assert_eq!(
            texts("one line\nanother\r\n", TextLayout::Auto),
            ["one line", "another"]
        );
        assert_eq!(texts("a\nb\n\n \nc\n", TextLayout::Auto), ["a\nb", "c"]);
        assert_eq!(texts("a\n\n", TextLayout::Auto), ["a"]);
        assert_eq!(
            texts(
                "a\n\nb\n<|endoftext|>\nc <|endoftext|>\n<|endoftext|>\n",
                TextLayout::Auto
            ),
            ["a\n\nb", "c <|endoftext|>"]
        );
        assert_eq!(texts("a\n\nb", TextLayout::Lines), ["a", "b"]);
        assert_eq!(texts("a\n\nb", TextLayout::Joined), ["a\n\nb"]);
        for layout in TextLayout::ALL.map(|(_, layout)| layout) {
            let blank = Documents::from_text("t", " \n\n", layout);
            assert!(matches!(blank, Err(Error::Data(DataError::Empty { .. }))));
        }
    }

    #[test]
    fn layouts_have_names() {
        for (name, layout) in TextLayout::ALL {
            assert_eq!(name.parse::<TextLayout>().unwrap(), layout);
            assert_eq!(layout.to_string(), name);
            assert_eq!(serde_json::to_string(&layout).unwrap(), format!("\"{name}\""));
        }
        assert!("paragraph".parse::<TextLayout>().is_err());
    }

    /// Writes the files, reads them, and gives the result with the folder's path taken off.
    fn read(files: &[(&str, &[u8])], options: &TextOptions) -> Result<Documents> {
        let dir = tempfile::tempdir().unwrap();
        let write = |(name, bytes): &(&str, &[u8])| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let paths: Vec<PathBuf> = files.iter().map(write).collect();
        read_documents(&paths, options)
    }

    fn gz(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn reads_text_and_json_lines_compressed_or_not() {
        let options = TextOptions::default();
        let lines = b"{\"text\": \"a\\nb\", \"url\": {\"x\": [1]}}\n\n{\"url\": null, \"text\": \"c\"}\n";
        assert_eq!(
            read(&[("d.jsonl", lines)], &options).unwrap().texts,
            ["a\nb", "c"]
        );
        // Two members, as some tools write them.
        let packed = [gz(lines), gz(b"{\"text\": \"d\"}")].concat();
        let found = read(
            &[("d.json.gz", &packed), ("e.txt", b"x\ny"), ("f.gz", &gz(b"z"))],
            &options,
        )
        .unwrap();
        assert_eq!(found.texts, ["a\nb", "c", "d", "x", "y", "z"]);
        assert_eq!(found.source.names, ["d.json.gz", "e.txt", "f.gz"]);
        assert_eq!(
            found.source.sha256,
            format!("{:x}", Sha256::digest([&packed[..], b"x\ny", &gz(b"z")].concat()))
        );
        let joined = TextOptions {
            layout: TextLayout::Joined,
            field: "t".into(),
        };
        let found = read(
            &[("a.jsonl", b"{\"t\":\"a\"}\n{\"t\":\"b\"}"), ("b.txt", b"c\nd\n")],
            &joined,
        )
        .unwrap();
        assert_eq!(
            (found.texts, found.joined),
            (vec!["a\n\nb\n\nc\nd\n".to_owned()], true)
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let error = |name: &str, bytes: &[u8]| match read(&[(name, bytes)], &TextOptions::default()) {
            Err(Error::Data(error)) => error,
            other => panic!("{other:?}"),
        };
        assert!(matches!(error("a.txt", b""), DataError::Empty { .. }));
        assert!(matches!(error("a.jsonl", b"\n\n"), DataError::Empty { .. }));
        assert!(matches!(
            error("a.txt", b"a\nb\n\xff\n"),
            DataError::NotUtf8 { line: 3, .. }
        ));
        assert!(matches!(
            error("a.jsonl", b"{\"text\":\"a\"}\n\xff"),
            DataError::NotUtf8 { line: 2, .. }
        ));
        assert!(matches!(
            error("a.jsonl", b"{\"text\":\"a\"}\n{\"text\":"),
            DataError::Json { line: 2, .. }
        ));
        assert!(matches!(
            error("a.jsonl", b"{\"text\":\"a\"} x"),
            DataError::Json { line: 1, .. }
        ));
        assert!(matches!(
            error("a.jsonl", b"[\"text\"]"),
            DataError::Json { line: 1, .. }
        ));
        assert!(matches!(
            error("a.jsonl", b"{\"text\": 7}"),
            DataError::Json { line: 1, .. }
        ));
        let missing = error("a.jsonl", b"{\"content\": \"a\"}");
        assert!(
            matches!(&missing, DataError::Json { line: 1, reason, .. } if reason.contains("no field `text`"))
        );
        let broken = read(&[("a.txt.gz", b"not gzip")], &TextOptions::default());
        assert!(matches!(broken, Err(Error::Io { action: "read", .. })));
        let absent = read_documents(&["no/such/file.txt".into()], &TextOptions::default());
        assert!(matches!(absent, Err(Error::Io { action: "open", .. })));
    }

    #[test]
    fn a_text_to_evaluate_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.txt");
        std::fs::write(&path, "\n a\n\n\n b \n").unwrap();
        let found = read_text(&path, &TextOptions::default()).unwrap();
        assert_eq!(found, EvaluationText::from_text("w.txt", "\n a\n\n\n b \n"));
        let path = dir.path().join("w.jsonl");
        std::fs::write(&path, "{\"text\":\"a\"}\n{\"text\":\"b\"}\n").unwrap();
        assert_eq!(read_text(&path, &TextOptions::default()).unwrap().text, "a\n\nb");
    }
}
