//! A module of one's own, pruned in memory: against the solver on the same statistics, and what is left alone.

use crate::common::Device;
use burn::backend::Autodiff;
use burn::module::{AutodiffModule, Module, ModuleVisitor, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::transformer::{TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput};
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig, LinearLayout};
use burn::tensor::activation::relu;
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Distribution, Tensor};
use fista_pruner::config::{Method, Pattern, SolverConfig};
use fista_pruner::error::{ConfigError, Error, PatternError, SolverError};
use fista_pruner::module::{
    ApplyLinear, Correction, Direct, ModuleConfig, ModuleError, PathFilter, Recorder, Watch, prune,
    prune_in_training, watched,
};
use fista_pruner::prune::Accumulator;
use fista_pruner::solver;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Convolution, two residual blocks and a head.
#[derive(Module, Debug)]
pub(crate) struct Net<B: Backend> {
    conv: Conv2d<B>,
    norm: LayerNorm<B>,
    pub(crate) blocks: Vec<Block<B>>,
    pub(crate) head: Option<Linear<B>>,
    scale: Param<Tensor<B, 1>>,
}

#[derive(Module, Debug)]
pub(crate) struct Block<B: Backend> {
    pub(crate) up: Linear<B>,
    pub(crate) down: Linear<B>,
}

impl<B: Backend> Net<B> {
    /// With a weight of each layout that burn has.
    pub(crate) fn new(device: &B::Device) -> Self {
        Self::with_layouts([LinearLayout::Row, LinearLayout::Col], device)
    }

    /// To be trained: burn 0.21 finds no gradient of a weight that it has drawn in columns.
    pub(crate) fn trainable(device: &B::Device) -> Self {
        Self::with_layouts([LinearLayout::Row, LinearLayout::Row], device)
    }

    fn with_layouts(layouts: [LinearLayout; 2], device: &B::Device) -> Self {
        let block = |layout| Block {
            up: LinearConfig::new(32, 40).with_layout(layout).init(device),
            down: LinearConfig::new(40, 32).with_bias(false).init(device),
        };
        let net = Self {
            conv: Conv2dConfig::new([1, 2], [3, 3]).init(device),
            norm: LayerNormConfig::new(32).init(device),
            blocks: layouts.map(block).to_vec(),
            head: Some(LinearConfig::new(32, 6).init(device)),
            scale: Param::from_tensor(Tensor::full([6], 1.5, device)),
        };
        // burn draws a weight when it is first looked at; copies made before that would draw their own.
        parameters(&net);
        net
    }

    /// `[batch, 1, 6, 6]` to `[batch, 6]`.
    pub(crate) fn forward(&self, x: Tensor<B, 4>, by: &mut impl ApplyLinear<B>) -> Tensor<B, 2> {
        let x = self.conv.forward(x).flatten::<2>(1, 3);
        let mut x = self.norm.forward(x);
        for block in &self.blocks {
            x = x.clone() + block.forward(x, by);
        }
        let head = self.head.as_ref().unwrap();
        by.apply(head, x) * self.scale.val().unsqueeze::<2>()
    }
}

impl<B: Backend> Block<B> {
    /// `[batch, 32]` to the same shape; the layers see it as `[batch / 4, 4, 32]`.
    fn forward(&self, x: Tensor<B, 2>, by: &mut impl ApplyLinear<B>) -> Tensor<B, 2> {
        let [batch, width] = x.dims();
        let x = relu(by.apply(&self.up, x.reshape([batch / 4, 4, width])));
        by.apply(&self.down, x).reshape([batch, width])
    }
}

pub(crate) const LAYERS: [&str; 5] = [
    "blocks.0.up",
    "blocks.0.down",
    "blocks.1.up",
    "blocks.1.down",
    "head",
];

pub(crate) fn batches<B: Backend>(device: &B::Device) -> Vec<Tensor<B, 4>> {
    let draw = |batch| Tensor::random([batch, 1, 6, 6], Distribution::Normal(0.3, 1.0), device);
    vec![draw(64), draw(96), draw(32)]
}

/// Every parameter's bytes, by path.
pub(crate) fn parameters<B: Backend, M: Module<B>>(module: &M) -> BTreeMap<String, Vec<u8>> {
    #[derive(Default)]
    struct Collect(Vec<String>, BTreeMap<String, Vec<u8>>);
    impl<B: Backend> ModuleVisitor<B> for Collect {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.0.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            let bytes = param.val().into_data().as_bytes().to_vec();
            self.1.insert(self.0.join("."), bytes);
        }
    }
    let mut collect = Collect::default();
    module.visit(&mut collect);
    collect.1
}

