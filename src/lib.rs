//! fista-pruner: prunes trained language models layer by layer.

pub mod checkpoint;
pub mod error;
pub mod pattern;
