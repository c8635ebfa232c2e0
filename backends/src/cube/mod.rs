//! [`SolverOps`] on every GPU that CubeCL compiles for: CUDA, ROCm, and what wgpu finds.
//!
//! burn records element-wise operations and runs each chain of them as one kernel: so the default body of a FISTA iteration takes
//! a few passes over memory. `BURN_FUSION_LOG=full` shows them (`fused ElementWise (7 ops)`) for `tests/devices/operations.rs`.
//!
//! Products have a list of kernels of their own: burn's product would choose by the clock, and take TF32 factors where tensor
//! cores do.
//!
//! Selections have kernels of their own, which give the entries that Flex's give, and so have sums of rows, the other half of a
//! symmetric matrix, and the compensated sum, which compilers of shaders would rearrange.
#![cfg(feature = "cube")]

mod kernels;
mod launch;
mod product;
mod queue;

use crate::ops::{SolverOps, SplittingStep};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime, FloatElement, IntElement};
use burn_fusion::Fusion;
use launch::{CompensatedAdd, Mirrored, RowProducts, Splitting};
use product::Product;
use std::ops::Range;

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

    fn give_back_memory(device: &Self::Device) {
        // What is queued still holds tensors; if it fails, whoever reads a result learns of it.
        let _ = Self::sync(device);
        Self::memory_cleanup(device);
    }

    fn matmul_f32(lhs: Tensor<Self, 2>, rhs: Tensor<Self, 2>) -> Tensor<Self, 2> {
        // Where there is no TF32, tensor cores take f32 as it is.
        let tensor_cores = !product::takes_tf32::<R>(&lhs.device());
        single(queue::enqueue(Product { tensor_cores }, vec![lhs, rhs]))
    }

    fn matmul_fast<const D: usize>(lhs: Tensor<Self, D>, rhs: Tensor<Self, D>) -> Tensor<Self, D> {
        single(queue::enqueue(Product { tensor_cores: true }, vec![lhs, rhs]))
    }

    fn row_products(a: Tensor<Self, 2>, b: Tensor<Self, 2>) -> Tensor<Self, 2> {
        single(queue::enqueue(RowProducts, vec![a, b]))
    }

    fn mirrored(columns: usize, strips: Vec<(Range<usize>, Tensor<Self, 2>)>) -> Tensor<Self, 2> {
        let starts = strips.iter().map(|(rows, _)| rows.start).collect();
        let strips = strips.into_iter().map(|(_, strip)| strip).collect();
        single(queue::enqueue(Mirrored { columns, starts }, strips))
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
