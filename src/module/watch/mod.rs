//! A backend around another that watches weights, for modules whose forward pass cannot be written anew.

mod ops;

use super::layers::map_weights;
use super::recorder::{Purpose, Recorder};
use burn::module::{HasAutodiffModule, Module, ParamId};
use burn::tensor::backend::{AutodiffBackend, Backend, BackendTypes, DTypeUsageSet, ExecutionError};
use burn::tensor::ops::{BoolTensor, FloatTensor, IntTensor, QuantizedTensor};
use burn::tensor::{DType, Shape, Tensor, TensorData, TensorMetadata, TensorPrimitive};
use fista_pruner_backends::SolverOps;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

/// The backend `B`, on which a product with a marked weight tells the pruner's recorder what it was a product with.
///
/// It computes with `B`, bit for bit. burn takes a module to it as to a backend with gradients, which it is not: there are
/// none, [`Backend::ad_enabled`] is false, dropout is off. Tensors go over with [`Tensor::from_inner`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Watch<B>(PhantomData<B>);

/// A module on the backend [`Watch`].
pub type Watched<B, M> = <M as HasAutodiffModule<Watch<B>>>::TrainModule;

/// Lets [`prune`](super::prune()) and [`prune_in_training`](super::prune_in_training) record the inputs of a module whose
/// forward pass knows nothing of recorders: one that is written for any backend, burn's own modules included. `forward`
/// gets the module on the backend [`Watch`].
///
/// What counts is that the layer's weight itself is multiplied with: by `Linear::forward`, or by a product with
/// `weight.val()`. A weight that is changed first is not recognised, and the pruner says that the layer was never seen.
///
/// ```
/// use burn::backend::Flex;
/// use burn::nn::attention::{MhaInput, MultiHeadAttention, MultiHeadAttentionConfig};
/// use burn::tensor::{Distribution, Tensor};
/// use fista_pruner::module::{ModuleConfig, Watch, prune, watched};
/// use fista_pruner::config::Pattern;
///
/// let device = Default::default();
/// let attention: MultiHeadAttention<Flex> = MultiHeadAttentionConfig::new(16, 4).init(&device);
/// let batches = [Tensor::<Flex, 3>::random([4, 12, 16], Distribution::Default, &device)];
/// let config = ModuleConfig::new(Pattern::n_of_m(2, 4)?);
/// let forward = watched(|attention: &MultiHeadAttention<Watch<Flex>>, batch: &Tensor<Flex, 3>| {
///     attention.forward(MhaInput::self_attn(Tensor::from_inner(batch.clone())))
/// });
/// let (_, report) = prune(attention, &batches, &config, forward)?;
/// let paths: Vec<&str> = report.layers.iter().map(|layer| layer.path.as_str()).collect();
/// assert_eq!(paths, ["query", "key", "value", "output"]);
/// # Ok::<(), fista_pruner::error::Error>(())
/// ```
pub fn watched<B, M, T, R>(
    mut forward: impl FnMut(&Watched<B, M>, &T) -> R,
) -> impl FnMut(&M, &T, &mut Recorder<B>) -> R
where
    B: SolverOps,
    M: Module<B> + HasAutodiffModule<Watch<B>>,
{
    move |module, batch, recorder| {
        let shared = Arc::new(Mutex::new(std::mem::replace(
            recorder,
            Recorder::new([], Purpose::Order),
        )));
        let module = map_weights(module.clone().train::<Watch<B>>(), |_, id, weight| {
            let mark = Mark {
                id,
                recorder: shared.clone(),
            };
            let mut weight = weight.into_primitive().tensor();
            weight.mark = Some(mark);
            Some(Tensor::from_primitive(TensorPrimitive::Float(weight)))
        });
        let result = forward(&module, batch);
        let mut inside = shared.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut *inside, recorder);
        result
    }
}

/// A weight that is watched.
#[derive(Clone)]
struct Mark<B: SolverOps> {
    id: ParamId,
    recorder: Arc<Mutex<Recorder<B>>>,
}

/// A float tensor of a [`Watch`] backend.
#[derive(Clone)]
pub struct WatchTensor<B: SolverOps> {
    tensor: FloatTensor<B>,
    mark: Option<Mark<B>>,
}

impl<B: SolverOps> WatchTensor<B> {
    fn plain(tensor: FloatTensor<B>) -> Self {
        Self { tensor, mark: None }
    }