/// The weight `[out, in]` of a layer, row-major.
pub(crate) fn weight<B: Backend>(linear: &Linear<B>) -> Vec<f32> {
    let weight = linear.weight.val().transpose().into_data();
    weight.iter::<f32>().collect()
}

fn layer<'a, B: Backend>(net: &'a Net<B>, path: &str) -> &'a Linear<B> {
    match path {
        "blocks.0.up" => &net.blocks[0].up,
        "blocks.0.down" => &net.blocks[0].down,
        "blocks.1.up" => &net.blocks[1].up,
        "blocks.1.down" => &net.blocks[1].down,
        "head" => net.head.as_ref().unwrap(),
        other => panic!("{other}"),
    }
}

/// Notes the input of one layer, in this test's own way.
struct Tap<B: Backend> {
    wanted: burn::module::ParamId,
    seen: Vec<Tensor<B, 2>>,
}

impl<B: Backend> ApplyLinear<B> for Tap<B> {
    fn apply<const D: usize>(&mut self, layer: &Linear<B>, input: Tensor<B, D>) -> Tensor<B, D> {
        if layer.weight.id == self.wanted {
            let dims = input.dims();
            let rows = dims[..D - 1].iter().product::<usize>();
            self.seen.push(input.clone().reshape([rows, dims[D - 1]]));
        }
        layer.forward(input)
    }
}

fn inputs(net: &Net<Device>, batch: &Tensor<Device, 4>, path: &str) -> Tensor<Device, 2> {
    let mut tap = Tap {
        wanted: layer(net, path).weight.id,
        seen: Vec::new(),
    };
    net.forward(batch.clone(), &mut tap);
    assert_eq!(tap.seen.len(), 1);
    tap.seen.remove(0)
}

fn config(pattern: Pattern, correction: Correction) -> ModuleConfig {
    ModuleConfig {
        solver: SolverConfig::fast(None),
        correction,
        ..ModuleConfig::new(pattern)
    }
}

fn run(
    net: Net<Device>,
    batches: &[Tensor<Device, 4>],
    config: &ModuleConfig,
) -> (Net<Device>, fista_pruner::module::ModuleReport) {
    prune(net, batches, config, |net, batch, recorder| {
        net.forward(batch.clone(), recorder)
    })
    .unwrap()
}

/// Statistics gathered by hand, the solver called by hand: the same weights and the same errors to the last digit.
#[test]
fn layers_are_what_the_solver_makes_of_their_inputs() {
    let device = Default::default();
    let dense = Net::<Device>::new(&device);
    let batches = batches::<Device>(&device);
    for pattern in [Pattern::Unstructured(0.6), Pattern::NOfM { n: 2, m: 4 }] {
        for correction in [Correction::None, Correction::OwnTarget, Correction::DenseTarget] {
            let config = config(pattern, correction);
            let (pruned, report) = run(dense.clone(), &batches, &config);
            assert_eq!(report.layers.len(), LAYERS.len());
            for (k, path) in LAYERS.iter().enumerate() {
                // The module when it was this layer's turn.
                let mut so_far = dense.clone();
                if correction != Correction::None {
                    for done in &LAYERS[..k] {
                        let weight = layer(&pruned, done).weight.clone();
                        match *done {
                            "blocks.0.up" => so_far.blocks[0].up.weight = weight,
                            "blocks.0.down" => so_far.blocks[0].down.weight = weight,
                            "blocks.1.up" => so_far.blocks[1].up.weight = weight,
                            "blocks.1.down" => so_far.blocks[1].down.weight = weight,
                            other => panic!("{other}"),
                        }
                    }
                }
                let mut accumulator = Accumulator::<Device>::default();
                for batch in &batches {
                    let real = inputs(&so_far, batch, path);
                    if correction == Correction::DenseTarget && k > 0 {
                        accumulator.add_pair(inputs(&dense, batch, path), real);
                    } else {
                        accumulator.add(real);
                    }
                }
                let statistics = accumulator.finish(path).unwrap();
                let original = layer(&dense, path).weight.val().transpose();
                let mut problem = statistics.problem(path, original.clone());
                problem.tokens = Some(statistics.tokens);
                let solution = solver::solve(&problem, pattern, &config.solver).unwrap();
                let values = Tensor::<Device, 1>::from_floats(solution.values.as_slice(), &device);
                let error = problem.relative(problem.squared_error(values.reshape(original.dims())));

                let found = &report.layers[k];
                assert_eq!(found.path, *path);
                assert_eq!(
                    found.relative_error.to_bits(),
                    error.to_bits(),
                    "{path}, {correction:?}"
                );
                assert_eq!(found.solver, solution.info);
                assert_eq!(found.tokens, statistics.tokens);
                assert_eq!(
                    weight(layer(&pruned, path)),
                    solution.values,
                    "{path}, {correction:?}"
                );
                assert!(error > 0.0 && error < 0.5, "{path}: {error}");
            }
        }
    }
}

