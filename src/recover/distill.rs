//! Distillation through the whole model: all surviving weights of all operators are trained by AdamW to give the dense model's
//! distribution of the next token. A weight that was removed gets no gradient, so that it stays zero.

use super::config::DistillConfig;
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
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use fista_pruner_backends::SolverOps;

/// What the curves show.
pub(super) const LOSS: &str = "mean Kullback-Leibler divergence from the dense model per token, in nats; before and after: \
                               of the windows that were held out";

/// One window in this many is held out, to see whether the new weights are better.
const HELD_OUT: usize = 16;

/// The surviving weights of one operator.
#[derive(Module, Debug)]
struct Scaled<B: Backend> {
    /// `[out, in]`, by their scale: one rate suits operators and models of any scale.
    weight: Param<Tensor<B, 2>>,
    /// Their root mean square.
    scale: f64,
}

impl<B: SolverOps> Parameters<B> for Scaled<Tracked<B>> {
    type Settings = ();

    fn new(operator: &Operator, (): (), device: &B::Device) -> Self {
        let scale = operator.root_mean_square();
        let weight = operator.upload::<Tracked<B>>(device).div_scalar(scale);
        Self {
            weight: Param::from_tensor(weight),
            scale,
        }
    }

    fn weight(&self, _pruned: Tensor<B, 2>, (): ()) -> Tensor<B, 2> {
        self.weight.val().inner().mul_scalar(self.scale)
    }

    fn register(&self, gradient: Tensor<B, 2>, pruned: Tensor<B, 2>, (): (), all: &mut GradientsParams) {
        let gradient = gradient.mul_scalar(self.scale);
        all.register(self.weight.id, gradient.mask_fill(pruned.equal_elem(0), 0));
    }
}

impl DistillConfig {
    fn steps(&self) -> Steps {
        Steps {
            epochs: self.epochs,
            batch: self.batch,
            learning_rate: self.learning_rate,
            betas: Self::BETAS,
            seed: self.seed,
        }
    }
}

/// Recovers the model.
pub(super) fn run<B: SolverOps>(
    job: &RecoverJob<'_>,
    config: &DistillConfig,
    device: &B::Device,
    sink: &mut dyn WeightSink,
    observer: &mut dyn Observer,
) -> Result<(Vec<Curve>, usize)> {
    let objective = Objective::dense(job.dense_for("distill")?, job.windows, device)?;
    let held_out = job.windows.len() / HELD_OUT;
    train::<B, Scaled<Tracked<B>>>(
        job,
        (config.steps(), ()),
        (objective, held_out),
        device,
        sink,
        observer,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Model;
    use crate::recover::spp::tests::sparse;
    use crate::recover::whole::Run;
    use crate::recover::{RecoverJob, Recovery};
    use burn::backend::Flex;
    use std::path::Path;

    /// The gradients of the divergence against its differences, operator by operator; none where a weight was removed.
    #[test]
    fn gradients_are_those_of_the_divergence() {
        for name in ["smollm2-style", "opt-350m-style", "qwen3-style"] {
            let (_folder, model) = sparse(name);
            let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models");
            let dense = Model::open(&fixtures.join(name)).unwrap();
            let windows: Vec<Vec<u32>> = (0..3u32)
                .map(|w| (0..24).map(|t| (w * 97 + t * 31 + t * t) % 300).collect())
                .collect();
            let (config, device) = (DistillConfig::default(), Default::default());
            let recovery = Recovery::Distill(config);
            let job = RecoverJob {
                pruned: &model,
                dense: Some(&dense),
                kept_layers: None,
                windows: &windows,
                recovery: &recovery,
                checkpoints: None,
            };
            let all = [0, 1, 2];
            let objective = Objective::dense(&dense, &windows, &device).unwrap();
            type Weights = Scaled<Tracked<Flex>>;
            let mut run = Run::<Flex, Weights>::new(&job, (config.steps(), ()), objective, &device).unwrap();
            let (loss, gradients) = run.gradients(&all).unwrap();
            assert!(loss > 0.0 && (loss - run.loss(&all, false).unwrap()).abs() < 1e-5);
            for index in (0..run.parameters.len()).step_by(3) {
                let weights = run.parameters[index].weight.val().inner();
                let gradient: Tensor<Flex, 2> = gradients.get(run.parameters[index].weight.id).unwrap();
                let removed = weights.clone().equal_elem(0);
                let there = gradient.clone().mask_fill(removed.clone().bool_not(), 0);
                assert_eq!(there.abs().max().into_scalar(), 0.0);
                // Along the gradient, by that share of its norm.
                let norm = f64::from(gradient.clone().square().sum().sqrt().into_scalar());
                let step = 2e-2;
                let mut at = |shift: f64| -> f64 {
                    let moved = weights.clone() + gradient.clone().mul_scalar(shift / norm);
                    run.parameters[index].weight = Param::from_tensor(Tensor::from_inner(moved));
                    run.loss(&all, false).unwrap()
                };
                let difference = (at(step) - at(-step)) / (2.0 * step);
                at(0.0);
                assert!(
                    (difference - norm).abs() < 1e-4 + 0.03 * norm,
                    "{name}, operator {index}: {difference} {norm}"
                );
            }
        }
    }
}
