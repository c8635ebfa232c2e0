//! 5. One visible loop: decoder layer → operator groups → statistics → solve → write.
//!
//! In: an opened checkpoint, calibration windows, a [`PruneConfig`]. Out: weights in a [`WeightSink`] and one
//! [`OperatorReport`] an operator. At most one decoder layer is on the device, besides the calibration set's hidden
//! states.
//!
//! Two paths of hidden states are the whole of error correction. The *dense* path feeds the targets and, where
//! [`Propagation`](crate::config::Propagation) says so, the next layer; the *real* path is what the operators see once
//! earlier ones are pruned. They share their states for as long as they are equal.

use crate::checkpoint::{Checkpoint, StoredDtype, round_to};
use crate::config::{LayerInput, PruneConfig};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::progress::{Event, Observer};
use crate::report::OperatorReport;
use crate::solver::{self, LayerProblem, Solution};
use crate::statistics::{Accumulator, Statistics};
use burn::tensor::{Int, Tensor, TensorData};
use fista_pruner_backends::SolverOps;
use fista_pruner_models::{Decoder, Layer, LayerOperator, LayerState, OperatorSpec};
use std::collections::HashSet;
use std::time::Instant;

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

    /// A decoder layer is complete.
    ///
    /// # Errors
    /// When what belongs to it cannot be stored.
    fn layer_done(&mut self, _layer: usize) -> Result<()> {
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

/// Is told of each layer once all branches have pruned it: its number, the dense layer, and each branch's.
pub type AfterLayer<'a, B> = dyn FnMut(usize, &Layer<B>, &[&Layer<B>]) -> Result<()> + 'a;

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
    let (mut outcomes, _) =
        prune_branches::<B>(source, vec![branch], device, observer, &mut |_, _, _| Ok(()))?;
    Ok(outcomes
        .pop()
        .map(|outcome| outcome.operators)
        .unwrap_or_default())
}

