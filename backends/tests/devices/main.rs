//! Every device that this was built with against Flex: the same operations on the same values.
//!
//! A device that is not there is skipped, and the output says so; `FISTA_PRUNER_DEVICES=wgpu,…` names those that must be.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
#![cfg(feature = "flex")]

mod failure;
mod operations;
mod present;
mod selection;
