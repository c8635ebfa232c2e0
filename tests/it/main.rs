//! One test binary: the library against numbers nobody here computed, and the real program in temporary folders.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod command;
mod common;
mod hub_server;

mod bad_input;
mod checkpoints;
mod cli_compare;
mod cli_eval;
mod cli_mask;
mod cli_pack;
mod cli_prune;
mod cli_solve;
mod cli_verify;
mod devices;
mod docs;
mod documents;
mod fuzz;
mod hub_data;
mod hub_model;
mod library;
#[cfg(target_os = "linux")]
mod limits;
mod module;
mod module_training;
mod outputs;
mod progress;
mod recover;
mod report;
#[cfg(unix)]
mod resume;
mod shards;
mod shrink;
#[cfg(unix)]
mod signals;
mod smollm2;
mod solver;
mod statistics;
mod streaming;
#[cfg(unix)]
mod terminal;
mod zeroshot;
mod zeroshot_hub;
