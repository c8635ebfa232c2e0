//! Decoders of fista-pruner on burn: OPT and the LLaMA family, one layer at a time, from any tensor source.

mod error;
mod source;

pub use error::ModelError;
pub use source::{SourceError, TensorSource};
