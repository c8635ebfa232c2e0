//! Attention, gates and norms in one pass over memory, where tensors lie in the host's memory (Flex): burn's operations
//! one by one would walk over every activation several times, rearrange heads, and take exponentials one number at a
//! time. Whoever calls asks [`serves`] first and goes the general way elsewhere, on an autodiff backend among others.
//!
//! Loops are plain Rust that the compiler vectorises for the widest instructions of the machine it runs on. They
//! contract nothing into fused operations, so every machine computes the same bits but for the matrix products.

use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor, TensorData, TensorPrimitive};
use burn_flex::{Flex, FlexTensor};
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;
use std::any::{Any, TypeId};

/// Rows of queries whose scores each core holds at a time, where attention runs on the host's own memory. A block computes the
/// scores of all keys up to its last row, so that fewer rows waste less above the diagonal; more make larger products.
pub const HOST_QUERY_ROWS: usize = 64;

/// Running sums and maxima side by side: two registers of AVX-512.
const LANES: usize = 32;

/// Whether the functions of this module take tensors of that backend and element type.
pub(crate) fn serves<B: Backend, const D: usize>(x: &Tensor<B, D>) -> bool {
    TypeId::of::<B>() == TypeId::of::<Flex>() && x.dtype() == DType::F32
}

/// A value whose type is known to be another name of `To`.
fn same<From: 'static, To: 'static>(value: From) -> To {
    let mut slot = Some(value);
    let slot: &mut dyn Any = &mut slot;
    (slot.downcast_mut::<Option<To>>())
        .and_then(Option::take)
        .expect("`serves` has seen to the backend")
}

/// The elements in one run from the start of their buffer.
fn contiguous<B: Backend, const D: usize>(x: Tensor<B, D>) -> FlexTensor {
    let x: FlexTensor = same(x.into_primitive().tensor());
    if x.is_contiguous() && x.as_slice::<f32>().map(<[f32]>::len) == Some(x.storage::<f32>().len()) {
        x
    } else {
        x.to_contiguous()
    }
}

fn tensor<B: Backend, const D: usize>(x: FlexTensor) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(same(x)))
}

/// Runs `f` compiled for the widest instructions there are.
fn wide<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}

/// `eˣ` to 2 units in the last place (Cephes `expf`); beyond what f32 can tell from 0 or hold it stays at the border.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // 1.5 · 2²³: whatever is added to it is rounded to an integer, in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // Comparisons that let a NaN through.
    let x = if x < -87.3 { -87.3 } else { x };
    let x = if x > 88.3 { 88.3 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN_2_HIGH - n * LN_2_LOW;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let mantissa = p * (r * r) + r + 1.0;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    mantissa * power
}

/// `silu(gate) · up`, elementwise; `silu(x) = x / (1 + e⁻ˣ)`. Any equal shapes.
pub(crate) fn silu_gated<B: Backend, const D: usize>(gate: Tensor<B, D>, up: Tensor<B, D>) -> Tensor<B, D> {
    let (mut gate, up) = (contiguous(gate), contiguous(up));
    let (values, factors) = (gate.storage_mut::<f32>(), up.storage::<f32>());
    wide(
        #[inline(always)]
        || {
            for (x, up) in values.iter_mut().zip(factors) {
                *x = *x / (1.0 + exp(-*x)) * up;
            }
        },
    );
    tensor(gate)
}

/// `x / √(mean(x²) + ε) · weight` over the last axis; `weight` is `[features]`.
pub(crate) fn rms_norm<B: Backend, const D: usize>(
    x: Tensor<B, D>,
    weight: Tensor<B, 1>,
    epsilon: f64,
) -> Tensor<B, D> {
    let (mut x, weight) = (contiguous(x), contiguous(weight));
    let weight = weight.storage::<f32>();
    let values = x.storage_mut::<f32>();
    let count = weight.len() as f32;
    wide(
        #[inline(always)]
        || {
            for row in values.chunks_exact_mut(weight.len().max(1)) {
                let squares = lanes(row, 0.0, |sum, x| sum + x * x).into_iter().sum::<f32>();
                let scale = 1.0 / (squares / count + epsilon as f32).sqrt();
                for (x, weight) in row.iter_mut().zip(weight) {
                    *x = *x * scale * weight;
                }
            }
        },
    );
    tensor(x)
}

