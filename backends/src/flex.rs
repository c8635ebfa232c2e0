//! [`SolverOps`] on Flex: one pass over memory an operation, on all cores, where burn's own element-wise operations
//! take several passes on one core.
#![cfg(feature = "flex")]

mod gram;
mod loops;
mod memory;

use crate::border::{self, Counts, size_bin};
use crate::gram::GramSum;
use crate::ops::{AcceleratedState, AcceleratedStep, ConjugateState, Progress, SolverOps, SplittingStep};
use crate::selection::Selection;
use burn::backend::Flex;
use burn::tensor::{Tensor, TensorData};
use loops::{accelerate, cut_groups, cut_two_of_four, dot, ratio, threshold};
use memory::{contiguous, tensor};
use rayon::prelude::*;

/// Elements a task works on: a quarter of a typical L2 cache with two operands, and enough to hide the hand-over.
const CHUNK: usize = 1 << 14;

/// Elements that are counted at once, while they are in the first-level cache.
const COUNTED: usize = 1 << 11;

impl SolverOps for Flex {
    fn difference(a: Tensor<Self, 2>, b: Tensor<Self, 2>) -> Tensor<Self, 2> {
        assert_eq!(a.dims(), b.dims());
        let b = contiguous(b);
        let mut a = contiguous(a);
        (a.storage_mut::<f32>().par_chunks_mut(CHUNK))
            .zip(b.storage::<f32>().par_chunks(CHUNK))
            .for_each(|(a, b)| a.iter_mut().zip(b).for_each(|(a, b)| *a -= b));
        tensor(a)
    }

    fn accelerated_step(
        state: AcceleratedState<Self>,
        image: Tensor<Self, 2>,
        weight: Tensor<Self, 2>,
        drift: Option<Tensor<Self, 2>>,
        step: AcceleratedStep,
    ) -> (AcceleratedState<Self>, Progress) {
        // Its memory is not needed.
        drop(state.difference);
        let mut point = contiguous(state.point);
        let mut prox = contiguous(state.prox);
        let mut difference = contiguous(image);
        let weight = contiguous(weight);
        let drift = drift.map(contiguous);
        let w = weight.storage::<f32>();
        let p = drift.as_ref().map(|drift| drift.storage::<f32>());
        let (y, x) = (point.storage_mut::<f32>(), prox.storage_mut::<f32>());
        let q = difference.storage_mut::<f32>();
        assert!([x.len(), q.len(), w.len()] == [y.len(); 3]);
        let sums: Vec<[f64; 2]> = (y.par_chunks_mut(CHUNK))
            .zip(x.par_chunks_mut(CHUNK))
            .zip(q.par_chunks_mut(CHUNK))
            .zip(w.par_chunks(CHUNK))
            .enumerate()
            .map(|(chunk, (((y, x), q), w))| {
                if let Some(p) = p {
                    for (q, p) in q.iter_mut().zip(&p[chunk * CHUNK..]) {
                        *q += p;
                    }
                }
                accelerate(y, x, q, w, step)
            })
            .collect();
        let (squared_move, uphill) = (sums.iter()).fold((0.0, 0.0), |(a, b), [more, up]| (a + more, b + up));
        let restarted = step.restart && uphill > 0.0;
        let (prox, weight) = (tensor(prox), tensor(weight));
        let (point, difference) = if restarted {
            (prox.clone(), Self::difference(prox.clone(), weight))
        } else {
            (tensor(point), tensor(difference))
        };
        let state = AcceleratedState {
            point,
            prox,
            difference,
        };
        let progress = Progress {
            squared_move,
            restarted,
        };
        (state, progress)
    }

