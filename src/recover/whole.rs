//! Training through the whole model, whatever stands for its operators' weights and whatever the loss is: gradients, steps of
//! AdamW, checkpoints. In: a pruned model, windows, how a weight is made of parameters. Out: new weights, a layer at a time.
//!
//! The gradients go back through the model layer by layer: each layer is evaluated again from its input, so one layer is in
//! memory, besides the inputs of all layers for the windows of a step, the parameters and their moments.

use super::checkpoints::{Exact, Folder, factors_file};
use super::gradient::{Tracked, Wanted, each, each_gradient, gradients};
use super::job::{Hidden, RecoverJob, window_states};
use super::operators::{Operator, layer_operators};
use super::report::Curve;
use super::schedule::{batches, warm_cosine};
use crate::checkpoint::Model;
use crate::error::{ConfigError, Error, Result};
use crate::eval::{finite, mean_nll};
use crate::progress::{Event, Observer};
use crate::prune::WeightSink;
use crate::solver::download;
use burn::module::{AutodiffModule, Module};
use burn::optim::adaptor::OptimizerAdaptor;
use burn::optim::{AdamW, AdamWConfig, GradientsParams, Optimizer};
use burn::record::{BinBytesRecorder, FullPrecisionSettings, Recorder};
use burn::tensor::{Int, Tensor, TensorData};
use fista_pruner_backends::SolverOps;
use fista_pruner_models::{Head, Layer};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// What is trained in place of an operator's weight.
pub(super) trait Parameters<B: SolverOps>: AutodiffModule<Tracked<B>> {
    /// Settings of all operators.
    type Settings: Copy + Sync;

    /// Those with which nothing has changed.
    fn new(operator: &Operator, settings: Self::Settings, device: &B::Device) -> Self;

    /// The weight `[out, in]` that they give, from the pruned one.
    fn weight(&self, pruned: Tensor<B, 2>, settings: Self::Settings) -> Tensor<B, 2>;

    /// Their gradients, from that of the weight `[out, in]`.
    fn register(
        &self,
        gradient: Tensor<B, 2>,
        pruned: Tensor<B, 2>,
        settings: Self::Settings,
        all: &mut GradientsParams,
    );
}

/// How the steps go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Steps {
    /// Passes over the windows.
    pub(super) epochs: usize,
    /// Windows a step.
    pub(super) batch: usize,
    /// AdamW's rate at its highest.
    pub(super) learning_rate: f64,
    /// AdamW's β.
    pub(super) betas: (f32, f32),
    /// Of the order of the windows.
    pub(super) seed: u64,
}

/// Steps between two checkpoints, or more: writing them takes at most one part in [`WORK`] of the time.
const EVERY: usize = 8;
const WORK: u32 = 20;

/// What the loss is.
pub(super) enum Objective<B: SolverOps> {
    /// Negative log-likelihood of the text.
    Text,
    /// Kullback-Leibler divergence from the dense model, whose last layer gives these for the windows.
    Dense(Hidden<B>),
}

impl<B: SolverOps> Objective<B> {
    /// The divergence from `dense`, of which all windows are run once.
    pub(super) fn dense(dense: &Model, windows: &[Vec<u32>], device: &B::Device) -> Result<Self> {
        let mut hidden: Hidden<B> = window_states(dense, windows, device)?;
        for layer in 0..dense.decoder.config().num_layers() {
            let layer = dense.decoder.layer::<B>(layer, &dense.checkpoint, device)?;
            hidden = each::<B, _, _>(device, hidden, |h| Ok(layer.forward(h)))?;
        }
        Ok(Self::Dense(hidden))
    }
}

/// What is known besides parameters and moments.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Done {
    before: Exact,
    steps: Vec<Exact>,
    seconds: f64,
}

