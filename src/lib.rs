//! fista-pruner: prunes trained language models layer by layer, without retraining them.
//!
//! ```text
//! checkpoint ──────────────► decoder layer by layer ─┐
//!                                                    ├─► statistics ─► solver ─► checkpoint + report
//! text ─► calibration windows ─► hidden states ──────┘
//! ```
//!
//! [`prune::prune`] is the loop; [`cli`] is the program around it.

pub mod config;
pub mod error;
pub mod progress;
mod system;

pub mod hub;

pub mod checkpoint;
pub mod text;

pub mod solver;

pub mod prune;
pub mod recover;

pub mod eval;
pub mod report;

pub mod artifact;

pub mod module;

pub mod cli;
pub mod demo;