/// Making up for earlier layers pays on the batches it was done for: not with every net, as layers after it bend what it gains, but
/// over several.
#[test]
fn correction_lowers_the_error_of_the_output() {
    let device = Default::default();
    let batches = batches::<Device>(&device);
    let error = |dense: &Net<Device>, correction| {
        let (pruned, _) = run(
            dense.clone(),
            &batches,
            &config(Pattern::Unstructured(0.7), correction),
        );
        let errors = batches.iter().map(|batch| {
            let difference =
                pruned.forward(batch.clone(), &mut Direct) - dense.forward(batch.clone(), &mut Direct);
            f64::from(difference.square().sum().into_scalar())
        });
        errors.sum::<f64>()
    };
    const NETS: usize = 16;
    let ratio = |_| {
        let dense = Net::<Device>::new(&device);
        error(&dense, Correction::DenseTarget) / error(&dense, Correction::None)
    };
    let ratios: Vec<f64> = (0..NETS).map(ratio).collect();
    assert!(ratios.iter().sum::<f64>() < NETS as f64, "{ratios:?}");
}

#[test]
fn everything_else_stays_bit_for_bit() {
    let device = Default::default();
    let dense = Net::<Device>::new(&device);
    let before = parameters(&dense);
    let config = ModuleConfig {
        layers: PathFilter::matching(["blocks.**"]).except(["**.1.down"]),
        ..config(Pattern::Unstructured(0.5), Correction::DenseTarget)
    };
    let (pruned, report) = run(dense, &batches::<Device>(&device), &config);
    let after = parameters(&pruned);
    let changed: Vec<&str> = before
        .iter()
        .filter(|(path, bytes)| after[*path] != **bytes)
        .map(|(path, _)| path.as_str())
        .collect();
    assert_eq!(
        changed,
        ["blocks.0.down.weight", "blocks.0.up.weight", "blocks.1.up.weight"]
    );
    let left: Vec<(&str, &str, usize)> = report
        .left_alone
        .iter()
        .map(|left| (left.path.as_str(), left.kind.as_str(), left.parameters))
        .collect();
    let expected = [
        ("conv", "Conv2d", 2 * 9 + 2),
        ("norm", "LayerNorm", 64),
        ("", "Net", 6),
        ("blocks.1.down", "Linear", 40 * 32),
        ("head", "Linear", 32 * 6 + 6),
    ];
    assert_eq!(left, expected);
    let table = report.to_string();
    assert!(
        table.contains("blocks.0.up") && table.contains("Conv2d left alone, 20 parameters"),
        "{table}"
    );
}

#[test]
fn layers_may_have_patterns_of_their_own_and_come_in_groups() {
    let device = Default::default();
    let batches = batches::<Device>(&device);
    let dense = Net::<Device>::new(&device);
    let grouped = ModuleConfig {
        patterns: BTreeMap::from([("head".to_owned(), Pattern::NOfM { n: 1, m: 8 })]),
        at_once: Some(2),
        ..config(Pattern::Unstructured(0.25), Correction::OwnTarget)
    };
    let (pruned, report) = run(dense.clone(), &batches, &grouped);
    for (path, zeros) in LAYERS.iter().zip([320, 320, 320, 320, 6 * 4 * 7]) {
        let values = weight(layer(&pruned, path));
        assert_eq!(values.iter().filter(|v| **v == 0.0).count(), zeros, "{path}");
        assert_eq!(report.layer(path).unwrap().zeros, zeros);
    }
    for group in weight(layer(&pruned, "head")).chunks(8) {
        assert!(group.iter().filter(|v| **v != 0.0).count() <= 1);
    }
    // The first two layers see the dense module's inputs, whatever the correction.
    let (_, alone) = run(
        dense,
        &batches,
        &ModuleConfig {
            correction: Correction::None,
            ..grouped
        },
    );
    let errors = |report: &fista_pruner::module::ModuleReport| -> Vec<u64> {
        report
            .layers
            .iter()
            .map(|layer| layer.relative_error.to_bits())
            .collect()
    };
    assert_eq!(errors(&alone)[..2], errors(&report)[..2]);
    assert_ne!(errors(&alone)[2], errors(&report)[2]);
}