/// `f` over the row, in [`LANES`] runs side by side; the tail is in the first lanes.
#[inline(always)]
fn lanes(row: &[f32], start: f32, f: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    let mut lanes = [start; LANES];
    let whole = row.chunks_exact(LANES);
    let tail = whole.remainder();
    for part in whole {
        for (lane, x) in lanes.iter_mut().zip(part) {
            *lane = f(*lane, *x);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(tail) {
        *lane = f(*lane, *x);
    }
    lanes
}

/// Cosines and signed sines of the positions, `[tokens, dim]` each, as [`crate::rope`] makes them.
#[derive(Clone, Copy)]
pub(crate) struct Rotary<'a> {
    pub(crate) cos: &'a [f32],
    pub(crate) sin: &'a [f32],
}

/// Rotates `x [batch, tokens, heads, dim]` in place: `x cos + rotate_half(x) sin`.
fn rotate(x: &mut [f32], [tokens, heads, dim]: [usize; 3], rotary: Rotary<'_>) {
    let half = dim / 2;
    wide(
        #[inline(always)]
        || {
            for sequence in x.chunks_exact_mut((tokens * heads * dim).max(1)) {
                let rows = sequence.chunks_exact_mut(heads * dim);
                let tables = rotary.cos.chunks_exact(dim).zip(rotary.sin.chunks_exact(dim));
                for (row, (cos, sin)) in rows.zip(tables) {
                    let ((cos_low, cos_high), (sin_low, sin_high)) = (cos.split_at(half), sin.split_at(half));
                    for head in row.chunks_exact_mut(dim) {
                        let (low, high) = head.split_at_mut(half);
                        for i in 0..half {
                            let (a, b) = (low[i], high[i]);
                            low[i] = a * cos_low[i] + b * sin_low[i];
                            high[i] = b * cos_high[i] + a * sin_high[i];
                        }
                    }
                }
            }
        },
    );
}

/// `softmax(q kᵀ / √dim + mask) v` of whole sequences, rotated before where there is a rotation.
///
/// `q` is `[batch, tokens, heads, dim]`, `k` and `v` are `[batch, tokens, kv_heads, dim]`, as the operators give them: heads
/// are never rearranged. Query head `h` uses key head `h / (heads / kv_heads)`. A token sees itself and what is before it,
/// at most `window` positions in all. Gives `[batch, tokens, heads · dim]`.
pub(crate) fn causal_attention<B: Backend>(
    q: Tensor<B, 4>,
    k: Tensor<B, 4>,
    v: Tensor<B, 4>,
    rotary: Option<Rotary<'_>>,
    window: Option<usize>,
) -> Tensor<B, 3> {
    let [batch, tokens, heads, dim] = q.dims();
    let groups = k.dims()[2];
    let (mut q, mut k, v) = (contiguous(q), contiguous(k), contiguous(v));
    if let Some(rotary) = rotary {
        rotate(q.storage_mut(), [tokens, heads, dim], rotary);
        rotate(k.storage_mut(), [tokens, groups, dim], rotary);
    }
    let (q, k, v) = (q.storage::<f32>(), k.storage::<f32>(), v.storage::<f32>());
    let (row, key_row) = (heads * dim, groups * dim);
    let mut out = vec![0.0f32; batch * tokens * row];
    let (whole, whole_keys) = ((tokens * row).max(1), (tokens * key_row).max(1));
    let sequences = (out.par_chunks_mut(whole).zip(q.par_chunks(whole)))
        .zip(k.par_chunks(whole_keys).zip(v.par_chunks(whole_keys)));
    sequences.for_each(|((out, q), (k, v))| {
        (out.par_chunks_mut(HOST_QUERY_ROWS * row).enumerate()).for_each(|(block, out)| {
            let first = block * HOST_QUERY_ROWS;
            let count = out.len() / row;
            let last = first + count;
            let start = window.map_or(0, |window| (first + 1).saturating_sub(window));
            let seen = last - start;
            let mut scores = vec![0.0f32; count * seen];
            for head in 0..heads {
                let key = head / (heads / groups) * dim;
                let matrix = |x, rows, columns, stride| {
                    MatRef::from_row_major_slice_with_stride(x, rows, columns, stride)
                };
                matmul(
                    MatMut::from_row_major_slice_mut(&mut scores, count, seen),
                    Accum::Replace,
                    matrix(
                        part(q, first * row + head * dim, count, row, dim),
                        count,
                        dim,
                        row,
                    ),
                    matrix(
                        part(k, start * key_row + key, seen, key_row, dim),
                        seen,
                        dim,
                        key_row,
                    )
                    .transpose(),
                    1.0 / (dim as f32).sqrt(),
                    Par::Seq,
                );
                softmax(&mut scores, seen, |i| {
                    let end = first + i + 1;
                    let begin = window.map_or(0, |window| end.saturating_sub(window));
                    (begin - start, end - start)
                });
                let out = &mut out[head * dim..];
                let length = (count - 1) * row + dim;
                matmul(
                    rows_mut(&mut out[..length], count, dim, row),
                    Accum::Replace,
                    MatRef::from_row_major_slice(&scores, count, seen),
                    matrix(
                        part(v, start * key_row + key, seen, key_row, dim),
                        seen,
                        dim,
                        key_row,
                    ),
                    1.0,
                    Par::Seq,
                );
            }
        });
    });
    tensor(FlexTensor::from_data(TensorData::new(out, [batch, tokens, row])))
}

/// A matrix of `rows` rows of `width` elements, `stride` apart, to write to. By its transpose: the function for rows of
/// faer 0.24.4 takes the strides of the two axes for each other, and lets a product write outside of the slice.
fn rows_mut(x: &mut [f32], rows: usize, width: usize, stride: usize) -> MatMut<'_, f32> {
    MatMut::from_column_major_slice_with_stride_mut(x, width, rows, stride).transpose_mut()
}

