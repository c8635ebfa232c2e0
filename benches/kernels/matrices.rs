//! Work on matrices: statistics, single steps, whole operators.

use crate::measure::{Work, random};
use crate::setting::{Shape, setting};
use burn::tensor::Tensor;
use fista_pruner::config::{Method, Pattern, SolverConfig};
use fista_pruner::prune::Accumulator;
use fista_pruner::solver::{self, LayerProblem, Solution, fista, polish};
use fista_pruner_backends::{GramSum, Selection, SolverOps, SplittingStep};

const PATTERN: Pattern = Pattern::NOfM { n: 2, m: 4 };

/// `2 m k n`.
pub(crate) fn product(m: usize, k: usize, n: usize) -> f64 {
    2.0 * m as f64 * k as f64 * n as f64
}

/// The upper half of `XᵀX`.
pub(crate) fn gram(inputs: usize, tokens: usize) -> f64 {
    product(inputs + 1, tokens, inputs) / 2.0
}

/// What error correction adds for an operator: the drift and its energy, in the cheaper way.
pub(crate) fn drift(outputs: usize, inputs: usize, tokens: usize) -> f64 {
    let on_inputs = product(inputs, tokens, inputs) + gram(inputs, tokens);
    on_inputs.min(2.0 * product(outputs, inputs, tokens))
}

pub(crate) struct Gram {
    pub(crate) inputs: usize,
}

impl Work for Gram {
    fn shape(&self) -> String {
        format!("n {}, p {}", self.inputs, setting().tokens)
    }

    fn product(&self) -> [usize; 3] {
        [self.inputs, setting().tokens, self.inputs]
    }

    fn operations(&self) -> f64 {
        gram(self.inputs, setting().tokens)
    }

    fn prepare<B: SolverOps>(&self, device: &B::Device) -> Box<dyn FnMut()> {
        let x = random::<B>(setting().tokens, self.inputs, 1, device);
        let mut sum = Some(GramSum::<B>::new(self.inputs, device));
        Box::new(move || sum = sum.take().map(|sum| B::gram_update(sum, x.clone())))
    }
}

pub(crate) struct Pair {
    pub(crate) shape: Shape,
}

impl Work for Pair {
    fn shape(&self) -> String {
        format!("{}, p {}", self.shape, setting().tokens)
    }

    fn product(&self) -> [usize; 3] {
        [self.shape.inputs, setting().tokens, self.shape.inputs]
    }

    fn operations(&self) -> f64 {
        let Shape { outputs, inputs, .. } = self.shape;
        gram(inputs, setting().tokens) + drift(outputs, inputs, setting().tokens)
    }

    fn prepare<B: SolverOps>(&self, device: &B::Device) -> Box<dyn FnMut()> {
        let Shape { outputs, inputs, .. } = self.shape;
        let weight = random::<B>(outputs, inputs, 1, device);
        let dense = random::<B>(setting().tokens, inputs, 2, device);
        let real = dense.clone() + random::<B>(setting().tokens, inputs, 3, device).mul_scalar(0.1);
        let mut accumulator = Accumulator::for_operators(vec![("operator".into(), weight)], false);
        Box::new(move || accumulator.add_pair(dense.clone(), real.clone()))
    }
}

/// An operator whose inputs are correlated, as those of a model are.
fn problem<B: SolverOps>(shape: Shape, device: &B::Device) -> LayerProblem<B> {
    let Shape { outputs, inputs, .. } = shape;
    let factors = inputs / 4 + 1;
    let common = random::<B>(2 * inputs, factors, 1, device).matmul(random(factors, inputs, 2, device));
    let x = common.mul_scalar(1.0 / (factors as f64).sqrt()) + random(2 * inputs, inputs, 3, device);
    let mut accumulator = Accumulator::default();
    accumulator.add(x);
    let statistics = accumulator.finish(shape.name).unwrap();
    statistics.problem(shape.name, random(outputs, inputs, 4, device))
}

/// An operator's weight times a Gram matrix: in f32, which the others are measured by, or the fast way.
pub(crate) struct Product {
    pub(crate) shape: Shape,
    pub(crate) fast: bool,
}

impl Work for Product {
    fn shape(&self) -> String {
        self.shape.to_string()
    }

    fn product(&self) -> [usize; 3] {
        of_operator(self.shape)
    }

    fn operations(&self) -> f64 {
        one_product(self.shape)
    }

    fn prepare<B: SolverOps>(&self, device: &B::Device) -> Box<dyn FnMut()> {
        let Shape { outputs, inputs, .. } = self.shape;
        let a = random::<B>(outputs, inputs, 1, device);
        let b = random::<B>(inputs, inputs, 2, device);
        let fast = self.fast;
        Box::new(move || {
            let (a, b) = (a.clone(), b.clone());
            drop(if fast {
                B::matmul_fast(a, b)
            } else {
                B::matmul_f32(a, b)
            });
        })
    }
}

fn of_operator(shape: Shape) -> [usize; 3] {
    [shape.outputs, shape.inputs, shape.inputs]
}

fn one_product(shape: Shape) -> f64 {
    product(shape.outputs, shape.inputs, shape.inputs)
}

/// Iterations or steps timed at once, as a solver takes many in a row: the first one's neighbours are not those of the others.
const AT_ONCE: usize = 4;

pub(crate) struct FistaIterations {
    pub(crate) shape: Shape,
}

