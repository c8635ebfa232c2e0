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
use crate::progress::{Event, Observer};
use crate::report::OperatorReport;
use crate::solver::{self, Solution};
use crate::statistics::{Accumulator, Statistics};
use burn::tensor::{Int, Tensor, TensorData};
use fista_pruner_backends::SolverOps;
use fista_pruner_models::{Decoder, Layer, LayerState, OperatorSpec};
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
    job.config.solver.validate()?;
    check_selection(&job)?;
    let layers = job.decoder.config().num_layers();
    observer.event(Event::Stage {
        name: "layers",
        steps: layers,
    });
    let mut hidden = Hidden::<B>::embed(&job, device)?;
    let mut reports = Vec::new();
    for layer in 0..layers {
        observer.event(Event::Working {
            on: &format!("layer {layer}"),
        });
        let run = LayerRun {
            job,
            layer,
            dense: job.decoder.layer::<B>(layer, job.checkpoint, device)?,
        };
        hidden = run.prune(hidden, sink, observer, &mut reports)?;
        sink.layer_done(layer)?;
        observer.event(Event::Step);
    }
    observer.event(Event::Done);
    Ok(reports)
}

/// The operators that a configuration selects, as `(layer, group, operator, full name)`, in the order of pruning.
pub fn selected(decoder: &Decoder, config: &PruneConfig) -> Vec<(usize, usize, OperatorSpec, String)> {
    let groups = decoder.config().operator_groups();
    let mut selected = Vec::new();
    for layer in 0..decoder.config().num_layers() {
        for (group, operators) in groups.iter().enumerate() {
            for operator in operators {
                let name = decoder.operator_name(layer, operator.name);
                if config.selects(&name) {
                    selected.push((layer, group, *operator, name));
                }
            }
        }
    }
    selected
}

/// Finds out before any work whether something is selected, and whether the pattern fits all of it.
fn check_selection(job: &Job<'_>) -> Result<()> {
    let selected = selected(job.decoder, job.config);
    if selected.is_empty() {
        return Err(Error::Setting {
            setting: "--targets/--ignore",
            reason: "no operator is selected".into(),
        });
    }
    for (_, _, operator, name) in &selected {
        job.config.pattern.check_inputs(name, operator.in_features)?;
    }
    Ok(())
}

/// Hidden states that enter a decoder layer, in batches `[windows, tokens, hidden]`.
struct Hidden<B: SolverOps> {
    /// The dense model's, where a target or a next layer needs them.
    dense: Option<Vec<Tensor<B, 3>>>,
    /// The pruned model's; `None` where they are the dense model's.
    real: Option<Vec<Tensor<B, 3>>>,
}

impl<B: SolverOps> Hidden<B> {
    fn embed(job: &Job<'_>, device: &B::Device) -> Result<Self> {
        let embedding = job.decoder.embedding::<B>(job.checkpoint, device)?;
        let batches: Vec<_> = token_batches(job.windows, job.config.batch_tokens, device)
            .map(|ids| embedding.forward(ids, 0))
            .collect();
        let propagation = job.config.propagation;
        let real = (propagation.layer_input == LayerInput::Pruned).then(|| batches.clone());
        let dense =
            (propagation.layer_input == LayerInput::Dense || propagation.dense_target).then_some(batches);
        Ok(Self { dense, real })
    }
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

/// One decoder layer being pruned.
struct LayerRun<'a, B: SolverOps> {
    job: Job<'a>,
    layer: usize,
    dense: Layer<B>,
}

type States<B> = Vec<LayerState<B>>;

