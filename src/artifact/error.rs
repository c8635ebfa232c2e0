//! What is wrong with a finished checkpoint, or with its mask.

use std::path::PathBuf;

/// Why a finished checkpoint or its mask cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArtifactError {
    /// A mask that cannot be used or written.
    #[error("the mask `{}` cannot be used: {reason}", path.display())]
    Mask {
        /// The mask's file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },

    /// A checkpoint that is not what it should be; what is wrong has been listed.
    #[error("`{}` has {problems} problem(s)", path.display())]
    Unverified {
        /// The checkpoint.
        path: PathBuf,
        /// How many there are.
        problems: usize,
    },
}
