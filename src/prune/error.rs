//! What stops a pruning run besides its inputs: tensors that fit no device, saved statistics, unfinished runs, parts.

use std::path::PathBuf;

/// Why a run could not begin, go on or be put together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PruneError {
    /// A tensor larger than the device can hold in one piece.
    #[error("{what} takes {bytes} bytes, and the device holds at most {limit} in one tensor")]
    TooLargeForDevice {
        /// "the weight `…`", "the Gram matrix of `…`", …
        what: String,
        /// What it takes.
        bytes: u64,
        /// The device's limit.
        limit: u64,
        /// What makes it smaller, or leaves it out.
        remedy: Option<&'static str>,
    },

    /// A file of saved statistics that cannot be used.
    #[error("the statistics `{}` cannot be used: {reason}", path.display())]
    Statistics {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// An unfinished run that cannot be continued.
    #[error("the unfinished run in `{}` cannot be continued: {reason}", folder.display())]
    Resume {
        /// The folder that it left.
        folder: PathBuf,
        /// Why not.
        reason: String,
    },

    /// Another process is at work on the same output.
    #[error("another process is writing in `{}` now", folder.display())]
    Busy {
        /// The folder that it writes.
        folder: PathBuf,
    },

    /// Parts of a run over several machines that do not make a whole.
    #[error("the parts in `{}` cannot be merged: {reason}", folder.display())]
    Parts {
        /// The folder that holds them.
        folder: PathBuf,
        /// Which part is wrong, and how.
        reason: String,
    },
}

impl PruneError {
    pub(crate) fn hint(&self) -> Option<String> {
        let advice = match self {
            Self::TooLargeForDevice { remedy, .. } => {
                let other = "use a device without that limit: ‹device cpu›";
                return Some(match remedy {
                    Some(remedy) => format!("{remedy}, or {other}"),
                    None => other.to_owned(),
                });
            }
            Self::Statistics { .. } => return None,
            Self::Resume { .. } => "repeat the command as it was, or begin again with another ‹output›",
            Self::Busy { .. } => "wait until it ends, or stop it and repeat the command",
            Self::Parts { .. } => "run the shard that is named again, with the same settings as the others",
        };
        Some(advice.to_owned())
    }
}
