//! [`SolverOps`] on Flex: one pass over memory an operation, on all cores, where burn's own element-wise operations
//! take several passes on one core.
#![cfg(feature = "flex")]

use crate::border::{border_bin, size_bin};
use crate::flex_gram;
use crate::gram::GramSum;
use crate::ops::{ConjugateState, SolverOps, SplittingStep};
use crate::selection::Selection;
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

    fn splitting_step(
        moved: Tensor<Self, 2>,
        weight: Tensor<Self, 2>,
        dual: Tensor<Self, 2>,
        drift: Option<Tensor<Self, 2>>,
        step: SplittingStep,
    ) -> (Tensor<Self, 2>, Tensor<Self, 2>) {
        let weight_columns = weight.dims()[1].max(1);
        let weight = contiguous(primitive(weight));
        let drift = drift.map(|drift| contiguous(primitive(drift)));
        let mut z = contiguous(primitive(moved));
        let mut dual = contiguous(primitive(dual));
        let w = weight.storage::<f32>();
        let p = drift.as_ref().map(|drift| drift.storage::<f32>());
        let (z_values, u_values) = (z.storage_mut::<f32>(), dual.storage_mut::<f32>());
        // Groups of n:m and rows lie within a chunk.
        let chunk = match step.selection {
            Selection::AllBut(_) => CHUNK,
            Selection::AllButInRow(_) => (CHUNK / weight_columns).max(1) * weight_columns,
            Selection::InGroups { m, .. } => (CHUNK / m).max(1) * m,
        };
        let threshold = match step.selection {
            Selection::AllBut(zeros) => {
                z_values
                    .par_chunks_mut(chunk)
                    .zip(u_values.par_chunks(chunk))
                    .zip(w.par_chunks(chunk))
                    .for_each(|((z, u), w)| {
                        for ((z, u), w) in z.iter_mut().zip(u).zip(w) {
                            *z += w + u;
                        }
                    });
                threshold(z_values, zeros)
            }
            Selection::AllButInRow(_) | Selection::InGroups { .. } => 0.0,
        };
        z_values
            .par_chunks_mut(chunk)
            .zip(u_values.par_chunks_mut(chunk))
            .zip(w.par_chunks(chunk))
            .enumerate()
            .for_each(|(index, ((z, u), w))| {
                if !matches!(step.selection, Selection::AllBut(_)) {
                    for ((z, u), w) in z.iter_mut().zip(u.iter()).zip(w) {
                        *z += w + u;
                    }
                }
                // `u` takes up what is cut, `z` what stays.
                match step.selection {
                    Selection::AllBut(_) => {
                        for (z, u) in z.iter_mut().zip(u.iter_mut()) {
                            let cut = z.abs() <= threshold;
                            *u = if cut { *z } else { 0.0 };
                            *z = if cut { 0.0 } else { *z };
                        }
                    }
                    Selection::InGroups { n: 2, m: 4 } => cut_two_of_four(z, u),
                    Selection::InGroups { n, m } => cut_groups(z, u, n, m),
                    Selection::AllButInRow(zeros) => {
                        let kept = weight_columns - zeros.min(weight_columns - 1);
                        cut_groups(z, u, kept, weight_columns);
                    }
                }
                for ((z, u), w) in z.iter_mut().zip(u.iter_mut()).zip(w) {
                    *u *= step.dual_factor;
                    *z = step.rho * (*z - *u - w);
                }
                if let Some(p) = p {
                    for (z, p) in z.iter_mut().zip(&p[index * chunk..]) {
                        *z -= p;
                    }
                }
            });
        (tensor(z), tensor(dual))
    }

    fn conjugate_step(
        state: ConjugateState<Self>,
        image: Tensor<Self, 2>,
        mask: Tensor<Self, 2>,
        preconditioner: Tensor<Self, 2>,
    ) -> ConjugateState<Self> {
        let columns = image.dims()[1].max(1);
        let owned = |tensor| contiguous(primitive(tensor));
        let (mut point, mut residual) = (owned(state.point), owned(state.residual));
        let (mut direction, mut energy) = (owned(state.direction), owned(state.energy));
        let (mut image, mask, preconditioner) = (owned(image), owned(mask), owned(preconditioner));
        let scale = preconditioner.storage::<f32>();
        let rows = (point.storage_mut::<f32>().par_chunks_mut(columns))
            .zip(residual.storage_mut::<f32>().par_chunks_mut(columns))
            .zip(direction.storage_mut::<f32>().par_chunks_mut(columns))
            .zip(image.storage_mut::<f32>().par_chunks_mut(columns))
            .zip(mask.storage::<f32>().par_chunks(columns))
            .zip(energy.storage_mut::<f32>().par_iter_mut());
        rows.for_each(|(((((x, r), d), q), mask), energy)| {
            q.iter_mut().zip(mask).for_each(|(q, keep)| *q *= keep);
            let step = ratio(*energy, dot(d, q));
            for (((x, r), d), q) in x.iter_mut().zip(r.iter_mut()).zip(d.iter()).zip(q.iter_mut()) {
                *x += step * d;
                *r -= step * *q;
            }
            for ((q, r), s) in q.iter_mut().zip(r.iter()).zip(scale) {
                *q = r * s;
            }
            let next = dot(r, q);
            let momentum = ratio(next, *energy);
            for (d, q) in d.iter_mut().zip(q.iter()) {
                *d = *q + momentum * *d;
            }
            *energy = next;
        });
        ConjugateState {
            point: tensor(point),
            residual: tensor(residual),
            direction: tensor(direction),
            energy: tensor(energy),
        }
    }

    fn compensated_add(
        sum: Tensor<Self, 2>,
        compensation: Tensor<Self, 2>,
        term: Tensor<Self, 2>,
    ) -> (Tensor<Self, 2>, Tensor<Self, 2>) {
        assert_eq!(sum.dims(), term.dims());
        let owned = |tensor| contiguous(primitive(tensor));
        let (mut sum, mut compensation, term) = (owned(sum), owned(compensation), owned(term));
        (sum.storage_mut::<f32>().par_chunks_mut(CHUNK))
            .zip(compensation.storage_mut::<f32>().par_chunks_mut(CHUNK))
            .zip(term.storage::<f32>().par_chunks(CHUNK))
            .for_each(|((sum, compensation), term)| flex_gram::compensated_add(sum, compensation, term));
        (tensor(sum), tensor(compensation))
    }

    fn gram_update(sum: GramSum<Self>, x: Tensor<Self, 2>) -> GramSum<Self> {
        flex_gram::update(sum, x)
    }

    fn gram_matrix(sum: GramSum<Self>) -> Tensor<Self, 2> {
        flex_gram::matrix(sum)
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

pub(crate) fn primitive(tensor: Tensor<Flex, 2>) -> FlexTensor {
    let tensor = tensor.into_primitive().tensor();
    assert!(tensor.dtype() == DType::F32, "the solver computes in f32");
    tensor
}

pub(crate) fn tensor(primitive: FlexTensor) -> Tensor<Flex, 2> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}

