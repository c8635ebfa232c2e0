//! The solver's inner operations. Each default body composes burn operations, so that it runs on every backend; a
//! backend overrides one where a hand-written kernel pays.

use crate::gram::{GramSum, Strip, mirrored};
use crate::selection::{Selection, keep_mask};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use std::ops::Range;

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

/// FISTA between two products, all `[m, n]`.
#[derive(Debug, Clone)]
pub struct AcceleratedState<B: Backend> {
    /// The extrapolated point, which the next gradient is taken at.
    pub point: Tensor<B, 2>,
    /// The last prox point.
    pub prox: Tensor<B, 2>,
    /// `point − weight`, which the next product is taken of.
    pub difference: Tensor<B, 2>,
}

/// A FISTA iteration: see [`SolverOps::accelerated_step`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AcceleratedStep {
    /// Length of the gradient step.
    pub step: f32,
    /// What sizes shrink by.
    pub threshold: f32,
    /// Share of the last move that the point is carried on by.
    pub momentum: f32,
    /// Whether a momentum that points uphill is dropped: where `⟨point − next, next − prox⟩` is above zero, the next point is
    /// the prox point itself (O'Donoghue & Candès, arXiv 1204.3982, Sec. 3.2, the gradient scheme).
    pub restart: bool,
}

