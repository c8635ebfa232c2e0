//! One test binary: the library against numbers nobody here computed, and the real program in temporary folders.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod command;
mod common;

mod bad_input;
mod cli_compare;
mod cli_eval;
mod cli_prune;
mod cli_solve;
mod report;
mod smollm2;
mod solver;
