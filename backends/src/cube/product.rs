//! Products of f32 matrices, by kernels that are chosen by nothing but the shapes and the device.
//!
//! burn's own product measures some thirty kernels when it first meets a size, and takes the fastest: so one run may add up in
//! another order than the next, and the first one waits for minutes. Here the order is fixed: the first kernel of a list that
//! takes the shapes.
//!
//! Kernels that use tensor cores round f32 factors to TF32, 10 bits of mantissa, where the device knows that type. Kernels of
//! single units multiply what they read.

use super::kernels;
use super::queue::Kernel;
use burn::tensor::{DType, Shape};
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::matmul::init_matmul_output;
use burn_cubecl::tensor::CubeTensor;
use cubecl::client::ComputeClient;
use cubecl::features::Tma;
use cubecl::prelude::*;
use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek::matmul::launch::{Strategy, launch_ref};
use cubek::std::InputBinding;

/// Whether tensor cores would take TF32 factors there.
pub(super) fn takes_tf32<R: CubeRuntime>(device: &R::Device) -> bool {
    let tf32 = cubecl::tf32::as_type_native_unchecked().storage_type();
    R::client(device).properties().supports_type(tf32)
}

/// `lhs · rhs` over the last two dimensions; those before are alike, or 1 on one side.
#[derive(Debug)]
pub(super) struct Product {
    /// Whether tensor cores may be used.
    pub(super) tensor_cores: bool,
}

/// A kernel for a product.
enum Way {
    /// Of cubek's.
    Library(Strategy),
    /// [`kernels::product_f32`].
    Own,
}

impl Product {
    /// The fastest first, as measured on an H200 (docs/bench/2026-11-27-h200); the last one takes every shape on every device.
    fn ways<R: CubeRuntime>(&self, client: &ComputeClient<R>) -> Vec<Way> {
        let mut ways = Vec::new();
        if self.tensor_cores {
            // Where there is no such thing as its memory accelerator, the kernel is refused by the device's own compiler, too late for
            // the next one.
            if client.properties().features.tma.contains(Tma::Base) {
                ways.push(Way::Library(Strategy::DoubleTmaMma(Default::default())));
            }
            ways.push(Way::Library(Strategy::SimpleCyclicCmma(Default::default())));
        }
        ways.push(Way::Own);
        ways.push(Way::Library(Strategy::SimpleUnit(Default::default())));
        ways.push(Way::Library(Strategy::DoubleUnit(Default::default())));
        ways.push(Way::Library(Strategy::Naive));
        ways
    }
}

/// The own kernel, for two matrices that fill its cubes and lie in rows or in columns. Says whether it took them.
fn own<R: CubeRuntime>(lhs: &CubeTensor<R>, rhs: &CubeTensor<R>, out: &CubeTensor<R>) -> bool {
    let [m, n] = out.meta.shape()[..] else {
        return false;
    };
    let k = lhs.meta.shape()[1];
    let tile = kernels::TILE as usize;
    // Whether the entries of a row are neighbours; else those of a column must be.
    let in_rows = |factor: &CubeTensor<R>| match factor.meta.strides()[..] {
        [_, 1] => Some(true),
        [1, _] => Some(false),
        _ => None,
    };
    let (Some(a), Some(b)) = (in_rows(lhs), in_rows(rhs)) else {
        return false;
    };
    if m < tile || n < tile || out.meta.strides()[1] != 1 {
        return false;
    }
    let whole = m.is_multiple_of(tile) && n.is_multiple_of(tile) && k.is_multiple_of(kernels::DEPTH as usize);
    // SAFETY: a cube fetches and writes what lies within the shapes: all of its part where it is whole.
    #[allow(unsafe_code, reason = "a kernel that checks its bounds itself")]
    unsafe {
        kernels::product_f32::launch_unchecked::<R>(
            &out.client,
            CubeCount::Static(n.div_ceil(tile) as u32, m.div_ceil(tile) as u32, 1),
            CubeDim::new_1d(kernels::PRODUCT_UNITS),
            lhs.clone().into_tensor_arg(),
            rhs.clone().into_tensor_arg(),
            out.clone().into_tensor_arg(),
            a,
            !b,
            whole,
        );
    }
    true
}

impl<R: CubeRuntime> Kernel<R> for Product {
    const NAME: &'static str = "product";
    const OUTPUTS: usize = 1;

    fn shape(&self, inputs: &[Shape]) -> Shape {
        let (lhs, rhs) = (&inputs[0], &inputs[1]);
        let rank = lhs.num_dims();
        let size = |at: usize| match rank - at {
            1 => rhs[at],
            2 => lhs[at],
            _ => lhs[at].max(rhs[at]),
        };
        Shape::from((0..rank).map(size).collect::<Vec<usize>>())
    }

    fn launch(&self, inputs: Vec<CubeTensor<R>>) -> Vec<CubeTensor<R>> {
        let [lhs, rhs]: [CubeTensor<R>; 2] = inputs.try_into().unwrap_or_else(|_| unreachable!("two inputs"));
        let out = init_matmul_output(&lhs, &rhs, DType::F32);
        let input = |tensor: &CubeTensor<R>| InputBinding::new(tensor.clone().binding(), DType::F32.into());
        let mut refusals = Vec::new();
        for way in &self.ways(&out.client) {
            let strategy = match way {
                Way::Library(strategy) => strategy,
                Way::Own if own(&lhs, &rhs, &out) => return vec![out],
                Way::Own => continue,
            };
            let mut elements = MatmulElems::from_globals(&MatmulGlobalElems {
                lhs: DType::F32.into(),
                rhs: DType::F32.into(),
                out: DType::F32.into(),
            });
            let (lhs, rhs, to) = (input(&lhs), input(&rhs), out.clone().binding());
            match launch_ref(strategy, &out.client, lhs, rhs, to, &mut elements) {
                Ok(()) => return vec![out],
                Err(refusal) => refusals.push(format!("{strategy}: {refusal:?}")),
            }
        }
        // A queued operation has no other way to say so; `failure` keeps it.
        panic!(
            "no kernel multiplies f32 matrices on this device: {}",
            refusals.join("; ")
        )
    }
}
