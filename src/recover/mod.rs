//! Adapts the surviving weights of a pruned checkpoint: in a pruned model, the text it was calibrated on and, for some
//! methods, the dense model; out new weights for its pruned operators, in which every zero is where it was. Operators without
//! a zero, embedding, norms, biases and head stay as they are.
//!
//! | method | what is trained | on what |
//! |---|---|---|
//! | [`Recovery::Block`] | each layer's attention, then its MLP, by Adam | the dense model's hidden states |
//! | [`Recovery::Spp`] | factors of rows and columns of all operators, by AdamW | the text |
//! | [`Recovery::Mezo`] | all weights, along random directions | the text, by forward passes alone |
//! | [`Recovery::Subzero`] | the same, in random subspaces | the text, by forward passes alone |
//!
//! ```
//! use fista_pruner::checkpoint::CheckpointWriter;
//! use fista_pruner::error::Result;
//! use fista_pruner::model::Model;
//! use fista_pruner::progress::silent;
//! use fista_pruner::prune::WeightSink;
//! use fista_pruner::recover::{Job, Recovery, ZerothConfig, recover};
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
//! let recovery = Recovery::Mezo(ZerothConfig {
//!     steps: 6,
//!     ..ZerothConfig::default()
//! });
//! let mut sink = Sink(CheckpointWriter::create(&pruned.checkpoint, &output, false)?);
//! let job = Job {
//!     pruned: &pruned,
//!     dense: None,
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
mod gradient;
mod operators;
mod report;
mod schedule;
mod spp;
mod zeroth;

pub use checkpoints::remove_checkpoints;
pub use config::{BlockConfig, Recovery, SppConfig, SubspaceConfig, ZerothConfig};
pub use report::{Curve, FILE_NAME, Recovered, RecoveryEvaluation, RecoveryReport, VERSION};

use crate::error::{Error, Result};
use crate::eval::head_nll;
use crate::model::Model;
use crate::progress::Observer;
use crate::prune::{WeightSink, token_batches};
use crate::report::OperatorReport;
use burn::tensor::Tensor;
use directions::Space;
use fista_pruner_backends::SolverOps;
use std::path::Path;

/// Everything a recovery works on.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// The pruned model. Whatever is zero in its operators stays zero.
    pub pruned: &'a Model,
    /// The dense model that it was made from, for [`Recovery::Block`].
    pub dense: Option<&'a Model>,
    /// Token windows, all of one length.
    pub windows: &'a [Vec<u32>],
    /// How.
    pub recovery: &'a Recovery,
    /// A folder for what is done, in which an interrupted run finds it again; see [`remove_checkpoints`].
    pub checkpoints: Option<&'a Path>,
}

/// Adapts the pruned model's weights. The sink gets every operator's, a layer at a time, rounded to what is stored.
///
/// # Errors
/// When a setting is out of range, the dense model is missing or another one, the windows are empty or too short, a tensor
/// cannot be read, the sink refuses a weight, or the device fails.
pub fn recover<B: SolverOps>(
    job: Job<'_>,
    device: &B::Device,
    sink: &mut dyn WeightSink,
    observer: &mut dyn Observer,
) -> Result<Recovered> {
    job.recovery.validate()?;
    crate::eval::check_windows(job.windows, "--seq-len")?;
    if let Some(dense) = job.dense {
        check_same_shape(job.pruned, dense)?;
    }
    operators::check_zeros(job.pruned)?;
    let mut counting = Counting::new(sink);
    let (loss, (curves, resumed)) = match job.recovery {
        Recovery::Block(config) => (
            block::LOSS,
            block::run::<B>(&job, config, device, &mut counting, observer)?,
        ),
        Recovery::Spp(config) => (
            spp::LOSS,
            spp::run::<B>(&job, config, device, &mut counting, observer)?,
        ),
        Recovery::Mezo(config) => (
            zeroth::LOSS,
            zeroth::run::<B>(&job, config, Space::Full, device, &mut counting, observer)?,
        ),
        Recovery::Subzero(config) => {
            let (rank, refresh) = (config.rank, config.refresh);
            let space = Space::Subspace { rank, refresh };
            (
                zeroth::LOSS,
                zeroth::run::<B>(&job, &config.steps, space, device, &mut counting, observer)?,
            )
        }
    };
    Ok(Recovered {
        loss: loss.to_owned(),
        curves,
        operators: counting.operators,
        weights: counting.weights,
        zeros: counting.zeros,
        resumed,
    })
}

/// A loss that can be made smaller.
fn finite(loss: f64, of: &str) -> Result<f64> {
    if loss.is_finite() {
        return Ok(loss);
    }
    Err(Error::NotFinite {
        what: "the loss",
        operator: of.to_owned(),
    })
}

/// Whether both models have the same operators.
fn check_same_shape(pruned: &Model, dense: &Model) -> Result<()> {
    let of = |model: &Model| -> Vec<_> {
        let operators = model.decoder.operators();
        operators
            .map(|operator| (operator.name.clone(), operator.shape()))
            .collect()
    };
    if of(pruned) == of(dense) {
        return Ok(());
    }
    Err(Error::Setting {
        setting: "--dense",
        reason: "its operators are not those of the pruned model".into(),
    })
}

/// Tokens of a batch of one window: fewer than any window has.
const ONE_WINDOW: usize = 1;

/// Hidden states `[1, tokens, hidden]`, a window each.
type Hidden<B> = Vec<Tensor<B, 3>>;

/// What enters the first layer.
fn window_states<B: SolverOps>(model: &Model, windows: &[Vec<u32>], device: &B::Device) -> Result<Hidden<B>> {
    let embedding = model.decoder.embedding::<B>(&model.checkpoint, device)?;
    let batches = token_batches::<B>(windows, ONE_WINDOW, device);
    Ok(batches.map(|ids| embedding.forward(ids, 0)).collect())
}

/// The mean negative log-likelihood of windows, from the hidden states after the last layer.
fn mean_nll<B: SolverOps>(
    model: &Model,
    hidden: Hidden<B>,
    windows: &[Vec<u32>],
    device: &B::Device,
) -> Result<f64> {
    let parts = (&model.checkpoint, &model.decoder);
    let hidden = hidden.into_iter().map(Ok);
    let nll = head_nll::<B>(parts, hidden, windows, device)?;
    Ok(nll.iter().sum::<f64>() / nll.len().max(1) as f64)
}

/// Counts what goes into a sink.
struct Counting<'a> {
    sink: &'a mut dyn WeightSink,
    operators: usize,
    weights: usize,
    zeros: usize,
}

impl<'a> Counting<'a> {
    fn new(sink: &'a mut dyn WeightSink) -> Self {
        Self {
            sink,
            operators: 0,
            weights: 0,
            zeros: 0,
        }
    }
}

impl WeightSink for Counting<'_> {
    fn weight(&mut self, name: &str, values: &[f32], keep: &[bool]) -> Result<()> {
        self.operators += 1;
        self.weights += values.len();
        self.zeros += keep.iter().filter(|keep| !**keep).count();
        self.sink.weight(name, values, keep)
    }

    fn layer_done(&mut self, layer: usize, operators: &[OperatorReport]) -> Result<()> {
        self.sink.layer_done(layer, operators)
    }
}
