//! An optimizer that keeps removed weights at exactly zero, and removes more of them by a schedule.

use super::layers::{Survey, each_weight, map_weights, transposed};
use super::mask::SparsityMask;
use super::moments::Moments;
use super::paths::PathFilter;
use super::schedule::Gradual;
use crate::config::Pattern;
use crate::error::Result;
use burn::module::{AutodiffModule, ParamId};
use burn::optim::adaptor::OptimizerAdaptor;
use burn::optim::record::AdaptorRecord;
use burn::optim::{GradientsParams, LearningRate, MultiGradientsParams, Optimizer};
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Bool, Tensor};
use std::collections::BTreeMap;

/// Any of burn's optimizers over [`Moments`], around which masks hold: after every step removed weights are exactly zero,
/// whatever momentum and weight decay do, and so is all that the optimizer remembers of them. Where no mask is, it does
/// what the optimizer alone does.
///
/// It is an [`Optimizer`] itself: for a training loop of one's own, or for burn's `Learner`. Masks and the count of steps
/// are part of its record; the schedule, like any other setting, is not.
///
/// ```
/// use burn::backend::{Autodiff, Flex};
/// use burn::nn::{Linear, LinearConfig};
/// use burn::optim::{AdamWConfig, GradientsParams, Optimizer};
/// use burn::tensor::{Distribution, Tensor};
/// use fista_pruner::module::{Gradual, MaskedOptimizer, PathFilter, SparsityMask};
/// use fista_pruner::config::Pattern;
///
/// type Training = Autodiff<Flex>;
/// let device = Default::default();
/// let mut model: Linear<Training> = LinearConfig::new(8, 4).init(&device);
///
/// // Half of the weights go, in five portions: after steps 10, 15, 20, 25 and 30.
/// let schedule = Gradual::new(Pattern::n_of_m(2, 4)?, 10, 5, 4)?;
/// let mut optimizer = MaskedOptimizer::new(AdamWConfig::new().init())
///     .with_schedule(&model, &PathFilter::all(), schedule)?;
///
/// let x = Tensor::<Training, 2>::random([16, 8], Distribution::Default, &device);
/// for _ in 0..40 {
///     let loss = model.forward(x.clone()).square().mean();
///     let gradients = GradientsParams::from_grads(loss.backward(), &model);
///     model = optimizer.step(1e-2, model, gradients);
/// }
/// let mask = SparsityMask::of(&model, &PathFilter::all())?;
/// assert_eq!(mask.sparsity(), 0.5);
/// assert_eq!(&mask, optimizer.mask());
/// # Ok::<(), fista_pruner::error::Error>(())
/// ```
#[derive(Clone)]
pub struct MaskedOptimizer<O, M, B>
where
    O: Moments<B::InnerBackend>,
    M: AutodiffModule<B>,
    B: AutodiffBackend,
{
    optimizer: OptimizerAdaptor<O, M, B>,
    mask: SparsityMask,
    /// `true` where a weight `[in, out]` is removed, by path: the mask on the device, once it was needed there.
    removed: BTreeMap<String, Tensor<B::InnerBackend, 2, Bool>>,
    schedule: Option<(Gradual, Vec<String>)>,
    steps: usize,
}

/// Record of a [`MaskedOptimizer`]: that of the optimizer inside, the steps taken, and each mask's name, shape
/// `(out, in)` and bits.
pub type MaskedOptimizerRecord<O, M, B> = (
    <OptimizerAdaptor<O, M, B> as Optimizer<M, B>>::Record,
    usize,
    Vec<(String, (usize, usize), Vec<u8>)>,
);