impl Work for FistaIterations {
    fn shape(&self) -> String {
        format!("{}, {} of them", self.shape, AT_ONCE)
    }

    fn product(&self) -> [usize; 3] {
        of_operator(self.shape)
    }

    fn operations(&self) -> f64 {
        AT_ONCE as f64 * one_product(self.shape)
    }

    fn prepare<B: SolverOps>(&self, device: &B::Device) -> Box<dyn FnMut()> {
        let problem = problem::<B>(self.shape, device);
        let run = fista::Run {
            lambda: 1e-3,
            lipschitz: fista::lipschitz(&problem).unwrap(),
            iterations: AT_ONCE,
            tolerance: 0.0,
            restart: true,
        };
        Box::new(move || {
            let start = problem.weight.clone();
            divan::black_box(fista::minimise(&problem, start, run).unwrap());
        })
    }
}

pub(crate) struct Polish {
    pub(crate) shape: Shape,
}

impl Polish {
    fn iterations() -> usize {
        SolverConfig::best(None).polish
    }
}

impl Work for Polish {
    fn shape(&self) -> String {
        format!("{}, {} steps", self.shape, Self::iterations())
    }

    fn product(&self) -> [usize; 3] {
        of_operator(self.shape)
    }

    /// One more product than steps: the first gradient.
    fn operations(&self) -> f64 {
        (Self::iterations() + 1) as f64 * one_product(self.shape)
    }

    fn prepare<B: SolverOps>(&self, device: &B::Device) -> Box<dyn FnMut()> {
        let problem = problem::<B>(self.shape, device);
        let config = SolverConfig {
            method: Method::Magnitude,
            polish: 0,
            ..SolverConfig::best(None)
        };
        let start = solver::solve(&problem, PATTERN, &config).unwrap();
        Box::new(move || {
            let start: Solution = start.clone();
            divan::black_box(polish::polish(&problem, start, Self::iterations()).unwrap());
        })
    }
}

pub(crate) struct SplittingSteps {
    pub(crate) shape: Shape,
}

impl Work for SplittingSteps {
    fn shape(&self) -> String {
        format!("{}, {} of them", self.shape, AT_ONCE)
    }

    fn product(&self) -> [usize; 3] {
        of_operator(self.shape)
    }

    fn operations(&self) -> f64 {
        AT_ONCE as f64 * one_product(self.shape)
    }

    fn prepare<B: SolverOps>(&self, device: &B::Device) -> Box<dyn FnMut()> {
        let problem = problem::<B>(self.shape, device);
        let step = SplittingStep {
            selection: Selection::AllBut(self.shape.outputs * self.shape.inputs / 2),
            rho: 0.3,
            dual_factor: 0.9,
        };
        // Any matrix of that shape does for the inverse; a small one keeps the numbers finite.
        let inverse = problem.gram.clone().mul_scalar(1e-3);
        let weight = problem.weight;
        let mut state: Option<(Tensor<B, 2>, Tensor<B, 2>)> = Some((weight.clone(), weight.clone()));
        Box::new(move || {
            for _ in 0..AT_ONCE {
                state = state.take().map(|(right, shifted)| {
                    let moved = B::matmul_fast(right, inverse.clone());
                    B::splitting_step(moved, weight.clone(), shifted, None, step)
                });
            }
        })
    }
}

#[derive(Clone, Copy)]
pub(crate) enum Preset {
    Fast,
    Best,
    SparseGpt,
}

impl Preset {
    pub(crate) fn config(self) -> SolverConfig {
        match self {
            Self::Fast => SolverConfig::fast(None),
            Self::Best => SolverConfig::best(None),
            Self::SparseGpt => SolverConfig {
                method: Method::SparseGpt,
                polish: 0,
                ..SolverConfig::fast(None)
            },
        }
    }
}

/// Operations of ℓ0 splitting and its polish: a product a step, the polish's gradient, and `n³` for each inverse.
pub(crate) fn solve(config: &SolverConfig, outputs: usize, inputs: usize) -> f64 {
    let products = config.l0.steps + config.polish + usize::from(config.polish > 0);
    let inverses = 1 + (config.l0.steps - 1) / config.l0.refresh;
    products as f64 * product(outputs, inputs, inputs) + inverses as f64 * (inputs as f64).powi(3)
}

pub(crate) struct Operator {
    pub(crate) shape: Shape,
    pub(crate) preset: Preset,
}

impl Work for Operator {
    fn shape(&self) -> String {
        self.shape.to_string()
    }

    fn product(&self) -> [usize; 3] {
        of_operator(self.shape)
    }

    fn operations(&self) -> f64 {
        let (outputs, inputs) = (self.shape.outputs, self.shape.inputs);
        match self.preset {
            // An inverse, its factor, and each column's error taken to the columns behind it.
            Preset::SparseGpt => 4.0 / 3.0 * (inputs as f64).powi(3) + one_product(self.shape) / 2.0,
            preset => solve(&preset.config(), outputs, inputs),
        }
    }

    fn prepare<B: SolverOps>(&self, device: &B::Device) -> Box<dyn FnMut()> {
        let (problem, config) = (problem::<B>(self.shape, device), self.preset.config());
        let pattern = Pattern::unstructured(0.5).unwrap();
        Box::new(move || {
            divan::black_box(solver::solve(&problem, pattern, &config).unwrap());
        })
    }
}
