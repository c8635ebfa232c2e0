//! Data files. In: paths. Out: documents, or one text, with a hash of what was read; `windows` tokenises them.
//!
//! By extension: `.jsonl`, `.ndjson` and `.json` hold one JSON object a line, `.parquet` rows, with the text or a
//! conversation in a field; anything else is plain text, whose documents a [`TextLayout`] tells apart. `.gz` or `.zst` behind
//! the extension is decompressed.

use super::document::Document;
use super::rows::{has_rows, read_plain, read_rows};
use super::{DataError, is_token_file};
use crate::error::{ConfigError, Error, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::fmt;
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
        found.map(|&(_, layout)| layout).ok_or_else(|| {
            Error::from(ConfigError::Setting {
                setting: "the text layout",
                reason: format!(
                    "`{text}` is none of {}",
                    Self::ALL.map(|(name, _)| name).join(", ")
                ),
            })
        })
    }
}

/// How data files are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextOptions {
    /// For plain text.
    pub layout: TextLayout,
    /// For rows: the field with a text or a list of messages. Without a name: `text`, or else `messages`.
    pub field: Option<String>,
}

impl Default for TextOptions {
    fn default() -> Self {
        Self {
            layout: TextLayout::Auto,
            field: None,
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
    /// Where the files lie on this machine; none for text in memory.
    #[serde(skip)]
    pub paths: Vec<PathBuf>,
}

impl DataSource {
    /// The files in a sentence, with their paths where they go by their own names.
    pub(crate) fn in_words(&self) -> String {
        let names = self.names.iter().enumerate().map(|(place, name)| {
            let path = self.paths.get(place).filter(|path| path.ends_with(name));
            format!("`{}`", path.map_or(Path::new(name), PathBuf::as_path).display())
        });
        names.collect::<Vec<_>>().join(", ")
    }
}

/// Documents of one or several files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Documents {
    /// The documents in order, none of them blank. Texts of one stream are one document.
    pub texts: Vec<Document>,
    /// Whether windows are drawn from one stream instead of from single documents.
    pub joined: bool,
    /// How a published protocol made them of the files; empty where the options say it all.
    pub protocol: String,
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
                paths: Vec::new(),
            },
        )
    }
}

/// One text with where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvaluationText {
    /// Its parts in order.
    pub texts: Vec<Document>,
    /// What stands between the parts.
    pub separator: &'static str,
    /// The windows after which a published protocol stops.
    pub most_windows: Option<usize>,
    /// How a published protocol made it of the files; empty where it is simply all of them.
    pub protocol: String,
    /// Where it came from.
    pub source: DataSource,
}

impl EvaluationText {
    /// What stands between two rows or documents: a blank line, as in all published perplexities on WikiText-2.
    pub const SEPARATOR: &'static str = "\n\n";

    pub(crate) fn new(texts: Vec<Document>, source: DataSource) -> Self {
        Self {
            texts,
            separator: Self::SEPARATOR,
            most_windows: None,
            protocol: String::new(),
            source,
        }
    }

    /// A text in memory, under the name of a file.
    pub fn from_text(name: &str, text: &str) -> Self {
        let sha256 = format!("{:x}", Sha256::digest(text));
        let source = DataSource {
            names: vec![name.to_owned()],
            sha256,
            paths: Vec::new(),
        };
        Self::new(vec![text.to_owned().into()], source)
    }
}

/// Reads the documents of all `files`, one file after the other.
///
/// # Errors
/// When a file cannot be read or decompressed, is not UTF-8, has a line that is not a JSON object with the text in it, or
/// holds no text.
pub fn read_documents(files: &[PathBuf], options: &TextOptions) -> Result<Documents> {
    if let Some(file) = files.iter().find(|file| is_token_file(file)) {
        return Err(DataError::Mixed { file: file.clone() }.into());
    }
    let mut hasher = Sha256::new();
    let mut texts = Vec::new();
    for file in files {
        let before = texts.len();
        if has_rows(file) {
            read_rows(file, options.field.as_deref(), &mut hasher, &mut |row| {
                if !row.is_blank() {
                    texts.push(row);
                }
            })?;
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
            paths: files.to_vec(),
        },
    )
}

