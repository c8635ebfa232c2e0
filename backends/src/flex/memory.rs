//! From a tensor on Flex to its own memory, which every operation here works in, and back.

use burn::backend::Flex;
use burn::tensor::{DType, Tensor, TensorPrimitive};
use burn_flex::FlexTensor;

pub(super) fn tensor(primitive: FlexTensor) -> Tensor<Flex, 2> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}

/// The tensor's own memory, with its elements in one run from the start.
pub(super) fn contiguous(tensor: Tensor<Flex, 2>) -> FlexTensor {
    let tensor = tensor.into_primitive().tensor();
    assert!(tensor.dtype() == DType::F32, "the solver computes in f32");
    if tensor.is_contiguous()
        && tensor.as_slice::<f32>().map(<[f32]>::len) == Some(tensor.storage::<f32>().len())
    {
        tensor
    } else {
        tensor.to_contiguous()
    }
}
