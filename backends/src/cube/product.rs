//! A product whose factors stay f32.
//!
//! Every kernel that uses tensor cores rounds f32 factors to TF32, 10 bits of mantissa, where the device knows that type; which
//! kernel burn's own product takes is measured at run time, and no setting keeps it from those. Kernels of single units multiply
//! what they read.

use super::queue::Kernel;
use burn::tensor::{DType, Shape};
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::matmul::init_matmul_output;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::CubePrimitive;
use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek::matmul::launch::{Strategy, launch_ref};
use cubek::std::InputBinding;

/// Whether burn's product of f32 matrices may take TF32 factors there.
pub(super) fn takes_tf32<R: CubeRuntime>(device: &R::Device) -> bool {
    let tf32 = cubecl::tf32::as_type_native_unchecked().storage_type();
    R::client(device).properties().supports_type(tf32)
}

/// [`SolverOps::matmul_f32`](crate::SolverOps::matmul_f32).
#[derive(Debug)]
pub(super) struct WithoutTensorCores;

impl<R: CubeRuntime> Kernel<R> for WithoutTensorCores {
    const NAME: &'static str = "matmul_f32";
    const OUTPUTS: usize = 1;

    fn shape(inputs: &[Shape]) -> Shape {
        Shape::new([inputs[0][0], inputs[1][1]])
    }

    fn launch(&self, inputs: Vec<CubeTensor<R>>) -> Vec<CubeTensor<R>> {
        let [lhs, rhs]: [CubeTensor<R>; 2] = inputs.try_into().unwrap_or_else(|_| unreachable!("two inputs"));
        let out = init_matmul_output(&lhs, &rhs, DType::F32);
        // The fastest first; the last one takes every shape on every device.
        let strategies = [
            Strategy::DoubleUnit(Default::default()),
            Strategy::SimpleUnit(Default::default()),
            Strategy::Naive,
        ];
        let input = |tensor: &CubeTensor<R>| InputBinding::new(tensor.clone().binding(), DType::F32.into());
        let mut elements = MatmulElems::from_globals(&MatmulGlobalElems {
            lhs: DType::F32.into(),
            rhs: DType::F32.into(),
            out: DType::F32.into(),
        });
        let mut refusals = Vec::new();
        for strategy in &strategies {
            let (lhs, rhs, to) = (input(&lhs), input(&rhs), out.clone().binding());
            match launch_ref(strategy, &out.client, lhs, rhs, to, &mut elements) {
                Ok(()) => return vec![out],
                Err(refusal) => refusals.push(format!("{strategy}: {refusal:?}")),
            }
        }
        // A queued operation has no other way to say so; the device's work ends in an error.
        panic!(
            "no kernel multiplies f32 matrices on this device: {}",
            refusals.join("; ")
        )
    }
}

#[cfg(all(test, feature = "wgpu"))]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use crate::adapters::adapters;
    use crate::cube::{queue, single};
    use burn::backend::Wgpu;
    use burn::tensor::{Tensor, TensorData};

    /// The kernel that devices with TF32 take, on one that is at hand without.
    #[test]
    #[allow(clippy::print_stderr, reason = "a skipped test says so")]
    fn a_product_without_tensor_cores_is_exact_in_f32() {
        let Some(adapter) = adapters().first() else {
            eprintln!("skipped: no driver offers an adapter");
            return;
        };
        let device = &adapter.device;
        for (m, k, n) in [
            (1, 1, 1),
            (3, 70, 130),
            (129, 64, 33),
            (256, 300, 260),
            (1, 200, 64),
        ] {
            // Factors of 12 and 11 bits, and sums below 2^24: exact in f32 in any order, and not in TF32.
            let a = |i: usize, j: usize| ((i * 37 + j * 11) % 1021) as f32 + 2049.0;
            let b = |i: usize, j: usize| ((i * 5 + j * 3) % 15) as f32 - 7.0;
            let on_device = |rows: usize, columns: usize, entry: &dyn Fn(usize, usize) -> f32| {
                let values: Vec<f32> = (0..rows * columns)
                    .map(|at| entry(at / columns, at % columns))
                    .collect();
                Tensor::<Wgpu, 2>::from_data(TensorData::new(values, [rows, columns]), device)
            };
            let expected: Vec<f32> = (0..m * n)
                .map(|at| (0..k).map(|l| a(at / n, l) * b(l, at % n)).sum())
                .collect();
            // As they lie in memory, and views that are not contiguous.
            let lefts = [on_device(m, k, &a), on_device(k, m, &|i, j| a(j, i)).transpose()];
            for left in lefts {
                let rights = [on_device(k, n, &b), on_device(n, k, &|i, j| b(j, i)).transpose()];
                for right in rights {
                    let factors = vec![left.clone(), right];
                    let product: Tensor<Wgpu, 2> = single(queue::enqueue(WithoutTensorCores, factors));
                    assert_eq!(product.dims(), [m, n]);
                    let found: Vec<f32> = product.into_data().into_vec().unwrap();
                    assert_eq!(found, expected, "{m} {k} {n}");
                }
            }
        }
    }
}
