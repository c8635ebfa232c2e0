//! The loop: decoder layer → operator groups → statistics → solve → write.

use super::Limits;
use super::gather::through;
use super::layer::{BranchState, LayerRun};
use super::selection::{check_selection, dense_input_only, operators_by_layer, selected};
use super::sink::{NullSink, WeightSink};
use super::source::{AfterLayer, Branch, BranchOutcome, Forms, PruneJob, Source, Span, embed};
use super::weights::DenseLayer;
use crate::config::PruneConfig;
use crate::error::Result;
use crate::progress::{Event, Observer, silent};
use crate::report::{LayerSeconds, OperatorReport};
use fista_pruner_backends::SolverOps;
use std::ops::Range;
use std::time::Instant;

/// Prunes every selected operator of every decoder layer.
///
/// # Errors
/// When a tensor cannot be read, a weight or an activation is not finite, the pattern does not fit an operator, the sink
/// refuses a weight, or the device fails. The error names the operator.
pub fn prune<B: SolverOps>(
    job: PruneJob<'_>,
    device: &B::Device,
    sink: &mut dyn WeightSink,
    observer: &mut dyn Observer,
) -> Result<Vec<OperatorReport>> {
    let source = job.source();
    let branch = Branch {
        config: job.config,
        sink,
    };
    let span = Span::whole(job.decoder);
    let nothing: &mut AfterLayer<'_, B> = &mut |_, _| Ok(());
    let (mut outcomes, _) = prune_branches::<B>(source, vec![branch], span, device, observer, nothing)?;
    Ok(outcomes
        .pop()
        .map(|outcome| outcome.operators)
        .unwrap_or_default())
}

/// Prunes the model, or a span of it, in several ways in one pass: layers are read once, and branches whose operators see the
/// dense model's activations share the statistics. Gives each branch's outcome, and the seconds of what they shared.
///
/// # Errors
/// As [`prune`]; when the span needs pruned layers before it and has none.
pub fn prune_branches<B: SolverOps>(
    source: Source<'_>,
    branches: Vec<Branch<'_>>,
    span: Span<'_>,
    device: &B::Device,
    observer: &mut dyn Observer,
    after_layer: &mut AfterLayer<'_, B>,
) -> Result<(Vec<BranchOutcome>, f64)> {
    let limits = Limits::of::<B>(source.decoder, device)?;
    for branch in &branches {
        branch.config.solver.validate()?;
        check_selection(source.decoder, branch.config)?;
        limits.grams(&selected(source.decoder, branch.config))?;
        if span.before.is_none() && span.layers.start > 0 {
            dense_input_only(branch.config, "‹shard›")?;
        }
    }
    let started = Instant::now();
    let Range { start, end } = span.layers.clone();
    observer.event(Event::Stage {
        name: "layers",
        steps: end,
    });
    let mut hidden = embed::<B>(&source, device)?;
    let mut states: Vec<BranchState<'_, '_, B>> = branches
        .into_iter()
        .enumerate()
        .map(|(index, branch)| BranchState::new(index, branch, &hidden))
        .collect();
    let dense_needed = states.iter().any(|state| state.needs_dense());
    let configs: Vec<&PruneConfig> = states.iter().map(|state| state.branch.config).collect();
    let to_come = operators_by_layer(source.decoder, &configs);
    let different_tokens = source.different_tokens();
    let mut elsewhere = 0.0;
    for (layer, operators) in to_come.into_iter().enumerate().take(end) {
        observer.event(Event::Layer {
            layer,
            layers: end,
            operators: if layer < start { 0 } else { operators },
        });
        if layer < start {
            let dense = source.decoder.layer::<B>(layer, source.checkpoint, device)?;
            let pruned = (span.before)
                .map(|weights| source.decoder.layer::<B>(layer, weights, device))
                .transpose()?;
            if dense_needed {
                hidden = through(&dense, hidden)?;
            }
            for state in states
                .iter_mut()
                .filter(|state| !state.branch.config.drops(layer))
            {
                state.pass(pruned.as_ref())?;
            }
            if let Some(pruned) = &pruned {
                after_layer(layer, &|| {
                    let of = |state: &BranchState<'_, '_, B>| {
                        (!state.branch.config.drops(layer)).then(|| pruned.clone())
                    };
                    Ok(Forms {
                        dense: dense.clone(),
                        pruned: states.iter().map(of).collect(),
                    })
                })?;
            }
            observer.event(Event::Step);
            continue;
        }
        let run = LayerRun {
            source,
            layer,
            dense: DenseLayer::new(source, layer, device)?,
            device: device.clone(),
            different_tokens,
            last: layer + 1 == end,
        };
        hidden = run.prune(hidden, dense_needed, &mut states, observer)?;
        let finished = Instant::now();
        after_layer(layer, &|| {
            let pruned = states.iter().map(|state| state.pruned.as_ref());
            Ok(Forms {
                dense: run.dense.get()?,
                pruned: pruned
                    .map(|layer| layer.map(|layer| run.dense.pruned(layer)).transpose())
                    .collect::<Result<_>>()?,
            })
        })?;
        elsewhere += finished.elapsed().as_secs_f64();
        for state in &mut states {
            state.layer_done(layer)?;
        }
        observer.event(Event::Step);
    }
    observer.event(Event::Done);
    let outcomes: Vec<BranchOutcome> = states.into_iter().map(|state| state.outcome).collect();
    let own: f64 = outcomes.iter().map(|outcome| outcome.seconds).sum();
    let shared = (started.elapsed().as_secs_f64() - elsewhere - own).max(0.0);
    Ok((outcomes, shared))
}

/// Prunes the first layer with a source's windows, keeps nothing of it, and says how long that took.
pub(crate) fn one_layer<B: SolverOps>(
    source: Source<'_>,
    config: &PruneConfig,
    device: &B::Device,
) -> Result<LayerSeconds> {
    let hidden = embed::<B>(&source, device)?;
    let started = Instant::now();
    let branch = Branch {
        config,
        sink: &mut NullSink,
    };
    let mut branches = [BranchState::new(0, branch, &hidden)];
    let run = LayerRun {
        source,
        layer: 0,
        dense: DenseLayer::new(source, 0, device)?,
        device: device.clone(),
        different_tokens: source.different_tokens(),
        last: false,
    };
    let dense_needed = branches[0].needs_dense();
    run.prune(hidden, dense_needed, &mut branches, &mut silent())?;
    let operators = &branches[0].outcome.operators;
    let solver: f64 = operators.iter().map(|operator| operator.seconds).sum();
    Ok(LayerSeconds {
        statistics: (started.elapsed().as_secs_f64() - solver).max(0.0),
        solver,
        ..LayerSeconds::default()
    })
}
