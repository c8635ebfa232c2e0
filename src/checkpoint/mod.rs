//! Step 1 of the flow, in and out: a Hugging Face folder is opened, its tensors are read one by one, and a folder of
//! the same names, shapes, dtypes and shards is written with the pruned weights in place.
//!
//! `eval`, `prune` and `inspect` open a [`Checkpoint`]; the decoders of `models` ask it for tensors through
//! [`TensorSource`](fista_pruner_models::TensorSource); `prune` hands finished weights to a [`CheckpointWriter`].
//! The checkpoint is never whole in memory: headers are read when it is opened, a tensor when it is asked for.

mod error;
mod reader;
mod writer;

mod dtype;
pub(crate) mod file;
pub(crate) mod header;
mod index;
mod output;
mod partial;
mod pickle;
mod pytorch;
mod zip;

pub(crate) use dtype::decode_into;
pub use dtype::{StoredDtype, encode, round_to};
pub use error::CheckpointError;
pub(crate) use output::resolve;
pub(crate) use partial::PartialFolder;
pub use reader::{Checkpoint, TensorInfo};
pub use writer::CheckpointWriter;

#[cfg(test)]
mod tests;