impl<O, M, B> MaskedOptimizer<O, M, B>
where
    O: Moments<B::InnerBackend>,
    M: AutodiffModule<B>,
    B: AutodiffBackend,
{
    /// Around what `AdamWConfig::init` and its like give, without a mask yet.
    pub fn new(optimizer: OptimizerAdaptor<O, M, B>) -> Self {
        Self {
            optimizer,
            mask: SparsityMask::default(),
            removed: BTreeMap::new(),
            schedule: None,
            steps: 0,
        }
    }

    /// Keeps the weights that `mask` removes from `module` at zero. The first step puts them there.
    ///
    /// # Errors
    /// When it is not a mask of this module.
    pub fn with_mask(mut self, module: &M, mask: SparsityMask) -> Result<Self> {
        self.set_mask(module, mask)?;
        Ok(self)
    }

    /// [`MaskedOptimizer::with_mask`] between two steps: replaces the mask there was.
    ///
    /// # Errors
    /// When it is not a mask of this module.
    pub fn set_mask(&mut self, module: &M, mask: SparsityMask) -> Result<()> {
        mask.check(module)?;
        self.mask = mask;
        self.removed.clear();
        self.clear_moments(module);
        Ok(())
    }

    /// Removes weights of the chosen layers of `module` by a schedule: those of smallest magnitude, in each layer its
    /// share, on top of those that a mask removes already.
    ///
    /// # Errors
    /// When the choice matches nothing, or the schedule's pattern does not fit a layer.
    pub fn with_schedule(mut self, module: &M, layers: &PathFilter, schedule: Gradual) -> Result<Self> {
        let layers = Survey::of(module).chosen(layers)?;
        for layer in &layers {
            schedule.target().check_inputs(&layer.path, layer.shape[1])?;
        }
        let paths = layers.into_iter().map(|layer| layer.path).collect();
        self.schedule = Some((schedule, paths));
        Ok(self)
    }

    /// What is removed at present.
    pub fn mask(&self) -> &SparsityMask {
        &self.mask
    }

    /// Steps taken.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// The layers' masks on their devices.
    fn removed(&mut self, path: &str, weight: &Tensor<B, 2>) -> Option<Tensor<B::InnerBackend, 2, Bool>> {
        if !self.removed.contains_key(path) {
            let removed = self.mask.removed(path, &weight.device())?;
            self.removed.insert(path.to_owned(), removed);
        }
        let removed = self.removed.get(path)?.clone();
        Some(removed.to_device(&weight.device()))
    }

    fn mask_gradients(&mut self, module: &M, gradients: &mut GradientsParams) {
        each_weight(module, |path, id, weight| {
            let Some(removed) = self.removed(path, &weight) else {
                return;
            };
            if let Some(gradient) = gradients.remove::<B::InnerBackend, 2>(id) {
                let removed = removed.to_device(&gradient.device());
                gradients.register(id, gradient.mask_fill(removed, 0.0));
            }
        });
    }

    /// Ends a step: removes what is due, and puts zeros where they belong.
    fn after_step(&mut self, module: M) -> M {
        self.steps += 1;
        if let Some((schedule, paths)) = self.schedule.clone()
            && schedule.is_due(self.steps)
            && let Some(pattern) = schedule.pattern(self.steps)
        {
            self.remove_more(&module, &paths, pattern);
            self.clear_moments(&module);
        }
        if self.mask.is_empty() {
            return module;
        }
        map_weights(module, |path, _, weight| {
            let removed = self.removed(path, &weight)?;
            Some(Tensor::from_inner(weight.inner().mask_fill(removed, 0.0)))
        })
    }

    /// Makes the masks of these layers have a pattern.
    fn remove_more(&mut self, module: &M, paths: &[String], pattern: Pattern) {
        each_weight(module, |path, _, weight| {
            if !paths.iter().any(|chosen| chosen == path) {
                return;
            }
            let [inputs, outputs] = weight.dims();
            let data = weight.inner().into_data();
            let values: Vec<f32> = data.iter::<f32>().collect();
            let mut scores = transposed(&values, inputs, outputs);
            // What is removed stays removed: not a number is smaller than any weight.
            for (score, keep) in scores.iter_mut().zip(self.mask.keeps(path).unwrap_or_default()) {
                if !keep {
                    *score = f32::NAN;
                }
            }
            let keep = pattern.keep_largest(&scores, outputs, inputs);
            self.mask.insert(path, [outputs, inputs], &keep);
            self.removed.remove(path);
        });
    }

    /// Makes the optimizer forget what it knows of removed weights.
    fn clear_moments(&mut self, module: &M) {
        let mut record = self.optimizer.to_record();
        each_weight(module, |path, id: ParamId, weight| {
            let Some(removed) = self.removed(path, &weight) else {
                return;
            };
            if let Some(state) = record.remove(&id) {
                let state = O::clear(state.into_state::<2>(), &removed, &weight.inner());
                record.insert(id, AdaptorRecord::from_state(state));
            }
        });
        self.optimizer = self.optimizer.clone().load_record(record);
    }
}

impl<O, M, B> Optimizer<M, B> for MaskedOptimizer<O, M, B>
where
    O: Moments<B::InnerBackend>,
    M: AutodiffModule<B>,
    B: AutodiffBackend,
{
    type Record = MaskedOptimizerRecord<O, M, B>;

    fn step(&mut self, lr: LearningRate, module: M, mut grads: GradientsParams) -> M {
        self.mask_gradients(&module, &mut grads);
        let module = self.optimizer.step(lr, module, grads);
        self.after_step(module)
    }

    fn step_multi(&mut self, lr: LearningRate, module: M, mut grads: MultiGradientsParams) -> M {
        for (grads, _) in &mut grads.grads {
            self.mask_gradients(&module, grads);
        }
        let module = self.optimizer.step_multi(lr, module, grads);
        self.after_step(module)
    }

    fn to_record(&self) -> Self::Record {
        (self.optimizer.to_record(), self.steps, self.mask.to_parts())
    }

    fn load_record(self, (optimizer, steps, mask): Self::Record) -> Self {
        Self {
            optimizer: self.optimizer.load_record(optimizer),
            mask: SparsityMask::from_parts(mask),
            removed: BTreeMap::new(),
            steps,
            schedule: self.schedule,
        }
    }
}
