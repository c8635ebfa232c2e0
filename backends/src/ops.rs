//! The solver's inner operations. Each default body composes burn operations, so that it runs on every backend; a
//! backend overrides one where a hand-written kernel pays.

use crate::gram::{self, GramSum};
use crate::selection::{Selection, keep_mask};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// A step of ℓ0 splitting between two products: see [`SolverOps::splitting_step`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SplittingStep {
    /// Which entries stay.
    pub selection: Selection,
    /// ρ of the step to come.
    pub rho: f32,
    /// ρ of this step divided by that of the step to come: the scaled dual is `V/ρ`, and `V` stays.
    pub dual_factor: f32,
}

/// Conjugate gradients on every row of a matrix at once, between two products.
#[derive(Debug, Clone)]
pub struct ConjugateState<B: Backend> {
    /// The point, `[m, n]`.
    pub point: Tensor<B, 2>,
    /// The negative gradient on the support, `[m, n]`.
    pub residual: Tensor<B, 2>,
    /// The next direction, `[m, n]`.
    pub direction: Tensor<B, 2>,
    /// `Σ residual ⊙ preconditioned residual` of each row, `[m, 1]`.
    pub energy: Tensor<B, 2>,
}

/// A burn backend with the inner operations of the layer-wise solvers.
///
/// `m` is the number of outputs of a linear operator, `n` of inputs, `p` of tokens.
pub trait SolverOps: Backend {
    /// Whether a matrix is best factorised by the host: true where device and host share memory and cores.
    const FACTORISE_ON_HOST: bool = true;

    /// The largest tensor that `device` can hold, in bytes; `None` where only memory limits it.
    fn max_tensor_bytes(_device: &Self::Device) -> Option<u64> {
        None
    }

    /// `lhs · rhs` of `[m, k]` and `[k, n]`, every factor and every sum in f32.
    ///
    /// burn's own product of f32 matrices may round the factors to TF32, 10 bits of mantissa, where a GPU's tensor cores take
    /// them. That is good enough where a later step decides, and nowhere else.
    fn matmul_f32(lhs: Tensor<Self, 2>, rhs: Tensor<Self, 2>) -> Tensor<Self, 2> {
        lhs.matmul(rhs)
    }

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

    /// One step of ℓ0 splitting after its product: selects the entries of `Z = moved + weight + dual` and gives the right
    /// side of the next product and the next dual, all `[m, n]`:
    ///
    /// ```text
    /// D = Z where it stays, else 0      u = dual_factor · (Z − D)      right = ρ (D − u − weight) − drift
    /// ```
    ///
    /// Which of several equal entries stay is left open, and so is which of those that differ by less than a millionth of
    /// the largest.
    fn splitting_step(
        moved: Tensor<Self, 2>,
        weight: Tensor<Self, 2>,
        dual: Tensor<Self, 2>,
        drift: Option<Tensor<Self, 2>>,
        step: SplittingStep,
    ) -> (Tensor<Self, 2>, Tensor<Self, 2>) {
        generic::splitting_step(moved, weight, dual, drift, step)
    }

    /// One step of preconditioned conjugate gradients per row, after its product `image = direction · G` `[m, n]`.
    /// `mask [m, n]` is one on the support and zero elsewhere, `preconditioner [1, n]` the inverse diagonal of `G`.
    ///
    /// A row whose direction has no curvature is done and stays as it is.
    fn conjugate_step(
        state: ConjugateState<Self>,
        image: Tensor<Self, 2>,
        mask: Tensor<Self, 2>,
        preconditioner: Tensor<Self, 2>,
    ) -> ConjugateState<Self> {
        generic::conjugate_step(state, image, mask, preconditioner)
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

    /// Adds `XᵀX` of a batch `x [tokens, n]` to a running sum, with compensation as in
    /// [`compensated_add`](SolverOps::compensated_add); what lies below the diagonal is not computed.
    fn gram_update(sum: GramSum<Self>, x: Tensor<Self, 2>) -> GramSum<Self> {
        gram::generic::update(sum, x)
    }

    /// The whole matrix of a running sum, `[n, n]`: symmetric to the last bit, as the upper half is mirrored.
    fn gram_matrix(sum: GramSum<Self>) -> Tensor<Self, 2> {
        gram::generic::matrix(sum)
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

/// The bodies that run on every backend, where a test can hold a backend's own against them.
pub(crate) mod generic {
    use super::*;

    pub(crate) fn splitting_step<B: Backend>(
        moved: Tensor<B, 2>,
        weight: Tensor<B, 2>,
        dual: Tensor<B, 2>,
        drift: Option<Tensor<B, 2>>,
        step: SplittingStep,
    ) -> (Tensor<B, 2>, Tensor<B, 2>) {
        let z = moved + weight.clone() + dual;
        let keep = keep_mask(&z, step.selection);
        let dual = z
            .clone()
            .mask_fill(keep.clone(), 0.0)
            .mul_scalar(step.dual_factor);
        let kept = z.mask_fill(keep.bool_not(), 0.0);
        let right = (kept - dual.clone() - weight).mul_scalar(step.rho);
        match drift {
            Some(drift) => (right - drift, dual),
            None => (right, dual),
        }
    }

    pub(crate) fn conjugate_step<B: Backend>(
        state: ConjugateState<B>,
        image: Tensor<B, 2>,
        mask: Tensor<B, 2>,
        preconditioner: Tensor<B, 2>,
    ) -> ConjugateState<B> {
        let image = image * mask;
        let curvature = (state.direction.clone() * image.clone()).sum_dim(1);
        let step = quotient(state.energy.clone(), curvature);
        let point = state.point + state.direction.clone() * step.clone();
        let residual = state.residual - image * step;
        let preconditioned = residual.clone() * preconditioner;
        let energy = (residual.clone() * preconditioned.clone()).sum_dim(1);
        let momentum = quotient(energy.clone(), state.energy);
        let direction = preconditioned + state.direction * momentum;
        ConjugateState {
            point,
            residual,
            direction,
            energy,
        }
    }

    /// `a / b` for rows, zero where `b` is not positive: such a row is done.
    fn quotient<B: Backend>(a: Tensor<B, 2>, b: Tensor<B, 2>) -> Tensor<B, 2> {
        let done = b.clone().lower_equal_elem(f32::MIN_POSITIVE);
        (a / b).mask_fill(done, 0.0)
    }
}

#[cfg(feature = "ndarray")]
impl SolverOps for burn::backend::NdArray {}
