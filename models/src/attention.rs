//! Causal attention with grouped queries and sliding windows, from matrix products and softmax, in blocks of query
//! rows: a block sees only the keys that it may attend to, so about half of the square is never computed and the
//! memory for scores is bounded. Both families use it.

use crate::parts::on_host;
use burn::tensor::activation::softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor, TensorData};
use fista_pruner_backends::product;

/// Scores held at once, in elements (64 MB of f32); softmax holds a second copy for a moment.
const MAX_SCORES: usize = 16 << 20;

/// The same on host backends (16 MB), where every core works on a sequence of its own and caches are small.
const MAX_SCORES_ON_HOST: usize = 4 << 20;

/// Query rows of a block. Fewer rows waste less above the diagonal, more rows make larger products; at 128 a sequence
/// of 512 computes 62 % of the square and one of 2048 53 %.
const BLOCK_ROWS: usize = 128;

/// Added to the score of a key that may not be seen; its exponential is exactly zero beside any seen one. Shaders may
/// be compiled as if there were no infinities.
const HIDDEN: f32 = -1e30;

/// The same on host backends, where the exponential of a finite number that underflows is several times slower.
const HIDDEN_ON_HOST: f32 = f32::NEG_INFINITY;

/// How an attention is cut up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Blocks {
    /// Sequences at a time.
    sequences: usize,
    /// Query rows at a time.
    rows: usize,
}

impl Blocks {
    /// The largest blocks whose scores stay below `max_scores`.
    fn new(sequences: usize, heads: usize, tokens: usize, keys: usize, max_scores: usize) -> Self {
        let rows = tokens.min(BLOCK_ROWS);
        let together = (max_scores / (heads * rows * keys).max(1)).clamp(1, sequences.max(1));
        let rows = (max_scores / (together * heads * keys).max(1)).clamp(1, rows.max(1));
        Self {
            sequences: together,
            rows,
        }
    }
}

/// `softmax(q kᵀ + mask) v` for the last `tokens` positions of a sequence of `keys` positions.
///
/// `q` is `[batch, heads, tokens, dim]`, already scaled; `k` and `v` are `[batch, kv_heads, keys, dim]`, `v` of any width, and end at the
/// same position as `q`. Query head `h` uses key head `h / (heads / kv_heads)` (`repeat_kv`). A token sees itself and
/// what is before it, at most `window` positions in all. Gives `[batch, tokens, heads · dim]`.
pub(crate) fn causal_attention<B: Backend>(
    q: Tensor<B, 4>,
    k: Tensor<B, 4>,
    v: Tensor<B, 4>,
    window: Option<usize>,
) -> Tensor<B, 3> {
    let max_scores = if on_host::<B>(&q.device()) {
        MAX_SCORES_ON_HOST
    } else {
        MAX_SCORES
    };
    attention_in_blocks(q, k, v, window, max_scores)
}

fn attention_in_blocks<B: Backend>(
    q: Tensor<B, 4>,
    k: Tensor<B, 4>,
    v: Tensor<B, 4>,
    window: Option<usize>,
    max_scores: usize,
) -> Tensor<B, 3> {
    let [batch, heads, tokens, _] = q.dims();
    let (keys, dim) = (k.dims()[2], v.dims()[3]);
    let blocks = Blocks::new(batch, heads, tokens, keys, max_scores);
    let band = Band::new(blocks.rows, keys, window, &q.device());
    let mut outputs = Vec::with_capacity(batch.div_ceil(blocks.sequences));
    for start in (0..batch).step_by(blocks.sequences) {
        let these = start..(start + blocks.sequences).min(batch);
        let part = |x: &Tensor<B, 4>| x.clone().slice_dim(0, these.clone());
        let (q, k, v) = (part(&q), part(&k), part(&v));
        let rows = (0..tokens).step_by(blocks.rows).map(|first| {
            let rows = first..(first + blocks.rows).min(tokens);
            band.block(&q, &k, &v, rows)
        });
        outputs.push(Tensor::cat(rows.collect(), 2));
    }
    Tensor::cat(outputs, 0)
        .swap_dims(1, 2)
        .reshape([batch, tokens, heads * dim])
}

/// Which keys a block of rows sees. It depends only on the distance between row and key, so one table serves all
/// blocks: column `c` of row `i` stands for the key at distance `i + keys - c` before the row.
struct Band<B: Backend> {
    window: Option<usize>,
    keys: usize,
    /// 0 or [`HIDDEN`] (or its like on the host), shape `[rows, keys + rows]`; absent where a block is one row, which sees all it is given.
    table: Option<Tensor<B, 2>>,
}

impl<B: Backend> Band<B> {
    fn new(rows: usize, keys: usize, window: Option<usize>, device: &B::Device) -> Self {
        let table = (rows > 1).then(|| {
            let hidden = if on_host::<B>(device) {
                HIDDEN_ON_HOST
            } else {
                HIDDEN
            };
            let mut values = vec![hidden; rows * (keys + rows)];
            for (i, row) in values.chunks_exact_mut(keys + rows).enumerate() {
                let end = keys + i + 1;
                let start = window.map_or(0, |window| end.saturating_sub(window));
                row[start..end].fill(0.0);
            }
            Tensor::from_data(TensorData::new(values, [rows, keys + rows]), (device, DType::F32))
        });
        Self { window, keys, table }
    }