/// In the middle of a training: as on the module without gradients, and the weights can go on learning.
#[test]
fn a_module_with_gradients() {
    type Training = Autodiff<Device>;
    let device = Default::default();
    let net = Net::<Training>::trainable(&device);
    let plain = net.valid();
    let batches = batches::<Device>(&device);
    let config = config(Pattern::NOfM { n: 2, m: 4 }, Correction::DenseTarget);
    let id = net.blocks[1].up.weight.id;
    let (pruned, report) = prune_in_training(net, &batches, &config, |net, batch, recorder| {
        net.forward(batch.clone(), recorder)
    })
    .unwrap();
    let (expected, expected_report) = run(plain, &batches, &config);
    assert_eq!(parameters(&pruned), parameters(&expected));
    let errors = |report: &fista_pruner::module::ModuleReport| -> Vec<f64> {
        report.layers.iter().map(|layer| layer.relative_error).collect()
    };
    assert_eq!(errors(&report), errors(&expected_report));
    assert_eq!(pruned.blocks[1].up.weight.id, id);
    let x = Tensor::<Training, 4>::from_inner(batches[0].clone());
    let gradients = pruned.forward(x, &mut Direct).square().sum().backward();
    for path in LAYERS {
        let weight = layer(&pruned, path).weight.val();
        assert!(weight.is_require_grad(), "{path}");
        assert!(weight.grad(&gradients).is_some(), "{path}");
    }
}

/// A forward pass that knows nothing of recorders shows them the same, bit for bit, with and without gradients.
#[test]
fn watched_modules_are_pruned_alike() {
    type Training = Autodiff<Device>;
    let device = Default::default();
    let net = Net::<Training>::trainable(&device);
    let plain = net.valid();
    let batches = batches::<Device>(&device);
    let forward = || {
        watched(|net: &Net<Watch<Device>>, batch: &Tensor<Device, 4>| {
            net.forward(Tensor::from_inner(batch.clone()), &mut Direct)
        })
    };
    for correction in [Correction::None, Correction::OwnTarget, Correction::DenseTarget] {
        let config = config(Pattern::NOfM { n: 2, m: 4 }, correction);
        let (expected, expected_report) = run(plain.clone(), &batches, &config);
        let (found, report) = prune(plain.clone(), &batches, &config, forward()).unwrap();
        assert_eq!(parameters(&found), parameters(&expected));
        let (trained, training_report) =
            prune_in_training(net.clone(), &batches, &config, forward()).unwrap();
        assert_eq!(parameters(&trained), parameters(&expected));
        for report in [report, training_report] {
            for (found, expected) in report.layers.iter().zip(&expected_report.layers) {
                assert_eq!(found.path, expected.path);
                assert_eq!(found.relative_error.to_bits(), expected.relative_error.to_bits());
                assert_eq!(found.tokens, expected.tokens);
            }
            assert_eq!(report.left_alone, expected_report.left_alone);
        }
    }
    let watched_output = net
        .valid()
        .train::<Watch<Device>>()
        .forward(Tensor::from_inner(batches[0].clone()), &mut Direct);
    let output = plain.forward(batches[0].clone(), &mut Direct);
    assert_eq!(watched_output.inner().into_data(), output.into_data());
}