/// Prunes the model in several ways in one pass over it: layers are read once, and branches whose operators see the dense
/// model's activations share the statistics. Gives each branch's outcome, and the seconds of what they shared.
///
/// # Errors
/// As [`prune`].
pub fn prune_branches<B: SolverOps>(
    source: Source<'_>,
    branches: Vec<Branch<'_>>,
    device: &B::Device,
    observer: &mut dyn Observer,
    after_layer: &mut AfterLayer<'_, B>,
) -> Result<(Vec<BranchOutcome>, f64)> {
    let limits = Limits::of::<B>(source.decoder, device)?;
    for branch in &branches {
        branch.config.solver.validate()?;
        check_selection(source.decoder, branch.config)?;
        limits.grams(&selected(source.decoder, branch.config))?;
    }
    let started = Instant::now();
    let layers = source.decoder.config().num_layers();
    observer.event(Event::Stage {
        name: "layers",
        steps: layers,
    });
    let mut hidden = embed::<B>(&source, device)?;
    let mut states: Vec<BranchState<'_, B>> = branches
        .into_iter()
        .enumerate()
        .map(|(index, branch)| BranchState::new(index, branch, &hidden))
        .collect();
    let mut to_come = vec![0; layers];
    for state in &states {
        for operator in selected(source.decoder, state.branch.config) {
            to_come[operator.layer] += 1;
        }
    }
    let dense_needed = states.iter().any(|state| state.needs_dense());
    let different_tokens = source.different_tokens();
    let mut elsewhere = 0.0;
    for (layer, operators) in to_come.into_iter().enumerate() {
        observer.event(Event::Layer {
            layer,
            layers,
            operators,
        });
        let run = LayerRun {
            source,
            layer,
            dense: source.decoder.layer::<B>(layer, source.checkpoint, device)?,
            different_tokens,
        };
        hidden = run.prune(hidden, dense_needed, &mut states, observer)?;
        let finished = Instant::now();
        let pruned: Vec<&Layer<B>> = states.iter().filter_map(|state| state.pruned.as_ref()).collect();
        after_layer(layer, &run.dense, &pruned)?;
        elsewhere += finished.elapsed().as_secs_f64();
        for state in &mut states {
            state.pruned = None;
            state.branch.sink.layer_done(layer)?;
        }
        observer.event(Event::Step);
    }
    observer.event(Event::Done);
    let outcomes: Vec<BranchOutcome> = states.into_iter().map(|state| state.outcome).collect();
    let own: f64 = outcomes.iter().map(|outcome| outcome.seconds).sum();
    let shared = (started.elapsed().as_secs_f64() - elsewhere - own).max(0.0);
    Ok((outcomes, shared))
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
        let mut states: States<B> = hidden.into_iter().map(|h| dense.begin(h)).collect();
        for (group, operators) in source.decoder.config().operator_groups().iter().enumerate() {
            let mut gathered = None;
            for operator in operators {
                let name = source.decoder.operator_name(layer, operator.name);
                let Some(weight) = dense.weight(operator.name).filter(|_| config.selects(&name)) else {
                    continue;
                };
                let statistics = match gathered.take() {
                    Some(statistics) => statistics,
                    None => statistics(&name, None, Some(&states))?,
                };
                let mut problem = statistics.problem(&name, weight);
                problem.tokens = Some(different_tokens);
                each(layer, &problem)?;
                gathered = Some(statistics);
            }
            states = advance(&dense, states, group);
        }
        hidden = states.into_iter().map(|state| state.input).collect();
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

/// Hidden states that enter a decoder layer, in batches `[windows, tokens, hidden]`.
type Hidden<B> = Vec<Tensor<B, 3>>;
type States<B> = Vec<LayerState<B>>;

/// The model's hidden states before the first layer.
pub(crate) fn embed<B: SolverOps>(source: &Source<'_>, device: &B::Device) -> Result<Hidden<B>> {
    let limits = Limits::of::<B>(source.decoder, device)?;
    let batch_tokens = limits.batch_tokens(source.batch_tokens, source.windows)?;
    let embedding = source.decoder.embedding::<B>(source.checkpoint, device)?;
    Ok(token_batches(source.windows, batch_tokens, device)
        .map(|ids| embedding.forward(ids, 0))
        .collect())
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

/// A branch on its way through the model.
struct BranchState<'a, B: SolverOps> {
    /// Its place among the branches.
    index: usize,
    branch: Branch<'a>,
    /// What enters the next layer of the pruned model; `None` where that is the dense model's.
    hidden: Option<Hidden<B>>,
    /// Within a layer: what the operators really see; `None` while that is what the dense layer's see.
    real: Option<States<B>>,
    /// The layer at hand, as far as it is pruned.
    pruned: Option<Layer<B>>,
    outcome: BranchOutcome,
}

impl<'a, B: SolverOps> BranchState<'a, B> {
    fn new(index: usize, branch: Branch<'a>, hidden: &Hidden<B>) -> Self {
        let pruned_input = branch.config.propagation.layer_input == LayerInput::Pruned;
        Self {
            index,
            branch,
            hidden: pruned_input.then(|| hidden.clone()),
            real: None,
            pruned: None,
            outcome: BranchOutcome::default(),
        }
    }

    fn needs_dense(&self) -> bool {
        let propagation = self.branch.config.propagation;
        propagation.layer_input == LayerInput::Dense || propagation.dense_target
    }
}

/// One decoder layer being pruned.
struct LayerRun<'a, B: SolverOps> {
    source: Source<'a>,
    layer: usize,
    dense: Layer<B>,
    different_tokens: usize,
}

