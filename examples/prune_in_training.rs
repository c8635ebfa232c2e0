//! Prunes a model of letters while burn's own training loop trains it, and after it, and shows what each way costs.
//!
//! `cargo run --release --features training --example prune_in_training`

use burn::backend::{Autodiff, Flex};
use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::InMemDataset;
use burn::module::{AutodiffModule, Module};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::optim::{AdamW, AdamWConfig, Optimizer};
use burn::tensor::activation::relu;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor, TensorData};
use burn::train::metric::LossMetric;
use burn::train::renderer::{
    EvaluationName, EvaluationProgress, MetricState, MetricsRenderer, MetricsRendererEvaluation,
    MetricsRendererTraining, ProgressType, TrainingProgress,
};
use burn::train::{ClassificationOutput, InferenceStep, Learner, SupervisedTraining, TrainOutput, TrainStep};
use fista_pruner::config::Pattern;
use fista_pruner::error::{Error, Result};
use fista_pruner::module::{
    ApplyLinear, Direct, Gradual, MaskedOptimizer, ModuleConfig, PathFilter, SparsityMask, prune_in_training,
};
use std::path::Path;
use std::sync::Arc;

type Device = Flex;
type Training = Autodiff<Device>;

const STORIES: &str = include_str!("../demo/calibration.txt");

/// Letters that the model sees.
const CONTEXT: usize = 12;
/// ASCII.
const LETTERS: usize = 128;
const BATCH: usize = 128;
const LEARNING_RATE: f64 = 3e-3;

/// Predicts a letter from those before it.
#[derive(Module, Debug)]
struct Model<B: Backend> {
    embedding: Embedding<B>,
    hidden: Linear<B>,
    head: Linear<B>,
}

impl<B: Backend> Model<B> {
    fn new(device: &B::Device) -> Self {
        Self {
            embedding: EmbeddingConfig::new(LETTERS, 16).init(device),
            hidden: LinearConfig::new(CONTEXT * 16, 256).init(device),
            head: LinearConfig::new(256, LETTERS).init(device),
        }
    }

    /// `[batch, CONTEXT]` to `[batch, LETTERS]`.
    fn forward(&self, letters: Tensor<B, 2, Int>, by: &mut impl ApplyLinear<B>) -> Tensor<B, 2> {
        let x = self.embedding.forward(letters).flatten::<2>(1, 2);
        let x = relu(by.apply(&self.hidden, x));
        by.apply(&self.head, x)
    }

    fn classify(&self, batch: Letters<B>) -> ClassificationOutput<B> {
        let output = self.forward(batch.context, &mut Direct);
        let loss = CrossEntropyLossConfig::new().init(&output.device());
        let loss = loss.forward(output.clone(), batch.next.clone());
        ClassificationOutput::new(loss, output, batch.next)
    }
}

impl<B: AutodiffBackend> TrainStep for Model<B> {
    type Input = Letters<B>;
    type Output = ClassificationOutput<B>;

    fn step(&self, batch: Letters<B>) -> TrainOutput<ClassificationOutput<B>> {
        let output = self.classify(batch);
        TrainOutput::new(self, output.loss.backward(), output)
    }
}

impl<B: Backend> InferenceStep for Model<B> {
    type Input = Letters<B>;
    type Output = ClassificationOutput<B>;

    fn step(&self, batch: Letters<B>) -> ClassificationOutput<B> {
        self.classify(batch)
    }
}

/// Contexts `[batch, CONTEXT]` and the letters after them `[batch]`.
#[derive(Debug, Clone)]
struct Letters<B: Backend> {
    context: Tensor<B, 2, Int>,
    next: Tensor<B, 1, Int>,
}

#[derive(Clone)]
struct LetterBatcher;

/// A context and what follows it.
type Window = [u8; CONTEXT + 1];

impl<B: Backend> Batcher<B, Window, Letters<B>> for LetterBatcher {
    fn batch(&self, windows: Vec<Window>, device: &B::Device) -> Letters<B> {
        let context: Vec<i32> = windows
            .iter()
            .flat_map(|w| &w[..CONTEXT])
            .map(|b| i32::from(*b))
            .collect();
        let next: Vec<i32> = windows.iter().map(|w| i32::from(w[CONTEXT])).collect();
        let rows = windows.len();
        Letters {
            context: Tensor::from_data(TensorData::new(context, [rows, CONTEXT]), device),
            next: Tensor::from_data(TensorData::new(next, [rows]), device),
        }
    }
}

/// Every third window of the built-in stories.
fn windows() -> Vec<Window> {
    let text: Vec<u8> = STORIES.bytes().filter(u8::is_ascii).collect();
    let windows = text.windows(CONTEXT + 1).step_by(3);
    windows.filter_map(|window| window.try_into().ok()).collect()
}

