//! One decoder layer: its operator groups in order, in every branch.

use super::gather::{More, column_statistics, statistics, through};
use super::weights::{DenseLayer, PrunedLayer};
use super::{Branch, BranchOutcome, SavedStatistics, Source, States};
use crate::checkpoint::{StoredDtype, round_to};
use crate::config::{Criterion, LayerInput, Pattern, PruneConfig};
use crate::error::{Error, Result};
use crate::progress::{Event, Observer};
use crate::prune::{Accumulator, Statistics};
use crate::report::OperatorReport;
use crate::solver::{self, LayerProblem, Solution, Together};
use burn::tensor::Tensor;
use fista_pruner_backends::SolverOps;
use fista_pruner_models::{Layer, OperatorSpec};
use std::time::{Duration, Instant};

/// A branch on its way through the model.
pub(super) struct BranchState<'a, 's, B: SolverOps> {
    /// Its place among the branches.
    index: usize,
    pub(super) branch: Branch<'a>,
    /// What enters the next layer of the pruned model; `None` where that is the dense model's.
    hidden: Option<States<'s, B>>,
    /// Within a layer: what the operators really see; `None` while that is what the dense layer's see.
    real: Option<States<'s, B>>,
    /// The layer at hand, as far as it is pruned.
    pub(super) pruned: Option<PrunedLayer<'s, B>>,
    pub(super) outcome: BranchOutcome,
}

impl<'a, 's, B: SolverOps> BranchState<'a, 's, B> {
    pub(super) fn new(index: usize, branch: Branch<'a>, hidden: &States<'s, B>) -> Self {
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

    pub(super) fn needs_dense(&self) -> bool {
        let propagation = self.branch.config.propagation;
        propagation.layer_input == LayerInput::Dense || propagation.dense_target()
    }

    /// Takes the branch's own states through a layer that was pruned before.
    pub(super) fn pass(&mut self, pruned: Option<&Layer<B>>) -> Result<()> {
        if let (Some(hidden), Some(pruned)) = (self.hidden.take(), pruned) {
            self.hidden = Some(if self.branch.config.propagation.corrected {
                through(pruned, hidden)?
            } else {
                hidden.map_hidden(|hidden| pruned.forward(hidden))?
            });
        }
        Ok(())
    }

    /// The layer's weights are no longer needed.
    pub(super) fn layer_done(&mut self, layer: usize) -> Result<()> {
        self.pruned = None;
        let operators = &self.outcome.operators;
        let own = operators.partition_point(|operator| operator.layer < layer);
        self.branch.sink.layer_done(layer, &operators[own..])
    }
}

/// One decoder layer being pruned.
pub(super) struct LayerRun<'a, B: SolverOps> {
    pub(super) source: Source<'a>,
    pub(super) layer: usize,
    pub(super) dense: DenseLayer<'a, B>,
    pub(super) device: B::Device,
    pub(super) different_tokens: usize,
    /// Whether nobody asks for what leaves the layer.
    pub(super) last: bool,
}