/// What a FISTA iteration did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// `‖next − prox‖_F²`
    pub squared_move: f64,
    /// Whether the momentum was dropped.
    pub restarted: bool,
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

    /// Gives memory back that no tensor needs any more: between stages whose tensors have different sizes, so that the memory taken
    /// is the largest stage's and not the sum of all.
    fn give_back_memory(_device: &Self::Device) {}

    /// `lhs · rhs` of `[m, k]` and `[k, n]`, every factor and every sum in f32.
    ///
    /// burn's own product of f32 matrices may round the factors to TF32, 10 bits of mantissa, where a GPU's tensor cores take
    /// them. That is good enough where a later step decides, and nowhere else.
    fn matmul_f32(lhs: Tensor<Self, 2>, rhs: Tensor<Self, 2>) -> Tensor<Self, 2> {
        lhs.matmul(rhs)
    }

    /// `lhs · rhs` over the last two dimensions, the fastest way: the factors may be rounded to TF32, and sums are in f32. Which
    /// way that is depends on shapes and device alone, so that the same inputs give the same bytes.
    fn matmul_fast<const D: usize>(lhs: Tensor<Self, D>, rhs: Tensor<Self, D>) -> Tensor<Self, D> {
        lhs.matmul(rhs)
    }

    /// `a − b`, both `[m, n]`.
    fn difference(a: Tensor<Self, 2>, b: Tensor<Self, 2>) -> Tensor<Self, 2> {
        a - b
    }

    /// One FISTA iteration after its product `image = state.difference · G` `[m, n]`, with the prox point
    ///
    /// ```text
    /// next = softshrink(point − step (image + drift), threshold)
    /// ```
    ///
    /// where `softshrink(z, t) = sign(z) · max(|z| − t, 0)` is the proximal operator of `t‖·‖₁` (Beck & Teboulle 2009, Eq. 2.6;
    /// FISTAPruner, arXiv 2408.03728, Eq. 4a and 4b), and the point extrapolated from it, `next + momentum · (next − prox)`
    /// (Beck & Teboulle 2009, Eq. 4.3).
    fn accelerated_step(
        state: AcceleratedState<Self>,
        image: Tensor<Self, 2>,
        weight: Tensor<Self, 2>,
        drift: Option<Tensor<Self, 2>>,
        step: AcceleratedStep,
    ) -> (AcceleratedState<Self>, Progress) {
        generic::accelerated_step(state, image, weight, drift, step)
    }

    /// One step of ℓ0 splitting after its product, with `shifted = weight + dual`: selects the entries of `Z = moved + shifted`
    /// and gives the right side of the next product and the next shifted weight, all `[m, n]`:
    ///
    /// ```text
    /// D = Z where it stays, else 0      shifted' = weight + dual_factor · (Z − D)      right = ρ (D − shifted') − drift
    /// ```
    ///
    /// Which of several equal entries stay is left open, and so is which of those that differ by less than a millionth of
    /// the largest.
    fn splitting_step(
        moved: Tensor<Self, 2>,
        weight: Tensor<Self, 2>,
        shifted: Tensor<Self, 2>,
        drift: Option<Tensor<Self, 2>>,
        step: SplittingStep,
    ) -> (Tensor<Self, 2>, Tensor<Self, 2>) {
        generic::splitting_step(moved, weight, shifted, drift, step)
    }

    /// Preconditioned conjugate gradients per row at `point`, where the gradient is `gradient`, both `[m, n]`. `mask` and
    /// `preconditioner` are those of [`conjugate_step`](SolverOps::conjugate_step).
    fn conjugate_start(
        point: Tensor<Self, 2>,
        gradient: Tensor<Self, 2>,
        mask: Tensor<Self, 2>,
        preconditioner: Tensor<Self, 2>,
    ) -> ConjugateState<Self> {
        generic::conjugate_start(point, gradient, mask, preconditioner)
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

    /// What conjugate gradients gained from a start with `point` and `residual` to `state`: `Σ (state.point − point) ⊙ (residual
    /// + state.residual)`, twice what the quadratic objective fell by.
    fn conjugate_gain(
        point: Tensor<Self, 2>,
        residual: Tensor<Self, 2>,
        state: &ConjugateState<Self>,
    ) -> f64 {
        Self::inner(state.point.clone() - point, residual + state.residual.clone())
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
        generic::gram_update(sum, x)
    }

    /// The whole matrix of a running sum, `[n, n]`: symmetric to the last bit, as the upper half is mirrored.
    fn gram_matrix(sum: GramSum<Self>) -> Tensor<Self, 2> {
        generic::gram_matrix(sum)
    }

    /// The symmetric matrix `[n, n]` of strips, which are some rows each, from their diagonal block on: `[rows, n − rows.start]`.
    fn mirrored(columns: usize, strips: Vec<(Range<usize>, Tensor<Self, 2>)>) -> Tensor<Self, 2> {
        mirrored(columns, strips)
    }

    /// `Σ a ⊙ b` of each row of matrices of one shape `[m, n]`: `[m, 1]`.
    fn row_products(a: Tensor<Self, 2>, b: Tensor<Self, 2>) -> Tensor<Self, 2> {
        (a * b).sum_dim(1)
    }

    /// `Σ a ⊙ b` over matrices of one shape `[m, n]`, rows summed on the device, the row sums in f64.
    fn inner(a: Tensor<Self, 2>, b: Tensor<Self, 2>) -> f64 {
        let rows = Self::row_products(a, b);
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
        shifted: Tensor<B, 2>,
        drift: Option<Tensor<B, 2>>,
        step: SplittingStep,
    ) -> (Tensor<B, 2>, Tensor<B, 2>) {
        let z = moved + shifted;
        let keep = keep_mask(&z, step.selection);
        let cut = z.clone().mask_fill(keep.clone(), 0.0);
        let shifted = weight + cut.mul_scalar(step.dual_factor);
        let kept = z.mask_fill(keep.bool_not(), 0.0);
        let right = (kept - shifted.clone()).mul_scalar(step.rho);
        match drift {
            Some(drift) => (right - drift, shifted),
            None => (right, shifted),
        }
    }

    pub(crate) fn accelerated_step<B: SolverOps>(
        state: AcceleratedState<B>,
        image: Tensor<B, 2>,
        weight: Tensor<B, 2>,
        drift: Option<Tensor<B, 2>>,
        step: AcceleratedStep,
    ) -> (AcceleratedState<B>, Progress) {
        let AcceleratedState { point, prox, .. } = state;
        let gradient = match drift {
            Some(drift) => image + drift,
            None => image,
        };
        let z = point.clone() - gradient.mul_scalar(step.step);
        // z − clamp(z, −t, t) is z − t above t, z + t below −t, and exactly zero between.
        let next = z.clone() - z.clamp(-step.threshold, step.threshold);
        let squared_move = B::squared_distance(next.clone(), prox.clone());
        let restarted = step.restart && B::inner(point - next.clone(), next.clone() - prox.clone()) > 0.0;
        let point = if restarted {
            next.clone()
        } else {
            next.clone() + (next.clone() - prox).mul_scalar(step.momentum)
        };
        let state = AcceleratedState {
            difference: point.clone() - weight,
            point,
            prox: next,
        };
        let progress = Progress {
            squared_move,
            restarted,
        };
        (state, progress)
    }

    pub(crate) fn conjugate_start<B: SolverOps>(
        point: Tensor<B, 2>,
        gradient: Tensor<B, 2>,
        mask: Tensor<B, 2>,
        preconditioner: Tensor<B, 2>,
    ) -> ConjugateState<B> {
        let residual = gradient.neg() * mask;
        let direction = residual.clone() * preconditioner;
        ConjugateState {
            point,
            energy: B::row_products(residual.clone(), direction.clone()),
            residual,
            direction,
        }
    }

    pub(crate) fn conjugate_step<B: SolverOps>(
        state: ConjugateState<B>,
        image: Tensor<B, 2>,
        mask: Tensor<B, 2>,
        preconditioner: Tensor<B, 2>,
    ) -> ConjugateState<B> {
        let image = image * mask;
        let curvature = B::row_products(state.direction.clone(), image.clone());
        let step = quotient(state.energy.clone(), curvature);
        let point = state.point + state.direction.clone() * step.clone();
        let residual = state.residual - image * step;
        let preconditioned = residual.clone() * preconditioner;
        let energy = B::row_products(residual.clone(), preconditioned.clone());
        let momentum = quotient(energy.clone(), state.energy);
        let direction = preconditioned + state.direction * momentum;
        ConjugateState {
            point,
            residual,
            direction,
            energy,
        }
    }

    pub(crate) fn gram_update<B: SolverOps>(sum: GramSum<B>, x: Tensor<B, 2>) -> GramSum<B> {
        let columns = sum.columns;
        let strips = sum.strips.into_iter().map(|strip| {
            let own = x.clone().slice_dim(1, strip.rows.clone());
            let others = x.clone().slice_dim(1, strip.rows.start..columns);
            let term = B::matmul_f32(own.transpose(), others);
            let (sum, compensation) = B::compensated_add(strip.sum, strip.compensation, term);
            Strip {
                rows: strip.rows,
                sum,
                compensation,
            }
        });
        GramSum {
            columns,
            strips: strips.collect(),
        }
    }

    pub(crate) fn gram_matrix<B: SolverOps>(sum: GramSum<B>) -> Tensor<B, 2> {
        let strips = sum.strips.into_iter().map(|strip| (strip.rows, strip.sum));
        B::mirrored(sum.columns, strips.collect())
    }

    /// `a / b` for rows, zero where `b` is not positive: such a row is done.
    fn quotient<B: Backend>(a: Tensor<B, 2>, b: Tensor<B, 2>) -> Tensor<B, 2> {
        let done = b.clone().lower_equal_elem(f32::MIN_POSITIVE);
        (a / b).mask_fill(done, 0.0)
    }
}

#[cfg(feature = "ndarray")]
impl SolverOps for burn::backend::NdArray {}