impl<B: SolverOps> LayerRun<'_, B> {
    /// Prunes the layer's groups in order in every branch and gives the next layer's dense hidden states.
    fn prune(
        &self,
        hidden: Hidden<B>,
        dense_needed: bool,
        branches: &mut [BranchState<'_, B>],
        observer: &mut dyn Observer,
    ) -> Result<Hidden<B>> {
        let begin = |batches: &Hidden<B>| -> States<B> {
            batches.iter().map(|h| self.dense.begin(h.clone())).collect()
        };
        let mut dense = dense_needed.then(|| begin(&hidden));
        drop(hidden);
        for state in branches.iter_mut() {
            let started = Instant::now();
            state.pruned = Some(self.dense.clone());
            state.real = state.hidden.as_ref().map(begin);
            state.outcome.seconds += started.elapsed().as_secs_f64();
        }
        for group in 0..self.source.decoder.config().operator_groups().len() {
            let mut shared = None;
            for state in branches.iter_mut() {
                self.group(group, state, dense.as_ref(), &mut shared, observer)?;
            }
            dense = dense.map(|states| advance(&self.dense, states, group));
        }
        let outputs = |states: States<B>| states.into_iter().map(|state| state.input).collect::<Hidden<B>>();
        for state in branches.iter_mut() {
            let started = Instant::now();
            let propagation = state.branch.config.propagation;
            let real = state.real.take();
            if propagation.layer_input == LayerInput::Pruned {
                state.hidden = match (&state.pruned, propagation.corrected) {
                    (Some(pruned), false) => state
                        .hidden
                        .take()
                        .map(|batches| batches.into_iter().map(|h| pruned.forward(h)).collect()),
                    _ => real.map(outputs),
                };
            }
            state.outcome.seconds += started.elapsed().as_secs_f64();
        }
        Ok(dense.map(outputs).unwrap_or_default())
    }

    /// Prunes one group of operators in one branch, and takes the branch's own states past it. `shared` holds the
    /// statistics of what the dense layer's operators see, once somebody needed them.
    fn group(
        &self,
        group: usize,
        state: &mut BranchState<'_, B>,
        dense: Option<&States<B>>,
        shared: &mut Option<Statistics<B>>,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let config = state.branch.config;
        let propagation = config.propagation;
        let groups = self.source.decoder.config().operator_groups();
        let chosen: Vec<(OperatorSpec, String)> = groups[group]
            .iter()
            .map(|operator| {
                let name = self.source.decoder.operator_name(self.layer, operator.name);
                (*operator, name)
            })
            .filter(|(_, name)| config.selects(name))
            .collect();
        if let (Some((_, first)), None, None) = (chosen.first(), &state.real, &*shared) {
            *shared = Some(statistics(first, None, dense)?);
        }
        let started = Instant::now();
        let Some(mut pruned) = state.pruned.take() else {
            return Ok(());
        };
        if let Some((_, first)) = chosen.first() {
            let own = match &state.real {
                Some(real) => {
                    let target = dense.filter(|_| propagation.dense_target);
                    Some(statistics(first, target, Some(real))?)
                }
                None => None,
            };
            if let Some(statistics) = own.as_ref().or(shared.as_ref()) {
                for (operator, name) in &chosen {
                    let (layer, branch) = (self.layer, state.index);
                    observer.event(Event::Solving { name, layer, branch });
                    let report = self.operator(operator, name, statistics, &mut pruned, &mut state.branch)?;
                    observer.event(Event::Operator {
                        name,
                        layer,
                        branch,
                        relative_error: report.relative_error,
                        sparsity: report.sparsity,
                        seconds: report.seconds,
                    });
                    state.outcome.operators.push(report);
                }
            }
        }
        let last = group + 1 == groups.len();
        let weights = if propagation.corrected {
            &pruned
        } else {
            &self.dense
        };
        if let Some(states) = state.real.take() {
            // After the last group of an uncorrected layer nobody asks for this path.
            state.real = (propagation.corrected || !last).then(|| advance(weights, states, group));
        } else if propagation.corrected && !chosen.is_empty() && !last {
            // The paths part here. After the last group nobody asks for the real path of a dense-input layer.
            state.real = dense.map(|states| advance(&pruned, states.clone(), group));
        }
        state.pruned = Some(pruned);
        state.outcome.seconds += started.elapsed().as_secs_f64();
        Ok(())
    }

    /// Solves one operator, stores its weight and puts it into the pruned layer.
    fn operator(
        &self,
        operator: &OperatorSpec,
        name: &str,
        statistics: &Statistics<B>,
        pruned: &mut Layer<B>,
        branch: &mut Branch<'_>,
    ) -> Result<OperatorReport> {
        let (config, sink) = (branch.config, &mut *branch.sink);
        let pattern = config.pattern_for(name);
        let started = Instant::now();
        let weight = self.dense.weight(operator.name).ok_or_else(|| Error::Internal {
            what: format!("the decoder has no operator `{name}`"),
        })?;
        let tensor = format!("{name}.weight");
        let dtype = self
            .source
            .checkpoint
            .info(&tensor)
            .map_or(StoredDtype::F32, |info| info.dtype.clone());
        let mut problem = statistics.problem(name, weight);
        problem.tokens = Some(self.different_tokens);
        if sink.wants_statistics() {
            sink.statistics(saved(&problem, statistics)?)?;
        }
        let Solution {
            mut values,
            keep,
            info,
        } = solver::solve(&problem, pattern, &config.solver)?;
        // From here on the operator is what a reader of the written file will see.
        round_to(&mut values, Some(&keep), &dtype);
        sink.weight(&tensor, &values, &keep)?;
        let (outputs, inputs) = problem.shape();
        let zeros = values.iter().filter(|v| **v == 0.0).count();
        let weight = problem.upload(values);
        pruned.set_weight(operator.name, weight.clone())?;
        let squared_error = problem.squared_error(weight);
        Ok(OperatorReport {
            name: name.to_owned(),
            layer: self.layer,
            shape: [outputs, inputs],
            dtype: dtype.name().to_owned(),
            pattern,
            tokens: statistics.tokens,
            relative_error: problem.relative(squared_error),
            zeros,
            sparsity: zeros as f64 / (outputs * inputs).max(1) as f64,
            solver: info,
            seconds: started.elapsed().as_secs_f64(),
        })
    }
}