/// Reads files as one text: plain text unchanged; all rows, blank ones too, joined by blank lines.
///
/// # Errors
/// As [`read_documents`].
pub fn read_text(files: &[PathBuf], options: &TextOptions) -> Result<EvaluationText> {
    if let Some(file) = files.iter().find(|file| is_token_file(file)) {
        return Err(DataError::Mixed { file: file.clone() }.into());
    }
    let mut hasher = Sha256::new();
    let mut texts = Vec::new();
    for file in files {
        let before = texts.len();
        if has_rows(file) {
            read_rows(file, options.field.as_deref(), &mut hasher, &mut |row| {
                texts.push(row)
            })?;
        } else {
            texts.push(read_plain(file, &mut hasher)?.into());
        }
        if texts[before..].iter().all(Document::is_blank) {
            return Err(DataError::Empty { file: file.clone() }.into());
        }
    }
    let names = files.iter().map(|file| name_of(file)).collect();
    let source = DataSource {
        names,
        sha256: format!("{:x}", hasher.finalize()),
        paths: files.to_vec(),
    };
    Ok(EvaluationText::new(texts, source))
}

/// The texts as one, where none is a conversation.
pub(crate) fn joined_text<'a>(texts: &'a [Document], separator: &str) -> Option<Cow<'a, str>> {
    if let [Document::Text(text)] = texts {
        return Some(Cow::Borrowed(text));
    }
    let texts: Option<Vec<&str>> = texts
        .iter()
        .map(|document| match document {
            Document::Text(text) => Some(text.as_str()),
            Document::Chat(_) => None,
        })
        .collect();
    texts
        .filter(|texts| !texts.is_empty())
        .map(|texts| Cow::Owned(texts.join(separator)))
}

fn join(mut texts: Vec<Document>, layout: TextLayout, source: DataSource) -> Result<Documents> {
    let joined = layout == TextLayout::Joined;
    if joined && let Some(text) = joined_text(&texts, EvaluationText::SEPARATOR) {
        texts = vec![text.into_owned().into()];
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
        protocol: String::new(),
        source,
    })
}

pub(crate) fn name_of(file: &Path) -> String {
    file.file_name()
        .unwrap_or(file.as_os_str())
        .to_string_lossy()
        .into_owned()
}

/// Appends the documents of plain text.
fn split(text: &str, layout: TextLayout, texts: &mut Vec<Document>) {
    let is_mark = |line: &str| line.trim_end() == END_OF_TEXT;
    let is_blank = |line: &str| line.trim().is_empty();
    let separator: &dyn Fn(&str) -> bool = match layout {
        TextLayout::Joined => {
            if !is_blank(text) {
                texts.push(text.to_owned().into());
            }
            return;
        }
        TextLayout::Lines => {
            texts.extend(
                text.lines()
                    .filter(|line| !is_blank(line))
                    .map(|line| line.to_owned().into()),
            );
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
                    texts.push(whole.into());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::IoError;
    use std::io::Write;

    fn texts(text: &str, layout: TextLayout) -> Vec<Document> {
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
            field: Some("t".into()),
        };
        let found = read(
            &[("a.jsonl", b"{\"t\":\"a\"}\n{\"t\":\"b\"}"), ("b.txt", b"c\nd\n")],
            &joined,
        )
        .unwrap();
        assert_eq!(
            (found.texts, found.joined),
            (vec!["a\n\nb\n\nc\nd\n".to_owned().into()], true)
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let error = |name: &str, bytes: &[u8]| match read(&[(name, bytes)], &TextOptions::default()) {
            Err(Error::Data(error)) => error,
            other => panic!("{other:?}"),
        };
        assert!(matches!(error("ids.safetensors", b""), DataError::Mixed { .. }));
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
            matches!(&missing, DataError::Json { line: 1, reason, .. } if reason.contains("neither a field `text`"))
        );
        let broken = read(&[("a.txt.gz", b"not gzip")], &TextOptions::default());
        assert!(matches!(broken, Err(Error::Io(IoError { action: "read", .. }))));
        let absent = read_documents(&["no/such/file.txt".into()], &TextOptions::default());
        assert!(matches!(absent, Err(Error::Io(IoError { action: "open", .. }))));
    }

    #[test]
    fn a_text_to_evaluate_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.txt");
        std::fs::write(&path, "\n a\n\n\n b \n").unwrap();
        let mut found = read_text(std::slice::from_ref(&path), &TextOptions::default()).unwrap();
        assert_eq!(std::mem::take(&mut found.source.paths), [path]);
        assert_eq!(found, EvaluationText::from_text("w.txt", "\n a\n\n\n b \n"));
        let path = dir.path().join("w.jsonl");
        std::fs::write(&path, "{\"text\":\"a\"}\n{\"text\":\"\"}\n{\"text\":\"b\"}\n").unwrap();
        let found = read_text(&[path], &TextOptions::default()).unwrap();
        assert_eq!(
            joined_text(&found.texts, found.separator).as_deref(),
            Some("a\n\n\n\nb")
        );
    }
}
