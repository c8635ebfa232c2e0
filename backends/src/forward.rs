//! Products of a decoder's forward pass, for code that is written for any burn backend.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
#[cfg(feature = "cube")]
use {crate::ops::SolverOps, std::any::Any};

/// `lhs · rhs` over the last two dimensions: [`gpu_product`] where there is one, else burn's.
pub fn product<B: Backend, const D: usize>(lhs: Tensor<B, D>, rhs: Tensor<B, D>) -> Tensor<B, D> {
    gpu_product(&lhs, &rhs).unwrap_or_else(|| lhs.matmul(rhs))
}

/// `lhs · rhs` by [`SolverOps::matmul_fast`](crate::SolverOps::matmul_fast) where `B` is one of this crate's GPUs; `None` elsewhere,
/// on the CPU as well as on a backend that records gradients.
pub fn gpu_product<B: Backend, const D: usize>(
    lhs: &Tensor<B, D>,
    rhs: &Tensor<B, D>,
) -> Option<Tensor<B, D>> {
    let mut found = None;
    #[cfg(feature = "cuda")]
    {
        found = found.or_else(|| on::<burn::backend::Cuda, B, D>(lhs, rhs));
    }
    #[cfg(feature = "rocm")]
    {
        found = found.or_else(|| on::<burn::backend::Rocm, B, D>(lhs, rhs));
    }
    #[cfg(feature = "wgpu")]
    {
        found = found.or_else(|| on::<burn::backend::Wgpu, B, D>(lhs, rhs));
    }
    #[cfg(not(feature = "cube"))]
    {
        let _ = (lhs, rhs, &mut found);
    }
    found
}

/// The product, if `B` is the backend `G`.
#[cfg(feature = "cube")]
fn on<G: SolverOps, B: Backend, const D: usize>(
    lhs: &Tensor<B, D>,
    rhs: &Tensor<B, D>,
) -> Option<Tensor<B, D>> {
    let of_g = |tensor: &Tensor<B, D>| (tensor as &dyn Any).downcast_ref::<Tensor<G, D>>().cloned();
    let found: Box<dyn Any> = Box::new(G::matmul_fast(of_g(lhs)?, of_g(rhs)?));
    found.downcast::<Tensor<B, D>>().ok().map(|found| *found)
}
