//! fista-pruner: prunes trained language models layer by layer.

pub mod error;
pub mod pattern;
