//! One look at the dense model: every selected operator's problem, before anything is pruned.

use super::gather::statistics;
use super::selection::{check_selection, selected};
use super::source::{Source, embed};
use super::{Accumulator, Limits};
use crate::config::PruneConfig;
use crate::error::Result;
use crate::progress::{Event, Observer};
use crate::solver::LayerProblem;
use fista_pruner_backends::SolverOps;

/// Shows `each` the problem of every selected operator of the dense model, in one pass over it.
pub(crate) fn survey<B: SolverOps>(
    source: Source<'_>,
    config: &PruneConfig,
    device: &B::Device,
    observer: &mut dyn Observer,
    mut each: impl FnMut(usize, &LayerProblem<B>) -> Result<()>,
) -> Result<()> {
    check_selection(source.decoder, config)?;
    Limits::of::<B>(source.decoder, device)?.grams(&selected(source.decoder, config))?;
    let layers = source.decoder.config().num_layers();
    observer.event(Event::Stage {
        name: "survey of the dense layers",
        steps: layers,
    });
    let different_tokens = source.different_tokens();
    let mut hidden = embed::<B>(&source, device)?;
    for layer in 0..layers {
        observer.event(Event::Layer {
            layer,
            layers,
            operators: 0,
        });
        let dense = source.decoder.layer::<B>(layer, source.checkpoint, device)?;
        let mut states = hidden.map(|state| dense.begin(state.input))?;
        for (group, operators) in source.decoder.config().operator_groups().iter().enumerate() {
            let mut gathered = None;
            for operator in operators {
                let name = source.decoder.operator_name(layer, operator.name);
                let Some(weight) = dense.weight(operator.name).filter(|_| config.selects(&name)) else {
                    continue;
                };
                let statistics = match gathered.take() {
                    Some(statistics) => statistics,
                    None => statistics(&name, Accumulator::default(), None, Some(&states))?,
                };
                let mut problem = statistics.problem(&name, weight);
                problem.tokens = Some(different_tokens);
                each(layer, &problem)?;
                gathered = Some(statistics);
            }
            states = states.map(|state| dense.advance(state, group))?;
        }
        hidden = states;
        observer.event(Event::Step);
    }
    observer.event(Event::Done);
    Ok(())
}
