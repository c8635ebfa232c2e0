//! What can be wrong with a configuration or a checkpoint's tensors.

use crate::source::SourceError;

/// Why a decoder could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// `config.json` is not what it should be.
    #[error("config.json: {0}")]
    Config(String),
    /// A model of another family, or an option that no decoder here implements.
    #[error("config.json: {what} `{found}` is not supported (supported: {supported})")]
    Unsupported {
        /// The field.
        what: &'static str,
        /// Its value.
        found: String,
        /// What would be understood.
        supported: String,
    },
    /// A tensor could not be had from the source.
    #[error("{0}")]
    Source(#[source] SourceError),
}
