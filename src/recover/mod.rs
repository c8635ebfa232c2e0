//! Adapts the surviving weights of a pruned checkpoint: in a pruned model, the text it was calibrated on and, for some
//! methods, the dense model; out new weights for its pruned operators, in which every zero is where it was. Operators without
//! a zero, embedding, norms, biases and head stay as they are.
//!
//! | method | what is trained | on what |
//! |---|---|---|
//! | [`Recovery::Block`] | each layer's attention, then its MLP, by Adam | the dense model's hidden states |
//! | [`Recovery::Distill`] | all surviving weights, by AdamW | the dense model's distribution of the next token |
//! | [`Recovery::Spp`] | factors of rows and columns of all operators, by AdamW | the text |
//! | [`Recovery::Mezo`] | all weights, along random directions | the text, by forward passes alone |
//! | [`Recovery::Subzero`] | the same, in random subspaces | the text, by forward passes alone |
//!
//! ```
//! use fista_pruner::checkpoint::CheckpointWriter;
//! use fista_pruner::error::Result;
//! use fista_pruner::checkpoint::Model;
//! use fista_pruner::progress::silent;
//! use fista_pruner::prune::WeightSink;
//! use fista_pruner::recover::{RecoverJob, Recovery, MezoConfig, recover};
//! use burn::backend::Flex;
//!
//! /// Weights go straight into the new checkpoint.
//! struct Sink(CheckpointWriter);
//!
//! impl WeightSink for Sink {
//!     fn weight(&mut self, name: &str, values: &[f32], keep: &[bool]) -> Result<()> {
//!         self.0.write_weight(name, values, keep)
//!     }
//! }
//!
//! # let folder = tempfile::tempdir().unwrap();
//! # let (pruned, output) = (folder.path().join("pruned"), folder.path().join("recovered"));
//! # let dense = Model::open(&fista_pruner::demo::model()?)?;
//! # let mut writer = CheckpointWriter::create(&dense.checkpoint, &pruned, false)?;
//! # for operator in dense.decoder.operators() {
//! #     let values = dense.checkpoint.read(&operator.weight(), &operator.shape())?;
//! #     let keep: Vec<bool> = (0..values.len()).map(|i| i % 2 == 0).collect();
//! #     writer.write_weight(&operator.weight(), &values, &keep)?;
//! # }
//! # writer.finish()?;
//! let pruned = Model::open(&pruned)?;
//! let windows = vec![vec![17, 4, 250, 31, 8, 99, 4, 62]; 2]; // the calibration text, as token ids
//! let recovery = Recovery::Mezo(MezoConfig {
//!     steps: 6,
//!     ..MezoConfig::default()
//! });
//! let mut sink = Sink(CheckpointWriter::create(&pruned.checkpoint, &output, false)?);
//! let job = RecoverJob {
//!     pruned: &pruned,
//!     dense: None,
//!     kept_layers: None,
//!     windows: &windows,
//!     recovery: &recovery,
//!     checkpoints: None,
//! };
//! let recovered = recover::<Flex>(job, &Default::default(), &mut sink, &mut silent())?;
//! sink.0.finish()?;
//!
//! assert!(recovered.curves[0].after <= recovered.curves[0].before);
//! assert_eq!(recovered.zeros * 2, recovered.weights);
//! # Ok::<(), fista_pruner::error::Error>(())
//! ```

mod block;
mod checkpoints;
mod config;
mod directions;
mod distill;
mod gradient;
mod job;
mod operators;
mod recovery;
mod report;
mod run;
mod schedule;
mod spp;
mod whole;
mod zeroth;

pub use checkpoints::remove_checkpoints;
pub use config::{BlockConfig, DistillConfig, MezoConfig, Recovery, SppConfig, SubzeroConfig};
pub use job::{RecoverJob, kept_layers};
pub use recovery::recover;
pub use report::{Curve, FILE_NAME, Recovered, RecoveryEvaluation, RecoveryReport, VERSION};
pub use run::RecoverRun;
