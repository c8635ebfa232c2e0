//! Calibration states through a layer: the statistics of an operator group, and the states after the layer.

use super::states::States;
use super::statistics::{Accumulator, Statistics};
use crate::error::{Error, Result};
use burn::tensor::Tensor;
use fista_pruner_backends::SolverOps;
use fista_pruner_models::{Layer, LayerState};

/// Hidden states after a layer, by the steps that pruning takes it in, so that they are the same to the last bit.
pub(crate) fn through<'a, B: SolverOps>(layer: &Layer<B>, hidden: States<'a, B>) -> Result<States<'a, B>> {
    hidden.map_hidden(|hidden| {
        let begun = layer.begin(hidden);
        (0..Layer::<B>::GROUPS)
            .fold(begun, |state, group| layer.advance(state, group))
            .input
    })
}

/// What more an operator's output is to be: the difference of two states.
pub(crate) struct More<'s, 'a, B: SolverOps> {
    pub(crate) from: &'s States<'a, B>,
    pub(crate) to: &'s States<'a, B>,
}

/// Statistics of operators of which whole columns go; `more` is added to their target.
pub(crate) fn column_statistics<B: SolverOps>(
    operator: &str,
    mut accumulator: Accumulator<B>,
    (target, states): (&States<'_, B>, &States<'_, B>),
    more: Option<More<'_, '_, B>>,
) -> Result<Statistics<B>> {
    let flat = |state: Result<LayerState<B>>| -> Result<Tensor<B, 2>> { Ok(state?.input.flatten(0, 1)) };
    let mut differences = more.map(|more| more.to.iter().zip(more.from.iter()));
    for (dense, real) in target.iter().zip(states.iter()) {
        let difference = differences
            .as_mut()
            .and_then(Iterator::next)
            .map(|(to, from)| Ok::<_, Error>(flat(to)? - flat(from)?))
            .transpose()?;
        accumulator.add_towards(flat(dense)?, flat(real)?, difference);
    }
    accumulator.finish(operator)
}

/// Statistics of the group whose inputs `states` holds; `target` holds the dense model's, where they are others.
pub(crate) fn statistics<B: SolverOps>(
    operator: &str,
    mut accumulator: Accumulator<B>,
    target: Option<&States<'_, B>>,
    states: Option<&States<'_, B>>,
) -> Result<Statistics<B>> {
    let flat = |state: Result<LayerState<B>>| -> Result<Tensor<B, 2>> { Ok(state?.input.flatten(0, 1)) };
    match (target, states) {
        (Some(dense), Some(real)) => {
            for (dense, real) in dense.iter().zip(real.iter()) {
                accumulator.add_pair(flat(dense)?, flat(real)?);
            }
        }
        (None, Some(states)) => {
            for state in states.iter() {
                accumulator.add(flat(state)?);
            }
        }
        (_, None) => {}
    }
    accumulator.finish(operator)
}
