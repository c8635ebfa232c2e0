//! Models and data sets of a hub (huggingface.co, or a mirror that speaks its API). In: a repository's id and the names of
//! files. Out: paths of complete files in the local cache, for the command line and the readers of data.
//!
//! The cache has the layout that huggingface_hub, transformers and other programs share, so that nothing is downloaded twice:
//!
//! ```text
//! models--ORG--NAME/  (datasets--ORG--NAME/)
//!   refs/REVISION               the commit that a branch or tag stood at when it was last asked for
//!   blobs/ETAG                  contents, under the name that the server gives them
//!   blobs/ETAG.incomplete       what an interrupted download has so far
//!   snapshots/COMMIT/FILE       links into blobs
//! ```
//!
//! The client is our own. The crate `hf-hub` 1.0 stores whatever the server answers, an error page or half a file too, goes on
//! with no interrupted download, and compares no checksum; nor does its interface tell the SHA-256 that the hub promises, with
//! which a layer above it could. It would also add 135 crates, one of them in C.
//!
//! Without the feature `hub`, ids are still ids, and whatever is asked for is an error that names the feature.

mod config;
mod error;
mod id;
mod open;

#[cfg(feature = "hub")]
mod cache;
#[cfg(feature = "hub")]
mod client;
#[cfg(feature = "hub")]
mod fetch;
#[cfg(feature = "hub")]
mod select;
#[cfg(not(feature = "hub"))]
mod without;

use std::path::PathBuf;

pub use config::HubConfig;
pub use error::{HubError, Wanted};
#[cfg(feature = "hub")]
pub use fetch::Hub;
pub use id::{DatasetId, Repo, RepoKind};
pub use open::{OpenHub, from_environment, from_environment_telling};
#[cfg(not(feature = "hub"))]
pub use without::Hub;

/// A download under way.
#[derive(Debug, Clone, Copy)]
pub struct Transfer<'a> {
    /// The file's name in its repository.
    pub file: &'a str,
    /// Bytes there are.
    pub done: u64,
    /// Bytes of all of it, where the server told.
    pub total: Option<u64>,
}

/// A complete file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Where it is.
    pub path: PathBuf,
    /// `ORG/NAME@COMMIT:FILE`, which says exactly what it is.
    pub name: String,
    /// The commit.
    pub commit: String,
}

/// A model folder with everything that is needed of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSnapshot {
    /// The folder.
    pub dir: PathBuf,
    /// `ORG/NAME@COMMIT`.
    pub name: String,
    /// The commit.
    pub commit: String,
}

/// What a data set's file is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// Calibration: the files of the train split.
    Train,
    /// Evaluation: the files of the test split, else of the validation split.
    Test,
}
