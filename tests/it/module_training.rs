//! Masks that stay while a module is trained on, and pruning during training.

use crate::common::Device;
use crate::module::{LAYERS, Net, batches, parameters, weight};
use burn::backend::Autodiff;
use burn::module::{AutodiffModule, Module, ParamId};
use burn::nn::{Linear, LinearConfig};
use burn::optim::adaptor::OptimizerAdaptor;
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::record::AdaptorRecord;
use burn::optim::{
    Adam, AdamConfig, AdamW, AdamWConfig, Adan, AdanConfig, GradientsParams, MultiGradientsParams, Optimizer,
    Sgd, SgdConfig,
};
use burn::record::{BinBytesRecorder, FullPrecisionSettings, Record, Recorder};
use burn::tensor::{Distribution, Tensor};
use fista_pruner::config::Pattern;
use fista_pruner::error::{ArtifactError, Error, PatternError};
use fista_pruner::module::{
    Direct, Gradual, MaskedOptimizer, ModuleConfig, ModuleError, Moments, PathFilter, SparsityMask,
    prune_in_training,
};

type Training = Autodiff<Device>;

/// Target: another random network of the same kind.
struct Task {
    batches: Vec<Tensor<Training, 4>>,
    targets: Vec<Tensor<Training, 2>>,
}

impl Task {
    fn new() -> Self {
        let device = Default::default();
        let teacher = Net::<Device>::new(&device);
        let batches = batches::<Device>(&device);
        let target = |x: &Tensor<Device, 4>| Tensor::from_inner(teacher.forward(x.clone(), &mut Direct));
        Self {
            targets: batches.iter().map(target).collect(),
            batches: batches.into_iter().map(Tensor::from_inner).collect(),
        }
    }

    fn gradients(&self, net: &Net<Training>, step: usize) -> GradientsParams {
        let k = step % self.batches.len();
        let output = net.forward(self.batches[k].clone(), &mut Direct);
        let loss = (output - self.targets[k].clone()).square().mean();
        GradientsParams::from_grads(loss.backward(), net)
    }

    fn train(
        &self,
        mut net: Net<Training>,
        optimizer: &mut impl Optimizer<Net<Training>, Training>,
        steps: usize,
    ) -> Net<Training> {
        for step in 0..steps {
            let gradients = self.gradients(&net, step);
            net = optimizer.step(1e-2, net, gradients);
        }
        net
    }
}

fn linears(net: &Net<Training>) -> [&Linear<Training>; 5] {
    let [first, second] = [&net.blocks[0], &net.blocks[1]];
    [
        &first.up,
        &first.down,
        &second.up,
        &second.down,
        net.head.as_ref().unwrap(),
    ]
}

/// All tensors that an optimizer's state holds for a weight, `[in, out]`, row-major.
trait States: Moments<Device> {
    fn tensors(state: Self::State<2>) -> Vec<Vec<f32>>;
}

