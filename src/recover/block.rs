//! Block reconstruction (arXiv 2510.14444): attention and MLP of each decoder layer, one after the other, are trained by
//! gradient descent to give what the dense model has at that place. In: dense and pruned model, windows. Out: new weights,
//! a layer at a time. One layer of each model is in memory, besides the windows' hidden states.
//!
//! The targets are the dense model's hidden states, the inputs are those that the recovered layers before give: a part
//! also makes up for what is left of the errors before it.

use super::checkpoints::Progress;
use super::config::BlockConfig;
use super::gradient::{Gradients, Tracked, Wanted, each, each_gradient, gradients};
use super::job::{Hidden, RecoverJob, window_states};
use super::operators::{Operator, layer_operators};
use super::report::Curve;
use super::schedule::{batches, warm_cosine};
use crate::error::Result;
use crate::eval::finite;
use crate::module::{MaskedOptimizer, PathFilter, SparsityMask};
use crate::progress::{Event, Observer};
use crate::prune::WeightSink;
use crate::solver::download;
use burn::module::{AutodiffModule, Param};
use burn::nn::Linear;
use burn::optim::{Adam, AdamConfig, GradientsParams, Optimizer};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use fista_pruner_backends::SolverOps;
use fista_pruner_models::Layer;
use std::time::Instant;

/// What the curves show.
pub(super) const LOSS: &str = "mean over tokens of the squared distance to the dense model's hidden state, relative to its squared norm";

/// Adam's ε: PyTorch's, burn's 1e-5 is large next to gradients of relative losses.
const EPSILON: f32 = 1e-8;

/// A part of a layer that is trained on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Attention,
    Mlp,
}

impl Part {
    const BOTH: [Self; 2] = [Self::Attention, Self::Mlp];

    fn name(self) -> &'static str {
        match self {
            Self::Attention => "attention",
            Self::Mlp => "mlp",
        }
    }

    /// Whether it holds that group of operators.
    fn has<B: Backend>(self, group: usize) -> bool {
        (self == Self::Attention) == (group < Layer::<B>::ATTENTION_GROUPS)
    }

    /// Residual stream `[windows, tokens, hidden]` before the part to that after it.
    fn apply<B: Backend>(self, layer: &Layer<B>, stream: Tensor<B, 3>) -> Tensor<B, 3> {
        let attention = Layer::<B>::ATTENTION_GROUPS;
        match self {
            Self::Attention => {
                let state =
                    (0..attention).fold(layer.begin(stream), |state, group| layer.advance(state, group));
                state.residual().cloned().unwrap_or(state.input)
            }
            Self::Mlp => {
                let groups = attention..Layer::<B>::GROUPS;
                groups
                    .fold(layer.middle(stream), |state, group| layer.advance(state, group))
                    .input
            }
        }
    }
}

/// `mean over tokens of ‖y − y*‖² / ‖y*‖²`, for `y` and `y*` of shape `[windows, tokens, hidden]`.
///
/// The paper takes the plain mean of squares. A few tokens of a LLaMA (the first above all) have norms a hundred times
/// those of others, and what follows, a norm, only sees directions.
fn relative_error<B: Backend>(y: Tensor<B, 3>, target: Tensor<B, 3>) -> Tensor<B, 1> {
    let scale = target
        .clone()
        .square()
        .mean_dim(2)
        .clamp_min(f64::from(f32::MIN_POSITIVE))
        .recip();
    ((y - target).square().mean_dim(2) * scale).mean()
}

