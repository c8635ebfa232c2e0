//! What the operating system refused, and what this program will not write over. Every room that reads or writes files gives these errors.

use std::path::{Path, PathBuf};

/// A file or folder that could not be read, written, created or renamed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{}`: {source}", path.display())]
pub struct IoError {
    /// What was tried: "read", "write", "create", …
    pub action: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: std::io::Error,
}

impl IoError {
    /// Wraps a system error with what was tried on which path.
    pub fn on(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self { action, path, source }
    }
}

/// Why nothing is written to a path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DestinationError {
    /// There is something already.
    #[error("the output `{}` exists already", path.display())]
    Exists {
        /// The output.
        path: PathBuf,
    },

    /// A folder is there that is not replaced.
    #[error("the output `{}` exists and {reason}, so it is not replaced", path.display())]
    NotReplaced {
        /// The output.
        path: PathBuf,
        /// What it is, or what it holds.
        reason: String,
    },

    /// A folder is there where a file should go, a device, a socket, …
    #[error("the output `{}` is {kind}", path.display())]
    Kind {
        /// The output.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },

    /// The output would lie in an input, or replace one.
    #[error("the output `{}` overlaps with `{}`, which this command reads", output.display(), input.display())]
    Overlaps {
        /// The output.
        output: PathBuf,
        /// The model, the data, …
        input: PathBuf,
    },

    /// The folder that the program runs in, or one above it.
    #[error("the output `{}` is the folder that this command runs in, or holds it", path.display())]
    Current {
        /// The output.
        path: PathBuf,
    },

    /// Links that lead in a circle.
    #[error("the output `{}` is a link that leads nowhere", path.display())]
    Link {
        /// The output.
        path: PathBuf,
    },
}

impl DestinationError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Exists { .. } => "choose another path, or pass ‹overwrite› to replace it",
            Self::NotReplaced { .. } => "choose another ‹output›, or move away yourself what is there",
            Self::Kind { .. } | Self::Link { .. } => "name a new path",
            Self::Overlaps { .. } => "choose a path outside of everything that the command reads",
            Self::Current { .. } => "name a new folder in it, such as ‹output pruned›",
        };
        Some(hint.into())
    }
}