/// burn's own transformer, whose inner layers no caller sees.
#[test]
fn modules_of_other_crates() {
    let device = Default::default();
    let encoder: TransformerEncoder<Device> = TransformerEncoderConfig::new(16, 48, 4, 2).init(&device);
    parameters(&encoder);
    let batches: Vec<Tensor<Device, 3>> = (0..3)
        .map(|_| Tensor::random([4, 10, 16], Distribution::Default, &device))
        .collect();
    let config = config(Pattern::NOfM { n: 2, m: 4 }, Correction::DenseTarget);
    let forward = watched(
        |encoder: &TransformerEncoder<Watch<Device>>, batch: &Tensor<Device, 3>| {
            encoder.forward(TransformerEncoderInput::new(Tensor::from_inner(batch.clone())))
        },
    );
    let (pruned, report) = prune(encoder.clone(), &batches, &config, forward).unwrap();
    assert_eq!(report.layers.len(), 12);
    assert_eq!(report.sparsity(), 0.5);
    assert!(
        report
            .layers
            .iter()
            .all(|layer| layer.tokens == 120 && layer.relative_error < 0.5)
    );
    let output = |encoder: &TransformerEncoder<Device>| {
        let input = TransformerEncoderInput::new(batches[0].clone());
        encoder.forward(input)
    };
    let (dense, sparse) = (output(&encoder), output(&pruned));
    let relative = (sparse - dense.clone()).square().sum().into_scalar() / dense.square().sum().into_scalar();
    assert!(relative > 0.0 && relative < 0.5, "{relative}");
}

/// A layer whose weight is changed before it is used is not taken for one that was seen.
#[test]
fn watched_weights_must_be_used_as_they_are() {
    let device = Default::default();
    let linear: Linear<Device> = LinearConfig::new(8, 8).init(&device);
    let batches = [Tensor::<Device, 2>::random(
        [32, 8],
        Distribution::Default,
        &device,
    )];
    let half = config(Pattern::Unstructured(0.5), Correction::None);
    let by_hand = watched(|linear: &Linear<Watch<Device>>, x: &Tensor<Device, 2>| {
        Tensor::from_inner(x.clone()).matmul(linear.weight.val())
    });
    let (_, report) = prune(linear.clone(), &batches, &half, by_hand).unwrap();
    assert_eq!(report.layers[0].tokens, 32);
    let changed = watched(|linear: &Linear<Watch<Device>>, x: &Tensor<Device, 2>| {
        Tensor::from_inner(x.clone()).matmul(linear.weight.val() * 2.0)
    });
    let error = module_error(prune(linear, &batches, &half, changed));
    assert!(matches!(error, ModuleError::NeverSeen { .. }));
}

/// A frozen layer stays frozen.
#[test]
fn weights_without_gradients_get_none() {
    type Training = Autodiff<Device>;
    let device = Default::default();
    let mut net = Net::<Training>::new(&device);
    net.head = net.head.map(Module::no_grad);
    let batches = batches::<Device>(&device);
    let config = config(Pattern::Unstructured(0.5), Correction::None);
    let forward = |net: &Net<Device>, batch: &Tensor<Device, 4>, recorder: &mut Recorder<Device>| {
        net.forward(batch.clone(), recorder)
    };
    let (pruned, _) = prune_in_training(net, &batches, &config, forward).unwrap();
    assert!(!layer(&pruned, "head").weight.val().is_require_grad());
    assert!(layer(&pruned, "blocks.0.up").weight.val().is_require_grad());
}

/// Weights in half precision stay so, and the error is that of the rounded weight.
#[test]
fn half_precision_weights() {
    let device = Default::default();
    let mut linear: Linear<Device> = LinearConfig::new(16, 8).init(&device);
    linear.weight = linear.weight.map(|w| w.cast(DType::BF16));
    linear.bias = linear.bias.map(|bias| bias.map(|b| b.cast(DType::BF16)));
    let x = Tensor::<Device, 2>::random([64, 16], Distribution::Default, &device).cast(DType::BF16);
    let config = config(Pattern::NOfM { n: 2, m: 4 }, Correction::None);
    let dense = linear.weight.val();
    let (pruned, report) = prune(
        linear,
        std::slice::from_ref(&x),
        &config,
        |linear, x, recorder| recorder.apply(linear, x.clone()),
    )
    .unwrap();
    let after = pruned.weight.val();
    assert_eq!(after.dtype(), DType::BF16);
    let mut accumulator = Accumulator::<Device>::default();
    accumulator.add(x.cast(DType::F32));
    let full = |weight: Tensor<Device, 2>| weight.transpose().cast(DType::F32);
    let problem = accumulator
        .finish("linear")
        .unwrap()
        .problem("linear", full(dense));
    let error = problem.relative(problem.squared_error(full(after)));
    assert_eq!(report.layers[0].relative_error.to_bits(), error.to_bits());
    assert_eq!(report.layers[0].path, "");
}