/// Recovers the model. `held_out` of the windows, the last ones, are only measured; with none of them all are trained and measured.
pub(super) fn run<B: SolverOps, P: Parameters<B>>(
    job: &RecoverJob<'_>,
    (steps, settings): (Steps, P::Settings),
    (objective, held_out): (Objective<B>, usize),
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
    let mut run = Run::<B, P>::new(job, (steps, settings), objective, device)?;
    run.done = done.unwrap_or_default();
    if let (Some(folder), true) = (&folder, resumed > 0) {
        run.load(folder)?;
    }
    let earlier = run.done.seconds;
    let count = job.windows.len();
    let trained = count - held_out;
    let measured: Vec<usize> = (if held_out > 0 { trained..count } else { 0..count }).collect();
    let order = batches(trained, steps.batch, steps.epochs, steps.seed, 0);
    observer.event(Event::Stage {
        name: "steps",
        steps: order.len() + 2,
    });
    if resumed == 0 {
        observer.event(Event::Working { on: "loss before" });
        run.done.before = Exact(finite(run.loss(&measured, false)?, "the pruned model")?);
    }
    observer.event(Event::Step);
    let (mut saved, mut writing) = (Instant::now(), Duration::ZERO);
    for (step, windows) in order.iter().enumerate() {
        if step >= resumed {
            observer.event(Event::Working {
                on: "back-propagation",
            });
            run.step(windows, steps.learning_rate * warm_cosine(step, order.len()))?;
            run.done.seconds = earlier + started.elapsed().as_secs_f64();
            let due = (step + 1).is_multiple_of(EVERY) && saved.elapsed() >= writing * WORK;
            if let (Some(folder), true) = (&folder, due || step + 1 == order.len()) {
                let begun = Instant::now();
                run.save(folder)?;
                (saved, writing) = (Instant::now(), begun.elapsed());
            }
        }
        observer.event(Event::Step);
    }
    observer.event(Event::Working { on: "loss after" });
    let after = run.loss(&measured, true)?;
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

pub(super) struct Run<'a, B: SolverOps, P: Parameters<B>> {
    job: &'a RecoverJob<'a>,
    settings: P::Settings,
    objective: Objective<B>,
    device: &'a B::Device,
    pub(super) parameters: Vec<P>,
    /// The operators of each layer, in the order of the parameters.
    operators: Vec<Vec<&'static str>>,
    optimizer: OptimizerAdaptor<AdamW, Vec<P>, Tracked<B>>,
    done: Done,
    /// Steps of the last checkpoint.
    saved: Option<usize>,
}

impl<'a, B: SolverOps, P: Parameters<B>> Run<'a, B, P> {
    pub(super) fn new(
        job: &'a RecoverJob<'a>,
        (steps, settings): (Steps, P::Settings),
        objective: Objective<B>,
        device: &'a B::Device,
    ) -> Result<Self> {
        let (mut parameters, mut operators) = (Vec::new(), Vec::new());
        for layer in 0..job.pruned.decoder.config().num_layers() {
            let of_layer = layer_operators(job, layer)?;
            parameters.extend(of_layer.iter().map(|operator| P::new(operator, settings, device)));
            operators.push(of_layer.iter().map(|operator| operator.name).collect());
        }
        Ok(Self {
            job,
            settings,
            objective,
            device,
            parameters,
            operators,
            optimizer: AdamWConfig::new()
                .with_weight_decay(0.0)
                .with_epsilon(1e-8)
                .with_beta_1(steps.betas.0)
                .with_beta_2(steps.betas.1)
                .init(),
            done: Done::default(),
            saved: None,
        })
    }

    /// A layer with the weights in training, and the pruned weights of its operators.
    fn layer(&self, layer: usize) -> Result<(Layer<B>, Vec<Tensor<B, 2>>)> {
        let model = self.job.pruned;
        let mut built = model.decoder.layer::<B>(layer, &model.checkpoint, self.device)?;
        let mut pruned = Vec::new();
        for (name, parameters) in self.operators[layer].iter().zip(self.of(layer)) {
            let weight = built.weight(name);
            let weight = weight.ok_or_else(|| Error::internal(format!("no operator `{name}`")))?;
            built.set_weight(name, parameters.weight(weight.clone(), self.settings))?;
            pruned.push(weight);
        }
        Ok((built, pruned))
    }

