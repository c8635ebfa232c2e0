//! Sparsity-preserving fine-tuning (SPP, arXiv 2405.16057): every weight gets a factor, `W' = W ∘ (1 + s A B)`, from a row
//! factor `A [r, in]`, each row of which serves `out / r` outputs, and a column factor `B [out]`. Both are trained on the
//! text by AdamW and merged into the weights at the end, so that a zero stays one and nothing is added to the model.
//!
//! In: a pruned model, windows. Out: merged weights. The gradients go back through the model layer by layer: each layer is
//! evaluated again from its input, so one layer is in memory, besides the inputs of all layers for the windows of a step.

use super::checkpoints::{Exact, Folder, factors_file};
use super::config::SppConfig;
use super::gradient::{Tracked, Wanted, each, each_gradient, gradients};
use super::job::{Hidden, RecoverJob, window_states};
use super::operators::{Operator, layer_operators};
use super::report::Curve;
use super::schedule::{batches, warm_cosine};
use crate::error::{ConfigError, Error, Result};
use crate::eval::{finite, mean_nll};
use crate::progress::{Event, Observer};
use crate::prune::WeightSink;
use crate::solver::download;
use burn::module::{Module, Param};
use burn::optim::adaptor::OptimizerAdaptor;
use burn::optim::{AdamW, AdamWConfig, GradientsParams, Optimizer};
use burn::record::{BinBytesRecorder, FullPrecisionSettings, Recorder};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Int, Tensor, TensorData};
use fista_pruner_backends::SolverOps;
use fista_pruner_models::{Head, Layer};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Instant;

/// What the curves show.
pub(super) const LOSS: &str = "mean negative log-likelihood per token, in nats";

/// Steps between two checkpoints.
const EVERY: usize = 8;

/// The factors of one operator.
#[derive(Module, Debug)]
struct Factors<B: Backend> {
    /// `A`, `[r, in]`.
    rows: Param<Tensor<B, 2>>,
    /// `B`, `[out, 1]`.
    columns: Param<Tensor<B, 2>>,
}

impl<B: Backend> Factors<B> {
    /// `A` uniform as a linear layer's weight, `B` zero: nothing changes before the first step.
    fn new(operator: &Operator, config: &SppConfig, device: &B::Device) -> Self {
        let [outputs, inputs] = operator.shape;
        let rank = divisor(outputs, config.rank);
        let bound = 1.0 / (inputs.max(1) as f32).sqrt();
        let mut generator = ChaCha8Rng::seed_from_u64(config.seed);
        generator.set_stream(operator.index as u64);
        let rows: Vec<f32> = (0..rank * inputs)
            .map(|_| generator.random_range(-bound..bound))
            .collect();
        let rows = Tensor::from_data(TensorData::new(rows, [rank, inputs]), (device, DType::F32));
        let columns = Tensor::zeros([outputs, 1], (device, DType::F32));
        Self {
            rows: Param::from_tensor(rows),
            columns: Param::from_tensor(columns),
        }
    }
}

/// The largest divisor of `outputs` that is at most `rank`.
fn divisor(outputs: usize, rank: usize) -> usize {
    (1..=rank.min(outputs).max(1))
        .rev()
        .find(|r| outputs.is_multiple_of(*r))
        .unwrap_or(1)
}

/// Rows `[r, in]` to `[out, in]`, each `out / r` times.
fn repeated<B: Backend>(rows: Tensor<B, 2>, outputs: usize) -> Tensor<B, 2> {
    let [rank, inputs] = rows.dims();
    rows.reshape([rank, 1, inputs])
        .expand([rank, outputs / rank, inputs])
        .reshape([outputs, inputs])
}

/// `W ∘ (1 + s A B)`, `[out, in]`.
fn merged<B: Backend>(
    weight: Tensor<B, 2>,
    rows: Tensor<B, 2>,
    columns: Tensor<B, 2>,
    scale: f64,
) -> Tensor<B, 2> {
    let [outputs, _] = weight.dims();
    let factor = repeated(rows, outputs) * columns.mul_scalar(scale);
    weight.clone() + weight * factor
}

