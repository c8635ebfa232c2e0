//! What an operation does with the elements of one task, and how Flex's selections find their border.

use crate::border::{self, Counts};
use crate::ops::AcceleratedStep;
use rayon::prelude::*;
use std::ops::Range;

/// A FISTA iteration on some elements: points `y`, prox points `x`, and `q`, which comes as the gradient and goes as the
/// difference to the weights `w`. Gives `Σ (next − x)²` and `Σ (y − next) (next − x)`, in an order of their own.
pub(super) fn accelerate(
    y: &mut [f32],
    x: &mut [f32],
    q: &mut [f32],
    w: &[f32],
    step: AcceleratedStep,
) -> [f64; 2] {
    const LANES: usize = 16;
    let mut moves = [0.0f64; LANES];
    let mut climbs = [0.0f64; LANES];
    let mut lanes = |y: &mut [f32], x: &mut [f32], q: &mut [f32], w: &[f32]| {
        for (lane, (((y, x), q), w)) in y.iter_mut().zip(x).zip(q).zip(w).enumerate() {
            let z = *y - step.step * *q;
            let next = z - z.clamp(-step.threshold, step.threshold);
            let moved = next - *x;
            moves[lane] += f64::from(moved) * f64::from(moved);
            climbs[lane] += f64::from(*y - next) * f64::from(moved);
            let point = next + step.momentum * moved;
            (*x, *y, *q) = (next, point, point - w);
        }
    };
    let (y, y_rest) = y.as_chunks_mut::<LANES>();
    let (x, x_rest) = x.as_chunks_mut::<LANES>();
    let (q, q_rest) = q.as_chunks_mut::<LANES>();
    let (w, w_rest) = w.as_chunks::<LANES>();
    for (((y, x), q), w) in y.iter_mut().zip(x).zip(q).zip(w) {
        lanes(y, x, q, w);
    }
    lanes(y_rest, x_rest, q_rest, w_rest);
    [moves.iter().sum(), climbs.iter().sum()]
}

/// `a / b`, zero where `b` is not positive.
pub(super) fn ratio(a: f32, b: f32) -> f32 {
    if b > f32::MIN_POSITIVE { a / b } else { 0.0 }
}

/// `Σ a ⊙ b` in sixteen running sums.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
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
pub(super) fn cut_two_of_four(z: &mut [f32], u: &mut [f32]) {
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
pub(super) fn cut_groups(z: &mut [f32], u: &mut [f32], n: usize, m: usize) {
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

/// The `zeros`-th smallest absolute value, given how many of them each bin has; below all of them for none.
pub(super) fn threshold(values: &[f32], zeros: usize, counts: Counts) -> f32 {
    if zeros == 0 || values.is_empty() {
        return -1.0;
    }
    let (border, below) = counts.border(zeros);
    let candidates: Vec<Vec<f32>> = values
        .par_chunks(border::task(values.len()))
        .map(|values| sizes_in(border::bits_of_bin(border), values))
        .collect();
    let mut candidates = candidates.concat();
    let rank = (zeros - below).min(candidates.len()).saturating_sub(1);
    *candidates.select_nth_unstable_by(rank, f32::total_cmp).1
}

/// The absolute values that have these bits. Few are expected: most groups of values are passed over at once.
fn sizes_in(bits: Range<u32>, values: &[f32]) -> Vec<f32> {
    let inside = |value: &f32| value.abs().to_bits().wrapping_sub(bits.start) < bits.end - bits.start;
    let mut found = Vec::new();
    let mut gather = |values: &[f32]| found.extend(values.iter().filter(|v| inside(v)).map(|v| v.abs()));
    let (groups, rest) = values.as_chunks::<32>();
    for group in groups {
        if group.iter().fold(false, |any, value| any | inside(value)) {
            gather(group);
        }
    }
    gather(rest);
    found
}