/// The tensor with its elements in one run from the start of its buffer.
pub(crate) fn contiguous(tensor: FlexTensor) -> FlexTensor {
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
    tensor(target)
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

/// `a / b`, zero where `b` is not positive.
fn ratio(a: f32, b: f32) -> f32 {
    if b > f32::MIN_POSITIVE { a / b } else { 0.0 }
}

/// `Σ a ⊙ b` in sixteen running sums.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 16];
    let (a16, b16) = (a.chunks_exact(16), b.chunks_exact(16));
    let tail: f32 = (a16.remainder().iter().zip(b16.remainder()))
        .map(|(a, b)| a * b)
        .sum();
    for (a, b) in a16.zip(b16) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    lanes.iter().sum::<f32>() + tail
}

/// Keeps the two largest of each four in `z` and moves the others to `u`. Of equal entries the first stays.
fn cut_two_of_four(z: &mut [f32], u: &mut [f32]) {
    for (z, u) in z.chunks_exact_mut(4).zip(u.chunks_exact_mut(4)) {
        let a = [z[0].abs(), z[1].abs(), z[2].abs(), z[3].abs()];
        for i in 0..4 {
            let ahead: u32 = (0..4)
                .map(|j| u32::from(a[j] > a[i] || (j < i && a[j] == a[i])))
                .sum();
            u[i] = if ahead < 2 { 0.0 } else { z[i] };
        }
        for i in 0..4 {
            z[i] -= u[i];
        }
    }
}

