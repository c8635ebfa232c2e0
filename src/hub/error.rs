//! What can go wrong with the hub, one variant each.

use super::{Repo, RepoKind};
use std::path::PathBuf;

/// Why a file of a repository cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// No answer.
    #[error("cannot fetch {what} of {repo}: no connection to {url}: {reason}")]
    Unreachable {
        /// The file, or the list of files.
        what: String,
        /// The repository.
        repo: Repo,
        /// The address.
        url: String,
        /// What the system said.
        reason: String,
    },

    /// Not in the cache, and the network is not to be used.
    #[error("{what} of {repo} is not in the cache `{}`, and HF_HUB_OFFLINE forbids to fetch {url}", cache.display())]
    Offline {
        /// The file, or the list of files.
        what: String,
        /// The repository.
        repo: Repo,
        /// Where it would be fetched from.
        url: String,
        /// The cache.
        cache: PathBuf,
    },

    /// The server knows no such repository, revision or file.
    #[error("the hub has no {what}: {url} ({reason})")]
    NotFound {
        /// What is missing, in words.
        what: String,
        /// The repository.
        repo: Repo,
        /// The address.
        url: String,
        /// What the server said.
        reason: String,
    },

    /// The server wants to know who asks, or knows and refuses.
    #[error("the hub does not give out {what} of {repo}: {url} ({reason})")]
    Denied {
        /// The file, or the list of files.
        what: String,
        /// The repository.
        repo: Repo,
        /// The page where access is asked for.
        page: String,
        /// The address.
        url: String,
        /// What the server said.
        reason: String,
        /// Whether a token was sent.
        with_token: bool,
    },

    /// Another status.
    #[error("cannot fetch {what} of {repo}: {url} ({reason})")]
    Status {
        /// The file, or the list of files.
        what: String,
        /// The repository.
        repo: Repo,
        /// The address.
        url: String,
        /// What the server said.
        reason: String,
    },

    /// An answer that no hub gives.
    #[error("{url} does not answer like a hub: {reason}")]
    Answer {
        /// The address.
        url: String,
        /// What is wrong with it.
        reason: String,
    },

    /// Contents other than those promised.
    #[error("{what} of {repo} arrived damaged from {url}: {reason}")]
    Damaged {
        /// The file.
        what: String,
        /// The repository.
        repo: Repo,
        /// The address.
        url: String,
        /// The difference.
        reason: String,
    },

    /// A model repository without what a model needs.
    #[error("{repo} has no {what}; it has {found}")]
    Incomplete {
        /// What is missing.
        what: &'static str,
        /// The repository.
        repo: Repo,
        /// What is there.
        found: String,
    },

    /// A data set whose files do not tell which are meant.
    #[error("{repo}: which file is meant is not clear; it has {found}")]
    Ambiguous {
        /// The repository.
        repo: Repo,
        /// Some of its files.
        found: String,
        /// One of them.
        example: String,
    },

    /// A data set without a file that can be read.
    #[error("{repo} has no {what}; it has {found}")]
    NoData {
        /// The repository.
        repo: Repo,
        /// What was looked for.
        what: String,
        /// What is there.
        found: String,
    },

    /// Certificates that cannot be used.
    #[error("the certificates in `{}` cannot be used: {reason}", file.display())]
    Certificates {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl HubError {
    /// What the user can do about it, where there is something.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Unreachable { repo, .. } => {
                format!(
                    "{}; HF_ENDPOINT names a mirror, HTTPS_PROXY a proxy, SSL_CERT_FILE certificates of your own",
                    local(repo)
                )
            }
            Self::Offline { repo, .. } => {
                format!(
                    "run once with HF_HUB_OFFLINE=0 to fill the cache, or {}",
                    local(repo)
                )
            }
            Self::NotFound { repo, .. } => format!(
                "check the id; a private one needs HF_TOKEN; a local path is used where it exists, and `{}` does not",
                repo.name
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
            Self::Damaged { .. } => "try again; what had arrived was removed".into(),
            Self::Ambiguous { repo, example, .. } => {
                format!("name one, as in `{}:{example}`", repo.name)
            }
            Self::NoData { repo, .. } => format!("name the file, as in `{}:path/to/file.parquet`", repo.name),
            Self::Answer { .. } => "is HF_ENDPOINT right?".into(),
            Self::Status { .. } => "try again later: what has arrived so far is kept".into(),
            Self::Certificates { .. } => "SSL_CERT_FILE names a file of certificates in PEM format".into(),
            Self::Incomplete { .. } => return None,
        };
        Some(hint)
    }

    /// What the system said where there was no answer: then a copy in the cache may stand in.
    pub(crate) fn no_network(&self) -> Option<&str> {
        match self {
            Self::Unreachable { reason, .. } => Some(reason),
            _ => None,
        }
    }
}

/// How to do without the hub.
fn local(repo: &Repo) -> &'static str {
    match repo.kind {
        RepoKind::Model => {
            "without a network, give --model the path of a folder with config.json, tokenizer and weights"
        }
        RepoKind::Dataset => {
            "without a network, give the path of a local copy of the file (or NAME=PATH for a named data set, --task-data DIR \
             for --tasks)"
        }
    }
}