fn host(tensor: Tensor<Device, 2>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

impl States for Adam {
    fn tensors(state: Self::State<2>) -> Vec<Vec<f32>> {
        let momentum = state.momentum;
        vec![
            host(momentum.moment_1),
            host(momentum.moment_2),
            host(momentum.max_moment_2.unwrap()),
        ]
    }
}

impl States for AdamW {
    fn tensors(state: Self::State<2>) -> Vec<Vec<f32>> {
        vec![host(state.momentum.moment_1), host(state.momentum.moment_2)]
    }
}

impl States for Adan {
    fn tensors(state: Self::State<2>) -> Vec<Vec<f32>> {
        let m = state.momentum;
        vec![
            host(m.exp_avg),
            host(m.exp_avg_sq),
            host(m.exp_avg_diff),
            host(m.neg_pre_grad),
        ]
    }
}

impl States for Sgd<Device> {
    fn tensors(state: Self::State<2>) -> Vec<Vec<f32>> {
        let item = state.momentum.unwrap().into_item::<FullPrecisionSettings>();
        vec![host(Tensor::from_item::<FullPrecisionSettings>(
            item.velocity,
            &Default::default(),
        ))]
    }
}

/// Dense steps fill the moments; then a mask, and many steps. At every step: exact zeros in weights and moments, and
/// everything that is kept moves.
fn zeros_stay<O: States>(optimizer: OptimizerAdaptor<O, Net<Training>, Training>) {
    let device = Default::default();
    let task = Task::new();
    let mut optimizer = MaskedOptimizer::new(optimizer);
    let mut net = task.train(Net::<Training>::trainable(&device), &mut optimizer, 6);
    assert!(SparsityMask::of(&net, &PathFilter::all()).unwrap().is_empty());

    let config = ModuleConfig::new(Pattern::NOfM { n: 2, m: 4 });
    let inner: Vec<Tensor<Device, 4>> = task.batches.iter().map(|batch| batch.clone().inner()).collect();
    net = prune_in_training(net, &inner, &config, |net, batch, recorder| {
        net.forward(batch.clone(), recorder)
    })
    .unwrap()
    .0;
    let mask = SparsityMask::of(&net, &PathFilter::all()).unwrap();
    assert_eq!(mask.sparsity(), 0.5);
    optimizer.set_mask(&net, mask.clone()).unwrap();
    let before: Vec<Vec<f32>> = linears(&net).map(weight).to_vec();
    for step in 0..60 {
        let gradients = task.gradients(&net, step);
        net = optimizer.step(1e-2, net, gradients);
        let (mut record, steps, _) = optimizer.to_record();
        assert_eq!(steps, 6 + step + 1);
        for (path, linear) in LAYERS.iter().zip(linears(&net)) {
            let [inputs, outputs] = linear.weight.dims();
            let keep = mask.keeps(path).unwrap();
            let values = weight(linear);
            assert!(
                values
                    .iter()
                    .zip(&keep)
                    .all(|(v, keep)| *keep || v.to_bits() == 0),
                "{path}, step {step}"
            );
            let state = record.remove(&linear.weight.id).unwrap();
            for moment in O::tensors(state.into_state::<2>()) {
                let removed = (0..outputs).flat_map(|o| (0..inputs).map(move |i| (o, i)));
                let removed = removed.zip(&keep).filter(|(_, keep)| !**keep);
                for ((o, i), _) in removed {
                    assert_eq!(moment[i * outputs + o], 0.0, "{path}, step {step}");
                }
                assert!(moment.iter().any(|v| *v != 0.0));
            }
        }
    }
    for (path, (linear, before)) in LAYERS.iter().zip(linears(&net).into_iter().zip(before)) {
        let after = weight(linear);
        let moved = after.iter().zip(&before).filter(|(a, b)| a != b).count();
        assert!(moved * 10 > after.len() * 4, "{path}: {moved} of {}", after.len());
        assert!(after.iter().all(|v| v.is_finite()));
    }
    assert_eq!(SparsityMask::of(&net, &PathFilter::all()).unwrap(), mask);
}

#[test]
fn zeros_stay_with_adam() {
    let decay = Some(WeightDecayConfig::new(0.05));
    zeros_stay(
        AdamConfig::new()
            .with_amsgrad(true)
            .with_weight_decay(decay)
            .init(),
    );
}

#[test]
fn zeros_stay_with_adamw() {
    zeros_stay(AdamWConfig::new().with_weight_decay(0.1).init());
}

#[test]
fn zeros_stay_with_adan() {
    zeros_stay(AdanConfig::new().with_weight_decay(0.1).init());
}

#[test]
fn zeros_stay_with_sgd() {
    let momentum = MomentumConfig::new()
        .with_momentum(0.9)
        .with_dampening(0.0)
        .with_nesterov(true);
    let config = SgdConfig::new()
        .with_momentum(Some(momentum))
        .with_weight_decay(Some(WeightDecayConfig::new(0.05)));
    zeros_stay(config.init());
}

/// Without this project's optimizer the zeros would go: the test above can fail.
#[test]
fn momentum_alone_moves_removed_weights() {
    let device = Default::default();
    let task = Task::new();
    let mut optimizer = AdamWConfig::new().init();
    let net = task.train(Net::<Training>::trainable(&device), &mut optimizer, 6);
    let everywhere = PathFilter::all();
    let mut masked = MaskedOptimizer::new(AdamWConfig::new().init());
    masked = masked
        .with_schedule(
            &net,
            &everywhere,
            Gradual::new(Pattern::Unstructured(0.5), 1, 1, 1).unwrap(),
        )
        .unwrap();
    let net = task.train(net, &mut masked, 2);
    let mask = masked.mask().clone();
    assert_eq!(mask.sparsity(), 0.5);
    let zeros = |net: &Net<Training>| -> usize {
        let zeros = |linear| weight(linear).iter().filter(|v| **v == 0.0).count();
        linears(net).into_iter().map(zeros).sum()
    };
    let before = zeros(&net);
    let net = task.train(net, &mut optimizer, 1);
    assert!(zeros(&net) * 4 < before, "{} of {before}", zeros(&net));
}

/// Without a mask it is the optimizer inside, bit for bit.
#[test]
fn without_a_mask_nothing_changes() {
    let device = Default::default();
    let task = Task::new();
    let net = Net::<Training>::trainable(&device);
    let expected = task.train(net.clone(), &mut AdamWConfig::new().init(), 5);
    let mut optimizer = MaskedOptimizer::new(AdamWConfig::new().init());
    let found = task.train(net.clone(), &mut optimizer, 5);
    assert_eq!(parameters(&found), parameters(&expected));
    // Gradients from several devices go the same way.
    let mut optimizer = MaskedOptimizer::new(AdamWConfig::new().init());
    let mut found = net;
    for step in 0..5 {
        let gradients = task.gradients(&found, step);
        let device = burn::tensor::backend::DeviceOps::id(&device);
        found = optimizer.step_multi(
            1e-2,
            found,
            MultiGradientsParams {
                grads: vec![(gradients, device)],
            },
        );
    }
    assert_eq!(parameters(&found), parameters(&expected));
}

/// Every step has exactly the zeros that the schedule says, and none comes back.
#[test]
fn schedules_are_followed_exactly() {
    let device = Default::default();
    let task = Task::new();
    for target in [Pattern::Unstructured(0.8), Pattern::NOfM { n: 1, m: 4 }] {
        let schedule = Gradual::new(target, 3, 2, 5).unwrap();
        let mut net = Net::<Training>::trainable(&device);
        let layers = PathFilter::matching(["blocks.**"]);
        let mut optimizer = MaskedOptimizer::new(AdamWConfig::new().with_weight_decay(0.01).init())
            .with_schedule(&net, &layers, schedule)
            .unwrap();
        let mut before: Vec<Vec<bool>> = vec![vec![true; 32 * 40]; 4];
        for step in 1..=16 {
            let gradients = task.gradients(&net, step);
            net = optimizer.step(1e-2, net, gradients);
            for (k, linear) in linears(&net)[..4].iter().enumerate() {
                let values = weight(linear);
                let [inputs, outputs] = linear.weight.dims();
                let zeros = values.iter().filter(|v| **v == 0.0).count();
                let expected = schedule
                    .pattern(step)
                    .map_or(0, |pattern| pattern.zeros(outputs, inputs));
                assert_eq!(zeros, expected, "{} at step {step}", LAYERS[k]);
                if let Some(pattern) = schedule.pattern(step) {
                    pattern.check(LAYERS[k], &values, outputs, inputs).unwrap();
                }
                let keep: Vec<bool> = values.iter().map(|v| *v != 0.0).collect();
                assert!(keep.iter().zip(&before[k]).all(|(now, then)| *then || !now));
                before[k] = keep;
            }
            assert!(weight(linears(&net)[4]).iter().all(|v| *v != 0.0));
        }
        assert_eq!(optimizer.mask().sparsity(), target.rate());
        assert!(!optimizer.mask().has("head") && optimizer.mask().has("blocks.1.down"));
    }
}

/// Interrupted in the middle of a schedule, stored, loaded and continued: the same as in one go, bit for bit.
#[test]
fn a_stored_optimizer_goes_on_where_it_stopped() {
    let device = Default::default();
    let task = Task::new();
    let net = Net::<Training>::trainable(&device);
    let schedule = Gradual::new(Pattern::Unstructured(0.7), 2, 2, 4).unwrap();
    let start = |net: &Net<Training>| {
        MaskedOptimizer::new(AdamWConfig::new().init())
            .with_schedule(net, &PathFilter::all(), schedule)
            .unwrap()
    };
    let mut whole = start(&net);
    let expected = task.train(task.train(net.clone(), &mut whole, 6), &mut whole, 9);

    let mut first = start(&net);
    let half = task.train(net, &mut first, 6);
    let recorder = BinBytesRecorder::<FullPrecisionSettings>::default();
    let optimizer = Recorder::<Training>::record(&recorder, first.to_record(), ()).unwrap();
    let module = Recorder::<Training>::record(&recorder, half.into_record(), ()).unwrap();

    let fresh = Net::<Training>::trainable(&device);
    let mut second =
        start(&fresh).load_record(Recorder::<Training>::load(&recorder, optimizer, &device).unwrap());
    let resumed = fresh.load_record(Recorder::<Training>::load(&recorder, module, &device).unwrap());
    assert_eq!(second.steps(), 6);
    let found = task.train(resumed, &mut second, 9);
    assert_eq!(parameters(&found), parameters(&expected));
    assert_eq!(second.mask(), whole.mask());
    assert_eq!(
        second.mask().sparsity(),
        SparsityMask::of(&expected, &PathFilter::all())
            .unwrap()
            .sparsity()
    );
}

#[test]
fn masks_are_stored_and_put_on_other_modules() {
    let device = Default::default();
    let task = Task::new();
    let net = Net::<Training>::trainable(&device);
    let mut optimizer = MaskedOptimizer::new(SgdConfig::new().init())
        .with_schedule(
            &net,
            &PathFilter::all(),
            Gradual::new(Pattern::Unstructured(0.37), 1, 1, 1).unwrap(),
        )
        .unwrap();
    let net = task.train(net, &mut optimizer, 2);
    let mask = SparsityMask::of(&net, &PathFilter::all()).unwrap();
    assert_eq!(&mask, optimizer.mask());
    assert_eq!(mask, SparsityMask::of(&net.valid(), &PathFilter::all()).unwrap());

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mask.safetensors");
    let bytes = mask.save(&file).unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().len(), bytes);
    assert_eq!(mask.save(&file).unwrap(), bytes, "an older file is replaced");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let loaded = SparsityMask::load(&file).unwrap();
    assert_eq!(loaded, mask);

    let other = Net::<Device>::new(&device);
    let before = parameters(&other);
    let masked = loaded.apply(other).unwrap();
    assert_eq!(SparsityMask::of(&masked, &PathFilter::all()).unwrap(), mask);
    let after = parameters(&masked);
    for (path, before) in before {
        for (before, after) in before.chunks(4).zip(after[&path].chunks(4)) {
            assert!(
                before == after || (after == [0; 4] && path.ends_with(".weight")),
                "{path}"
            );
        }
    }

    let mut damaged = std::fs::read(&file).unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    std::fs::write(&file, damaged).unwrap();
    assert!(matches!(
        SparsityMask::load(&file),
        Err(Error::Artifact(ArtifactError::Mask { .. }))
    ));
    assert!(SparsityMask::load(folder.path().join("missing")).is_err());
}

