//! What a run will touch, hold and take, computed before it begins.
//!
//! Bytes follow from shapes: what is alive at the same time in the phase that holds most. Seconds cannot be computed; they are
//! measured on a small part of the work ([`Probe`]).

mod bytes;
mod fit;
mod probe;
mod room;

pub(super) use fit::Budgets;
pub use probe::{PlannedSeconds, Probe};
pub use room::{Room, StatePlace};

use crate::checkpoint::Checkpoint;
use crate::config::{PruneConfig, Shape};
use crate::error::Result;
use crate::prune::selected;
use crate::report;
use fista_pruner_models::Decoder;
use serde::Serialize;

/// One operator of the plan.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedOperator {
    /// Full name.
    pub name: String,
    /// `[out, in]`.
    pub shape: [usize; 2],
    /// Zeros it will have.
    pub zeros: usize,
}

/// A run's plan.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// Operators in the order of pruning.
    pub operators: Vec<PlannedOperator>,
    /// Weights they have together.
    pub weights: usize,
    /// Zeros they will have together.
    pub zeros: usize,
    /// Decoder layers to prune.
    pub layers: usize,
    /// Calibration tokens.
    pub tokens: usize,
    /// Tokens that perplexity is measured on, before and after.
    pub evaluation_tokens: usize,
    /// Tokens computed at once.
    pub batch_tokens: usize,
    /// Where hidden states wait.
    pub activations: StatePlace,
    /// Whether a layer's weights and Gram matrices are on the device only while a step needs them.
    pub offload: bool,
    /// Bytes of the output's weight files.
    pub disk_bytes: u64,
    /// Bytes of hidden states in files, while the run lasts.
    pub activation_disk_bytes: u64,
    /// Most bytes at one time on the device; where the device is the host, all of the process.
    pub device_bytes: u64,
    /// Most bytes at one time of the process on the host.
    pub host_bytes: u64,
    /// RAM that was free, if that is what decided where things wait, or if it is too little.
    pub free_host_bytes: Option<u64>,
    /// Seconds it will take, where they were measured.
    pub seconds: Option<PlannedSeconds>,
    /// What structured pruning will remove.
    #[serde(flatten)]
    pub structure: Option<PlannedStructure>,
}

/// What structured pruning will remove.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedStructure {
    /// Parameters of the dense model, embeddings included.
    pub parameters_before: usize,
    /// Parameters of the result.
    pub parameters_after: usize,
    /// The share of the decoder layers' linear weights that goes.
    pub removed: f64,
    /// The share of all parameters that goes.
    pub removed_of_all: f64,
    /// The result's sizes.
    pub shape: Shape,
    /// Whether the run tries several shapes or layers, of which this is one.
    pub shape_is_open: bool,
}

impl Plan {
    /// What the free RAM did to the plan, in a sentence.
    pub(crate) fn about_free_memory(&self) -> Option<String> {
        let free = self.free_host_bytes?;
        let is_free = format!("only {} of RAM is free", report::bytes(free));
        Some(if self.host_bytes > free {
            let needed = report::bytes(self.host_bytes);
            format!("{is_free}, and the run needs about {needed}: the system may stop it")
        } else {
            format!("{is_free}, which decided where hidden states and weights wait; the result is the same")
        })
    }
}

/// Plans a run.
///
/// # Errors
/// When the pattern does not fit an operator.
pub fn plan(checkpoint: &Checkpoint, decoder: &Decoder, config: &PruneConfig, room: &Room) -> Result<Plan> {
    let mut operators = Vec::new();
    let chosen = selected(decoder, config);
    for operator in chosen.into_iter().filter(|o| room.layers.contains(&o.layer)) {
        let (shape, name) = (operator.shape(), operator.name);
        let pattern = config.pattern_for(&name);
        pattern.check_inputs(&name, shape[1])?;
        operators.push(PlannedOperator {
            zeros: pattern.zeros(shape[0], shape[1]),
            shape,
            name,
        });
    }
    let disk_bytes = checkpoint
        .tensors()
        .map(|(_, info)| {
            let elements = info.shape.iter().product::<usize>() as u64;
            info.dtype.bits().map_or(0, |bits| elements * bits / 8)
        })
        .sum();
    let bytes = bytes::Bytes::of(checkpoint, decoder, config, room);
    Ok(Plan {
        weights: operators.iter().map(|o| o.shape[0] * o.shape[1]).sum(),
        zeros: operators.iter().map(|o| o.zeros).sum(),
        layers: room.layers.len(),
        tokens: room.tokens,
        evaluation_tokens: room.evaluation_tokens,
        batch_tokens: config.batch_tokens,
        activations: room.states,
        offload: room.offload,
        disk_bytes,
        activation_disk_bytes: bytes.disk,
        device_bytes: bytes.device,
        host_bytes: bytes.host,
        free_host_bytes: None,
        seconds: None,
        structure: None,
        operators,
    })
}