/// Recovers every layer.
pub(super) fn run<B: SolverOps>(
    job: &RecoverJob<'_>,
    config: &BlockConfig,
    device: &B::Device,
    sink: &mut dyn WeightSink,
    observer: &mut dyn Observer,
) -> Result<(Vec<Curve>, usize)> {
    let dense_model = job.dense_for("block")?;
    let mut progress = Progress::open(job)?;
    let layers = job.pruned.decoder.config().num_layers();
    observer.event(Event::Stage {
        name: "layers",
        steps: layers,
    });
    let mut dense: Hidden<B> = window_states(dense_model, job.windows, device)?;
    let mut real: Hidden<B> = window_states(job.pruned, job.windows, device)?;
    let resumed = progress.layers();
    for layer in 0..layers {
        observer.event(Event::Layer {
            layer,
            layers,
            operators: 0,
        });
        let teacher = |number| {
            dense_model
                .decoder
                .layer::<B>(number, &dense_model.checkpoint, device)
        };
        let from = job.kept_layers.map_or(layer, |kept| kept[layer]);
        // Layers that are gone count to what the MLP before them is to give.
        let until = job
            .kept_layers
            .map_or(layer + 1, |kept| match kept.get(layer + 1) {
                Some(next) => *next,
                None => dense_model.decoder.config().num_layers(),
            });
        let student = job
            .pruned
            .decoder
            .layer::<B>(layer, &job.pruned.checkpoint, device)?;
        let operators = layer_operators(job, layer)?;
        let mut run = LayerRun {
            config,
            device,
            layer,
            name: job
                .pruned
                .decoder
                .layer_prefix(layer)
                .trim_end_matches('.')
                .to_owned(),
            operators,
            student,
        };
        if layer < resumed {
            run.restore(&progress)?;
        }
        let mut curves = Vec::new();
        let own = teacher(from)?;
        for part in Part::BOTH {
            dense = each::<B, _, _>(device, dense, |h| Ok(part.apply(&own, h)))?;
            for gone in (from + 1..until).filter(|_| part == Part::Mlp) {
                let gone = teacher(gone)?;
                dense = each::<B, _, _>(device, dense, |h| Ok(gone.forward(h)))?;
            }
            if layer >= resumed {
                curves.extend(run.train(part, &real, &dense)?);
            }
            real = each::<B, _, _>(device, real, |h| Ok(part.apply(&run.student, h)))?;
        }
        for operator in &run.operators {
            sink.weight(&operator.tensor, &operator.values, &operator.keep)?;
        }
        sink.layer_done(layer, &[])?;
        if layer >= resumed {
            progress.layer_done(layer, &run.operators, curves)?;
        }
        observer.event(Event::Step);
    }
    observer.event(Event::Done);
    Ok((progress.finish(), resumed))
}

/// A layer being recovered.
struct LayerRun<'a, B: SolverOps> {
    config: &'a BlockConfig,
    device: &'a B::Device,
    layer: usize,
    /// Such as `model.layers.3`.
    name: String,
    operators: Vec<Operator>,
    student: Layer<B>,
}

impl<B: SolverOps> LayerRun<'_, B> {
    /// Takes the weights of an earlier run.
    fn restore(&mut self, progress: &Progress) -> Result<()> {
        progress.load_layer(self.layer, &mut self.operators)?;
        for operator in &self.operators {
            self.student
                .set_weight(operator.name, operator.upload::<B>(self.device))?;
        }
        Ok(())
    }

    /// Trains a part on its inputs and targets, unless there is nothing to train or that makes it worse.
    fn train(&mut self, part: Part, inputs: &Hidden<B>, targets: &Hidden<B>) -> Result<Option<Curve>> {
        let trained: Vec<usize> = (0..self.operators.len())
            .filter(|i| part.has::<B>(self.operators[*i].group))
            .collect();
        if trained.is_empty() {
            return Ok(None);
        }
        let started = Instant::now();
        let before = finite(self.error(part, inputs, targets)?, part.name())?;
        let old = self.student.clone();
        let mut trainer = Trainer::new(self, &trained)?;
        let stream = 2 * self.layer as u64 + u64::from(part == Part::Mlp);
        let (epochs, batch) = (self.config.epochs, self.config.batch);
        let order = batches(inputs.len(), batch, epochs, self.config.seed, stream);
        let mut steps = Vec::with_capacity(order.len());
        for (step, windows) in order.iter().enumerate() {
            let rate = self.config.learning_rate * warm_cosine(step, order.len());
            let samples = windows
                .iter()
                .map(|i| (inputs[*i].clone(), targets[*i].clone()))
                .collect();
            steps.push(trainer.step(&mut self.student, part, samples, rate, self.device)?);
        }
        let mut stored = Vec::new();
        for i in &trained {
            let operator = &self.operators[*i];
            let weight = self
                .student
                .weight(operator.name)
                .ok_or_else(|| operator.lost())?;
            let values = operator.stored(download(weight)?);
            self.student
                .set_weight(operator.name, operator.tensor_of(values.clone(), self.device))?;
            stored.push(values);
        }
        let mut after = self.error(part, inputs, targets)?;
        let kept_old = after.is_nan() || after >= before;
        if kept_old {
            self.student = old;
            after = before;
        } else {
            for (i, values) in trained.into_iter().zip(stored) {
                self.operators[i].values = values;
            }
        }
        Ok(Some(Curve {
            name: format!("{} {}", self.name, part.name()),
            before,
            steps,
            after,
            kept_old,
            seconds: started.elapsed().as_secs_f64(),
        }))
    }

    /// The loss on all windows.
    fn error(&self, part: Part, inputs: &Hidden<B>, targets: &Hidden<B>) -> Result<f64> {
        let pairs: Vec<_> = inputs.iter().cloned().zip(targets.iter().cloned()).collect();
        let count = pairs.len().max(1) as f64;
        let errors = each::<B, _, _>(self.device, pairs, |(input, target)| {
            let error = relative_error(part.apply(&self.student, input), target);
            Ok(download(error)?.into_iter().map(f64::from).sum::<f64>())
        })?;
        Ok(errors.into_iter().sum::<f64>() / count)
    }
}

