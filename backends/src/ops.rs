//! The solver's inner operations. Each default body composes burn operations, so that it runs on every backend; a
//! backend overrides one where a hand-written kernel pays.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// A burn backend with the inner operations of the layer-wise solvers.
///
/// `m` is the number of outputs of a linear operator, `n` of inputs, `p` of tokens.
pub trait SolverOps: Backend {
    /// Whether a matrix is best factorised by the host: true where device and host share memory and cores.
    const FACTORISE_ON_HOST: bool = true;

    /// One proximal gradient step: `softshrink(point − step · gradient, threshold)`, all `[m, n]`.
    ///
    /// `softshrink(z, t) = sign(z) · max(|z| − t, 0)` is the proximal operator of `t‖·‖₁`
    /// (Beck & Teboulle 2009, Eq. 2.6; FISTAPruner, arXiv 2408.03728, Eq. 4a and 4b).
    fn prox_gradient_step(
        point: Tensor<Self, 2>,
        gradient: Tensor<Self, 2>,
        step: f32,
        threshold: f32,
    ) -> Tensor<Self, 2> {
        let z = point - gradient.mul_scalar(step);
        // z − clamp(z, −t, t) is z − t above t, z + t below −t, and exactly zero between.
        z.clone() - z.clamp(-threshold, threshold)
    }

    /// The extrapolated point `new + momentum · (new − old)`, all `[m, n]` (FISTA, Beck & Teboulle 2009, Eq. 4.3).
    fn extrapolate(new: Tensor<Self, 2>, old: Tensor<Self, 2>, momentum: f32) -> Tensor<Self, 2> {
        new.clone() + (new - old).mul_scalar(momentum)
    }

    /// One step of compensated summation (Kahan): adds `term` to `sum` and returns the new sum and the new
    /// compensation, all of one shape. Start with both zero.
    fn compensated_add(
        sum: Tensor<Self, 2>,
        compensation: Tensor<Self, 2>,
        term: Tensor<Self, 2>,
    ) -> (Tensor<Self, 2>, Tensor<Self, 2>) {
        let corrected = term - compensation;
        let total = sum.clone() + corrected.clone();
        let compensation = (total.clone() - sum) - corrected;
        (total, compensation)
    }

    /// `Σ a ⊙ b` over matrices of one shape `[m, n]`, rows summed on the device, the row sums in f64.
    fn inner(a: Tensor<Self, 2>, b: Tensor<Self, 2>) -> f64 {
        let rows = (a * b).sum_dim(1);
        rows.into_data().iter::<f64>().sum()
    }

    /// `‖a − b‖_F²` of matrices of one shape `[m, n]`.
    fn squared_distance(a: Tensor<Self, 2>, b: Tensor<Self, 2>) -> f64 {
        let difference = a - b;
        Self::inner(difference.clone(), difference)
    }
}

#[cfg(feature = "ndarray")]
impl SolverOps for burn::backend::NdArray {}

// Fusion records the default bodies and runs each as one fused element-wise kernel.
#[cfg(feature = "cube")]
impl<B: burn_fusion::FusionBackend> SolverOps for burn_fusion::Fusion<B> {
    const FACTORISE_ON_HOST: bool = false;
}
