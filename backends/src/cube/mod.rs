//! [`SolverOps`] on every GPU that CubeCL compiles for: CUDA, ROCm, and what wgpu finds.
//!
//! burn records element-wise operations and runs each chain of them as one kernel, or as part of the product before them, up to
//! a sum that is read back: so the default body of a FISTA iteration takes a few passes over memory. `BURN_FUSION_LOG=full`
//! shows them (`fused ElementWise (7 ops)`, `fused Matmul (6 ops)`) for `tests/devices/operations.rs`.
//!
//! burn's product of f32 matrices takes TF32 factors where tensor cores do; [`SolverOps::matmul_f32`] takes a kernel there that
//! does not.
//!
//! Selections have kernels of their own, which give the entries that Flex's give, and so has the compensated sum, which
//! compilers of shaders would rearrange.
#![cfg(feature = "cube")]

mod kernels;
mod launch;
mod product;
mod queue;

use crate::ops::{SolverOps, SplittingStep};
use burn::tensor::Tensor;
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime, FloatElement, IntElement};
use burn_fusion::Fusion;
use launch::{CompensatedAdd, Splitting};

impl<R, F, I, BT> SolverOps for Fusion<CubeBackend<R, F, I, BT>>
where
    R: CubeRuntime,
    F: FloatElement,
    I: IntElement,
    BT: BoolElement,
{
    const FACTORISE_ON_HOST: bool = false;

    fn max_tensor_bytes(device: &Self::Device) -> Option<u64> {
        Some(R::client(device).properties().memory.max_page_size)
    }

    fn matmul_f32(lhs: Tensor<Self, 2>, rhs: Tensor<Self, 2>) -> Tensor<Self, 2> {
        if product::takes_tf32::<R>(&lhs.device()) {
            single(queue::enqueue(product::WithoutTensorCores, vec![lhs, rhs]))
        } else {
            lhs.matmul(rhs)
        }
    }

    fn splitting_step(
        moved: Tensor<Self, 2>,
        weight: Tensor<Self, 2>,
        shifted: Tensor<Self, 2>,
        drift: Option<Tensor<Self, 2>>,
        step: SplittingStep,
    ) -> (Tensor<Self, 2>, Tensor<Self, 2>) {
        let mut inputs = vec![moved, weight, shifted];
        inputs.extend(drift);
        pair(queue::enqueue(Splitting(step), inputs))
    }

    fn compensated_add(
        sum: Tensor<Self, 2>,
        compensation: Tensor<Self, 2>,
        term: Tensor<Self, 2>,
    ) -> (Tensor<Self, 2>, Tensor<Self, 2>) {
        pair(queue::enqueue(CompensatedAdd, vec![sum, compensation, term]))
    }
}

fn single<T>(mut outputs: Vec<T>) -> T {
    match outputs.pop() {
        Some(output) => output,
        None => unreachable!("the kernel has one output"),
    }
}

fn pair<T>(outputs: Vec<T>) -> (T, T) {
    match <[T; 2]>::try_from(outputs) {
        Ok([a, b]) => (a, b),
        Err(_) => unreachable!("the kernel has two outputs"),
    }
}