/// Adam on the operators of a part, with their masks. Its weights are divided by their root mean square, so that one rate
/// suits operators and models of any scale.
struct Trainer<B: SolverOps> {
    names: Vec<&'static str>,
    /// Root mean squares of the surviving weights.
    scales: Vec<f64>,
    /// The weights `[in, out]` as burn's layers have them, by their scales.
    weights: Vec<Linear<Tracked<B>>>,
    optimizer: MaskedOptimizer<Adam, Vec<Linear<Tracked<B>>>, Tracked<B>>,
}

impl<B: SolverOps> Trainer<B> {
    fn new(run: &LayerRun<'_, B>, operators: &[usize]) -> Result<Self> {
        let (mut names, mut scales, mut weights) = (Vec::new(), Vec::new(), Vec::new());
        for i in operators {
            let operator = &run.operators[*i];
            let weight = run.student.weight(operator.name).ok_or_else(|| operator.lost())?;
            let scale = operator.root_mean_square();
            names.push(operator.name);
            scales.push(scale);
            weights.push(Linear {
                weight: Param::from_tensor(Tensor::from_inner(weight.transpose().div_scalar(scale))),
                bias: None,
            });
        }
        let mask = SparsityMask::of(&weights, &PathFilter::all())?;
        let adam = AdamConfig::new().with_epsilon(EPSILON).init();
        let optimizer = MaskedOptimizer::new(adam).with_mask(&weights, mask)?;
        Ok(Self {
            names,
            scales,
            weights,
            optimizer,
        })
    }

    /// One step on these inputs and targets; gives their loss before it.
    fn step(
        &mut self,
        student: &mut Layer<B>,
        part: Part,
        samples: Vec<(Tensor<B, 3>, Tensor<B, 3>)>,
        rate: f64,
        device: &B::Device,
    ) -> Result<f64> {
        let count = samples.len() as f64;
        let wanted = Wanted {
            operators: &self.names,
            input: false,
        };
        let parts = each_gradient::<B, _, _>(device, samples, |(input, target)| {
            gradients(student, input, wanted, |layer, input| {
                relative_error(part.apply(layer, input), Tensor::from_inner(target))
            })
        })?;
        let Some(sum) = parts.into_iter().reduce(|mut sum: Gradients<B>, part| {
            sum.add(part);
            sum
        }) else {
            return Ok(0.0);
        };
        let mut all = GradientsParams::new();
        for ((linear, gradient), scale) in self.weights.iter().zip(sum.weights).zip(&self.scales) {
            all.register(linear.weight.id, gradient.transpose().mul_scalar(scale / count));
        }
        self.weights = self.optimizer.step(rate, std::mem::take(&mut self.weights), all);
        for ((name, linear), scale) in self.names.iter().zip(&self.weights).zip(&self.scales) {
            let weight = linear.valid().weight.val().transpose();
            student.set_weight(name, weight.mul_scalar(*scale))?;
        }
        Ok(sum.loss / count)
    }
}
