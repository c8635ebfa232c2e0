//! The loop over a module's layers: batches → recorded inputs → statistics → the solver → new weights. The same statistics
//! and the same solver as for checkpoints.

use super::config::{Correction, ModuleConfig};
use super::error::ModuleError;
use super::layers::{Layer, Survey, each_weight, map_weights, transposed};
use super::recorder::{Purpose, Recorder};
use super::report::{LeftAlone, LinearReport, ModuleReport};
use crate::checkpoint::{StoredDtype, round_to};
use crate::error::{Error, Result};
use crate::prune::Statistics;
use crate::solver::{self, Solution};
use burn::module::{AutodiffModule, Module, ParamId};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{DType, Tensor, TensorData};
use fista_pruner_backends::SolverOps;
use std::collections::BTreeMap;
use std::time::Instant;

/// New weights `[in, out]` by path.
type Weights<B> = BTreeMap<String, Tensor<B, 2>>;

/// Prunes the chosen `Linear` layers of a module. `forward` runs the module on one batch and lets the recorder see the
/// inputs of the layers; what it returns is not looked at.
///
/// Biases and everything else stay as they are, bit for bit. The error of a layer is that of its weight in its own dtype;
/// statistics and solver compute in f32.
///
/// Weights come back as burn's mapping of a module's parameters leaves them on a backend without gradients: not marked as
/// needing one. A module that is being trained goes through [`prune_in_training`].
///
/// burn draws a new module's weights when they are first looked at, and a copy made before that draws its own. To compare
/// an untrained module with a pruned copy of it, run it once first.
///
/// # Errors
/// [`Error::Module`] when the choice of layers matches nothing, a chosen layer sees no input or one of the wrong width;
/// [`PatternError::DoesNotFit`](crate::error::PatternError::DoesNotFit) before any work; and what [`solver::solve`] refuses.
pub fn prune<B, M, T, R>(
    module: M,
    batches: &[T],
    config: &ModuleConfig,
    forward: impl FnMut(&M, &T, &mut Recorder<B>) -> R,
) -> Result<(M, ModuleReport)>
where
    B: SolverOps,
    M: Module<B>,
{
    let (weights, report) = solve_layers(&module, batches, config, forward)?;
    Ok((with_weights(module, &weights), report))
}

/// [`prune`] in the middle of a training: takes and gives the module with gradients, and runs `forward` on the one without
/// ([`AutodiffModule::valid`]), so that dropout and the like are off. Parameters keep their ids, so that an optimizer goes
/// on with its state; [`MaskedOptimizer`](super::MaskedOptimizer) also keeps the zeros.
///
/// # Errors
/// As [`prune`].
pub fn prune_in_training<B, M, T, R>(
    module: M,
    batches: &[T],
    config: &ModuleConfig,
    forward: impl FnMut(&M::InnerModule, &T, &mut Recorder<B::InnerBackend>) -> R,
) -> Result<(M, ModuleReport)>
where
    B: AutodiffBackend,
    B::InnerBackend: SolverOps,
    M: AutodiffModule<B>,
{
    let (weights, report) = solve_layers(&module.valid(), batches, config, forward)?;
    let weights: Weights<B> = weights
        .into_iter()
        .map(|(path, weight)| (path, Tensor::from_inner(weight)))
        .collect();
    Ok((with_weights(module, &weights), report))
}

fn with_weights<B: Backend, M: Module<B>>(module: M, weights: &Weights<B>) -> M {
    map_weights(module, |path, _, _| weights.get(path).cloned())
}

fn solve_layers<B, M, T, R>(
    dense: &M,
    batches: &[T],
    config: &ModuleConfig,
    forward: impl FnMut(&M, &T, &mut Recorder<B>) -> R,
) -> Result<(Weights<B>, ModuleReport)>
where
    B: SolverOps,
    M: Module<B>,
{
    config.validate()?;
    let survey = Survey::of(dense);
    let layers = survey.chosen(&config.layers)?;
    check_patterns(&layers, config)?;
    let mut run = Run {
        dense,
        batches,
        forward,
        pruned: Weights::new(),
        originals: originals(dense, &layers),
    };
    let layers = run.in_order(layers)?;
    let mut reports = Vec::new();
    for group in layers.chunks(config.layers_at_once(layers.len())) {
        let mut recorder = run.record(group, config.correction)?;
        for layer in group {
            let statistics = recorder.take(layer)?.finish(&layer.path)?;
            let report = run.solve(layer, &statistics, config)?;
            tracing::debug!(layer = %report.path, relative_error = report.relative_error, "pruned");
            reports.push(report);
        }
    }
    let report = ModuleReport {
        left_alone: left_alone(survey, &reports),
        layers: reports,
    };
    Ok((run.pruned, report))
}

/// Finds out before any work whether every pattern has a layer and fits it.
fn check_patterns(layers: &[Layer], config: &ModuleConfig) -> Result<()> {
    for path in config.patterns.keys() {
        if !layers.iter().any(|layer| layer.path == *path) {
            let path = path.clone();
            return Err(ModuleError::NoSuchLayer {
                what: "pattern",
                path,
            }
            .into());
        }
    }
    layers.iter().try_for_each(|layer| {
        let pattern = config.pattern_for(&layer.path);
        pattern.check_inputs(&layer.path, layer.shape[1])
    })?;
    Ok(())
}