impl<'a, B: SolverOps> LayerRun<'a, B> {
    /// Prunes the layer's groups in order in every branch and gives the next layer's dense hidden states.
    pub(super) fn prune(
        &self,
        hidden: States<'a, B>,
        dense_needed: bool,
        branches: &mut [BranchState<'_, 'a, B>],
        observer: &mut dyn Observer,
    ) -> Result<States<'a, B>> {
        let layer = self.dense.get()?;
        let begin = |states: States<'a, B>| states.map(|state| layer.begin(state.input));
        let mut dense = dense_needed.then(|| begin(hidden)).transpose()?;
        for state in branches.iter_mut() {
            if state.branch.config.drops(self.layer) {
                continue;
            }
            let started = Instant::now();
            state.pruned = Some(self.dense.unpruned());
            let hidden = if state.branch.config.propagation.corrected {
                state.hidden.take()
            } else {
                state.hidden.clone()
            };
            state.real = hidden.map(begin).transpose()?;
            state.outcome.seconds += started.elapsed().as_secs_f64();
        }
        drop(layer);
        let groups = self.source.decoder.config().operator_groups().len();
        for group in 0..groups {
            let mut shared = None;
            for state in branches.iter_mut() {
                self.group(group, state, dense.as_ref(), &mut shared, observer)?;
            }
            let needed = !self.last || group + 1 < groups;
            dense = match dense.filter(|_| needed) {
                Some(states) => {
                    let layer = self.dense.get()?;
                    Some(states.map(|state| layer.advance(state, group))?)
                }
                None => None,
            };
        }
        for state in branches.iter_mut() {
            if state.branch.config.drops(self.layer) {
                continue;
            }
            let started = Instant::now();
            let propagation = state.branch.config.propagation;
            let real = state.real.take();
            if propagation.layer_input == LayerInput::Pruned && !self.last {
                state.hidden = match (&state.pruned, propagation.corrected) {
                    (Some(pruned), false) => {
                        let pruned = self.dense.pruned(pruned)?;
                        (state.hidden.take())
                            .map(|states| states.map_hidden(|hidden| pruned.forward(hidden)))
                            .transpose()?
                    }
                    _ => real,
                };
            }
            state.outcome.seconds += started.elapsed().as_secs_f64();
        }
        let none = || States::none(self.source.states, &self.device);
        Ok(dense.unwrap_or_else(none))
    }

    /// The last of the layers behind this one that a branch leaves out, where this one is to make up for them.
    fn hole(&self, config: &PruneConfig) -> Option<usize> {
        let plain = self.source.decoder.config().residual_is_plain();
        let refits = config.solver.columns.is_some_and(|columns| columns.refit);
        if config.drops(self.layer) || !plain || !refits {
            return None;
        }
        (self.layer + 1..).take_while(|layer| config.drops(*layer)).last()
    }

    /// Prunes one group of operators in one branch, and takes the branch's own states past it. `shared` holds the
    /// statistics of what the dense layer's operators see, once somebody needed them.
    fn group(
        &self,
        group: usize,
        state: &mut BranchState<'_, 'a, B>,
        dense: Option<&States<'a, B>>,
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
        let nothing = self.source.windows.is_empty() && !config.needs_text();
        if let (Some((operator, _)), true) = (chosen.first(), nothing) {
            *shared = Some(Statistics::of_nothing(operator.in_features, &self.device));
        }
        let by_columns = config.solver.columns.is_some();
        if let (Some((_, first)), None, None, false) = (chosen.first(), &state.real, &*shared, by_columns) {
            *shared = Some(statistics(first, Accumulator::default(), None, dense)?);
        }
        let started = Instant::now();
        let Some(mut pruned) = state.pruned.take() else {
            return Ok(());
        };
        if let Some((_, first)) = chosen.first() {
            let own = match &state.real {
                real if by_columns => {
                    let real = real.as_ref().or(dense);
                    let target = dense.filter(|_| propagation.dense_target()).or(real);
                    let accumulator =
                        Accumulator::for_columns(self.weights(&chosen)?).towards(propagation.dense_share);
                    let pair = target
                        .zip(real)
                        .ok_or_else(|| Error::internal("no hidden states"))?;
                    // The last group also adds to the stream what the layers add that are left out behind this one.
                    let hole = self.hole(config).filter(|_| group + 1 == groups.len());
                    let hole = match (hole, pair) {
                        (Some(end), (target, _)) => Some(self.across(target, group, end)?),
                        _ => None,
                    };
                    let more = hole.as_ref().map(|(from, to)| More { from, to });
                    Some(column_statistics(first, accumulator, pair, more)?)
                }
                Some(real) if !nothing => {
                    let target = dense.filter(|_| propagation.dense_target());
                    let weights = self.weights(&chosen)?;
                    let cross = state.branch.sink.wants_statistics();
                    let accumulator =
                        Accumulator::for_operators(weights, cross).towards(propagation.dense_share);
                    Some(statistics(first, accumulator, target, Some(real))?)
                }
                _ => None,
            };
            let taken = match own {
                Some(own) => Some(own),
                // Nobody else's memory is held where it is short; who needs them again makes them again.
                None if self.source.offload => shared.take(),
                None => shared.clone(),
            };
            if let Some(statistics) = taken {
                self.operators(&chosen, statistics, &mut pruned, state, observer)?;
            }
        }
        let last = group + 1 == groups.len();
        let weights = || match propagation.corrected {
            true => self.dense.pruned(&pruned),
            false => self.dense.get(),
        };
        let on = |states: States<'a, B>| {
            let layer = weights()?;
            states.map(|state| layer.advance(state, group))
        };
        if let Some(states) = state.real.take() {
            // After the last group of an uncorrected layer, or of the last layer, nobody asks for this path.
            let asked = !last || (propagation.corrected && !self.last);
            state.real = asked.then(|| on(states)).transpose()?;
        } else if propagation.corrected && !chosen.is_empty() && !last {
            // The paths part here. After the last group nobody asks for the real path of a dense-input layer.
            state.real = dense.cloned().map(on).transpose()?;
        }
        state.pruned = Some(pruned);
        state.outcome.seconds += started.elapsed().as_secs_f64();
        Ok(())
    }

    /// What the dense layer makes of the states before its last group, and what the layers up to `end` make of that.
    fn across(
        &self,
        before: &States<'a, B>,
        group: usize,
        end: usize,
    ) -> Result<(States<'a, B>, States<'a, B>)> {
        let layer = self.dense.get()?;
        let from = before.clone().map(|state| layer.advance(state, group))?;
        let mut to = from.clone();
        for number in self.layer + 1..=end {
            let layer = self
                .source
                .decoder
                .layer::<B>(number, self.source.checkpoint, &self.device)?;
            to = through(&layer, to)?;
        }
        Ok((from, to))
    }

    /// Names and dense weights.
    fn weights(&self, chosen: &[(OperatorSpec, String)]) -> Result<Vec<(String, Tensor<B, 2>)>> {
        let of = |(operator, name): &(OperatorSpec, String)| Ok((name.clone(), self.weight(operator, name)?));
        chosen.iter().map(of).collect()
    }

    fn weight(&self, operator: &OperatorSpec, name: &str) -> Result<Tensor<B, 2>> {
        self.dense
            .weight(operator)?
            .ok_or_else(|| Error::internal(format!("the decoder has no operator `{name}`")))
    }

    /// Solves a group's operators, which have these statistics in common, and finishes each.
    fn operators(
        &self,
        chosen: &[(OperatorSpec, String)],
        statistics: Statistics<B>,
        pruned: &mut PrunedLayer<'a, B>,
        state: &mut BranchState<'_, 'a, B>,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let (layer, branch) = (self.layer, state.index);
        let config = state.branch.config;
        let started = Instant::now();
        let mut problems = Vec::with_capacity(chosen.len());
        for (operator, name) in chosen {
            observer.event(Event::Solving { name, layer, branch });
            let mut problem = statistics.problem(name, self.weight(operator, name)?);
            problem.tokens = Some(self.different_tokens);
            if let Some(columns) = config.solver.columns {
                problem.means = statistics.means(name, operator.out_features)?;
                problem.scores = config.scores.get(name).cloned();
                let changes = columns.refit || columns.criterion == Criterion::Flap;
                if changes && self.dense.bias(operator)?.is_some() {
                    problem = problem.centred(columns.refit);
                }
            }
            if state.branch.sink.wants_statistics() {
                let saved = saved(&problem, &statistics)?;
                state.branch.sink.statistics(saved)?;
            }
            problems.push(problem);
        }
        let tokens = statistics.tokens;
        // The drift's matrices have served, and what the statistics were made with.
        drop(statistics);
        B::give_back_memory(&self.device);
        let mut together = Together::new(problems);
        if self.source.offload {
            together = together.offloaded()?;
        }
        let patterns: Vec<Pattern> = chosen.iter().map(|(_, name)| config.pattern_for(name)).collect();
        let solutions = together.solve(&patterns, &config.solver)?;
        let solving = started.elapsed();
        let rows: usize = chosen.iter().map(|(operator, _)| operator.out_features).sum();
        let problems = together.problems();
        for (((operator, _), problem), (pattern, solution)) in chosen
            .iter()
            .zip(&problems)
            .zip(patterns.into_iter().zip(solutions))
        {
            let job = Finishing {
                operator,
                problem,
                pattern,
                tokens,
                // What was done for all of them, by their sizes.
                seconds: solving.mul_f64(operator.out_features as f64 / rows.max(1) as f64),
            };
            let report = self.finish(job, solution, pruned, &mut state.branch)?;
            observer.event(report.event(branch));
            state.outcome.operators.push(report);
        }
        drop(problems);
        drop(together);
        B::give_back_memory(&self.device);
        Ok(())
    }

    /// Stores an operator's weight and puts it into the pruned layer.
    fn finish(
        &self,
        job: Finishing<'_, B>,
        solution: Solution,
        pruned: &mut PrunedLayer<'a, B>,
        branch: &mut Branch<'_>,
    ) -> Result<OperatorReport> {
        let Finishing {
            operator,
            problem,
            pattern,
            tokens,
            seconds,
        } = job;
        let started = Instant::now();
        let tensor = format!("{}.weight", problem.name);
        let dtype = self
            .source
            .checkpoint
            .info(&tensor)
            .map_or(StoredDtype::F32, |info| info.dtype.clone());
        let Solution {
            mut values,
            keep,
            info,
            bias,
        } = solution;
        // From here on the operator is what a reader of the written file will see.
        round_to(&mut values, Some(&keep), &dtype);
        branch.sink.weight(&tensor, &values, &keep)?;
        let (outputs, inputs) = problem.shape();
        let zeros = values.iter().filter(|v| **v == 0.0).count();
        let weight = problem.upload(values.clone());
        self.dense.set(pruned, operator, &weight, values)?;
        if let (Some(change), Some(old)) = (bias, self.dense.bias(operator)?) {
            let tensor = format!("{}.bias", problem.name);
            let dtype = self
                .source
                .checkpoint
                .info(&tensor)
                .map(|info| info.dtype.clone());
            let mut bias: Vec<f32> = old.iter().zip(change).map(|(old, change)| old + change).collect();
            round_to(&mut bias, None, &dtype.unwrap_or(StoredDtype::F32));
            branch.sink.weight(&tensor, &bias, &vec![true; bias.len()])?;
            self.dense.set_bias(pruned, operator, bias)?;
        }
        let squared_error = problem.squared_error(weight);
        Ok(OperatorReport {
            name: problem.name.clone(),
            layer: self.layer,
            shape: [outputs, inputs],
            dtype: dtype.name().to_owned(),
            pattern,
            tokens,
            relative_error: problem.relative(squared_error),
            zeros,
            sparsity: zeros as f64 / (outputs * inputs).max(1) as f64,
            solver: info,
            seconds: (seconds + started.elapsed()).as_secs_f64(),
        })
    }
}

/// A solved operator.
struct Finishing<'p, B: SolverOps> {
    operator: &'p OperatorSpec,
    problem: &'p LayerProblem<B>,
    pattern: Pattern,
    /// Calibration tokens behind its statistics.
    tokens: usize,
    /// What solving it took.
    seconds: Duration,
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
