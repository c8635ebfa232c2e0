//! What a check found.

use crate::config::Pattern;
use serde::Serialize;

/// The kind of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The folder cannot be opened as a checkpoint.
    Unreadable,
    /// The configuration describes no model that is known.
    Config,
    /// A tensor or weight file is missing, or there is one too many.
    Tensors,
    /// The text in the header of a weight file differs from the source's.
    Metadata,
    /// A tensor has another shape.
    Shape,
    /// A tensor is stored in another format.
    Dtype,
    /// A tensor's bytes are damaged, or differ from the source's.
    Content,
    /// A value is not finite.
    NotFinite,
    /// An operator does not have its pattern.
    Pattern,
    /// The report says something else than the files.
    Report,
    /// A side file is missing or differs.
    SideFile,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What kind of thing.
    pub kind: Kind,
    /// The tensor, operator or file.
    pub subject: String,
    /// What is wrong with it.
    pub message: String,
}

/// What was checked and what was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verification {
    /// Whether nothing is wrong.
    pub ok: bool,
    /// The pattern that operators were checked for, where one is known.
    pub pattern: Option<Pattern>,
    /// Operators that were checked as pruned ones.
    pub operators: usize,
    /// Their zeros, as a share of their weights.
    pub sparsity: f64,
    /// Tensors that were read completely.
    pub tensors: usize,
    /// Tensors that were compared with the source's, byte by byte.
    pub tensors_compared: usize,
    /// Side files that were compared with the source's.
    pub files_compared: usize,
    /// Everything that is wrong.
    pub problems: Vec<Problem>,
    /// What was noticed and is no problem.
    pub notes: Vec<String>,
}

impl Verification {
    /// What is wrong with the model may be wrong with the report and against the source too; the first to say so is enough.
    pub(crate) fn problem(&mut self, kind: Kind, subject: impl Into<String>, message: impl Into<String>) {
        let subject = subject.into();
        let structural = matches!(kind, Kind::Tensors | Kind::Shape | Kind::Dtype);
        if structural
            && self
                .problems
                .iter()
                .any(|p| p.kind == kind && p.subject == subject)
        {
            return;
        }
        self.problems.push(Problem {
            kind,
            subject,
            message: message.into(),
        });
    }

    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }
}
