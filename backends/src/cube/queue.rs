//! Own kernels in burn's queue: an operation that burn records like its own, and runs when the queue reaches it. Nothing is
//! read back and nothing is waited for.

use burn::tensor::{DType, Shape, Tensor, TensorPrimitive};
use burn_cubecl::fusion::FusionCubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime, FloatElement, IntElement};
use burn_fusion::stream::{Operation, OperationStreams};
use burn_fusion::{Fusion, FusionTensor};
use burn_ir::{CustomOpIr, HandleContainer, OperationIr, TensorIr};
use std::fmt;
use std::marker::PhantomData;

/// What one or more kernels make of some tensors.
pub(super) trait Kernel<R: CubeRuntime>: fmt::Debug + Send + Sync + 'static {
    /// Its name in burn's records.
    const NAME: &'static str;
    /// The number of its outputs, all of one shape.
    const OUTPUTS: usize;

    /// The shape of its outputs from those of its inputs; there is at least one.
    fn shape(&self, inputs: &[Shape]) -> Shape {
        inputs[0].clone()
    }

    /// Launches the kernels. A tensor that nobody else holds may be written to.
    fn launch(&self, inputs: Vec<CubeTensor<R>>) -> Vec<CubeTensor<R>>;
}

/// A recorded operation of the backend `B`.
struct Recorded<B, K> {
    operation: CustomOpIr,
    kernel: K,
    backend: PhantomData<fn() -> B>,
}

impl<B, K: fmt::Debug> fmt::Debug for Recorded<B, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kernel.fmt(f)
    }
}

impl<R, F, I, BT, K> Operation<FusionCubeRuntime<R>> for Recorded<CubeBackend<R, F, I, BT>, K>
where
    R: CubeRuntime,
    F: FloatElement,
    I: IntElement,
    BT: BoolElement,
    K: Kernel<R>,
{
    fn execute(
        &self,
        handles: &mut HandleContainer<<FusionCubeRuntime<R> as burn_fusion::FusionRuntime>::FusionHandle>,
    ) {
        let inputs = self.operation.inputs.iter();
        let inputs = inputs
            .map(|tensor| handles.get_float_tensor::<CubeBackend<R, F, I, BT>>(tensor))
            .collect();
        let outputs = self.kernel.launch(inputs);
        for (tensor, output) in self.operation.outputs.iter().zip(outputs) {
            handles.register_float_tensor::<CubeBackend<R, F, I, BT>>(&tensor.id, output);
        }
    }
}

/// A backend with a queue, and its device's own.
type Queued<R, F, I, BT> = Fusion<CubeBackend<R, F, I, BT>>;

/// Puts `kernel` into the queue; all inputs are f32 tensors of one rank.
pub(super) fn enqueue<R, F, I, BT, K, const D: usize>(
    kernel: K,
    inputs: Vec<Tensor<Queued<R, F, I, BT>, D>>,
) -> Vec<Tensor<Queued<R, F, I, BT>, D>>
where
    R: CubeRuntime,
    F: FloatElement,
    I: IntElement,
    BT: BoolElement,
    K: Kernel<R>,
{
    let inputs: Vec<FusionTensor<FusionCubeRuntime<R>>> = inputs
        .into_iter()
        .map(|tensor| tensor.into_primitive().tensor())
        .collect();
    assert!(
        inputs.iter().all(|tensor| tensor.dtype == DType::F32),
        "the solver computes in f32"
    );
    let streams = OperationStreams::with_inputs(&inputs);
    let client = inputs[0].client.clone();
    let shapes: Vec<Shape> = inputs.iter().map(|tensor| tensor.shape.clone()).collect();
    let shape = kernel.shape(&shapes);
    let outputs: Vec<TensorIr> = (0..K::OUTPUTS)
        .map(|_| TensorIr::uninit(client.create_empty_handle(), shape.clone(), DType::F32))
        .collect();
    let inputs: Vec<TensorIr> = inputs.into_iter().map(FusionTensor::into_ir).collect();
    let operation = CustomOpIr::new(K::NAME, &inputs, &outputs);
    let recorded = Recorded::<CubeBackend<R, F, I, BT>, K> {
        operation: operation.clone(),
        kernel,
        backend: PhantomData,
    };
    client
        .register(streams, OperationIr::Custom(operation), recorded)
        .into_iter()
        .map(|tensor| Tensor::from_primitive(TensorPrimitive::Float(tensor)))
        .collect()
}
