//! fista-pruner: prunes trained language models layer by layer.

pub mod config;
pub mod error;
pub mod pattern;
mod select;
pub mod solver;
pub mod statistics;
