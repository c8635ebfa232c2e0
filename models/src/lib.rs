//! Decoders of fista-pruner on burn: OPT and the LLaMA family, one layer at a time, from any tensor source.

mod error;
mod source;

pub use error::ModelError;
pub use source::{SourceError, TensorSource};

/// Model families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// OPT
    Opt,
    /// LLaMA
    Llama,
    /// Mistral
    Mistral,
    /// Qwen2
    Qwen2,
    /// Qwen3
    Qwen3,
}
