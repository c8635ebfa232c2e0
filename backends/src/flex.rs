//! [`SolverOps`] on Flex: one pass over memory an operation, on all cores, where burn's own element-wise operations
//! take several passes on one core.
#![cfg(feature = "flex")]

use crate::ops::SolverOps;
use burn::backend::Flex;
use burn::tensor::{DType, Tensor, TensorPrimitive};
use burn_flex::FlexTensor;
use rayon::prelude::*;

/// Elements a task works on: a quarter of a typical L2 cache with two operands, and enough to hide the hand-over.
const CHUNK: usize = 1 << 14;

impl SolverOps for Flex {
    fn prox_gradient_step(
        point: Tensor<Self, 2>,
        gradient: Tensor<Self, 2>,
        step: f32,
        threshold: f32,
    ) -> Tensor<Self, 2> {
        zip_in_place(point, gradient, |point, gradient| {
            for (x, g) in point.iter_mut().zip(gradient) {
                let z = *x - step * g;
                *x = z - z.clamp(-threshold, threshold);
            }
        })
    }

    fn extrapolate(new: Tensor<Self, 2>, old: Tensor<Self, 2>, momentum: f32) -> Tensor<Self, 2> {
        zip_in_place(old, new, |old, new| {
            for (x, new) in old.iter_mut().zip(new) {
                *x = new + momentum * (new - *x);
            }
        })
    }

    fn inner(a: Tensor<Self, 2>, b: Tensor<Self, 2>) -> f64 {
        reduce(a, b, |a, b| f64::from(a) * f64::from(b))
    }

    fn squared_distance(a: Tensor<Self, 2>, b: Tensor<Self, 2>) -> f64 {
        reduce(a, b, |a, b| {
            let d = f64::from(a) - f64::from(b);
            d * d
        })
    }
}

fn primitive(tensor: Tensor<Flex, 2>) -> FlexTensor {
    let tensor = tensor.into_primitive().tensor();
    assert!(tensor.dtype() == DType::F32, "the solver computes in f32");
    tensor
}

/// The tensor with its elements in one run from the start of its buffer.
fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.is_contiguous()
        && tensor.as_slice::<f32>().map(<[f32]>::len) == Some(tensor.storage::<f32>().len())
    {
        tensor
    } else {
        tensor.to_contiguous()
    }
}

/// Applies `f` to matching chunks, writing into `target`'s own memory where nobody else holds it.
fn zip_in_place(
    target: Tensor<Flex, 2>,
    other: Tensor<Flex, 2>,
    f: impl Fn(&mut [f32], &[f32]) + Sync,
) -> Tensor<Flex, 2> {
    assert_eq!(target.dims(), other.dims());
    let other = contiguous(primitive(other));
    let mut target = contiguous(primitive(target));
    target
        .storage_mut::<f32>()
        .par_chunks_mut(CHUNK)
        .zip(other.storage::<f32>().par_chunks(CHUNK))
        .for_each(|(target, other)| f(target, other));
    Tensor::from_primitive(TensorPrimitive::Float(target))
}

/// Sums `f` over matching elements in f64. The order depends on [`CHUNK`] only, never on the number of threads.
fn reduce(a: Tensor<Flex, 2>, b: Tensor<Flex, 2>, f: impl Fn(f32, f32) -> f64 + Sync) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let (a, b) = (contiguous(primitive(a)), contiguous(primitive(b)));
    let sums: Vec<f64> = a
        .storage::<f32>()
        .par_chunks(CHUNK)
        .zip(b.storage::<f32>().par_chunks(CHUNK))
        .map(|(a, b)| {
            // Eight running sums, so that the loop does not wait for each addition.
            let mut lanes = [0.0f64; 8];
            let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
            let tail: f64 = (a8.remainder().iter().zip(b8.remainder()))
                .map(|(a, b)| f(*a, *b))
                .sum();
            for (a, b) in a8.zip(b8) {
                for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
                    *lane += f(*a, *b);
                }
            }
            lanes.iter().sum::<f64>() + tail
        })
        .collect();
    sums.iter().sum()
}