    /// A layer with the weights as they will be stored, and its operators, which have them too.
    fn stored(&self, layer: usize) -> Result<(Layer<B>, Vec<Operator>)> {
        let (mut built, _) = self.layer(layer)?;
        let mut operators = layer_operators(self.job, layer)?;
        for operator in &mut operators {
            let weight = built.weight(operator.name).ok_or_else(|| operator.lost())?;
            operator.values = operator.stored(download(weight)?);
            built.set_weight(operator.name, operator.upload(self.device))?;
        }
        Ok((built, operators))
    }

    /// The parameters of a layer's operators.
    fn of(&self, layer: usize) -> &[P] {
        let before: usize = self.operators[..layer].iter().map(Vec::len).sum();
        &self.parameters[before..before + self.operators[layer].len()]
    }

    /// These windows.
    fn windows(&self, chosen: &[usize]) -> Vec<Vec<u32>> {
        chosen.iter().map(|i| self.job.windows[*i].clone()).collect()
    }

    /// The mean loss over windows: of the weights in training, or as they will be stored.
    pub(super) fn loss(&self, chosen: &[usize], stored: bool) -> Result<f64> {
        let model = self.job.pruned;
        let windows = self.windows(chosen);
        let mut hidden: Hidden<B> = window_states(model, &windows, self.device)?;
        for layer in 0..model.decoder.config().num_layers() {
            let layer = match stored {
                true => self.stored(layer)?.0,
                false => self.layer(layer)?.0,
            };
            hidden = each::<B, _, _>(self.device, hidden, |h| Ok(layer.forward(h)))?;
        }
        let dense = match &self.objective {
            Objective::Text => {
                let parts = (&model.checkpoint, &model.decoder);
                return mean_nll::<B>(parts, hidden.into_iter().map(Ok), &windows, self.device);
            }
            Objective::Dense(dense) => chosen.iter().map(|i| dense[*i].clone()),
        };
        let head: Head<B> = model.decoder.head(&model.checkpoint, self.device)?;
        let pairs: Vec<_> = dense.zip(hidden).collect();
        let losses = each::<B, _, _>(self.device, pairs, |(dense, hidden)| {
            value(head.divergence(dense, hidden).mean())
        })?;
        Ok(losses.into_iter().sum::<f64>() / chosen.len().max(1) as f64)
    }

    /// One step of AdamW on these windows.
    fn step(&mut self, chosen: &[usize], rate: f64) -> Result<()> {
        let (loss, all) = self.gradients(chosen)?;
        let loss = Exact(finite(loss, &format!("step {}", self.done.steps.len()))?);
        self.parameters = (self.optimizer).step(rate, std::mem::take(&mut self.parameters), all);
        self.done.steps.push(loss);
        Ok(())
    }

    /// The mean loss over the windows, and its gradients with respect to the parameters.
    pub(super) fn gradients(&self, chosen: &[usize]) -> Result<(f64, GradientsParams)> {
        let model = self.job.pruned;
        let layers = model.decoder.config().num_layers();
        // What enters each layer.
        let mut inputs: Vec<Hidden<B>> = vec![window_states(model, &self.windows(chosen), self.device)?];
        for layer in 0..layers {
            let (layer, _) = self.layer(layer)?;
            let entering = inputs.last().cloned().unwrap_or_default();
            inputs.push(each::<B, _, _>(self.device, entering, |h| Ok(layer.forward(h)))?);
        }
        let last = inputs.pop().unwrap_or_default();
        let (loss, mut upstream) = self.head(last, chosen)?;
        let mut all = GradientsParams::new();
        for layer in (0..layers).rev() {
            let (built, pruned) = self.layer(layer)?;
            let wanted = Wanted {
                operators: &self.operators[layer],
                input: true,
            };
            let entering = inputs.pop().unwrap_or_default();
            let pairs: Vec<_> = entering.into_iter().zip(upstream).collect();
            let mut parts = each_gradient::<B, _, _>(self.device, pairs, |(input, upstream)| {
                // The gradient of ⟨f(x), u⟩ is what u becomes on its way back through f.
                gradients(&built, input, wanted, |layer, input| {
                    (layer.forward(input) * Tensor::from_inner(upstream)).sum()
                })
            })?;
            upstream = parts.iter_mut().filter_map(|part| part.input.take()).collect();
            let sum = parts.into_iter().reduce(|mut sum, part| {
                sum.add(part);
                sum
            });
            let gradients = sum.into_iter().flat_map(|sum| sum.weights).zip(pruned);
            for (parameters, (gradient, pruned)) in self.of(layer).iter().zip(gradients) {
                parameters.register(gradient, pruned, self.settings, &mut all);
            }
        }
        Ok((loss, all))
    }

