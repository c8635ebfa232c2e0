//! Prunes trained language models layer by layer, without retraining: a Hugging Face checkpoint goes in, and the same checkpoint
//! with zeros in its linear layers comes out. The weights that stay are changed so that every layer computes nearly what it did. The
//! program `fista-pruner` does the same from the command line, with these functions.
//!
//! | to do | begin with |
//! |---|---|
//! | prune a checkpoint | [`prune::PruneRun`]; several methods side by side: [`prune::CompareRun`] |
//! | fine-tune the remaining weights of a pruned checkpoint | [`recover::RecoverRun`] |
//! | prune a burn module of your own, before or during training | [`module`] |
//! | evaluate a checkpoint | [`eval::measure`] for perplexity, [`eval::tasks`] for zero-shot tasks |
//!
//! ```no_run
//! use fista_pruner::checkpoint::Model;
//! use fista_pruner::config::{Pattern, PruneConfig, SolverConfig};
//! use fista_pruner::prune::PruneRun;
//! use fista_pruner::text::{TextOptions, draw_windows, read_documents};
//!
//! let model = Model::open("opt-125m".as_ref())?;
//! let text = read_documents(&["calibration.txt".into()], &TextOptions::default())?;
//! let windows = draw_windows(&model.tokenizer()?, &text, 128, 2048, 0)?; // 128 sequences of 2048 tokens, seed 0
//! let config = PruneConfig::new(Pattern::n_of_m(2, 4)?, SolverConfig::best(None));
//! let run = PruneRun::new(&model, &windows, config, "opt-125m-2of4")?; // on the first device that works
//! let report = run.run(&mut fista_pruner::progress::silent())?;
//! println!("{} zeros, mean error {}", report.sparsity, report.mean_error());
//! # Ok::<(), fista_pruner::error::Error>(())
//! ```
//!
//! # How it works
//!
//! ```text
//! checkpoint ──────────────► decoder layer by layer ─┐
//!                                                    ├─► statistics ─► solver ─► checkpoint + report
//! text ─► calibration windows ─► hidden states ──────┘
//! ```
//!
//! Each step is a module: [`checkpoint`] and [`hub`] read models, [`text`] makes sequences of tokens, [`prune`] is the loop with its
//! statistics, [`solver`] chooses the weights of one linear layer, [`report`] records what was done. [`config`] has every setting,
//! [`artifact`] packs and verifies checkpoints, [`progress`] shows how far long work is, [`error`] what went wrong, [`demo`] a
//! small model to try it with, and [`cli`] is the program.

pub mod config;
pub mod error;
mod json;
pub mod progress;
mod system;

pub mod hub;

pub mod checkpoint;
pub mod text;

pub mod solver;

pub mod prune;
pub mod recover;
mod structured;

pub mod eval;
pub mod report;

pub mod artifact;

pub mod module;

pub mod cli;
pub mod demo;