    fn splitting_step(
        moved: Tensor<Self, 2>,
        weight: Tensor<Self, 2>,
        shifted: Tensor<Self, 2>,
        drift: Option<Tensor<Self, 2>>,
        step: SplittingStep,
    ) -> (Tensor<Self, 2>, Tensor<Self, 2>) {
        let weight_columns = weight.dims()[1].max(1);
        let weight = contiguous(weight);
        let drift = drift.map(contiguous);
        let mut z = contiguous(moved);
        let mut shifted = contiguous(shifted);
        let w = weight.storage::<f32>();
        let p = drift.as_ref().map(|drift| drift.storage::<f32>());
        let (z_values, u_values) = (z.storage_mut::<f32>(), shifted.storage_mut::<f32>());
        // Groups of n:m and rows lie within a chunk.
        let chunk = match step.selection {
            Selection::AllBut(_) => CHUNK,
            Selection::AllButInRow(_) => (CHUNK / weight_columns).max(1) * weight_columns,
            Selection::InGroups { m, .. } => (CHUNK / m).max(1) * m,
        };
        let threshold = match step.selection {
            Selection::AllBut(zeros) => {
                let task = border::task(z_values.len());
                let counts = z_values
                    .par_chunks_mut(task)
                    .zip(u_values.par_chunks(task))
                    .map(|(z, u)| {
                        let mut counts = Counts::new();
                        for (z, u) in z.chunks_mut(COUNTED).zip(u.chunks(COUNTED)) {
                            z.iter_mut().zip(u).for_each(|(z, u)| *z += u);
                            counts.add(z, size_bin);
                        }
                        counts
                    })
                    .reduce(Counts::new, Counts::with);
                threshold(z_values, zeros, counts)
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
                    z.iter_mut().zip(u.iter()).for_each(|(z, u)| *z += u);
                }
                // `u` takes up what is cut, `z` what stays; then `u` is the next shifted weight.
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
                    *u = w + step.dual_factor * *u;
                    *z = step.rho * (*z - *u);
                }
                if let Some(p) = p {
                    for (z, p) in z.iter_mut().zip(&p[index * chunk..]) {
                        *z -= p;
                    }
                }
            });
        (tensor(z), tensor(shifted))
    }

    fn conjugate_start(
        point: Tensor<Self, 2>,
        gradient: Tensor<Self, 2>,
        mask: Tensor<Self, 2>,
        preconditioner: Tensor<Self, 2>,
    ) -> ConjugateState<Self> {
        let [rows, columns] = gradient.dims();
        let columns = columns.max(1);
        let mut residual = contiguous(gradient);
        let (mask, preconditioner) = (contiguous(mask), contiguous(preconditioner));
        let scale = preconditioner.storage::<f32>();
        let mut direction = vec![0.0; rows * columns];
        let mut energy = vec![0.0; rows];
        (residual.storage_mut::<f32>().par_chunks_mut(columns))
            .zip(mask.storage::<f32>().par_chunks(columns))
            .zip(direction.par_chunks_mut(columns))
            .zip(energy.par_iter_mut())
            .for_each(|(((r, mask), d), energy)| {
                for (((r, keep), d), s) in r.iter_mut().zip(mask).zip(d.iter_mut()).zip(scale) {
                    *r *= -keep;
                    *d = *r * s;
                }
                *energy = dot(r, d);
            });
        let device = Default::default();
        ConjugateState {
            point,
            residual: tensor(residual),
            direction: Tensor::from_data(TensorData::new(direction, [rows, columns]), &device),
            energy: Tensor::from_data(TensorData::new(energy, [rows, 1]), &device),
        }
    }

    fn conjugate_gain(
        point: Tensor<Self, 2>,
        residual: Tensor<Self, 2>,
        state: &ConjugateState<Self>,
    ) -> f64 {
        let points = [point, state.point.clone()].map(contiguous);
        let residuals = [residual, state.residual.clone()].map(contiguous);
        let [[before, after], [first, last]] =
            [&points, &residuals].map(|pair| [pair[0].storage::<f32>(), pair[1].storage::<f32>()]);
        let sums: Vec<f64> = (before.par_chunks(CHUNK).zip(after.par_chunks(CHUNK)))
            .zip(first.par_chunks(CHUNK).zip(last.par_chunks(CHUNK)))
            .map(|((before, after), (first, last))| {
                let pairs = (before.iter().zip(after)).zip(first.iter().zip(last));
                pairs
                    .map(|((before, after), (first, last))| {
                        f64::from(after - before) * f64::from(first + last)
                    })
                    .sum()
            })
            .collect();
        sums.iter().sum()
    }

    fn conjugate_step(
        state: ConjugateState<Self>,
        image: Tensor<Self, 2>,
        mask: Tensor<Self, 2>,
        preconditioner: Tensor<Self, 2>,
    ) -> ConjugateState<Self> {
        let columns = image.dims()[1].max(1);
        let (mut point, mut residual) = (contiguous(state.point), contiguous(state.residual));
        let (mut direction, mut energy) = (contiguous(state.direction), contiguous(state.energy));
        let (image, mask, preconditioner) = (contiguous(image), contiguous(mask), contiguous(preconditioner));
        let scale = preconditioner.storage::<f32>();
        let rows = (point.storage_mut::<f32>().par_chunks_mut(columns))
            .zip(residual.storage_mut::<f32>().par_chunks_mut(columns))
            .zip(direction.storage_mut::<f32>().par_chunks_mut(columns))
            .zip(image.storage::<f32>().par_chunks(columns))
            .zip(mask.storage::<f32>().par_chunks(columns))
            .zip(energy.storage_mut::<f32>().par_iter_mut());
        // A row of its own for each task: one that is written to in place would go back to memory.
        let row = || vec![0.0; columns];
        rows.for_each_init(row, |q, (((((x, r), d), image), mask), energy)| {
            for ((q, image), keep) in q.iter_mut().zip(image).zip(mask) {
                *q = image * keep;
            }
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
        let (mut sum, mut compensation, term) = (contiguous(sum), contiguous(compensation), contiguous(term));
        (sum.storage_mut::<f32>().par_chunks_mut(CHUNK))
            .zip(compensation.storage_mut::<f32>().par_chunks_mut(CHUNK))
            .zip(term.storage::<f32>().par_chunks(CHUNK))
            .for_each(|((sum, compensation), term)| gram::compensated_add(sum, compensation, term));
        (tensor(sum), tensor(compensation))
    }

    fn gram_update(sum: GramSum<Self>, x: Tensor<Self, 2>) -> GramSum<Self> {
        gram::update(sum, x)
    }

    fn gram_matrix(sum: GramSum<Self>) -> Tensor<Self, 2> {
        gram::matrix(sum)
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

/// Sums `f` over matching elements in f64. The order depends on [`CHUNK`] only, never on the number of threads.
fn reduce(a: Tensor<Flex, 2>, b: Tensor<Flex, 2>, f: impl Fn(f32, f32) -> f64 + Sync) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let (a, b) = (contiguous(a), contiguous(b));
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
                let (moved, weight, shifted) = input();
                let own = Flex::splitting_step(moved, weight, shifted, drift.clone(), step);
                let (moved, weight, shifted) = input();
                let expected = generic::splitting_step(moved, weight, shifted, drift, step);
                assert_close(&format!("{selection:?} right"), own.0, expected.0);
                assert_close(&format!("{selection:?} shifted"), own.1, expected.1);
            }
        }
    }

    #[test]
    fn an_accelerated_step_is_the_generic_one() {
        // More than one chunk, and a last one that lanes do not divide.
        let (rows, columns) = (71, 479);
        let input = |seed: u32| matrix(rows, columns, seed);
        let mut restarts = Vec::new();
        for (drift, momentum, restart) in [
            (None, 0.0, true),
            (Some(input(4)), 0.7, false),
            (Some(input(4)), 0.7, true),
            (None, 0.9, true),
        ] {
            for direction in [-1.0, 1.0] {
                let step = AcceleratedStep {
                    step: 0.4,
                    threshold: 0.1,
                    momentum,
                    restart,
                };
                // The last prox point lies so that the momentum points downhill or uphill.
                let state = || AcceleratedState {
                    point: input(1),
                    prox: input(1) + input(3).mul_scalar(direction),
                    difference: input(1) - input(2),
                };
                let (own, did) = Flex::accelerated_step(state(), input(3), input(2), drift.clone(), step);
                let (expected, should) =
                    generic::accelerated_step(state(), input(3), input(2), drift.clone(), step);
                assert_eq!(did.restarted, should.restarted, "{step:?} {direction}");
                restarts.push(did.restarted);
                let moved = (did.squared_move - should.squared_move).abs();
                assert!(moved < 1e-6 * should.squared_move);
                assert_close("point", own.point, expected.point);
                assert_close("prox", own.prox, expected.prox);
                assert_close("difference", own.difference, expected.difference);
            }
        }
        assert!(restarts.contains(&true) && restarts.contains(&false));
    }

    #[test]
    fn a_conjugate_start_and_gain_are_the_generic_ones() {
        let (rows, columns) = (71, 479);
        let input = |seed: u32| matrix(rows, columns, seed);
        let mask = input(5).greater_elem(0.0).float();
        let scale = matrix(1, columns, 6).abs();
        let own = Flex::conjugate_start(input(1), input(2), mask.clone(), scale.clone());
        let expected = generic::conjugate_start(input(1), input(2), mask, scale);
        let energy = expected.energy.clone().abs().max().into_scalar();
        assert_close("residual", own.residual.clone(), expected.residual);
        assert_close("direction", own.direction.clone(), expected.direction);
        assert_close("energy", own.energy.clone() / energy, expected.energy / energy);
        let gain = Flex::conjugate_gain(input(3), input(4), &own);
        let expected = Flex::inner(own.point - input(3), own.residual + input(4));
        assert!(
            (gain - expected).abs() < 1e-6 * expected.abs(),
            "{gain} {expected}"
        );
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
