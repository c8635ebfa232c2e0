//! Checkpoints in and out: a Hugging Face folder is opened, its tensors are read one by one, and a folder of
//! the same names, shapes, dtypes and shards is written with the pruned weights in place.
//!
//! `eval`, `prune` and `inspect` open a [`Checkpoint`]; the decoders of `models` ask it for tensors through
//! [`TensorSource`](fista_pruner_models::TensorSource); `prune` hands finished weights to a [`CheckpointWriter`].
//! The checkpoint is never whole in memory: headers are read when it is opened, a tensor when it is asked for.

mod error;
mod reader;
mod writer;

pub(crate) mod build;
mod cut;
mod dtype;
pub(crate) mod file;
pub(crate) mod find;
pub(crate) mod header;
pub(crate) mod index;
mod layout;
mod model;
mod output;
mod overlay;
pub(crate) mod packed;
mod pickle;
pub(crate) mod plain;
mod pytorch;
mod replaceable;
mod side_files;
mod stored_dtype;
mod zip;

pub use crate::system::Destination;
pub(crate) use cut::Cut;
pub(crate) use dtype::decode_into;
pub use dtype::{encode, round_to};
pub use error::CheckpointError;
pub use find::ModelName;
pub(crate) use layout::{WeightFormat, file_names};
pub use model::Model;
pub(crate) use overlay::Overlay;
pub use reader::{Checkpoint, TensorInfo};
pub(crate) use side_files::{JOURNAL, holds_weights, side_files};
pub use stored_dtype::StoredDtype;
pub use writer::CheckpointWriter;

#[cfg(test)]
mod tests;