    /// Shows the recorder that a marked weight is about to be multiplied by `input [.., in]` from the left.
    fn record(&self, input: &Self) {
        let Some(mark) = &self.mark else {
            return;
        };
        let mut recorder = mark.recorder.lock().unwrap_or_else(PoisonError::into_inner);
        let dims: Vec<usize> = input.shape().iter().copied().collect();
        recorder.note(mark.id, &dims, |shape| {
            let input = B::float_reshape(input.tensor.clone(), Shape::from(shape));
            Tensor::from_primitive(TensorPrimitive::Float(input))
        });
    }
}

impl<B: SolverOps> fmt::Debug for WatchTensor<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchTensor")
            .field("tensor", &self.tensor)
            .field("mark", &self.mark.as_ref().map(|mark| mark.id))
            .finish()
    }
}

impl<B: SolverOps> TensorMetadata for WatchTensor<B> {
    fn dtype(&self) -> DType {
        self.tensor.dtype()
    }

    fn shape(&self) -> Shape {
        self.tensor.shape()
    }
}

impl<B: SolverOps> BackendTypes for Watch<B> {
    type Device = B::Device;
    type FloatTensorPrimitive = WatchTensor<B>;
    type FloatElem = B::FloatElem;
    type IntTensorPrimitive = B::IntTensorPrimitive;
    type IntElem = B::IntElem;
    type BoolTensorPrimitive = B::BoolTensorPrimitive;
    type BoolElem = B::BoolElem;
    type QuantizedTensorPrimitive = B::QuantizedTensorPrimitive;
}

impl<B: SolverOps> Backend for Watch<B> {
    fn memory_persistent_allocations<Output: Send, Input: Send, Func: Fn(Input) -> Output + Send>(
        device: &Self::Device,
        input: Input,
        func: Func,
    ) -> Output {
        B::memory_persistent_allocations(device, input, func)
    }

    fn memory_cleanup(device: &Self::Device) {
        B::memory_cleanup(device);
    }

    fn name(device: &Self::Device) -> String {
        format!("watch<{}>", B::name(device))
    }

    fn seed(device: &Self::Device, seed: u64) {
        B::seed(device, seed);
    }

    fn sync(device: &Self::Device) -> Result<(), ExecutionError> {
        B::sync(device)
    }

    fn staging<'a, Iter>(data: Iter, device: &Self::Device)
    where
        Iter: Iterator<Item = &'a mut TensorData>,
    {
        B::staging(data, device);
    }

    fn supports_dtype(device: &Self::Device, dtype: DType) -> bool {
        B::supports_dtype(device, dtype)
    }

    fn dtype_usage(device: &Self::Device, dtype: DType) -> DTypeUsageSet {
        B::dtype_usage(device, dtype)
    }

    fn device_count(type_id: u16) -> usize {
        B::device_count(type_id)
    }
}

/// For burn's conversion of modules alone: there are no gradients.
impl<B: SolverOps> AutodiffBackend for Watch<B> {
    type InnerBackend = B;
    type Gradients = ();

    fn backward(_tensor: FloatTensor<Self>) -> Self::Gradients {}

    fn grad(_tensor: &FloatTensor<Self>, _grads: &Self::Gradients) -> Option<FloatTensor<B>> {
        None
    }

    fn grad_remove(_tensor: &FloatTensor<Self>, _grads: &mut Self::Gradients) -> Option<FloatTensor<B>> {
        None
    }

    fn grad_replace(_tensor: &FloatTensor<Self>, _grads: &mut Self::Gradients, _grad: FloatTensor<B>) {}

    fn inner(tensor: FloatTensor<Self>) -> FloatTensor<B> {
        tensor.tensor
    }

    fn int_inner(tensor: IntTensor<Self>) -> IntTensor<B> {
        tensor
    }

    fn bool_inner(tensor: BoolTensor<Self>) -> BoolTensor<B> {
        tensor
    }

    fn q_inner(tensor: QuantizedTensor<Self>) -> QuantizedTensor<B> {
        tensor
    }

    fn from_inner(tensor: FloatTensor<B>) -> FloatTensor<Self> {
        WatchTensor::plain(tensor)
    }

    fn int_from_inner(tensor: IntTensor<B>) -> IntTensor<Self> {
        tensor
    }

    fn bool_from_inner(tensor: BoolTensor<B>) -> BoolTensor<Self> {
        tensor
    }

    fn q_from_inner(tensor: QuantizedTensor<B>) -> QuantizedTensor<Self> {
        tensor
    }
}
