//! The pruner inside a program that trains its own burn model: any burn module in, the same module out with exact zeros in
//! the weights of its `Linear` layers, and masks, an optimizer and a schedule that keep them there.
//!
//! | to do | with |
//! |---|---|
//! | prune a module in memory with the statistics and solvers of the checkpoint pruner | [`prune()`], [`prune_in_training`] |
//! | choose its layers by path | [`PathFilter`] |
//! | show the pruner what the layers see | [`ApplyLinear`] in a forward pass of one's own, [`watched`] around any other |
//! | collect, save, load and apply masks | [`SparsityMask`] |
//! | train on without losing a zero | [`MaskedOptimizer`] |
//! | prune step by step during training | [`Gradual`] |
//! | remove hidden units of an MLP, so that its layers get smaller | [`remove_hidden`] |
//!
//! `docs/prune-your-burn-model.md` is the guide.
//!
//! burn's modules have no forward hooks. A forward pass of one's own is written once over [`ApplyLinear`], which either just
//! applies a layer ([`Direct`]) or notes its input first ([`Recorder`]); one that cannot be changed is [`watched`]:
//!
//! ```
//! use burn::backend::Flex;
//! use burn::module::Module;
//! use burn::nn::{Linear, LinearConfig};
//! use burn::tensor::{Distribution, Tensor, activation::relu, backend::Backend};
//! use fista_pruner::module::{ApplyLinear, Direct, ModuleConfig, prune};
//! use fista_pruner::config::Pattern;
//!
//! #[derive(Module, Debug)]
//! struct Mlp<B: Backend> {
//!     up: Linear<B>,
//!     down: Linear<B>,
//! }
//!
//! impl<B: Backend> Mlp<B> {
//!     fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
//!         self.forward_by(x, &mut Direct)
//!     }
//!
//!     fn forward_by(&self, x: Tensor<B, 2>, by: &mut impl ApplyLinear<B>) -> Tensor<B, 2> {
//!         let hidden = relu(by.apply(&self.up, x));
//!         by.apply(&self.down, hidden)
//!     }
//! }
//!
//! let device = Default::default();
//! let mlp = Mlp::<Flex> {
//!     up: LinearConfig::new(8, 16).init(&device),
//!     down: LinearConfig::new(16, 4).init(&device),
//! };
//! let batches = [Tensor::<Flex, 2>::random([64, 8], Distribution::Default, &device)];
//!
//! let config = ModuleConfig::new(Pattern::n_of_m(2, 4)?);
//! let (pruned, report) = prune(mlp, &batches, &config, |mlp, batch, recorder| {
//!     mlp.forward_by(batch.clone(), recorder)
//! })?;
//!
//! assert_eq!(report.layers.len(), 2);
//! assert_eq!(report.sparsity(), 0.5);
//! println!("{report}");
//! pruned.forward(batches[0].clone());
//! # Ok::<(), fista_pruner::error::Error>(())
//! ```

mod config;
mod error;
mod hidden;
mod layers;
mod mask;
mod moments;
mod optimizer;
mod paths;
mod prune;
mod recorder;
mod report;
mod schedule;
mod watch;

pub use config::{Correction, ModuleConfig};
pub use error::ModuleError;
pub use hidden::{SmallerHidden, remove_hidden};
pub use mask::SparsityMask;
pub use moments::Moments;
pub use optimizer::{MaskedOptimizer, MaskedOptimizerRecord};
pub use paths::PathFilter;
pub use prune::{prune, prune_in_training};
pub use recorder::{ApplyLinear, Direct, Recorder};
pub use report::{LeftAlone, LinearReport, ModuleReport};
pub use schedule::Gradual;
pub use watch::{Watch, WatchTensor, Watched, watched};

/// The programs of the guide.
#[cfg(doctest)]
#[doc = include_str!("../../docs/prune-your-burn-model.md")]
struct Guide;
