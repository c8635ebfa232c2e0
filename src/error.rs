//! Everything that can go wrong, one variant per way to be wrong. `Display` states the fact; [`Error::hint`] advises.

use crate::pattern::Pattern;
use fista_pruner_backends::DeviceError;
use fista_pruner_models::ModelError;
use std::path::{Path, PathBuf};

/// The result of anything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a job could not be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read, written, created or renamed.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// What was tried: "read", "write", "create", …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },

    /// A sparsity that is no pattern.
    #[error("`{text}` is not a sparsity: {reason}")]
    Pattern {
        /// What was given.
        text: String,
        /// Why it cannot be.
        reason: String,
    },

    /// An n:m pattern on an operator whose inputs are no multiple of m.
    #[error("`{operator}` has {inputs} inputs, which {pattern} does not divide")]
    PatternDoesNotFit {
        /// The pattern asked for.
        pattern: Pattern,
        /// The operator's full name.
        operator: String,
        /// Its number of inputs.
        inputs: usize,
    },

    /// A finished matrix without its pattern: a fault of this program.
    #[error("`{operator}` does not have the pattern {pattern}: {reason}")]
    PatternBroken {
        /// The pattern asked for.
        pattern: Pattern,
        /// The operator's full name.
        operator: String,
        /// Where it is broken.
        reason: String,
    },

    /// A setting outside its range, or two that exclude each other.
    #[error("{setting}: {reason}")]
    Setting {
        /// The setting's name as the user spells it.
        setting: &'static str,
        /// What is wrong with it.
        reason: String,
    },

    /// A value that is not finite, in weights, activations or statistics.
    #[error("{what} of `{operator}` holds a value that is not finite")]
    NotFinite {
        /// "the weight", "the input activation", …
        what: &'static str,
        /// The operator or tensor.
        operator: String,
    },

    /// A matrix that no damping made positive definite.
    #[error(
        "the Gram matrix of `{operator}` cannot be factorised, even with damping {damping:e} of its mean diagonal"
    )]
    Factorisation {
        /// The operator.
        operator: String,
        /// The largest damping tried, relative to the mean diagonal.
        damping: f64,
    },

    /// The device failed in the middle of the work.
    #[error("the device failed: {reason}")]
    DeviceFailed {
        /// What it said.
        reason: String,
    },

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

    /// A file that is no report of a pruning run, or one of another version.
    #[error("`{}` cannot be used as a report: {reason}", path.display())]
    Report {
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

    /// Parts of a run over several machines that do not make a whole.
    #[error("the parts in `{}` cannot be merged: {reason}", folder.display())]
    Parts {
        /// The folder that holds them.
        folder: PathBuf,
        /// Which part is wrong, and how.
        reason: String,
    },

    /// A fault of this program.
    #[error("{what}")]
    Internal {
        /// What should not have happened.
        what: String,
    },

    /// A checkpoint folder that cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] crate::checkpoint::CheckpointError),

    /// Data files that cannot be used.
    #[error(transparent)]
    Data(#[from] crate::calibration::DataError),

    /// A file of a hub's repository that cannot be had.
    #[error(transparent)]
    Hub(#[from] Box<crate::hub::HubError>),
    /// A task that cannot be evaluated.
    #[error(transparent)]
    Task(#[from] crate::eval::tasks::TaskError),

    /// A tokenizer that cannot be read or does not fit.
    #[error(transparent)]
    Tokenizer(#[from] crate::tokenizer::TokenizerError),

    /// The decoder could not be built.
    #[error(transparent)]
    Model(#[from] ModelError),

    /// The device could not be opened or failed.
    #[error(transparent)]
    Device(#[from] DeviceError),

    /// A caller's module, or a mask for it, that cannot be used.
    #[error(transparent)]
    Module(#[from] crate::module::ModuleError),
}

impl From<crate::hub::HubError> for Error {
    fn from(error: crate::hub::HubError) -> Self {
        Self::Hub(Box::new(error))
    }
}

impl Error {
    /// Wraps a system error with what was tried on which path.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { action, path, source }
    }

    /// What the user can do about it, where there is something.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::PatternDoesNotFit { .. } => {
                Some("leave the operator out with --ignore, or choose an m that divides its inputs".into())
            }
            Self::PatternBroken { .. } => {
                Some("this is a fault of fista-pruner, please report it; nothing was written".into())
            }
            Self::NotFinite {
                what: "the weight", ..
            } => Some("the checkpoint is damaged or was saved in the middle of a diverged training".into()),
            Self::NotFinite { .. } => {
                Some("the model's activations overflow; check the checkpoint with `eval`".into())
            }

            Self::Checkpoint(error) => error.hint(),
            Self::Data(error) => error.hint(),
            Self::Hub(error) => error.hint(),
            Self::Task(error) => error.hint(),
            Self::Tokenizer(error) => error.hint(),
            // A tensor that the decoder asked this crate for: the advice is that of the error inside.
            Self::Model(ModelError::Source(source)) => source.downcast_ref::<Self>()?.hint(),
            Self::Module(error) => error.hint(),
            Self::Device(error) => error.hint(),
            Self::TooLargeForDevice { remedy, .. } => Some(match remedy {
                Some(remedy) => format!("{remedy}, or use a device without that limit: --device flex"),
                None => "use a device without that limit: --device flex".to_owned(),
            }),
            Self::Report { .. } => Some(
                "give the folder of a pruned model, or the pruning_report.json in it, made by this version of `prune`"
                    .into(),
            ),
            Self::Resume { .. } => Some(
                "repeat the command as it was, or remove that folder to begin again".into(),
            ),
            Self::Parts { .. } => Some(
                "run the shard that is named again, with the same settings as the others".into(),
            ),
            Self::Factorisation { .. } => Some("give more calibration text: --samples, --seq-len".into()),
            _ => None,
        }
    }
}