    /// Attention of query rows `rows`; `q` is `[batch, heads, tokens, dim]`, the result `[batch, heads, rows, dim]`.
    fn block(
        &self,
        q: &Tensor<B, 4>,
        k: &Tensor<B, 4>,
        v: &Tensor<B, 4>,
        rows: std::ops::Range<usize>,
    ) -> Tensor<B, 4> {
        let [batch, heads, tokens, dim] = q.dims();
        let (groups, values) = (k.dims()[1], v.dims()[3]);
        let together = heads / groups;
        let count = rows.len();
        // Position of the block's first row, and the keys that any of its rows sees.
        let position = self.keys - tokens + rows.start;
        let last = position + count;
        let first = self
            .window
            .map_or(0, |window| (position + 1).saturating_sub(window));
        let seen = last - first;

        // The query heads that share a key head are stacked into one product.
        let q = q
            .clone()
            .slice_dim(2, rows)
            .reshape([batch, groups, together * count, dim]);
        let k = k.clone().slice_dim(2, first..last).swap_dims(2, 3);
        let v = v.clone().slice_dim(2, first..last);
        let mut scores = product(q, k).reshape([batch * heads, count * seen]);
        if let Some(table) = &self.table {
            let shift = self.keys - position;
            let mask = table
                .clone()
                .slice([0..count, first + shift..last + shift])
                .reshape([1, count * seen]);
            scores = scores + mask;
        }
        let shares = softmax(scores.reshape([batch * heads, count, seen]), 2);
        let shares = shares.reshape([batch, groups, together * count, seen]);
        product(shares, v).reshape([batch, heads, count, values])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use burn::tensor::Distribution;

    type B = burn::backend::Flex;

    /// `[batch, heads, tokens, dim]` as nested indices.
    fn at(x: &[f32], [_, heads, tokens, dim]: [usize; 4], i: [usize; 4]) -> f64 {
        f64::from(x[((i[0] * heads + i[1]) * tokens + i[2]) * dim + i[3]])
    }

    /// The definition, in f64 and without any cleverness: `[batch, tokens, heads · dim]`.
    fn naive(q: &Tensor<B, 4>, k: &Tensor<B, 4>, v: &Tensor<B, 4>, window: Option<usize>) -> Vec<f32> {
        let (qs, ks) = (q.dims(), k.dims());
        let values = |x: &Tensor<B, 4>| x.to_data().into_vec::<f32>().unwrap();
        let (q, k, v) = (values(q), values(k), values(v));
        let [batch, heads, tokens, dim] = qs;
        let mut out = Vec::new();
        for b in 0..batch {
            for t in 0..tokens {
                for h in 0..heads {
                    let (kv, position) = (h * ks[1] / heads, ks[2] - tokens + t);
                    let first = window.map_or(0, |w| (position + 1).saturating_sub(w));
                    let score = |j: usize| -> f64 {
                        let product = |i| at(&q, qs, [b, h, t, i]) * at(&k, ks, [b, kv, j, i]);
                        (0..dim).map(product).sum()
                    };
                    let shares: Vec<f64> = (first..=position).map(|j| score(j).exp()).collect();
                    let total: f64 = shares.iter().sum();
                    for i in 0..dim {
                        let value = |(n, s): (usize, &f64)| s * at(&v, ks, [b, kv, first + n, i]);
                        let sum: f64 = shares.iter().enumerate().map(value).sum();
                        out.push((sum / total) as f32);
                    }
                }
            }
        }
        out
    }

    #[test]
    fn blocks_of_any_size_agree_with_the_definition() {
        let device = Default::default();
        let random =
            |shape: [usize; 4]| Tensor::<B, 4>::random(shape, Distribution::Normal(0.0, 1.0), &device);
        for (batch, heads, groups, tokens, keys) in [
            (1, 1, 1, 1, 1),
            (2, 4, 2, 7, 7),
            (3, 3, 1, 5, 12),
            (2, 2, 2, 1, 9),
            (1, 2, 1, 150, 150),
        ] {
            let q = random([batch, heads, tokens, 4]);
            let (k, v) = (random([batch, groups, keys, 4]), random([batch, groups, keys, 4]));
            for window in [None, Some(1), Some(3), Some(8), Some(1000)] {
                let expected = naive(&q, &k, &v, window);
                for max_scores in [1, 2 * heads * keys, 5 * heads * keys, MAX_SCORES] {
                    let found = attention_in_blocks(q.clone(), k.clone(), v.clone(), window, max_scores);
                    assert_eq!(found.dims(), [batch, tokens, heads * 4]);
                    let found = found.into_data().into_vec::<f32>().unwrap();
                    let apart = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
                    let apart = apart.fold(0.0, f32::max);
                    assert!(apart < 1e-5, "{apart} at {tokens} {keys} {window:?} {max_scores}");
                }
            }
        }
    }

    #[test]
    fn blocks_stay_below_the_limit() {
        let blocks = |sequences, rows| Blocks { sequences, rows };
        assert_eq!(Blocks::new(8, 9, 512, 512, MAX_SCORES), blocks(8, 128));
        assert_eq!(Blocks::new(128, 32, 2048, 2048, MAX_SCORES), blocks(2, 128));
        assert_eq!(Blocks::new(1, 64, 4096, 4096, MAX_SCORES), blocks(1, 64));
        assert_eq!(Blocks::new(4, 9, 1, 300, MAX_SCORES), blocks(4, 1));
        assert_eq!(Blocks::new(4, 9, 512, 512, 1), blocks(1, 1));
    }
}