    /// The mean loss over the windows, and its gradients with respect to the last layer's outputs.
    fn head(&self, hidden: Hidden<B>, chosen: &[usize]) -> Result<(f64, Hidden<B>)> {
        let model = self.job.pruned;
        let head: Head<Tracked<B>> = model.decoder.head(&model.checkpoint, self.device)?;
        // Leaves that several threads share would make one graph of theirs.
        let head = head.no_grad();
        let objective = &self.objective;
        let (all_windows, device) = (self.job.windows, self.device);
        let count = chosen.len().max(1) as f64;
        let pairs: Vec<_> = hidden.into_iter().zip(chosen).collect();
        let parts = each_gradient::<B, _, _>(device, pairs, |(hidden, index)| {
            let hidden = Tensor::<Tracked<B>, 3>::from_inner(hidden).require_grad();
            let loss = match objective {
                Objective::Text => {
                    let window = &all_windows[*index];
                    let tokens = window.len();
                    let ids: Vec<i64> = window[1..].iter().map(|id| i64::from(*id)).collect();
                    let targets: Tensor<Tracked<B>, 2, Int> =
                        Tensor::from_data(TensorData::new(ids, [1, tokens - 1]), device);
                    let predicting = hidden.clone().slice_dim(1, 0..tokens - 1);
                    head.token_nll(predicting, targets).mean()
                }
                Objective::Dense(dense) => {
                    let dense = Tensor::from_inner(dense[*index].clone());
                    head.divergence(dense, hidden.clone()).mean()
                }
            };
            let of_window = value(loss.clone().inner())?;
            let mut all = loss.div_scalar(count).backward();
            let gradient = hidden
                .grad_remove(&mut all)
                .ok_or_else(|| Error::internal("the loss does not depend on the hidden states"))?;
            Ok((of_window / count, gradient))
        })?;
        let (losses, gradients): (Vec<f64>, Hidden<B>) = parts.into_iter().unzip();
        Ok((losses.into_iter().sum(), gradients))
    }

    fn save(&mut self, folder: &Folder) -> Result<()> {
        let recorder = BinBytesRecorder::<FullPrecisionSettings>::default();
        let records = (self.parameters.clone().into_record(), self.optimizer.to_record());
        let bytes = Recorder::<Tracked<B>>::record(&recorder, records, ())
            .map_err(|e| Error::internal(format!("the parameters cannot be stored: {e}")))?;
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
        let (parameters, optimizer) =
            Recorder::<Tracked<B>>::load(&recorder, bytes, self.device).map_err(|e| {
                Error::from(ConfigError::Setting {
                    setting: "‹checkpoints›",
                    reason: format!("`{}` is damaged ({e}): name another folder", path.display()),
                })
            })?;
        self.parameters = std::mem::take(&mut self.parameters).load_record(parameters);
        self.optimizer = self.optimizer.clone().load_record(optimizer);
        self.saved = Some(self.done.steps.len());
        Ok(())
    }

    /// Hands the new weights to the sink, or the old ones.
    fn write(&self, old: bool, sink: &mut dyn WeightSink) -> Result<()> {
        for layer in 0..self.job.pruned.decoder.config().num_layers() {
            let operators = match old {
                true => layer_operators(self.job, layer)?,
                false => self.stored(layer)?.1,
            };
            for operator in &operators {
                sink.weight(&operator.tensor, &operator.values, &operator.keep)?;
            }
            sink.layer_done(layer, &[])?;
        }
        Ok(())
    }
}

/// The number that a loss is.
fn value<B: SolverOps>(loss: Tensor<B, 1>) -> Result<f64> {
    Ok(download(loss)?.into_iter().map(f64::from).sum())
}
