//! Models and data sets of a hub (huggingface.co, or a mirror that speaks its API). In: a repository's id and the names of
//! files. Out: paths of complete files in the local cache, for `model`, `calibration` and the command line.
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
//! The client is our own: it needs no asynchronous runtime and no system library, resumes a download in the same run and in
//! the next one, and compares the SHA-256 of every large file with the one that the server promises.

mod config;
mod error;
mod fetch;
mod id;

mod cache;
mod client;
mod response;
mod select;

pub use config::HubConfig;
pub use error::HubError;
pub use fetch::{Fetched, Hub, ModelSnapshot, Transfer};
pub use id::{DatasetId, Repo, RepoKind};
pub use select::Split;

/// Opens the hub once it is needed; nothing is sent before a file is asked for.
pub type OpenHub<'a> = dyn FnMut() -> crate::error::Result<Hub<'static>> + 'a;

/// The hub that the environment describes, without a word about downloads.
///
/// # Errors
/// When a variable has a value that makes no sense.
pub fn from_environment() -> crate::error::Result<Hub<'static>> {
    let config = HubConfig::from_variables(|name| std::env::var(name).ok())?;
    Ok(Hub::new(config, |_| {}))
}
