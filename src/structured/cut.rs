//! The finished weights cut to their new sizes, and what is reported of that.

use super::decided::Decided;
use crate::checkpoint::{Checkpoint, CheckpointWriter, Cut, Destination, Model};
use crate::config::{Pattern, ShapeRule, StructureConfig};
use crate::error::Result;
use crate::prune::plan::PlannedStructure;
use crate::report::{Decision, KeptReport, OperatorReport, ShapeReport, StructureReport, ranges};
use fista_pruner_models::{Decoder, ModelConfig, RopePrecision};
use std::collections::BTreeSet;

/// A smaller checkpoint beside the output, from one in `masked` that has the model's sizes and zeros for what goes; `operators` become
/// those of the smaller one.
///
/// # Errors
/// When more is in use than the shape keeps, or anything cannot be read or written.
pub(crate) fn cut(
    model: &Model,
    masked: &CheckpointWriter,
    destination: &Destination,
    decision: &Decision,
    operators: &mut Vec<OperatorReport>,
) -> Result<(CheckpointWriter, StructureReport)> {
    let masked = Checkpoint::open(masked.partial())?;
    let cut = Cut::read(&model.decoder, &masked, &decision.shape)?;
    let writer = CheckpointWriter::create_cut(&masked, destination, &cut)?;
    let small = Checkpoint::open(writer.partial())?;
    let decoder = small.decoder(RopePrecision::F32)?;
    for (name, shape) in decoder.tensors() {
        small.expect(&name, &shape)?;
    }
    *operators = in_result(operators, &cut, &small)?;
    let sizes = decoder.config().sizes();
    let (before, after) = (parameters(&model.decoder), parameters(&decoder));
    let share = |before: usize, after: usize| 1.0 - after as f64 / before.max(1) as f64;
    let linear = ModelConfig::linear_weights;
    let report = StructureReport {
        parameters_before: before,
        parameters_after: after,
        removed: share(linear(model.decoder.config()), linear(decoder.config())),
        removed_of_all: share(before, after),
        shape: ShapeReport {
            layers: sizes.layers,
            mlp: sizes.channels,
            heads: decoder.config().num_heads(),
            kv_heads: sizes.heads,
            dropped_layers: decision.shape.dropped.clone(),
        },
        decision: decision.clone(),
        kept: cut
            .layers()
            .iter()
            .map(|layer| KeptReport {
                layer: layer.from,
                mlp: ranges(&layer.channels),
                kv_heads: ranges(&layer.heads),
            })
            .collect(),
    };
    Ok((writer, report))
}

/// The operators as the smaller checkpoint has them, from their reports in the model's sizes.
///
/// # Errors
/// When one cannot be read.
fn in_result(operators: &[OperatorReport], cut: &Cut, small: &Checkpoint) -> Result<Vec<OperatorReport>> {
    let convert = |operator: &OperatorReport| -> Result<Option<OperatorReport>> {
        let Some((name, piece)) = cut.piece(&format!("{}.weight", operator.name)) else {
            return Ok(None);
        };
        let shape = piece.shape(&operator.shape);
        let values = small.read(&name, &shape)?;
        let zeros = values.iter().filter(|v| **v == 0.0).count();
        let layer = cut.layers().iter().position(|layer| layer.from == operator.layer);
        Ok(Some(OperatorReport {
            name: name.strip_suffix(".weight").unwrap_or(&name).to_owned(),
            layer: layer.unwrap_or(operator.layer),
            shape: [shape[0], shape[1]],
            pattern: Pattern::Columns {
                kept: shape[1],
                of: shape[1],
            },
            zeros,
            sparsity: zeros as f64 / values.len().max(1) as f64,
            ..operator.clone()
        }))
    };
    operators
        .iter()
        .filter_map(|operator| convert(operator).transpose())
        .collect()
}

/// What a run will remove, as far as it can be told before.
///
/// # Errors
/// As [`StructureConfig::shapes`].
pub(crate) fn planned(asked: &StructureConfig, decoder: &Decoder) -> Result<PlannedStructure> {
    let shape = Decided::provisional(asked, decoder)?.decision.shape;
    let config = decoder.config();
    let before = parameters(decoder);
    let gone = layer_parameters(config) * config.num_layers();
    let small = shape.config(config)?;
    let after = before - gone + layer_parameters(&small) * small.num_layers();
    Ok(PlannedStructure {
        parameters_before: before,
        parameters_after: after,
        removed: shape.removed(config)?,
        removed_of_all: 1.0 - after as f64 / before.max(1) as f64,
        shape_is_open: asked.most_layers(config) > 0 || asked.rule == ShapeRule::Auto,
        shape,
    })
}

/// Parameters of a decoder layer.
fn layer_parameters(config: &ModelConfig) -> usize {
    let tensors = config.layer_tensors();
    tensors
        .iter()
        .map(|(_, shape)| shape.iter().product::<usize>())
        .sum()
}

/// Parameters of a model, those of a head that is the embedding once.
fn parameters(decoder: &Decoder) -> usize {
    let embedding: BTreeSet<String> = decoder
        .embedding_tensors()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    // A tied head that is stored all the same is the embedding's copy.
    let copy = decoder
        .head_weight()
        .ok()
        .filter(|_| decoder.config().tied_head());
    let tensors = decoder.tensors();
    let counted = tensors
        .iter()
        .filter(|(name, _)| copy != Some(name) || embedding.contains(name));
    counted.map(|(_, shape)| shape.iter().product::<usize>()).sum()
}
