//! 5. One visible loop: decoder layer → operator groups → statistics → solve → write.
//!
//! In: an opened checkpoint, calibration windows, a [`PruneConfig`]. Out: weights in a [`WeightSink`] and one
//! [`OperatorReport`] an operator. At most one decoder layer is on the device, besides the calibration set's hidden
//! states.
//!
//! Two paths of hidden states are the whole of error correction. The *dense* path feeds the targets and, where
//! [`Propagation`](crate::config::Propagation) says so, the next layer; the *real* path is what the operators see once
//! earlier ones are pruned. They share their states for as long as they are equal.

mod devices;
mod layer;
mod states;
mod weights;

pub use devices::prune_on_devices;
pub(crate) use states::States;
pub use states::{StateFolder, StateStore};

use crate::checkpoint::Checkpoint;
use crate::config::{LayerInput, PruneConfig};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::progress::{Event, Observer, silent};
use crate::report::{LayerSeconds, OperatorReport};
use crate::solver::LayerProblem;
use crate::statistics::{Accumulator, Statistics};
use burn::tensor::{Int, Tensor, TensorData};
use fista_pruner_backends::SolverOps;
use fista_pruner_models::{Decoder, Layer, LayerOperator, LayerState, TensorSource};
use layer::{BranchState, LayerRun};
use std::collections::HashSet;
use std::ops::Range;
use std::time::Instant;
use weights::DenseLayer;

/// Where pruned weights and, if wanted, statistics go.
pub trait WeightSink {
    /// Takes the weight `[out, in]` of the tensor `name`; entries not in `keep` are zero.
    ///
    /// # Errors
    /// When it cannot be stored.
    fn weight(&mut self, name: &str, values: &[f32], keep: &[bool]) -> Result<()>;

    /// Whether [`WeightSink::statistics`] is to be called at all.
    fn wants_statistics(&self) -> bool {
        false
    }

    /// Takes what one operator was pruned from, before it is solved.
    ///
    /// # Errors
    /// When it cannot be stored.
    fn statistics(&mut self, _operator: SavedStatistics) -> Result<()> {
        Ok(())
    }

    /// A decoder layer is complete; `operators` are the reports of what was pruned in it.
    ///
    /// # Errors
    /// When what belongs to it cannot be stored.
    fn layer_done(&mut self, _layer: usize, _operators: &[OperatorReport]) -> Result<()> {
        Ok(())
    }
}

/// A sink that keeps nothing, for runs whose figures are all that is wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nowhere;

impl WeightSink for Nowhere {
    fn weight(&mut self, _name: &str, _values: &[f32], _keep: &[bool]) -> Result<()> {
        Ok(())
    }
}

/// An operator's weight and statistics on the host, in the layout that `solve` reads.
#[derive(Debug, Clone)]
pub struct SavedStatistics {
    /// The operator's full name.
    pub name: String,
    /// `m`, outputs.
    pub outputs: usize,
    /// `n`, inputs.
    pub inputs: usize,
    /// Different calibration tokens, where that is known.
    pub tokens: Option<usize>,
    /// `W [m, n]`.
    pub weight: Vec<f32>,
    /// `G = X* X*ᵀ / p`, `[n, n]`.
    pub gram: Vec<f32>,
    /// `X X*ᵀ / p` and `X Xᵀ / p`, `[n, n]`, where `X*` differs from `X`.
    pub cross: Option<(Vec<f32>, Vec<f32>)>,
}

/// Everything a run works on.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// The dense checkpoint.
    pub checkpoint: &'a Checkpoint,
    /// Its decoder.
    pub decoder: &'a Decoder,
    /// Calibration windows, all of one length.
    pub windows: &'a [Vec<u32>],
    /// What to do.
    pub config: &'a PruneConfig,
}

impl<'a> Job<'a> {
    /// What it works on, without what it does.
    pub fn source(&self) -> Source<'a> {
        Source {
            checkpoint: self.checkpoint,
            decoder: self.decoder,
            windows: self.windows,
            batch_tokens: self.config.batch_tokens,
            states: StateStore::ON_DEVICE,
            offload: false,
        }
    }
}

/// What several runs over one model and one set of windows share.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The dense checkpoint.
    pub checkpoint: &'a Checkpoint,
    /// Its decoder.
    pub decoder: &'a Decoder,
    /// Calibration windows, all of one length.
    pub windows: &'a [Vec<u32>],
    /// Tokens computed at once on the device.
    pub batch_tokens: usize,
    /// Where hidden states wait.
    pub states: &'a StateStore,
    /// Whether the device holds of a layer only what the step at hand needs: its weights are read again for every step, and
    /// Gram matrices wait on the host. The result is the same to the last bit.
    pub offload: bool,
}

/// Which decoder layers a pass prunes. The model is run up to the first of them and not beyond the last.
#[derive(Clone)]
pub struct Span<'a> {
    /// The layers.
    pub layers: Range<usize>,
    /// The weights of the layers before them, as a pass before this one has pruned them. Without them only the dense model
    /// goes through those layers.
    pub before: Option<&'a dyn TensorSource>,
}

impl Span<'_> {
    /// All layers.
    pub fn whole(decoder: &Decoder) -> Self {
        Self {
            layers: 0..decoder.config().num_layers(),
            before: None,
        }
    }
}

impl Source<'_> {
    /// Calibration tokens, those of equal windows counted once: what a matrix can be fitted to.
    fn different_tokens(&self) -> usize {
        let different: HashSet<&Vec<u32>> = self.windows.iter().collect();
        different.into_iter().map(Vec::len).sum()
    }
}