/// A layer that is applied several times is one problem over all its inputs.
#[test]
fn a_layer_applied_twice_sees_both_inputs() {
    let device = Default::default();
    let linear: Linear<Device> = LinearConfig::new(12, 12).init(&device);
    parameters(&linear);
    let draw = |rows| Tensor::<Device, 2>::random([rows, 12], Distribution::Default, &device);
    let (a, b) = (draw(40), draw(24));
    let config = config(Pattern::Unstructured(0.5), Correction::None);
    let apart = prune(
        linear.clone(),
        &[(a.clone(), b.clone())],
        &config,
        |linear, (a, b), recorder| {
            recorder.apply(linear, a.clone());
            recorder.apply(linear, b.clone())
        },
    );
    let together = prune(
        linear,
        &[Tensor::cat(vec![a, b], 0)],
        &config,
        |linear, x, recorder| recorder.apply(linear, x.clone()),
    );
    let ((apart, apart_report), (together, together_report)) = (apart.unwrap(), together.unwrap());
    assert_eq!(apart_report.layers[0].tokens, 64);
    let (apart_error, error) = (
        apart_report.layers[0].relative_error,
        together_report.layers[0].relative_error,
    );
    assert!((apart_error / error - 1.0).abs() < 1e-3, "{apart_error} {error}");
    let zeros = |linear: &Linear<Device>| -> Vec<bool> { weight(linear).iter().map(|v| *v == 0.0).collect() };
    let same = zeros(&apart)
        .iter()
        .zip(zeros(&together))
        .filter(|(a, b)| **a == *b)
        .count();
    assert!(same >= 140, "{same} of 144");
}