/// Statistics of the group whose inputs `states` holds; `target` holds the dense model's, where they are others.
fn statistics<B: SolverOps>(
    operator: &str,
    target: Option<&States<B>>,
    states: Option<&States<B>>,
) -> Result<Statistics<B>> {
    let flat = |state: &LayerState<B>| -> Tensor<B, 2> { state.input.clone().flatten(0, 1) };
    let mut accumulator = Accumulator::<B>::default();
    match (target, states) {
        (Some(dense), Some(real)) => {
            for (dense, real) in dense.iter().zip(real) {
                accumulator.add_pair(flat(dense), flat(real));
            }
        }
        (None, Some(states)) => states.iter().for_each(|state| accumulator.add(flat(state))),
        (_, None) => {}
    }
    accumulator.finish(operator)
}

fn advance<B: SolverOps>(layer: &Layer<B>, states: States<B>, group: usize) -> States<B> {
    states
        .into_iter()
        .map(|state| layer.advance(state, group))
        .collect()
}

fn saved<B: SolverOps>(problem: &LayerProblem<B>, statistics: &Statistics<B>) -> Result<SavedStatistics> {
    let (outputs, inputs) = problem.shape();
    let cross = match statistics.cross() {
        Some((cross, dense)) => Some((solver::download(cross)?, solver::download(dense)?)),
        None => None,
    };
    Ok(SavedStatistics {
        name: problem.name.clone(),
        outputs,
        inputs,
        tokens: problem.tokens,
        weight: solver::download(problem.weight.clone())?,
        gram: solver::download(problem.gram.clone())?,
        cross,
    })
}