/// The weights `[in, out]` of the chosen layers, by id.
fn originals<B: SolverOps, M: Module<B>>(module: &M, layers: &[Layer]) -> BTreeMap<ParamId, Tensor<B, 2>> {
    let mut originals = BTreeMap::new();
    each_weight(module, |_, id, weight| {
        if layers.iter().any(|layer| layer.id == id) {
            originals.insert(id, weight);
        }
    });
    originals
}

fn left_alone(survey: Survey, pruned: &[LinearReport]) -> Vec<LeftAlone> {
    let spared = survey.linears.into_iter().filter_map(|layer| {
        let spared = !pruned.iter().any(|report| report.path == layer.path);
        spared.then(|| LeftAlone {
            path: layer.path,
            kind: "Linear".into(),
            parameters: layer.parameters,
        })
    });
    survey.others.into_iter().chain(spared).collect()
}

/// A module on its way.
struct Run<'a, B: SolverOps, M, T, F> {
    dense: &'a M,
    batches: &'a [T],
    forward: F,
    originals: BTreeMap<ParamId, Tensor<B, 2>>,
    /// What is pruned so far.
    pruned: Weights<B>,
}

impl<B, M, T, F, R> Run<'_, B, M, T, F>
where
    B: SolverOps,
    M: Module<B>,
    F: FnMut(&M, &T, &mut Recorder<B>) -> R,
{
    /// The layers in the order in which the forward pass comes to them on the first batch, others after them.
    fn in_order(&mut self, layers: Vec<Layer>) -> Result<Vec<Layer>> {
        let first = self.batches.first().ok_or(ModuleError::NoBatches)?;
        let mut recorder = Recorder::new(&layers, Purpose::Order);
        (self.forward)(self.dense, first, &mut recorder);
        recorder.end_of_batch()?;
        let order = recorder.order();
        let mut layers = layers;
        layers.sort_by_key(|layer| order.iter().position(|id| *id == layer.id).unwrap_or(order.len()));
        Ok(layers)
    }

    /// Runs all batches and gathers what the layers see.
    fn record(&mut self, layers: &[Layer], correction: Correction) -> Result<Recorder<B>> {
        if correction == Correction::None || self.pruned.is_empty() {
            let mut recorder = Recorder::new(layers, Purpose::Gram);
            for batch in self.batches {
                (self.forward)(self.dense, batch, &mut recorder);
                recorder.end_of_batch()?;
            }
            return Ok(recorder);
        }
        let pruned = with_weights(self.dense.clone(), &self.pruned);
        let paired = correction == Correction::DenseTarget;
        let purpose = if paired { Purpose::Pair } else { Purpose::Gram };
        let mut recorder = Recorder::new(layers, purpose);
        let mut keeping = Recorder::new(layers, Purpose::Keep);
        for batch in self.batches {
            if paired {
                (self.forward)(self.dense, batch, &mut keeping);
                keeping.end_of_batch()?;
                keeping.hand_over(&mut recorder);
            }
            (self.forward)(&pruned, batch, &mut recorder);
            recorder.end_of_batch()?;
        }
        Ok(recorder)
    }

    /// Solves a layer and notes its new weight.
    fn solve(
        &mut self,
        layer: &Layer,
        statistics: &Statistics<B>,
        config: &ModuleConfig,
    ) -> Result<LinearReport> {
        let started = Instant::now();
        let pattern = config.pattern_for(&layer.path);
        let original = self
            .originals
            .get(&layer.id)
            .ok_or_else(|| Error::internal(format!("the module has lost `{}`", layer.path)))?;
        let weight = original.clone().transpose().cast(DType::F32);
        let mut problem = statistics.problem(&layer.path, weight);
        problem.tokens = Some(statistics.tokens);
        let Solution {
            mut values,
            keep,
            info,
            ..
        } = solver::solve(&problem, pattern, &config.solver)?;
        round_to(&mut values, Some(&keep), &stored(layer.dtype));
        let [outputs, inputs] = layer.shape;
        let zeros = values.iter().filter(|value| **value == 0.0).count();
        pattern.check(&layer.path, &values, outputs, inputs)?;
        let data = TensorData::new(transposed(&values, outputs, inputs), [inputs, outputs]);
        let weight = Tensor::from_data(data, (&original.device(), layer.dtype));
        let squared_error = problem.squared_error(problem.upload(values));
        self.pruned.insert(layer.path.clone(), weight);
        Ok(LinearReport {
            path: layer.path.clone(),
            shape: layer.shape,
            pattern,
            tokens: statistics.tokens,
            relative_error: problem.relative(squared_error),
            zeros,
            solver: info,
            seconds: started.elapsed().as_secs_f64(),
        })
    }
}

/// The rounding of a tensor's dtype.
fn stored(dtype: DType) -> StoredDtype {
    match dtype {
        DType::F16 => StoredDtype::F16,
        DType::BF16 => StoredDtype::BF16,
        _ => StoredDtype::F32,
    }
}