#[track_caller]
fn module_error<T>(result: fista_pruner::error::Result<T>) -> ModuleError {
    match result {
        Err(Error::Module(error)) => {
            assert!(!error.to_string().is_empty());
            error
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("no error"),
    }
}

#[test]
fn misuse_is_an_error() {
    let device = Default::default();
    let net = Net::<Device>::new(&device);
    let batches = batches::<Device>(&device);
    let half = config(Pattern::Unstructured(0.5), Correction::DenseTarget);
    let with = |config: &ModuleConfig| {
        prune(net.clone(), &batches, config, |net, batch, recorder| {
            net.forward(batch.clone(), recorder)
        })
    };

    let layers = PathFilter::matching(["block.*.up"]);
    let error = module_error(with(&ModuleConfig {
        layers,
        ..half.clone()
    }));
    assert!(
        matches!(&error, ModuleError::NothingMatches { what, linears } if what == "`block.*.up`" && linears.len() == 5)
    );
    assert!(error.to_string().contains("`blocks.1.down`"));

    let patterns = BTreeMap::from([("blocks.2.up".to_owned(), Pattern::Unstructured(0.1))]);
    let error = module_error(with(&ModuleConfig {
        patterns,
        ..half.clone()
    }));
    assert!(matches!(error, ModuleError::NoSuchLayer { path, .. } if path == "blocks.2.up"));

    let error = with(&config(Pattern::NOfM { n: 4, m: 7 }, Correction::None)).unwrap_err();
    assert!(
        matches!(error, Error::Pattern(PatternError::DoesNotFit { operator, inputs: 32, .. }) if operator == "blocks.0.up")
    );

    let error = with(&ModuleConfig {
        at_once: Some(0),
        ..half.clone()
    })
    .unwrap_err();
    assert!(matches!(
        error,
        Error::Config(ConfigError::Setting {
            setting: "at_once",
            ..
        })
    ));

    let none: [Tensor<Device, 4>; 0] = [];
    let result = prune(net.clone(), &none, &half, |net, batch, recorder| {
        net.forward(batch.clone(), recorder)
    });
    assert!(matches!(module_error(result), ModuleError::NoBatches));

    let result = prune(
        net.clone(),
        &batches,
        &half,
        |net, batch, recorder: &mut Recorder<Device>| {
            let x = net.forward(batch.clone(), &mut Direct);
            recorder.observe(&net.blocks[0].up, Tensor::<Device, 2>::ones([3, 32], &x.device()));
        },
    );
    assert!(matches!(module_error(result), ModuleError::NeverSeen { path } if path == "blocks.0.down"));

    // Dead activations are no error of the caller, but activations that are not numbers are.
    let mut broken = net.clone();
    broken.scale = broken.scale.map(|scale| scale * f32::NAN);
    broken.norm.gamma = broken.norm.gamma.map(|gamma| gamma * f32::INFINITY);
    let result = prune(broken, &batches, &half, |net, batch, recorder| {
        net.forward(batch.clone(), recorder)
    });
    assert!(
        matches!(result, Err(Error::Solver(SolverError::NotFinite { operator, .. })) if operator == "blocks.0.up")
    );
}

#[test]
fn inputs_of_the_wrong_width_are_errors() {
    let device = Default::default();
    let half = config(Pattern::Unstructured(0.5), Correction::None);
    let linear: Linear<Device> = LinearConfig::new(12, 5).init(&device);
    let narrow = Tensor::<Device, 3>::ones([2, 3, 11], &device);
    let wrong = |result| {
        let error = module_error(result);
        assert!(
            matches!(
                error,
                ModuleError::InputWidth {
                    expected: 12,
                    found: 11,
                    ..
                }
            ),
            "{error}"
        );
    };
    wrong(prune(
        linear.clone(),
        std::slice::from_ref(&narrow),
        &half,
        |linear, x, recorder| {
            assert_eq!(recorder.apply(linear, x.clone()).dims(), [2, 3, 5]);
        },
    ));
    wrong(prune(linear.clone(), &[narrow], &half, |linear, x, recorder| {
        recorder.observe(linear, x.clone());
    }));
}

/// Copies of one layer cannot be told apart; layers that see other tokens once something is pruned have no pairs.
#[test]
fn ambiguous_modules_are_errors() {
    let device = Default::default();
    let mut net = Net::<Device>::new(&device);
    parameters(&net);
    net.blocks[1] = net.blocks[0].clone();
    let half = config(Pattern::Unstructured(0.5), Correction::DenseTarget);
    let batches = batches::<Device>(&device);
    let result = prune(net, &batches, &half, |net, batch, recorder| {
        net.forward(batch.clone(), recorder)
    });
    assert!(matches!(
        module_error(result),
        ModuleError::SharedId { first, second } if first == "blocks.0.up" && second == "blocks.1.up"
    ));

    let net = Net::<Device>::new(&device);
    let dense = weight(&net.blocks[0].up);
    let result = prune(net, &batches, &half, |net, batch, recorder| {
        let rows = if weight(&net.blocks[0].up) == dense {
            32
        } else {
            28
        };
        net.forward(batch.clone().slice_dim(0, 0..rows), recorder)
    });
    assert!(matches!(
        module_error(result),
        ModuleError::OtherTokens { path, .. } if path == "blocks.0.down"
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Exact numbers of zeros, n of m, for every method, whatever the shape.
    #[test]
    fn patterns_are_exact(
        outputs in 1usize..24,
        groups in 1usize..8,
        m in 2usize..6,
        n_seed in 0usize..100,
        rate in 0.0f64..0.95,
        method in 0usize..5,
    ) {
        let device = Default::default();
        let inputs = groups * m;
        let linear: Linear<Device> = LinearConfig::new(inputs, outputs).init(&device);
        let x = Tensor::<Device, 2>::random([3 * inputs, inputs], Distribution::Default, &device);
        let nm = Pattern::NOfM { n: 1 + n_seed % (m - 1), m };
        for pattern in [nm, Pattern::Unstructured(rate)] {
            let config = ModuleConfig {
                solver: SolverConfig { method: Method::ALL[method].1, ..SolverConfig::fast(None) },
                ..ModuleConfig::new(pattern)
            };
            let batches = [x.clone()];
            let (pruned, report) = prune(linear.clone(), &batches, &config, |linear, x, recorder| {
                recorder.apply(linear, x.clone())
            }).unwrap();
            let values = weight(&pruned);
            prop_assert!(pattern.check("linear", &values, outputs, inputs).is_ok());
            let zeros = values.iter().filter(|v| **v == 0.0).count();
            prop_assert_eq!(report.layers[0].zeros, zeros);
            prop_assert_eq!(zeros, pattern.zeros(outputs, inputs));
            prop_assert!(report.layers[0].relative_error.is_finite());
        }
    }
}
