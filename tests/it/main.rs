//! One test binary: the library against numbers nobody here computed, and the real program in temporary folders.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod common;
mod smollm2;
mod solver;