/// The same for the `n` largest of each `m`.
fn cut_groups(z: &mut [f32], u: &mut [f32], n: usize, m: usize) {
    let mut sizes = Vec::with_capacity(m);
    for (z, u) in z.chunks_exact_mut(m).zip(u.chunks_exact_mut(m)) {
        sizes.clear();
        sizes.extend(z.iter().map(|z| z.abs()));
        let (_, border, _) = sizes.select_nth_unstable_by(n - 1, |a, b| b.total_cmp(a));
        let border = *border;
        let mut ties = n - z.iter().filter(|z| z.abs() > border).count().min(n);
        for (z, u) in z.iter_mut().zip(u) {
            let tied = z.abs() == border && ties > 0;
            ties -= usize::from(tied);
            *u = if tied || z.abs() > border { 0.0 } else { *z };
            *z -= *u;
        }
    }
}

/// The `zeros`-th smallest absolute value; below all of them for none.
fn threshold(values: &[f32], zeros: usize) -> f32 {
    if zeros == 0 || values.is_empty() {
        return -1.0;
    }
    let (border, below) = border_bin(values, zeros, size_bin);
    let mut candidates: Vec<f32> = values
        .par_chunks(CHUNK)
        .flat_map_iter(|values| values.iter().filter(|v| size_bin(**v) == border).map(|v| v.abs()))
        .collect();
    let rank = (zeros - below).min(candidates.len()).saturating_sub(1);
    *candidates.select_nth_unstable_by(rank, f32::total_cmp).1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::generic;
    use crate::testing::{Matrix, matrix};

    fn assert_close(name: &str, own: Matrix, generic: Matrix) {
        let worst = (own - generic).abs().max().into_scalar();
        assert!(worst < 1e-5, "{name}: {worst}");
    }

    #[test]
    fn a_splitting_step_is_the_generic_one() {
        // More than one chunk, and rows that chunks do not divide.
        let (rows, columns) = (70, 480);
        let drift = matrix(rows, columns, 4);
        for selection in [
            Selection::AllBut(0),
            Selection::AllBut(1),
            Selection::AllBut(rows * columns / 2),
            Selection::AllBut(rows * columns - 1),
            Selection::AllButInRow(columns / 3),
            Selection::InGroups { n: 2, m: 4 },
            Selection::InGroups { n: 1, m: 2 },
            Selection::InGroups { n: 5, m: 16 },
            Selection::InGroups { n: 7, m: 8 },
        ] {
            for drift in [None, Some(drift.clone())] {
                let step = SplittingStep {
                    selection,
                    rho: 0.3,
                    dual_factor: 0.9,
                };
                let input = || {
                    (
                        matrix(rows, columns, 1),
                        matrix(rows, columns, 2),
                        matrix(rows, columns, 3),
                    )
                };
                let (moved, weight, dual) = input();
                let own = Flex::splitting_step(moved, weight, dual, drift.clone(), step);
                let (moved, weight, dual) = input();
                let expected = generic::splitting_step(moved, weight, dual, drift, step);
                assert_close(&format!("{selection:?} right"), own.0, expected.0);
                assert_close(&format!("{selection:?} dual"), own.1, expected.1);
            }
        }
    }

    #[test]
    fn a_conjugate_step_is_the_generic_one() {
        let (rows, columns) = (9, 45);
        let mask = matrix(rows, columns, 5).greater_elem(0.0).float();
        let state = || {
            let direction = matrix(rows, columns, 3) * mask.clone();
            ConjugateState {
                point: matrix(rows, columns, 1),
                residual: matrix(rows, columns, 2) * mask.clone(),
                energy: (direction.clone() * direction.clone()).sum_dim(1),
                direction,
            }
        };
        // A curvature that is positive but in the first row, which is done.
        let ramp = Tensor::arange(0..rows as i64, &Default::default())
            .float()
            .reshape([rows, 1]);
        let image = state().direction * ramp;
        let scale = matrix(1, columns, 6).abs();
        let own = Flex::conjugate_step(state(), image.clone(), mask.clone(), scale.clone());
        let expected = generic::conjugate_step(state(), image, mask.clone(), scale);
        assert_close("point", own.point, expected.point);
        assert_close("residual", own.residual, expected.residual);
        assert_close("direction", own.direction, expected.direction);
        assert_close("energy", own.energy, expected.energy);
    }
}
