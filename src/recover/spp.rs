//! Sparsity-preserving fine-tuning (SPP, arXiv 2405.16057): every weight gets a factor, `W' = W ∘ (1 + s A B)`, from a row
//! factor `A [r, in]`, each row of which serves `out / r` outputs, and a column factor `B [out]`. Both are trained on the
//! text by AdamW and merged into the weights at the end, so that a zero stays one and nothing is added to the model.

use super::config::SppConfig;
use super::gradient::Tracked;
use super::job::RecoverJob;
use super::operators::Operator;
use super::report::Curve;
use super::whole::{Objective, Parameters, Steps, run as train};
use crate::error::Result;
use crate::progress::Observer;
use crate::prune::WeightSink;
use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor, TensorData};
use fista_pruner_backends::SolverOps;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What the curves show.
pub(super) const LOSS: &str = "mean negative log-likelihood per token, in nats";

impl SppConfig {
    fn steps(&self) -> Steps {
        Steps {
            epochs: self.epochs,
            batch: self.batch,
            learning_rate: self.learning_rate,
            betas: (0.9, 0.999),
            seed: self.seed,
        }
    }
}

/// Recovers the model.
pub(super) fn run<B: SolverOps>(
    job: &RecoverJob<'_>,
    config: &SppConfig,
    device: &B::Device,
    sink: &mut dyn WeightSink,
    observer: &mut dyn Observer,
) -> Result<(Vec<Curve>, usize)> {
    let (steps, objective) = (config.steps(), Objective::Text);
    train::<B, Factors<Tracked<B>>>(job, (steps, *config), (objective, 0), device, sink, observer)
}

/// The factors of one operator.
#[derive(Module, Debug)]
struct Factors<B: Backend> {
    /// `A`, `[r, in]`.
    rows: Param<Tensor<B, 2>>,
    /// `B`, `[out, 1]`.
    columns: Param<Tensor<B, 2>>,
}

impl<B: SolverOps> Parameters<B> for Factors<Tracked<B>> {
    type Settings = SppConfig;

    /// `A` uniform as a linear layer's weight, `B` zero: nothing changes before the first step.
    fn new(operator: &Operator, config: SppConfig, device: &B::Device) -> Self {
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

    fn weight(&self, pruned: Tensor<B, 2>, config: SppConfig) -> Tensor<B, 2> {
        merged(
            pruned,
            self.rows.val().inner(),
            self.columns.val().inner(),
            config.scale,
        )
    }

    fn register(
        &self,
        gradient: Tensor<B, 2>,
        pruned: Tensor<B, 2>,
        config: SppConfig,
        all: &mut GradientsParams,
    ) {
        let (rows, columns) = (self.rows.val().inner(), self.columns.val().inner());
        let (of_rows, of_columns) = factor_gradients(gradient, pruned, rows, columns, config.scale);
        all.register(self.rows.id, of_rows);
        all.register(self.columns.id, of_columns);
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::checkpoint::{CheckpointWriter, Model};
    use crate::recover::Recovery;
    use crate::recover::whole::Run;
    use burn::backend::Flex;
    use std::path::Path;

    /// A small checkpoint without a third of its operators' weights.
    pub(in super::super) fn sparse(name: &str) -> (tempfile::TempDir, Model) {
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
            let (steps, three) = ((config.steps(), config), [0, 1, 2]);
            let mut run =
                Run::<Flex, Factors<Tracked<Flex>>>::new(&job, steps, Objective::Text, &device).unwrap();
            // Away from zero, where the rows' gradients vanish.
            for factors in &mut run.parameters {
                factors.columns = factors.columns.clone().map(|b| b.add_scalar(0.2));
            }
            let (loss, all) = run.gradients(&three).unwrap();
            assert!((loss - run.loss(&three, false).unwrap()).abs() < 1e-5);
            for index in (0..run.parameters.len()).step_by(3) {
                let along = |id, all: &GradientsParams| -> f64 {
                    let gradient: Tensor<Flex, 2> = all.get(id).unwrap();
                    f64::from(gradient.sum().into_scalar())
                };
                let factors = &run.parameters[index];
                let slopes = [along(factors.rows.id, &all), along(factors.columns.id, &all)];
                for (k, slope) in slopes.into_iter().enumerate() {
                    let step = 2e-3;
                    let mut at = |shift: f64| -> f64 {
                        let factors = &mut run.parameters[index];
                        let param = if k == 0 {
                            &mut factors.rows
                        } else {
                            &mut factors.columns
                        };
                        *param = param.clone().map(|p| p.add_scalar(shift));
                        let loss = run.loss(&three, false).unwrap();
                        let factors = &mut run.parameters[index];
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