/// Gradients of `A` and `B`, from that of the merged weight: with `M = ∂L/∂W' ∘ W`,
/// `∂L/∂A = s Σ M ∘ B` over the outputs that share a row, `∂L/∂B = s Σ M ∘ A` over inputs.
fn factor_gradients<B: Backend>(
    gradient: Tensor<B, 2>,
    weight: Tensor<B, 2>,
    rows: Tensor<B, 2>,
    columns: Tensor<B, 2>,
    scale: f64,
) -> (Tensor<B, 2>, Tensor<B, 2>) {
    let [outputs, inputs] = weight.dims();
    let [rank, _] = rows.dims();
    let product = (gradient * weight).mul_scalar(scale);
    let of_rows = (product.clone() * columns)
        .reshape([rank, outputs / rank, inputs])
        .sum_dim(1)
        .reshape([rank, inputs]);
    let of_columns = (product * repeated(rows, outputs)).sum_dim(1);
    (of_rows, of_columns)
}

/// What is known besides factors and moments.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Done {
    before: Exact,
    steps: Vec<Exact>,
    seconds: f64,
}

type AllFactors<B> = Vec<Factors<Tracked<B>>>;
type Adaptor<B> = OptimizerAdaptor<AdamW, AllFactors<B>, Tracked<B>>;

/// Recovers the model.
pub(super) fn run<B: SolverOps>(
    job: &RecoverJob<'_>,
    config: &SppConfig,
    device: &B::Device,
    sink: &mut dyn WeightSink,
    observer: &mut dyn Observer,
) -> Result<(Vec<Curve>, usize)> {
    let (folder, done) = match job.checkpoints {
        Some(path) => {
            let (folder, done) = Folder::open::<Done>(path, job)?;
            (Some(folder), done)
        }
        None => (None, None),
    };
    let started = Instant::now();
    let resumed = done.as_ref().map_or(0, |done| done.steps.len());
    let mut run = Run::<B>::new(job, config, device, done.unwrap_or_default())?;
    if let (Some(folder), true) = (&folder, resumed > 0) {
        run.load(folder)?;
    }
    let earlier = run.done.seconds;
    let order = batches(job.windows.len(), config.batch, config.epochs, config.seed, 0);
    observer.event(Event::Stage {
        name: "steps",
        steps: order.len() + 2,
    });
    if resumed == 0 {
        observer.event(Event::Working { on: "loss before" });
        run.done.before = Exact(finite(run.loss(job.windows, false)?, "the pruned model")?);
    }
    observer.event(Event::Step);
    for (step, windows) in order.iter().enumerate() {
        if step >= resumed {
            observer.event(Event::Working {
                on: "back-propagation",
            });
            let windows: Vec<Vec<u32>> = windows.iter().map(|i| job.windows[*i].clone()).collect();
            run.step(&windows, config.learning_rate * warm_cosine(step, order.len()))?;
            run.done.seconds = earlier + started.elapsed().as_secs_f64();
            if let (Some(folder), true) = (
                &folder,
                (step + 1).is_multiple_of(EVERY) || step + 1 == order.len(),
            ) {
                run.save(folder)?;
            }
        }
        observer.event(Event::Step);
    }
    observer.event(Event::Working { on: "loss after" });
    let after = run.loss(job.windows, true)?;
    let kept_old = after.is_nan() || after >= run.done.before.0;
    run.write(kept_old, sink)?;
    observer.event(Event::Step);
    observer.event(Event::Done);
    let curve = Curve {
        name: "model".into(),
        before: run.done.before.0,
        steps: run.done.steps.iter().map(|loss| loss.0).collect(),
        after: if kept_old { run.done.before.0 } else { after },
        kept_old,
        seconds: earlier + started.elapsed().as_secs_f64(),
    };
    Ok((vec![curve], resumed))
}

struct Run<'a, B: SolverOps> {
    job: &'a RecoverJob<'a>,
    config: &'a SppConfig,
    device: &'a B::Device,
    factors: AllFactors<B>,
    /// Where an operator's factors are, by its place in the model.
    places: BTreeMap<usize, usize>,
    optimizer: Adaptor<B>,
    done: Done,
    /// Steps of the last checkpoint.
    saved: Option<usize>,
}