fn loader<B: Backend>(windows: &[Window], shuffle: bool) -> Arc<dyn DataLoader<B, Letters<B>>> {
    let builder = DataLoaderBuilder::new(LetterBatcher).batch_size(BATCH);
    let builder = if shuffle { builder.shuffle(1) } else { builder };
    builder.build(InMemDataset::new(windows.to_vec()))
}

/// Says nothing: the example has its own table.
struct Quiet;

impl MetricsRendererTraining for Quiet {
    fn update_train(&mut self, _: MetricState) {}
    fn update_valid(&mut self, _: MetricState) {}
    fn render_train(&mut self, _: TrainingProgress, _: Vec<ProgressType>) {}
    fn render_valid(&mut self, _: TrainingProgress, _: Vec<ProgressType>) {}
}

impl MetricsRendererEvaluation for Quiet {
    fn update_test(&mut self, _: EvaluationName, _: MetricState) {}
    fn render_test(&mut self, _: EvaluationProgress, _: Vec<ProgressType>) {}
}

impl MetricsRenderer for Quiet {
    fn manual_close(&mut self) {}
    fn register_metric(&mut self, _: burn::train::metric::MetricDefinition) {}
}

/// Training and held-out windows, and where burn's training loop keeps its files.
struct Work<'a> {
    train: &'a [Window],
    valid: &'a [Window],
    folder: &'a Path,
}

impl Work<'_> {
    /// burn's training loop, with any optimizer.
    fn fit<O>(&self, model: Model<Training>, optimizer: O, epochs: usize) -> Model<Training>
    where
        O: Optimizer<Model<Training>, Training> + 'static,
    {
        let training =
            SupervisedTraining::new(self.folder, loader(self.train, true), loader(self.valid, false))
                .metrics((LossMetric::<Device>::new(),))
                .num_epochs(epochs)
                .renderer(Quiet)
                .with_application_logger(None);
        let result = training.launch(Learner::new(model, optimizer, LEARNING_RATE));
        Model::from_inner(result.model)
    }

    /// Mean loss on the held-out windows.
    fn loss(&self, model: &Model<Training>) -> f64 {
        let model = model.valid();
        let loader = loader::<Device>(self.valid, false);
        let losses = loader.iter().map(|batch| {
            let rows = batch.next.dims()[0] as f64;
            let loss = model.classify(batch).loss.into_data().iter::<f64>().sum::<f64>();
            (loss * rows, rows)
        });
        let (loss, rows) = losses.fold((0.0, 0.0), |(a, b), (loss, rows)| (a + loss, b + rows));
        loss / rows
    }

    #[allow(clippy::print_stdout, reason = "an example shows what it did")]
    fn show(&self, what: &str, model: &Model<Training>) -> Result<()> {
        let sparsity = SparsityMask::of(model, &PathFilter::all())?.sparsity();
        println!(
            "{what:44} zeros {:5.1} %   loss {:.4}",
            100.0 * sparsity,
            self.loss(model)
        );
        Ok(())
    }
}

fn adamw() -> burn::optim::adaptor::OptimizerAdaptor<AdamW, Model<Training>, Training> {
    AdamWConfig::new().with_weight_decay(0.01).init()
}

fn main() -> Result<()> {
    let folder = tempfile::tempdir().map_err(Error::io("create a folder in", std::env::temp_dir()))?;
    let windows = windows();
    let (train, valid) = windows.split_at(windows.len() * 9 / 10);
    let work = Work {
        train,
        valid,
        folder: folder.path(),
    };
    let device = Default::default();
    Device::seed(&device, 1);
    let start = Model::<Training>::new(&device);
    let target = Pattern::unstructured(0.8)?;
    let layers = PathFilter::all();
    work.show("untrained", &start)?;

    let dense = work.fit(start.clone(), adamw(), 4);
    work.show("trained for 4 epochs", &dense)?;

    // After training: from the activations of 16 batches, then one epoch in which the zeros stay.
    let batches: Vec<Letters<Device>> = loader(train, true).iter().take(16).collect();
    let config = ModuleConfig {
        layers: layers.clone(),
        ..ModuleConfig::new(target)
    };
    let (pruned, _) = prune_in_training(dense, &batches, &config, |model, batch, recorder| {
        model.forward(batch.context.clone(), recorder)
    })?;
    work.show("then pruned at once", &pruned)?;
    let mask = SparsityMask::of(&pruned, &layers)?;
    let optimizer = MaskedOptimizer::new(adamw()).with_mask(&pruned, mask)?;
    let retrained = work.fit(pruned, optimizer, 1);
    work.show("then trained for another epoch", &retrained)?;

    // In training: the masks grow during the second and third epoch of as many in all.
    let steps = train.len().div_ceil(BATCH);
    let schedule = Gradual::new(target, steps, steps / 10, 20)?;
    let optimizer = MaskedOptimizer::new(adamw()).with_schedule(&start, &layers, schedule)?;
    let gradual = work.fit(start, optimizer, 5);
    work.show("pruned gradually in 5 epochs from the start", &gradual)
}
