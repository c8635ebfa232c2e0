//! What the operating system refused. Every room that reads or writes files gives this error.

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