impl<'a, B: SolverOps> Run<'a, B> {
    fn new(
        job: &'a RecoverJob<'a>,
        config: &'a SppConfig,
        device: &'a B::Device,
        done: Done,
    ) -> Result<Self> {
        let (mut factors, mut places) = (Vec::new(), BTreeMap::new());
        for layer in 0..job.pruned.decoder.config().num_layers() {
            for operator in layer_operators(job, layer)? {
                places.insert(operator.index, factors.len());
                factors.push(Factors::new(&operator, config, device));
            }
        }
        Ok(Self {
            job,
            config,
            device,
            factors,
            places,
            optimizer: AdamWConfig::new()
                .with_weight_decay(0.0)
                .with_epsilon(1e-8)
                .init(),
            done,
            saved: None,
        })
    }

    /// A layer with merged weights, its operators, and their weights before merging.
    fn layer(&self, layer: usize, stored: bool) -> Result<(Layer<B>, Vec<Operator>)> {
        let model = self.job.pruned;
        let mut built = model.decoder.layer::<B>(layer, &model.checkpoint, self.device)?;
        let operators = layer_operators(self.job, layer)?;
        for operator in &operators {
            let weight = built.weight(operator.name).ok_or_else(|| operator.lost())?;
            let (rows, columns) = self.of(operator);
            let mut new = merged(weight, rows, columns, self.config.scale);
            if stored {
                new = operator.tensor_of(operator.stored(download(new)?), self.device);
            }
            built.set_weight(operator.name, new)?;
        }
        Ok((built, operators))
    }

    /// An operator's factors.
    fn of(&self, operator: &Operator) -> (Tensor<B, 2>, Tensor<B, 2>) {
        let factors = &self.factors[self.places[&operator.index]];
        (factors.rows.val().inner(), factors.columns.val().inner())
    }

    /// The mean loss over windows: of the weights in training, or as they will be stored.
    fn loss(&self, windows: &[Vec<u32>], stored: bool) -> Result<f64> {
        let model = self.job.pruned;
        let mut hidden: Hidden<B> = window_states(model, windows, self.device)?;
        for layer in 0..model.decoder.config().num_layers() {
            let (layer, _) = self.layer(layer, stored)?;
            hidden = each::<B, _, _>(self.device, hidden, |h| Ok(layer.forward(h)))?;
        }
        let parts = (&model.checkpoint, &model.decoder);
        mean_nll::<B>(parts, hidden.into_iter().map(Ok), windows, self.device)
    }

    /// One step of AdamW on these windows.
    fn step(&mut self, windows: &[Vec<u32>], rate: f64) -> Result<()> {
        let (loss, all) = self.gradients(windows)?;
        let loss = Exact(finite(loss, &format!("step {}", self.done.steps.len()))?);
        self.factors = self.optimizer.step(rate, std::mem::take(&mut self.factors), all);
        self.done.steps.push(loss);
        Ok(())
    }

    /// The mean loss over the windows, and its gradients with respect to the factors.
    fn gradients(&self, windows: &[Vec<u32>]) -> Result<(f64, GradientsParams)> {
        let model = self.job.pruned;
        let layers = model.decoder.config().num_layers();
        // What enters each layer.
        let mut inputs: Vec<Hidden<B>> = vec![window_states(model, windows, self.device)?];
        for layer in 0..layers {
            let (layer, _) = self.layer(layer, false)?;
            let entering = inputs.last().cloned().unwrap_or_default();
            inputs.push(each::<B, _, _>(self.device, entering, |h| Ok(layer.forward(h)))?);
        }
        let last = inputs.pop().unwrap_or_default();
        let (loss, mut upstream) = self.head(last, windows)?;
        let mut all = GradientsParams::new();
        for layer in (0..layers).rev() {
            let (layer, operators) = self.layer(layer, false)?;
            let names: Vec<&'static str> = operators.iter().map(|operator| operator.name).collect();
            let wanted = Wanted {
                operators: &names,
                input: true,
            };
            let entering = inputs.pop().unwrap_or_default();
            let pairs: Vec<_> = entering.into_iter().zip(upstream).collect();
            let mut parts = each_gradient::<B, _, _>(self.device, pairs, |(input, upstream)| {
                // The gradient of ⟨f(x), u⟩ is what u becomes on its way back through f.
                gradients(&layer, input, wanted, |layer, input| {
                    (layer.forward(input) * Tensor::from_inner(upstream)).sum()
                })
            })?;
            upstream = parts.iter_mut().filter_map(|part| part.input.take()).collect();
            let sum = parts.into_iter().reduce(|mut sum, part| {
                sum.add(part);
                sum
            });
            for (operator, gradient) in operators.iter().zip(sum.into_iter().flat_map(|sum| sum.weights)) {
                let (rows, columns) = self.of(operator);
                let weight = operator.upload::<B>(self.device);
                let (of_rows, of_columns) =
                    factor_gradients(gradient, weight, rows, columns, self.config.scale);
                let factors = &self.factors[self.places[&operator.index]];
                all.register(factors.rows.id, of_rows);
                all.register(factors.columns.id, of_columns);
            }
        }
        Ok((loss, all))
    }