/// `rows` rows of `width` elements, `stride` apart, from `first` on.
fn part(x: &[f32], first: usize, rows: usize, stride: usize, width: usize) -> &[f32] {
    &x[first..first + (rows - 1) * stride + width]
}

/// The softmax of each row of `scores [_, width]` over the columns that `visible` gives for it, from the first to before
/// the last; the others become zero.
fn softmax(scores: &mut [f32], width: usize, visible: impl Fn(usize) -> (usize, usize)) {
    wide(
        #[inline(always)]
        || {
            for (i, row) in scores.chunks_exact_mut(width).enumerate() {
                let (first, last) = visible(i);
                row[..first].fill(0.0);
                row[last..].fill(0.0);
                let row = &mut row[first..last];
                // A NaN is no maximum, and makes the sum one.
                let larger = |a: f32, b: f32| if b > a { b } else { a };
                let largest = lanes(row, f32::NEG_INFINITY, larger);
                let largest = largest.into_iter().fold(f32::NEG_INFINITY, larger);
                for x in row.iter_mut() {
                    *x = exp(*x - largest);
                }
                let sum: f32 = lanes(row, 0.0, |sum, x| sum + x).into_iter().sum();
                let scale = 1.0 / sum;
                for x in row.iter_mut() {
                    *x *= scale;
                }
            }
        },
    );
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::attention;
    use crate::rope::{Rope, RopeConfig, RopePrecision, RopeScaling};
    use burn::tensor::{Distribution, activation};

    type B = Flex;

    fn random<const D: usize>(shape: [usize; D], deviation: f64) -> Tensor<B, D> {
        Tensor::random(shape, Distribution::Normal(0.0, deviation), &Default::default())
    }

    fn values<const D: usize>(x: Tensor<B, D>) -> Vec<f32> {
        x.into_data().into_vec().unwrap()
    }

    /// The largest distance, in units of the largest entry.
    fn apart<const D: usize>(found: Tensor<B, D>, expected: Tensor<B, D>) -> f32 {
        assert_eq!(found.dims(), expected.dims());
        let largest = expected.clone().abs().max().into_scalar();
        (found - expected).abs().max().into_scalar() / largest.max(f32::MIN_POSITIVE)
    }

    #[test]
    fn exponentials_are_those_of_f64() {
        for i in -870_000..=880_000 {
            let x = i as f32 * 1e-4;
            let expected = f64::from(x).exp();
            let relative = (f64::from(exp(x)) - expected).abs() / expected;
            assert!(relative < 1.2e-7, "{relative} at {x}");
        }
        assert_eq!(exp(0.0), 1.0);
        for below in [-88.0, -1e30, f32::NEG_INFINITY] {
            assert!((0.0..2e-38).contains(&exp(below)));
        }
        for above in [89.0, 1e30, f32::INFINITY] {
            assert!(exp(above) > 1e38 && exp(above).is_finite());
        }
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn a_gate_is_the_general_one() {
        let (gate, up) = (random([3, 5, 37], 4.0), random([3, 5, 37], 1.0));
        let expected = activation::silu(gate.clone()) * up.clone();
        assert!(apart(silu_gated(gate.clone(), up.clone()), expected.clone()) < 1e-6);
        // Of tensors whose elements do not follow each other.
        let (gate, up) = (gate.swap_dims(0, 2), up.swap_dims(0, 2));
        assert!(apart(silu_gated(gate, up), expected.swap_dims(0, 2)) < 1e-6);

        let extreme = Tensor::<B, 1>::from_data(
            [f32::NEG_INFINITY, -1e30, -200.0, 200.0, f32::NAN],
            &Default::default(),
        );
        let found = values(silu_gated(extreme.clone(), extreme.ones_like()));
        assert!(!found[0].is_finite() && found[1].abs() < 1e-7);
        assert!(found[2].abs() < 1e-35 && found[3] == 200.0 && found[4].is_nan());
    }

    #[test]
    fn a_norm_is_the_general_one() {
        for features in [1, 7, 32, 100] {
            let (x, weight) = (random([2, 3, features], 3.0), random([features], 1.0));
            let mean_square = x.clone().square().mean_dim(2);
            let expected =
                x.clone() * (mean_square + 1e-5).sqrt().recip() * weight.clone().reshape([1, 1, features]);
            assert!(apart(rms_norm(x.clone(), weight.clone(), 1e-5), expected) < 1e-6);
        }
    }

    #[test]
    fn attention_is_the_general_one() {
        let rope = Rope::new(RopeConfig {
            theta: 10_000.0,
            head_dim: 8,
            scaling: RopeScaling::Default,
            precision: RopePrecision::F32,
        });
        for (batch, heads, groups, tokens) in [(1, 1, 1, 1), (2, 4, 2, 7), (3, 3, 1, 65), (2, 2, 2, 200)] {
            let q = random([batch, tokens, heads, 8], 1.0);
            let (k, v) = (
                random([batch, tokens, groups, 8], 1.0),
                random([batch, tokens, groups, 8], 1.0),
            );
            for window in [None, Some(1), Some(3), Some(70), Some(1000)] {
                for rotated in [false, true] {
                    let table = rope.table(0, tokens);
                    let rotary = rotated.then(|| table.rotary());
                    let found = causal_attention(q.clone(), k.clone(), v.clone(), rotary, window);
                    let head_first = |x: &Tensor<B, 4>| x.clone().swap_dims(1, 2);
                    let turned = |x: &Tensor<B, 4>| {
                        let rotation = rope.rotation(0, tokens, &Default::default());
                        if rotated {
                            rotation.apply(head_first(x))
                        } else {
                            head_first(x)
                        }
                    };
                    let scaled = turned(&q).mul_scalar(1.0 / 8f64.sqrt());
                    let expected = attention::causal_attention(scaled, turned(&k), head_first(&v), window);
                    let apart = apart(found, expected);
                    assert!(apart < 2e-6, "{apart} at {tokens} {window:?} {rotated}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_a_number_stays_so() {
        let ones = || Tensor::<B, 4>::ones([1, 3, 1, 2], &Default::default());
        let bad = ones().slice_assign(
            [0..1, 1..2, 0..1, 0..1],
            Tensor::full([1, 1, 1, 1], f32::NAN, &Default::default()),
        );
        let found = values(causal_attention(ones(), bad, ones(), None, None));
        assert!(found[0] == 1.0 && found[2].is_nan() && found[4].is_nan());
        let found = values(rms_norm(
            Tensor::<B, 2>::full([1, 2], f32::NAN, &Default::default()),
            Tensor::ones([2], &Default::default()),
            1e-5,
        ));
        assert!(found[0].is_nan());
    }

    #[test]
    fn only_the_host_s_own_f32_is_served() {
        use burn::backend::Autodiff;
        assert!(serves(&random([2, 2], 1.0)));
        assert!(!serves(&random([2, 2], 1.0).cast(DType::F64)));
        assert!(!serves(&Tensor::<Autodiff<Flex>, 1>::ones(
            [2],
            &Default::default()
        )));
    }
}
