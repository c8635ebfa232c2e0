//! What can go wrong with the hub. `Display` states the fact, [`HubError::hint`] advises; the crate's error wraps it.

use super::{Repo, RepoKind};
use std::fmt;
use std::path::PathBuf;

pub(crate) type Result<T, E = HubError> = std::result::Result<T, E>;

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// "`config.json`", "the list of files".
    pub what: String,
    /// The repository.
    pub repo: Repo,
    /// Its address.
    pub url: String,
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.what, self.repo)
    }
}

/// Why a file of a repository cannot be had. A text at the end is what the server or the system said.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// The program was built without the hub.
    #[error("{0} is on a hub, and this program was built without the feature `hub`")]
    NotBuilt(Repo),

    /// No answer.
    #[error("cannot fetch {0}: no connection to {url}: {1}", url = .0.url)]
    Unreachable(Box<Wanted>, String),

    /// Not in this cache, and the network is not to be used.
    #[error("{0} is not in the cache `{cache}`, and HF_HUB_OFFLINE forbids to fetch {url}", cache = .1.display(), url = .0.url)]
    Offline(Box<Wanted>, PathBuf),

    /// The server does not have the first of these: a repository, a revision or a file.
    #[error("the hub has no {0}: {url} ({2})", url = .1.url)]
    NotFound(String, Box<Wanted>, String),

    /// The server wants to know who asks, or knows and refuses; access is asked for at `page`.
    #[error("the hub does not give out {wanted}: {url} ({reason})", url = .wanted.url)]
    Denied {
        /// What was asked for.
        wanted: Box<Wanted>,
        /// The repository's page.
        page: String,
        /// Whether a token was sent.
        with_token: bool,
        /// What the server said.
        reason: String,
    },

    /// Another status.
    #[error("cannot fetch {0}: {url} ({1})", url = .0.url)]
    Status(Box<Wanted>, String),

    /// An answer from this address that no hub gives.
    #[error("{0} does not answer like a hub: {1}")]
    Answer(String, String),

    /// Contents other than those promised.
    #[error("{0} arrived damaged from {url}: {1}", url = .0.url)]
    Damaged(Box<Wanted>, String),

    /// A repository without what is needed, and what it has.
    #[error("{0} has no {1}; it has {2}")]
    Incomplete(Repo, String, String),

    /// A data set whose files, some of which are listed, do not tell which are meant; and one of them.
    #[error("{0}: which file is meant is not clear; it has {1}")]
    Ambiguous(Repo, String, String),

    /// A variable whose value makes no sense.
    #[error("{0}: {1}")]
    Setting(&'static str, String),

    /// A file of the cache that cannot be read, written, made or renamed.
    #[error("cannot {0} `{path}`: {2}", path = .1.display())]
    Io(&'static str, PathBuf, #[source] std::io::Error),
}

impl HubError {
    #[cfg(feature = "hub")]
    pub(crate) fn io(action: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        move |error| Self::Io(action, path.to_path_buf(), error)
    }

    /// What the user can do about it, where there is something.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotBuilt(repo) => format!("rebuild with --features hub, or {}", local(repo)),
            Self::Unreachable(wanted, _) => format!(
                "{}; HF_ENDPOINT names a mirror, HTTPS_PROXY a proxy, SSL_CERT_FILE certificates of your own",
                local(&wanted.repo)
            ),
            Self::Offline(wanted, _) => {
                let local = local(&wanted.repo);
                format!("run once with HF_HUB_OFFLINE=0 to fill the cache, or {local}")
            }
            Self::NotFound(_, wanted, _) => format!(
                "check the id; a private one needs HF_TOKEN; a local path is used where it exists, and `{}` does not",
                wanted.repo.name
            ),
            Self::Denied {
                page,
                with_token: true,
                ..
            } => {
                format!("HF_TOKEN was sent, and its account has no access: ask for it at {page}")
            }
            Self::Denied { page, .. } => {
                format!(
                    "accept the conditions at {page} and set HF_TOKEN to an access token; or check the id"
                )
            }
            Self::Damaged(..) => "try again; what had arrived was removed".into(),
            Self::Ambiguous(repo, _, example) => format!("name one, as in `{}:{example}`", repo.name),
            Self::Incomplete(repo, ..) if repo.kind == RepoKind::Dataset => {
                format!("name the file, as in `{}:path/to/file.parquet`", repo.name)
            }
            Self::Answer(..) => "is HF_ENDPOINT right?".into(),
            Self::Status(..) => "try again later: what has arrived so far is kept".into(),
            Self::Incomplete(..) | Self::Setting(..) | Self::Io(..) => return None,
        })
    }
}

/// How to do without the hub.
fn local(repo: &Repo) -> &'static str {
    match repo.kind {
        RepoKind::Model => {
            "without a network, give ‹model› the path of a folder with config.json, tokenizer and weights"
        }
        RepoKind::Dataset => {
            "without a network, give the path of a local copy of the file (or NAME=PATH for a named data set, ‹task-data DIR› \
             for ‹tasks›)"
        }
    }
}
