//! Which operators a run prunes, and whether they can be pruned as it is asked: found out before any work.

use crate::config::{LayerInput, PruneConfig};
use crate::error::{ConfigError, Error, Result};
use fista_pruner_models::{Decoder, LayerOperator};

/// The operators that a configuration selects, in the order of pruning.
pub fn selected(decoder: &Decoder, config: &PruneConfig) -> Vec<LayerOperator> {
    decoder
        .operators()
        .filter(|operator| config.selects(&operator.name))
        .collect()
}

/// Finds out before any work whether something is selected, and whether the pattern fits all of it.
pub(crate) fn check_selection(decoder: &Decoder, config: &PruneConfig) -> Result<()> {
    let selected = selected(decoder, config);
    // Where layers are left out, that may be all.
    let leaves_out = config.dropped.as_ref().is_some_and(|dropped| !dropped.is_empty());
    if selected.is_empty() && !leaves_out {
        return Err(Error::from(ConfigError::Setting {
            setting: "‹targets›/‹ignore›",
            reason: "no operator is selected".into(),
        }));
    }
    for LayerOperator { name, spec, .. } in &selected {
        config.pattern_for(name).check_inputs(name, spec.in_features)?;
    }
    Ok(())
}

/// Refuses what cannot be done layer by layer on its own: where a layer's input is the pruned model's, it needs all pruned
/// layers before it.
pub(crate) fn dense_input_only(config: &PruneConfig, setting: &'static str) -> Result<()> {
    if config.propagation.layer_input == LayerInput::Dense {
        return Ok(());
    }
    Err(Error::from(ConfigError::Setting {
        setting,
        reason: "with this ‹propagate› every layer's input comes from the pruned layers before it; layers can be pruned apart \
                 from each other with `intra`, `none` and whatever else has input=dense"
            .into(),
    }))
}

/// How many operators the branches will prune in each layer.
pub(crate) fn operators_by_layer(decoder: &Decoder, configs: &[&PruneConfig]) -> Vec<usize> {
    let mut counts = vec![0; decoder.config().num_layers()];
    for config in configs {
        for operator in selected(decoder, config) {
            counts[operator.layer] += 1;
        }
    }
    counts
}
