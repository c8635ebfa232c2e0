//! fista-pruner: prunes trained language models layer by layer.

pub mod calibration;
pub mod checkpoint;
pub mod demo;
pub mod error;
pub mod pattern;
pub mod tokenizer;
