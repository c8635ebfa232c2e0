//! What a run will touch and hold, computed before it begins.

use crate::checkpoint::Checkpoint;
use crate::config::{LayerInput, PruneConfig};
use crate::error::Result;
use crate::prune::selected;
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
    /// Decoder layers.
    pub layers: usize,
    /// Calibration tokens.
    pub tokens: usize,
    /// Tokens that perplexity is measured on, before and after.
    pub evaluation_tokens: usize,
    /// Bytes of the output's weight files.
    pub disk_bytes: u64,
    /// Bytes on the device: one layer twice (dense and pruned), hidden states of calibration and evaluation, the largest
    /// group's statistics and the solver's matrices.
    pub device_bytes: u64,
}

/// Plans a run over `tokens` calibration tokens and `evaluation_tokens` of evaluation.
///
/// # Errors
/// When the pattern does not fit an operator.
pub fn plan(
    checkpoint: &Checkpoint,
    decoder: &Decoder,
    config: &PruneConfig,
    (tokens, evaluation_tokens): (usize, usize),
) -> Result<Plan> {
    let mut operators = Vec::new();
    for operator in selected(decoder, config) {
        let (shape, name) = (operator.shape(), operator.name);
        let pattern = config.pattern_for(&name);
        pattern.check_inputs(&name, shape[1])?;
        operators.push(PlannedOperator {
            zeros: pattern.zeros(shape[0], shape[1]),
            shape,
            name,
        });
    }
    let elements = |shape: &[usize]| shape.iter().product::<usize>() as u64;
    let layer: u64 = decoder
        .layer_tensors(0)
        .iter()
        .map(|(_, shape)| elements(shape))
        .sum();
    let disk_bytes = checkpoint
        .tensors()
        .map(|(_, info)| {
            info.dtype
                .bits()
                .map_or(0, |bits| elements(&info.shape) * bits / 8)
        })
        .sum();
    // The dense model's and the pruned one's.
    let evaluation = (2 * evaluation_tokens * decoder.config().hidden_size()) as u64;
    let hidden = hidden_elements(decoder, config, tokens) + evaluation;
    Ok(Plan {
        weights: operators.iter().map(|o| o.shape[0] * o.shape[1]).sum(),
        zeros: operators.iter().map(|o| o.zeros).sum(),
        layers: decoder.config().num_layers(),
        tokens,
        evaluation_tokens,
        disk_bytes,
        device_bytes: size_of::<f32>() as u64 * (2 * layer + hidden + solver_elements(decoder, config)),
        operators,
    })
}

/// Elements of the calibration's hidden states held at once: per path a layer's input or residual, and the widest group's input.
fn hidden_elements(decoder: &Decoder, config: &PruneConfig, tokens: usize) -> u64 {
    let widest = decoder
        .config()
        .operator_groups()
        .iter()
        .flatten()
        .map(|o| o.in_features)
        .max();
    let per_token = decoder.config().hidden_size() + widest.unwrap_or(0);
    let propagation = config.propagation;
    let dense = propagation.layer_input == LayerInput::Dense || propagation.dense_target;
    let paths = usize::from(dense) + usize::from(propagation.two_paths());
    (tokens * per_token * paths) as u64
}

/// Elements of the largest group's statistics with their compensations, and of one operator's solver matrices.
fn solver_elements(decoder: &Decoder, config: &PruneConfig) -> u64 {
    let sums = if config.propagation.two_paths() && config.propagation.dense_target {
        3
    } else {
        1
    };
    let operators = decoder.config().operator_groups().into_iter().flatten();
    operators
        .map(|o| {
            let (m, n) = (o.out_features as u64, o.in_features as u64);
            // Sum, compensation, and one product in flight for each; then W, V, P, gradient and three iterates.
            (2 * sums + 1) * n * n + 7 * m * n
        })
        .max()
        .unwrap_or(0)
}
