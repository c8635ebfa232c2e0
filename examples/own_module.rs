//! Prunes a module that the pruner knows nothing about: a multilayer perceptron defined right here.
//!
//! `cargo run --release --example own_module`

use burn::module::Module;
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::activation::gelu;
use burn::tensor::backend::Backend;
use burn::tensor::{Distribution, Tensor, TensorData};
use fista_pruner::config::{Method, Pattern, SolverConfig};
use fista_pruner::error::Result;
use fista_pruner::module::{ApplyLinear, Correction, Direct, ModuleConfig, ModuleReport, PathFilter, prune};
use fista_pruner::prune::Accumulator;
use fista_pruner::solver::solve;
use fista_pruner_backends::{DeviceJob, SolverOps, dispatch, open_default};

/// Two hidden layers. Only `forward_by` differs from what any burn program has: it says how `Linear` layers are applied.
#[derive(Module, Debug)]
struct Mlp<B: Backend> {
    norm: LayerNorm<B>,
    hidden: Vec<Linear<B>>,
    head: Linear<B>,
}

impl<B: Backend> Mlp<B> {
    fn new(device: &B::Device) -> Self {
        Self {
            norm: LayerNormConfig::new(64).init(device),
            hidden: vec![
                LinearConfig::new(64, 256).init(device),
                LinearConfig::new(256, 256).init(device),
            ],
            head: LinearConfig::new(256, 10).init(device),
        }
    }

    /// `[batch, 64]` to `[batch, 10]`.
    fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.forward_by(x, &mut Direct)
    }

    fn forward_by(&self, x: Tensor<B, 2>, by: &mut impl ApplyLinear<B>) -> Tensor<B, 2> {
        let mut x = self.norm.forward(x);
        for layer in &self.hidden {
            x = gelu(by.apply(layer, x));
        }
        by.apply(&self.head, x)
    }
}

/// What runs on the device, whichever that is.
struct Run;

impl DeviceJob for Run {
    type Output = Result<()>;

    #[allow(clippy::print_stdout, reason = "an example shows what it did")]
    fn run<B: SolverOps>(self, device: &B::Device) -> Result<()> {
        B::seed(device, 0);
        let mlp = Mlp::<B>::new(device);
        // Data as it is in practice: 64 features of which a dozen would tell all.
        let mixing = Tensor::<B, 2>::random([12, 64], Distribution::Normal(0.0, 1.0), device);
        let draw = |rows| {
            let factors = Tensor::<B, 2>::random([rows, 12], Distribution::Normal(0.0, 1.0), device);
            let noise = Tensor::random([rows, 64], Distribution::Normal(0.0, 0.1), device);
            factors.matmul(mixing.clone()) + noise
        };
        let batches: Vec<Tensor<B, 2>> = (0..8).map(|_| draw(256)).collect();
        let held_out = draw(1024);
        let expected = mlp.forward(held_out.clone());

        for pattern in [Pattern::unstructured(0.5)?, Pattern::n_of_m(2, 4)?] {
            let best = ModuleConfig {
                layers: PathFilter::all().except(["head"]),
                ..ModuleConfig::new(pattern)
            };
            let magnitude = ModuleConfig {
                solver: SolverConfig {
                    method: Method::Magnitude,
                    polish: 0,
                    ..SolverConfig::best(None)
                },
                correction: Correction::None,
                ..best.clone()
            };
            for (name, config) in [("magnitude", magnitude), ("l0 splitting, corrected", best)] {
                let (pruned, report) = prune(mlp.clone(), &batches, &config, |mlp, batch, recorder| {
                    mlp.forward_by(batch.clone(), recorder)
                })?;
                let error = B::squared_distance(pruned.forward(held_out.clone()), expected.clone());
                let energy = B::inner(expected.clone(), expected.clone());
                check_first_layer(&mlp, &batches, &config, &report)?;
                println!("{pattern} by {name}\n{report}");
                println!(
                    "sparsity {:.4}, error of the output on other data {:.3e}\n",
                    report.sparsity(),
                    error / energy
                );
            }
        }
        Ok(())
    }
}

/// The report's first layer against the solver alone, on the same inputs.
fn check_first_layer<B: SolverOps>(
    mlp: &Mlp<B>,
    batches: &[Tensor<B, 2>],
    config: &ModuleConfig,
    report: &ModuleReport,
) -> Result<()> {
    let mut inputs = Accumulator::default();
    for batch in batches {
        inputs.add(mlp.norm.forward(batch.clone()));
    }
    let statistics = inputs.finish("hidden.0")?;
    let weight = mlp.hidden[0].weight.val().transpose();
    let (shape, device) = (weight.dims(), weight.device());
    let mut problem = statistics.problem("hidden.0", weight);
    problem.tokens = Some(statistics.tokens);
    let solution = solve(&problem, config.pattern, &config.solver)?;
    let pruned = Tensor::from_data(TensorData::new(solution.values, shape), &device);
    let error = problem.squared_error(pruned);
    assert_eq!(report.layers[0].relative_error, problem.relative(error));
    Ok(())
}

fn main() -> Result<()> {
    let (device, _) = open_default()?;
    dispatch(&device, Run)?
}