#[test]
fn masks_and_schedules_of_other_modules_are_errors() {
    let device = Default::default();
    let linear = |inputs, outputs| -> Linear<Training> {
        let mut linear: Linear<Training> = LinearConfig::new(inputs, outputs).init(&device);
        linear.weight = linear.weight.map(|w| w.mul_scalar(0.0));
        linear
    };
    let mask = SparsityMask::of(&linear(4, 3), &PathFilter::all()).unwrap();
    assert_eq!(mask.sparsity(), 1.0);
    let result = mask.apply(linear(3, 4));
    assert!(matches!(
        result,
        Err(Error::Module(ModuleError::MaskShape {
            mask: [3, 4],
            layer: [4, 3],
            ..
        }))
    ));
    let net = Net::<Training>::trainable(&device);
    let optimizer = || MaskedOptimizer::new(AdamWConfig::new().init());
    let result = optimizer().with_mask(&net, mask);
    assert!(
        matches!(result, Err(Error::Module(ModuleError::NoSuchLayer { what: "mask", path })) if path.is_empty())
    );
    let schedule = Gradual::new(Pattern::NOfM { n: 3, m: 7 }, 0, 1, 1).unwrap();
    let result = optimizer().with_schedule(&net, &PathFilter::all(), schedule);
    assert!(matches!(
        result,
        Err(Error::Pattern(PatternError::DoesNotFit { .. }))
    ));
    let schedule = Gradual::new(Pattern::Unstructured(0.5), 0, 1, 1).unwrap();
    let result = optimizer().with_schedule(&net, &PathFilter::matching(["encoder.*"]), schedule);
    assert!(matches!(
        result,
        Err(Error::Module(ModuleError::NothingMatches { .. }))
    ));
}