    /// The mean loss over the windows, and its gradients with respect to the last layer's outputs.
    fn head(&self, hidden: Hidden<B>, windows: &[Vec<u32>]) -> Result<(f64, Hidden<B>)> {
        let model = self.job.pruned;
        let head: Head<Tracked<B>> = model.decoder.head(&model.checkpoint, self.device)?;
        // Leaves that several threads share would make one graph of theirs.
        let head = head.no_grad();
        let count = windows.len().max(1) as f64;
        let pairs: Vec<_> = hidden.into_iter().zip(windows).collect();
        let parts = each_gradient::<B, _, _>(self.device, pairs, |(hidden, window)| {
            let hidden = Tensor::<Tracked<B>, 3>::from_inner(hidden).require_grad();
            let tokens = window.len();
            let ids: Vec<i64> = window[1..].iter().map(|id| i64::from(*id)).collect();
            let targets: Tensor<Tracked<B>, 2, Int> =
                Tensor::from_data(TensorData::new(ids, [1, tokens - 1]), self.device);
            let predicting = hidden.clone().slice_dim(1, 0..tokens - 1);
            let loss = head.token_nll(predicting, targets).mean();
            let value: f64 = download(loss.clone().inner())?.into_iter().map(f64::from).sum();
            let mut all = loss.div_scalar(count).backward();
            let gradient = hidden
                .grad_remove(&mut all)
                .ok_or_else(|| Error::internal("the likelihood does not depend on the hidden states"))?;
            Ok((value / count, gradient))
        })?;
        let (losses, gradients): (Vec<f64>, Hidden<B>) = parts.into_iter().unzip();
        Ok((losses.into_iter().sum(), gradients))
    }

