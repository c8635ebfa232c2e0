//! The selection inside a splitting step: which entries are large enough, up to ties.
//!
//! A step of a long iteration does not depend on how equal entries are told apart, so a threshold is enough here; the
//! exact number of zeros of a finished weight is the caller's business.

use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Tensor};

/// How many entries of a matrix stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// All but that many smallest ones of the whole matrix.
    AllBut(usize),
    /// All but that many smallest ones of each row.
    AllButInRow(usize),
    /// `n` of each `m` consecutive entries of a row.
    InGroups {
        /// Entries kept in a group.
        n: usize,
        /// Size of a group; divides the number of columns.
        m: usize,
    },
}

/// Halvings of the interval in which a threshold is searched: what is left of it is below f32's own steps near the border
/// of any matrix whose largest entry is not a million times the border.
const HALVINGS: usize = 24;

/// `true` where an entry of `z [rows, columns]` stays, by burn's operations alone: nothing is read back from the device.
pub(crate) fn keep_mask<B: Backend>(z: &Tensor<B, 2>, selection: Selection) -> Tensor<B, 2, Bool> {
    match selection {
        Selection::AllBut(zeros) => {
            let size = z.clone().abs();
            let [rows, columns] = z.dims();
            let high = size.clone().max().reshape([1, 1]);
            // Means of means: a single f32 sum of so many ones would stop growing.
            let threshold = threshold(&size, zeros, rows * columns, high, |rows| rows.mean_dim(0));
            size.greater(threshold.expand(z.dims()))
        }
        Selection::AllButInRow(zeros) => {
            let size = z.clone().abs();
            let high = size.clone().max_dim(1);
            let threshold = threshold(&size, zeros, z.dims()[1], high, |rows| rows);
            size.greater(threshold.expand(z.dims()))
        }
        Selection::InGroups { n, m } => in_groups(z, n, m),
    }
}

/// Thresholds of the shape of `high`, an upper end, with `zeros` of the `entries` that each is for at or below it. `mean`
/// takes the shares of the rows `[rows, 1]` to that shape.
fn threshold<B: Backend>(
    size: &Tensor<B, 2>,
    zeros: usize,
    entries: usize,
    mut high: Tensor<B, 2>,
    mean: impl Fn(Tensor<B, 2>) -> Tensor<B, 2>,
) -> Tensor<B, 2> {
    let share = (zeros as f64 / entries.max(1) as f64) as f32;
    let mut low = high.zeros_like();
    if zeros == 0 {
        return low - 1.0;
    }
    for _ in 0..HALVINGS {
        let middle = (low.clone() + high.clone()).mul_scalar(0.5);
        let below = size.clone().lower_equal(middle.clone().expand(size.dims()));
        let enough = mean(below.float().mean_dim(1)).greater_equal_elem(share);
        high = high.mask_where(enough.clone(), middle.clone());
        low = middle.mask_where(enough, low);
    }
    high
}

/// An entry stays where fewer than `n` of its group are larger, or equal and before it.
fn in_groups<B: Backend>(z: &Tensor<B, 2>, n: usize, m: usize) -> Tensor<B, 2, Bool> {
    let [rows, columns] = z.dims();
    let groups = z.clone().abs().reshape([rows * columns / m, m]);
    let entry = |i: usize| groups.clone().slice_dim(1, i..i + 1);
    let kept = (0..m)
        .map(|i| {
            let mine = entry(i);
            let ahead = (0..m).filter(|j| *j != i).fold(mine.zeros_like(), |ahead, j| {
                let other = entry(j);
                let larger = if j < i {
                    other.greater_equal(mine.clone())
                } else {
                    other.greater(mine.clone())
                };
                ahead + larger.float()
            });
            ahead.lower_elem(n as f32)
        })
        .collect();
    Tensor::<B, 2, Bool>::cat(kept, 1).reshape([rows, columns])
}
