//! What zeros cost the whole model: its divergence from the dense one when a single layer's attention or MLP is pruned at some rate,
//! and when all are, by several allocations. In: calibration windows to prune on and others to measure on. Out: nats a token.

use super::{AfterLayer, Branch, NullSink, Source, Span, States, embed, prune_branches};
use crate::config::{Pattern, Propagation, PruneConfig};
use crate::error::Result;
use crate::eval::{Along, divergence, finite};
use crate::progress::Observer;
use fista_pruner_backends::SolverOps;
use fista_pruner_models::Layer;
use std::collections::BTreeMap;

/// Windows to prune on, at most.
const FITTED: usize = 32;
/// Tokens to measure a part's divergence on, about.
const MEASURED: usize = 2048;

/// The calibration windows, divided.
#[derive(Clone, Copy)]
pub(super) struct Divided<'a> {
    fitted: Source<'a>,
    /// For single parts.
    measured: Source<'a>,
    /// For allocations: others, so that what the single parts' windows have by chance decides nothing alone.
    judged: Source<'a>,
}

impl<'a> Divided<'a> {
    /// A third of the windows at most for each kind of measure; of a single window, all three are that.
    pub(super) fn of(source: Source<'a>) -> Self {
        let windows = source.windows;
        let tokens = windows.first().map_or(1, Vec::len).max(1);
        let count = (MEASURED / tokens).clamp(1, (windows.len() / 3).max(1));
        let (fitted, rest) = windows.split_at(windows.len().saturating_sub(2 * count));
        let (measured, judged) = rest.split_at(rest.len() / 2);
        let or_all = |these: &'a [Vec<u32>]| if these.is_empty() { windows } else { these };
        let with = |windows| Source { windows, ..source };
        Self {
            fitted: with(&or_all(fitted)[..FITTED.min(or_all(fitted).len())]),
            measured: with(or_all(measured)),
            judged: with(or_all(judged)),
        }
    }
}

/// Attention and MLP: the parts of a layer whose operators get one rate.
pub(super) const PARTS: usize = 2;

/// The part that a group of operators belongs to.
pub(super) fn part_of<B: SolverOps>(group: usize) -> usize {
    usize::from(group >= Layer::<B>::ATTENTION_GROUPS)
}

/// Of every part of every layer, the divergence when it alone is pruned, at each of these rates. One pass: layers are pruned by
/// themselves, on the dense model's activations.
pub(super) fn by_part<B: SolverOps>(
    windows: Divided<'_>,
    config: &PruneConfig,
    rates: &[f64],
    device: &B::Device,
    observer: &mut dyn Observer,
) -> Result<Vec<Vec<f64>>> {
    let mut configs = Vec::with_capacity(rates.len());
    for rate in rates {
        configs.push(PruneConfig {
            pattern: Pattern::unstructured(*rate)?,
            propagation: Propagation::NONE,
            ..config.clone()
        });
    }
    let source = windows.measured;
    let mut dense: States<'_, B> = embed(&source, device)?;
    let groups = source.decoder.config().operator_groups();
    // Those of a part follow each other, by rate.
    let mut pruned: Vec<States<'_, B>> = Vec::new();
    let after_layer: &mut AfterLayer<'_, B> = &mut |_, forms| {
        let forms = forms()?;
        let none = || States::none(source.states, device);
        for path in &mut pruned {
            *path = std::mem::replace(path, none()).map_hidden(|h| forms.dense.forward(h))?;
        }
        for part in 0..PARTS {
            let operators = (groups.iter().enumerate())
                .filter(|(group, _)| part_of::<B>(*group) == part)
                .flat_map(|(_, operators)| operators);
            let operators: Vec<&'static str> = operators.map(|operator| operator.name).collect();
            for other in forms.pruned.iter().flatten() {
                let mut layer = forms.dense.clone();
                for name in &operators {
                    if let Some(weight) = other.weight(name) {
                        layer.set_weight(name, weight)?;
                    }
                }
                pruned.push(dense.clone().map_hidden(|h| layer.forward(h))?);
            }
        }
        dense = std::mem::replace(&mut dense, none()).map_hidden(|h| forms.dense.forward(h))?;
        Ok(())
    };
    pass::<B>(windows.fitted, &configs, after_layer, device, observer)?;
    let found: Vec<f64> = pruned
        .iter()
        .map(|path| finite(divergence::<B>(source, &dense, path, device)?, "a pruned layer"))
        .collect::<Result<_>>()?;
    Ok(found.chunks(rates.len().max(1)).map(<[f64]>::to_vec).collect())
}

/// The divergence of the model pruned by each of these patterns.
pub(super) fn by_patterns<B: SolverOps>(
    windows: Divided<'_>,
    config: &PruneConfig,
    patterns: &[BTreeMap<String, Pattern>],
    device: &B::Device,
    observer: &mut dyn Observer,
) -> Result<Vec<f64>> {
    let configs: Vec<PruneConfig> = patterns
        .iter()
        .map(|patterns| PruneConfig {
            patterns: patterns.clone(),
            ..config.clone()
        })
        .collect();
    by_config::<B>(windows.fitted, windows.judged, &configs, device, observer)
}

/// The divergence of the model pruned in each of these ways, on the windows of `measured`.
pub(crate) fn by_config<B: SolverOps>(
    fitted: Source<'_>,
    measured: Source<'_>,
    configs: &[PruneConfig],
    device: &B::Device,
    observer: &mut dyn Observer,
) -> Result<Vec<f64>> {
    let mut along = Along::<B>::new(measured, configs.len(), device)?;
    let after_layer: &mut AfterLayer<'_, B> = &mut |_, forms| along.forms(forms);
    pass::<B>(fitted, configs, after_layer, device, observer)?;
    along.divergences(device)
}

/// Prunes in all of these ways, and keeps nothing.
fn pass<B: SolverOps>(
    source: Source<'_>,
    configs: &[PruneConfig],
    after_layer: &mut AfterLayer<'_, B>,
    device: &B::Device,
    observer: &mut dyn Observer,
) -> Result<()> {
    let mut sinks = vec![NullSink; configs.len()];
    let branches = configs
        .iter()
        .zip(&mut sinks)
        .map(|(config, sink)| Branch { config, sink })
        .collect();
    let span = Span::whole(source.decoder);
    prune_branches::<B>(source, branches, span, device, observer, after_layer).map(drop)
}
