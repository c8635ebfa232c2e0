//! The data that published results share, with the protocols of SparseGPT's loaders. In: local files of C4, WikiText-2 or
//! the Penn Treebank. Out: [`Documents`] to calibrate with and [`EvaluationText`] to evaluate on; the command line fetches
//! the files.

use super::document::Document;
use super::documents::{joined_text, name_of, read_documents, read_text};
use super::{DataError, Documents, EvaluationText, TextOptions};
use crate::error::Result;
use crate::hub::{DatasetId, Split};
use std::path::PathBuf;

/// A data set with a protocol of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// Colossal Clean Crawled Corpus, English: documents.
    C4,
    /// WikiText-2, raw: rows of articles.
    WikiText2,
    /// Penn Treebank, text only: sentences.
    Ptb,
}

/// Documents of C4's validation file that are evaluated, and windows after which it ends.
const C4_DOCUMENTS: usize = 1100;
const C4_WINDOWS: usize = 256;

impl Published {
    /// Every data set with its name.
    pub const ALL: [(&'static str, Self); 3] = [
        ("c4", Self::C4),
        ("wikitext2", Self::WikiText2),
        ("ptb", Self::Ptb),
    ];

    /// By name.
    pub fn by_name(name: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        found.map(|(_, published)| *published)
    }

    /// Where its files are on the hub. C4 calibrates with the first of 1024 train files and is evaluated on the first of
    /// 8 validation files; the Penn Treebank is a script whose rows the hub has converted.
    pub fn file(self, split: Split) -> DatasetId {
        let text = match (self, split) {
            (Self::C4, Split::Train) => "allenai/c4:en/c4-train.00000-of-01024.json.gz",
            (Self::C4, Split::Test) => "allenai/c4:en/c4-validation.00000-of-00008.json.gz",
            (Self::WikiText2, Split::Train) => {
                "Salesforce/wikitext:wikitext-2-raw-v1/train-00000-of-00001.parquet"
            }
            (Self::WikiText2, Split::Test) => {
                "Salesforce/wikitext:wikitext-2-raw-v1/test-00000-of-00001.parquet"
            }
            (Self::Ptb, Split::Train) => {
                "ptb-text-only/ptb_text_only@refs/convert/parquet:penn_treebank/train/0000.parquet"
            }
            (Self::Ptb, Split::Test) => {
                "ptb-text-only/ptb_text_only@refs/convert/parquet:penn_treebank/test/0000.parquet"
            }
        };
        DatasetId::parse(text).expect("a test parses every one of them")
    }

    fn options(self, field: Option<&str>) -> TextOptions {
        let own = match self {
            Self::C4 | Self::WikiText2 => "text",
            Self::Ptb => "sentence",
        };
        TextOptions {
            field: Some(field.unwrap_or(own).to_owned()),
            ..TextOptions::default()
        }
    }

    /// What stands between two rows: WikiText-2's are joined by blank lines, C4's documents and the Penn Treebank's sentences
    /// by blanks.
    fn separator(self) -> &'static str {
        match self {
            Self::WikiText2 => "\n\n",
            Self::C4 | Self::Ptb => " ",
        }
    }

    /// To calibrate with: of C4, single documents, from which windows are drawn; of the others, all rows of the train split
    /// as one stream. `field` names the rows' field where it is not the data set's own.
    ///
    /// # Errors
    /// When a file cannot be read or has no text.
    pub fn documents(self, files: &[PathBuf], field: Option<&str>) -> Result<Documents> {
        let options = self.options(field);
        if self == Self::C4 {
            let protocol = "c4, documents of more tokens than a window".into();
            return Ok(Documents {
                protocol,
                ..read_documents(files, &options)?
            });
        }
        let text = read_text(files, &options)?;
        let stream = self.stream(files, &text.texts)?;
        let between = self.separator_in_words();
        Ok(Documents {
            texts: vec![Document::Text(stream)],
            joined: true,
            protocol: format!("{}, {} rows joined by {between}", self.name(), text.texts.len()),
            source: text.source,
        })
    }

    /// To evaluate on: of C4, the first 1100 documents and at most 256 windows; of the others, all rows of the test split.
    ///
    /// # Errors
    /// When a file cannot be read or has no text.
    pub fn evaluation_text(self, files: &[PathBuf], field: Option<&str>) -> Result<EvaluationText> {
        let mut text = read_text(files, &self.options(field))?;
        if self == Self::C4 {
            text.texts.truncate(C4_DOCUMENTS);
            text.most_windows = Some(C4_WINDOWS);
        }
        text.separator = self.separator();
        text.protocol = format!(
            "{}, {} rows joined by {}",
            self.name(),
            text.texts.len(),
            self.separator_in_words()
        );
        self.stream(files, &text.texts)?;
        Ok(text)
    }

    fn stream(self, files: &[PathBuf], texts: &[Document]) -> Result<String> {
        let wrong = || DataError::PublishedMixed {
            name: files
                .iter()
                .map(|file| name_of(file))
                .collect::<Vec<_>>()
                .join(", "),
        };
        Ok(joined_text(texts, self.separator())
            .ok_or_else(wrong)?
            .into_owned())
    }

    fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, published)| *published == self);
        found.map_or("", |(name, _)| name)
    }

    fn separator_in_words(self) -> &'static str {
        match self.separator() {
            " " => "blanks",
            _ => "blank lines",
        }
    }
}