/// One of several ways to prune the same model in one pass.
pub struct Branch<'a> {
    /// What to do; its `batch_tokens` is the source's.
    pub config: &'a PruneConfig,
    /// Where its weights go.
    pub sink: &'a mut dyn WeightSink,
}

/// What came of a branch.
#[derive(Debug, Clone, Default)]
pub struct BranchOutcome {
    /// One report an operator, in the order of pruning.
    pub operators: Vec<OperatorReport>,
    /// Seconds of what only this branch needed: its own hidden states and statistics, and its solver.
    pub seconds: f64,
}

/// A decoder layer in all its forms.
#[derive(Debug)]
pub struct Forms<B: SolverOps> {
    /// As it was.
    pub dense: Layer<B>,
    /// As each branch has pruned it.
    pub pruned: Vec<Layer<B>>,
}

/// Is told of each layer once all branches have pruned it: its number, and what gives its forms, which may have to be read
/// for that.
pub type AfterLayer<'a, B> = dyn FnMut(usize, &dyn Fn() -> Result<Forms<B>>) -> Result<()> + 'a;

/// Prunes every selected operator of every decoder layer.
///
/// # Errors
/// When a tensor cannot be read, a weight or an activation is not finite, the pattern does not fit an operator, the sink
/// refuses a weight, or the device fails. The error names the operator.
pub fn prune<B: SolverOps>(
    job: Job<'_>,
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
            dense_input_only(branch.config, "--shard")?;
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
            for state in &mut states {
                state.pass(pruned.as_ref())?;
            }
            if let Some(pruned) = &pruned {
                after_layer(layer, &|| {
                    Ok(Forms {
                        dense: dense.clone(),
                        pruned: states.iter().map(|_| pruned.clone()).collect(),
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
            let pruned = states.iter().filter_map(|state| state.pruned.as_ref());
            Ok(Forms {
                dense: run.dense.get()?,
                pruned: pruned
                    .map(|layer| run.dense.pruned(layer))
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
        sink: &mut Nowhere,
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

/// Refuses what cannot be done layer by layer on its own: where a layer's input is the pruned model's, it needs all pruned
/// layers before it.
pub(crate) fn dense_input_only(config: &PruneConfig, setting: &'static str) -> Result<()> {
    if config.propagation.layer_input == LayerInput::Dense {
        return Ok(());
    }
    Err(Error::Setting {
        setting,
        reason: "with this --propagate every layer's input comes from the pruned layers before it; layers can be pruned apart \
                 from each other with `intra`, `none` and whatever else has input=dense"
            .into(),
    })
}

/// How many operators the branches will prune in each layer.
fn operators_by_layer(decoder: &Decoder, configs: &[&PruneConfig]) -> Vec<usize> {
    let mut counts = vec![0; decoder.config().num_layers()];
    for config in configs {
        for operator in selected(decoder, config) {
            counts[operator.layer] += 1;
        }
    }
    counts
}

/// Hidden states after a layer, by the steps that pruning takes it in, so that they are the same to the last bit.
fn through<'a, B: SolverOps>(layer: &Layer<B>, hidden: States<'a, B>) -> Result<States<'a, B>> {
    hidden.map_hidden(|hidden| {
        let begun = layer.begin(hidden);
        (0..Layer::<B>::GROUPS)
            .fold(begun, |state, group| layer.advance(state, group))
            .input
    })
}

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

/// The operators that a configuration selects, in the order of pruning.
pub fn selected(decoder: &Decoder, config: &PruneConfig) -> Vec<LayerOperator> {
    decoder
        .operators()
        .filter(|operator| config.selects(&operator.name))
        .collect()
}

/// Finds out before any work whether something is selected, and whether the pattern fits all of it.
fn check_selection(decoder: &Decoder, config: &PruneConfig) -> Result<()> {
    let selected = selected(decoder, config);
    if selected.is_empty() {
        return Err(Error::Setting {
            setting: "--targets/--ignore",
            reason: "no operator is selected".into(),
        });
    }
    for LayerOperator { name, spec, .. } in &selected {
        config.pattern_for(name).check_inputs(name, spec.in_features)?;
    }
    Ok(())
}

/// The model's hidden states before the first layer.
pub(crate) fn embed<'a, B: SolverOps>(source: &Source<'a>, device: &B::Device) -> Result<States<'a, B>> {
    let limits = Limits::of::<B>(source.decoder, device)?;
    let batch_tokens = limits.batch_tokens(source.batch_tokens, source.windows)?;
    let embedding = source.decoder.embedding::<B>(source.checkpoint, device)?;
    let batches = token_batches(source.windows, batch_tokens, device);
    States::of_hidden(
        batches.map(|ids| embedding.forward(ids, 0)),
        source.states,
        device,
    )
}

/// Token windows of one length as batches `[windows, tokens]` of at most `batch_tokens` tokens, at least one window each.
pub fn token_batches<'a, B: SolverOps>(
    windows: &'a [Vec<u32>],
    batch_tokens: usize,
    device: &'a B::Device,
) -> impl Iterator<Item = Tensor<B, 2, Int>> + 'a {
    let tokens = windows.first().map_or(1, Vec::len).max(1);
    windows.chunks((batch_tokens / tokens).max(1)).map(move |batch| {
        let ids: Vec<i64> = batch.iter().flatten().map(|id| i64::from(*id)).collect();
        Tensor::from_data(TensorData::new(ids, [batch.len(), tokens]), device)
    })
}

/// Statistics of the group whose inputs `states` holds; `target` holds the dense model's, where they are others.
fn statistics<B: SolverOps>(
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