/// The first step puts zeros where a mask says, and gradients there never reach the optimizer, not even bad ones.
#[test]
fn gradients_of_removed_weights_are_dropped() {
    let device = Default::default();
    let mut linear: Linear<Training> = LinearConfig::new(4, 2).with_bias(false).init(&device);
    let mask = {
        let mut masked = linear.clone();
        masked.weight = masked.weight.map(|w| w.slice_fill([1..3, 0..2], 0.0));
        SparsityMask::of(&masked, &PathFilter::all()).unwrap()
    };
    let mut optimizer = MaskedOptimizer::new(AdamWConfig::new().init())
        .with_mask(&linear, mask.clone())
        .unwrap();
    let id: ParamId = linear.weight.id;
    for _ in 0..3 {
        let gradient = Tensor::<Device, 2>::random([4, 2], Distribution::Default, &device);
        let gradient = gradient.slice_fill([1..3, 0..2], f32::NAN);
        let mut gradients = GradientsParams::new();
        gradients.register(id, gradient);
        linear = optimizer.step(1e-2, linear, gradients);
        assert_eq!(SparsityMask::of(&linear, &PathFilter::all()).unwrap(), mask);
        assert!(weight(&linear).iter().all(|v| v.is_finite()));
    }
    let state: AdaptorRecord<AdamW, Training> = optimizer.to_record().0.remove(&id).unwrap();
    assert!(
        AdamW::tensors(state.into_state::<2>())
            .concat()
            .iter()
            .all(|v| v.is_finite())
    );
}
