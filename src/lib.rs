//! fista-pruner: prunes trained language models layer by layer, without retraining them.
//!
//! ```text
//! checkpoint ──────────────► decoder layer by layer ─┐
//!                                                    ├─► statistics ─► solver ─► checkpoint + report
//! text ─► calibration windows ─► hidden states ──────┘
//! ```
//!
//! [`prune::prune`] is the loop; [`cli`] is the program around it.

mod cleanup;
pub mod config;
pub mod error;
pub mod pattern;
mod select;

pub mod hub;

pub mod checkpoint;
pub mod model;

pub mod calibration;
pub mod chat_template;
pub mod tokenizer;

pub mod saved;
pub mod statistics;

pub mod solver;

pub mod allocation;
mod atomic_file;
pub mod compare;
mod journal;
mod limits;
pub mod plan;
pub mod progress;
pub mod prune;
pub mod report;
pub mod ridge;
pub mod shard;

pub mod eval;
pub mod generate;
pub mod inspect;
mod memory;

pub mod mask;
pub mod pack;
pub mod verify;

pub mod module;
pub mod recover;

pub mod cli;
pub mod demo;