    fn save(&mut self, folder: &Folder) -> Result<()> {
        let recorder = BinBytesRecorder::<FullPrecisionSettings>::default();
        let records = (self.factors.clone().into_record(), self.optimizer.to_record());
        let bytes = Recorder::<Tracked<B>>::record(&recorder, records, ())
            .map_err(|e| Error::internal(format!("the factors cannot be stored: {e}")))?;
        // The count of steps is in the same file as what they led to, by name.
        folder.write(&factors_file(self.done.steps.len()), &bytes)?;
        folder.save(&self.done)?;
        if let Some(old) = self.saved.replace(self.done.steps.len()) {
            let path = folder.file(&factors_file(old));
            std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
        Ok(())
    }

    fn load(&mut self, folder: &Folder) -> Result<()> {
        let path = folder.file(&factors_file(self.done.steps.len()));
        let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
        let recorder = BinBytesRecorder::<FullPrecisionSettings>::default();
        let (factors, optimizer) =
            Recorder::<Tracked<B>>::load(&recorder, bytes, self.device).map_err(|e| {
                Error::from(ConfigError::Setting {
                    setting: "‹checkpoints›",
                    reason: format!("`{}` is damaged ({e}): name another folder", path.display()),
                })
            })?;
        self.factors = std::mem::take(&mut self.factors).load_record(factors);
        self.optimizer = self.optimizer.clone().load_record(optimizer);
        self.saved = Some(self.done.steps.len());
        Ok(())
    }

    /// Hands the merged weights to the sink, or the old ones.
    fn write(&self, old: bool, sink: &mut dyn WeightSink) -> Result<()> {
        for layer in 0..self.job.pruned.decoder.config().num_layers() {
            let (built, operators) = self.layer(layer, true)?;
            for operator in &operators {
                let weight = built.weight(operator.name).ok_or_else(|| operator.lost())?;
                let values = if old {
                    operator.values.clone()
                } else {
                    download(weight)?
                };
                sink.weight(&operator.tensor, &values, &operator.keep)?;
            }
            sink.layer_done(layer, &[])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{CheckpointWriter, Model};
    use crate::recover::Recovery;
    use burn::backend::Flex;
    use std::path::Path;

    /// A small checkpoint without a third of its operators' weights.
    fn sparse(name: &str) -> (tempfile::TempDir, Model) {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models");
        let dense = Model::open(&fixtures.join(name)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("sparse");
        let mut writer = CheckpointWriter::create(&dense.checkpoint, &output, false).unwrap();
        for operator in dense.decoder.operators() {
            let (name, shape) = (operator.weight(), operator.shape());
            let values = dense.checkpoint.read(&name, &shape).unwrap();
            let keep: Vec<bool> = (0..values.len()).map(|i| i % 3 != 0).collect();
            writer.write_weight(&name, &values, &keep).unwrap();
        }
        writer.finish().unwrap();
        let model = Model::open(&output).unwrap();
        (folder, model)
    }

    /// The gradients that go back layer by layer against differences of the loss, operator by operator.
    #[test]
    fn gradients_are_those_of_the_loss() {
        for name in ["smollm2-style", "opt-350m-style", "qwen3-style"] {
            let (_folder, model) = sparse(name);
            let windows: Vec<Vec<u32>> = (0..3u32)
                .map(|w| (0..24).map(|t| (w * 97 + t * 31 + t * t) % 300).collect())
                .collect();
            let config = SppConfig {
                rank: 4,
                ..SppConfig::default()
            };
            let recovery = Recovery::Spp(config);
            let job = RecoverJob {
                pruned: &model,
                dense: None,
                kept_layers: None,
                windows: &windows,
                recovery: &recovery,
                checkpoints: None,
            };
            let device = Default::default();
            let mut run = Run::<Flex>::new(&job, &config, &device, Done::default()).unwrap();
            // Away from zero, where the rows' gradients vanish.
            for factors in &mut run.factors {
                factors.columns = factors.columns.clone().map(|b| b.add_scalar(0.2));
            }
            let (loss, all) = run.gradients(&windows).unwrap();
            assert!((loss - run.loss(&windows, false).unwrap()).abs() < 1e-5);
            for index in (0..run.factors.len()).step_by(3) {
                let along = |id, all: &GradientsParams| -> f64 {
                    let gradient: Tensor<Flex, 2> = all.get(id).unwrap();
                    f64::from(gradient.sum().into_scalar())
                };
                let factors = &run.factors[index];
                let slopes = [along(factors.rows.id, &all), along(factors.columns.id, &all)];
                for (k, slope) in slopes.into_iter().enumerate() {
                    let step = 2e-3;
                    let mut at = |shift: f64| -> f64 {
                        let factors = &mut run.factors[index];
                        let param = if k == 0 {
                            &mut factors.rows
                        } else {
                            &mut factors.columns
                        };
                        *param = param.clone().map(|p| p.add_scalar(shift));
                        let loss = run.loss(&windows, false).unwrap();
                        let factors = &mut run.factors[index];
                        let param = if k == 0 {
                            &mut factors.rows
                        } else {
                            &mut factors.columns
                        };
                        *param = param.clone().map(|p| p.add_scalar(-shift));
                        loss
                    };
                    let difference = (at(step) - at(-step)) / (2.0 * step);
                    assert!(
                        (difference - slope).abs() < 2e-3 + 0.02 * slope.abs(),
                        "{name}, operator {index}, factor {k}: {difference} {slope}"
                    );
                }
            }
        }
    }

    #[test]
    fn ranks_divide_the_outputs() {
        assert_eq!(divisor(576, 16), 16);
        assert_eq!(divisor(100, 16), 10);
        assert_eq!(divisor(7, 16), 7);
        assert_eq!(divisor(13, 4), 1);
    }
}
