//! The crate's error, made of those of its rooms. `Display` states the fact; [`Error::hint`] advises.
//!
//! Texts name a setting as `‹seq-len›`. Who embeds the library reads `` `seq_len` `` instead; the command line asks for its own
//! flag with `for_command_line`.

pub use crate::artifact::ArtifactError;
pub use crate::checkpoint::CheckpointError;
pub use crate::config::{ConfigError, PatternError};
pub use crate::eval::tasks::TaskError;
pub use crate::hub::HubError;
pub use crate::module::ModuleError;
pub use crate::prune::PruneError;
pub use crate::report::ReportError;
pub use crate::solver::SolverError;
pub use crate::system::{DestinationError, IoError};
pub use crate::text::{DataError, TokenizerError};
pub use fista_pruner_backends::DeviceError;
pub use fista_pruner_models::ModelError;

use crate::system::brief;
use std::fmt;
use std::path::Path;

/// The result of anything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A fault of this program.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct InternalError {
    /// What should not have happened.
    pub what: String,
}

/// The crate's error: one variant a room, which the room's error turns into.
macro_rules! rooms {
    ($($(#[$doc:meta])* $variant:ident($error:ty),)*) => {
        /// Why a job could not be done.
        #[derive(Debug)]
        #[non_exhaustive]
        pub enum Error { $($(#[$doc])* $variant($error),)* }

        $(impl From<$error> for Error {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        })*

        impl Error {
            /// The room's own error.
            fn inner(&self) -> &(dyn std::error::Error + 'static) {
                match self { $(Self::$variant(error) => error,)* }
            }
        }
    };
}

rooms! {
    /// A file or folder could not be read, written, created or renamed.
    Io(IoError),
    /// Nothing is written to a path.
    Destination(DestinationError),
    /// A setting cannot be used.
    Config(ConfigError),
    /// A sparsity that is none, does not fit, or was not reached.
    Pattern(PatternError),
    /// A checkpoint folder cannot be read or written.
    Checkpoint(CheckpointError),
    /// The decoder could not be built.
    Model(ModelError),
    /// Data files cannot be used.
    Data(DataError),
    /// A tokenizer cannot be read or does not fit.
    Tokenizer(TokenizerError),
    /// A file of a hub's repository cannot be had.
    Hub(Box<HubError>),
    /// The device could not be opened or failed.
    Device(DeviceError),
    /// Numbers cannot be computed with.
    Solver(SolverError),
    /// A run cannot begin, go on or be put together.
    Prune(PruneError),
    /// A task cannot be evaluated.
    Task(TaskError),
    /// A finished checkpoint or its mask cannot be used.
    Artifact(ArtifactError),
    /// A file is no report.
    Report(ReportError),
    /// A caller's module, or a mask for it, cannot be used.
    Module(ModuleError),
    /// A fault of this program.
    Internal(InternalError),
}

impl From<HubError> for Error {
    fn from(error: HubError) -> Self {
        Self::Hub(Box::new(error))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&for_program(&brief(&self.inner().to_string())))
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner().source()
    }
}

impl Error {
    /// Wraps a system error with what was tried on which path.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let wrap = IoError::on(action, path);
        move |source| Self::Io(wrap(source))
    }

    /// A fault of this program, or of the part of one that a caller has written.
    pub fn internal(what: impl Into<String>) -> Self {
        Self::Internal(InternalError { what: what.into() })
    }

    /// What can be done about it, where there is something.
    pub fn hint(&self) -> Option<String> {
        self.advice().map(|advice| for_program(&brief(&advice)))
    }

    /// The fact and the advice, with settings as the command line spells them.
    pub(crate) fn for_command_line(&self) -> (String, Option<String>) {
        let fact = for_command_line(&brief(&self.inner().to_string()));
        (
            fact,
            self.advice().map(|advice| for_command_line(&brief(&advice))),
        )
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Pattern(error) => error.hint(),
            Self::Checkpoint(error) => error.hint(),
            // A tensor that the decoder asked this crate for: the advice is that of the error inside.
            Self::Model(ModelError::Source(source)) => source.downcast_ref::<Self>()?.advice(),
            // These facts are their own advice.
            Self::Io(_) | Self::Config(_) | Self::Artifact(_) | Self::Model(_) | Self::Internal(_) => None,
            Self::Destination(error) => error.hint(),
            Self::Data(error) => error.hint(),
            Self::Tokenizer(error) => error.hint(),
            Self::Hub(error) => error.hint(),
            Self::Device(error) => error.hint(),
            Self::Solver(error) => error.hint(),
            Self::Prune(error) => error.hint(),
            Self::Task(error) => error.hint(),
            Self::Report(error) => error.hint(),
            Self::Module(error) => error.hint(),
        }
    }
}

/// Settings as a program names them: `` `seq_len` ``, and `` `draw = documents` `` for one with its value.
fn for_program(text: &str) -> String {
    spelled(text, |name| {
        let name = name.replace('-', "_");
        match name.split_once(' ') {
            Some((name, value)) => format!("`{name} = {value}`"),
            None => format!("`{name}`"),
        }
    })
}

/// Settings as flags: `--seq-len`.
fn for_command_line(text: &str) -> String {
    spelled(text, |name| format!("--{name}"))
}

/// Puts what `spell` makes of it in the place of every `‹name›`.
fn spelled(text: &str, spell: impl Fn(&str) -> String) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, (name, after))) = rest
        .split_once('‹')
        .and_then(|(before, named)| Some((before, named.split_once('›')?)))
    {
        out += before;
        out += &spell(name);
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_fits_who_reads_it() {
        let error = Error::from(ConfigError::Setting {
            setting: "‹seq-len›",
            reason: "longer than ‹draw documents› gives".into(),
        });
        assert_eq!(
            error.to_string(),
            "`seq_len`: longer than `draw = documents` gives"
        );
        let (fact, advice) = error.for_command_line();
        assert_eq!(fact, "--seq-len: longer than --draw documents gives");
        assert_eq!(advice, None);
        assert_eq!(for_command_line("a ‹ without an end"), "a ‹ without an end");
    }
}