impl<B: SolverOps> LayerRun<'_, B> {
    /// Prunes the layer's groups in order and gives the next layer's hidden states.
    fn prune(
        &self,
        hidden: Hidden<B>,
        sink: &mut dyn WeightSink,
        observer: &mut dyn Observer,
        reports: &mut Vec<OperatorReport>,
    ) -> Result<Hidden<B>> {
        let propagation = self.job.config.propagation;
        let begin = |batches: &Vec<Tensor<B, 3>>| -> States<B> {
            batches.iter().map(|h| self.dense.begin(h.clone())).collect()
        };
        let mut pruned = self.dense.clone();
        let mut dense_states = hidden.dense.as_ref().map(begin);
        let mut real_states = hidden.real.as_ref().map(begin);
        let groups = self.job.decoder.config().operator_groups();
        for (group, operators) in groups.iter().enumerate() {
            let chosen: Vec<_> = operators
                .iter()
                .map(|operator| {
                    (
                        operator,
                        self.job.decoder.operator_name(self.layer, operator.name),
                    )
                })
                .filter(|(_, name)| self.job.config.selects(name))
                .collect();
            if let Some((_, first)) = chosen.first() {
                let statistics = self.statistics(first, dense_states.as_ref(), real_states.as_ref())?;
                for (operator, name) in &chosen {
                    let report = self.operator(operator, name, &statistics, &mut pruned, sink)?;
                    observer.event(Event::Operator {
                        name,
                        relative_error: report.relative_error,
                        sparsity: report.sparsity,
                        seconds: report.seconds,
                    });
                    reports.push(report);
                }
            }
            let last = group + 1 == groups.len();
            let real_weights = if propagation.corrected {
                &pruned
            } else {
                &self.dense
            };
            if let Some(states) = real_states.take() {
                real_states = Some(advance(real_weights, states, group));
            } else if propagation.corrected && !chosen.is_empty() && !last {
                // The paths part here. After the last group nobody asks for the real path of a dense-input layer.
                real_states = dense_states.clone().map(|states| advance(&pruned, states, group));
            }
            dense_states = dense_states.map(|states| advance(&self.dense, states, group));
        }
        let outputs = |states: States<B>| states.into_iter().map(|state| state.input).collect::<Vec<_>>();
        let real = match (propagation.layer_input, propagation.corrected) {
            (LayerInput::Dense, _) => None,
            (LayerInput::Pruned, true) => real_states.map(outputs),
            (LayerInput::Pruned, false) => hidden
                .real
                .map(|batches| batches.into_iter().map(|h| pruned.forward(h)).collect()),
        };
        Ok(Hidden {
            dense: dense_states.map(outputs),
            real,
        })
    }

    /// Statistics of the group whose inputs the states hold.
    fn statistics(
        &self,
        operator: &str,
        dense: Option<&States<B>>,
        real: Option<&States<B>>,
    ) -> Result<Statistics<B>> {
        let flat = |state: &LayerState<B>| -> Tensor<B, 2> { state.input.clone().flatten(0, 1) };
        let mut accumulator = Accumulator::<B>::default();
        match (dense, real) {
            (Some(dense), Some(real)) if self.job.config.propagation.dense_target => {
                for (dense, real) in dense.iter().zip(real) {
                    accumulator.add_pair(flat(dense), flat(real));
                }
            }
            (_, Some(states)) | (Some(states), None) => {
                states.iter().for_each(|state| accumulator.add(flat(state)))
            }
            (None, None) => {}
        }
        accumulator.finish(operator)
    }

    /// Solves one operator, stores its weight and puts it into the pruned layer.
    fn operator(
        &self,
        operator: &OperatorSpec,
        name: &str,
        statistics: &Statistics<B>,
        pruned: &mut Layer<B>,
        sink: &mut dyn WeightSink,
    ) -> Result<OperatorReport> {
        let started = Instant::now();
        let weight = self.dense.weight(operator.name).ok_or_else(|| Error::Internal {
            what: format!("the decoder has no operator `{name}`"),
        })?;
        let tensor = format!("{name}.weight");
        let dtype = self
            .job
            .checkpoint
            .info(&tensor)
            .map_or(StoredDtype::F32, |info| info.dtype.clone());
        let problem = statistics.problem(name, weight);
        if sink.wants_statistics() {
            sink.statistics(saved(&problem, statistics)?)?;
        }
        let Solution {
            mut values,
            keep,
            info,
        } = solver::solve(&problem, self.job.config.pattern, &self.job.config.solver)?;
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
            tokens: statistics.tokens,
            relative_error: problem.relative(squared_error),
            zeros,
            sparsity: zeros as f64 / (outputs * inputs).max(1) as f64,
            solver: info,
            seconds: started.elapsed().as_secs_f64(),
        })
    }
}

fn advance<B: SolverOps>(layer: &Layer<B>, states: States<B>, group: usize) -> States<B> {
    states
        .into_iter()
        .map(|state| layer.advance(state, group))
        .collect()
}

fn saved<B: SolverOps>(
    problem: &solver::LayerProblem<B>,
    statistics: &Statistics<B>,
) -> Result<SavedStatistics> {
    let (outputs, inputs) = problem.shape();
    let cross = match statistics.cross() {
        Some((cross, dense)) => Some((solver::download(cross)?, solver::download(dense)?)),
        None => None,
    };
    Ok(SavedStatistics {
        name: problem.name.clone(),
        outputs,
        inputs,
        weight: solver::download(problem.weight.clone())?,
        gram: solver::download(problem.gram.clone())?,
        cross,
    })
}
