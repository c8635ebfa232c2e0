//! Running sums of Gram matrices on Flex: products that stop at the diagonal, and one pass over memory for a sum.

use super::memory::{contiguous, tensor};
use crate::gram::GramSum;
use burn::backend::Flex;
use burn::tensor::{Tensor, TensorData};
use burn_flex::FlexTensor;
use faer::linalg::matmul::matmul;
use faer::prelude::ReborrowMut;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;
use std::ops::Range;

/// Rows and columns of a block that is mirrored at once: it and its mirror stay in the first-level cache.
const BLOCK: usize = 16;

/// Columns of a tile: with a strip's rows, its product and its sums stay in the second-level cache.
const TILE_COLUMNS: usize = 256;

/// Rows of the smallest tiles at the diagonal, of which half is wasted.
const DIAGONAL_ROWS: usize = 64;

/// Columns of activations whose rows lie a multiple of this many elements apart are copied before they are multiplied:
/// rows would displace each other in the caches, which costs more.
const CONFLICTING: usize = 256;

/// What a copied row is longer by: a cache line.
const PADDING: usize = 16;

/// Rows of a copy.
const COPIED_ROWS: usize = 512;

/// Adds `XᵀX`, `x [tokens, n]`.
///
/// Every core takes tiles of its own, multiplies them and adds them to the sums while they are in its cache. Each entry is
/// summed over tokens in an order that depends neither on threads nor on tiles.
pub(super) fn update(mut sum: GramSum<Flex>, x: Tensor<Flex, 2>) -> GramSum<Flex> {
    let [tokens, columns] = x.dims();
    assert_eq!(columns, sum.columns, "activations of another width");
    if tokens == 0 {
        return sum;
    }
    let x = contiguous(x);
    let values = x.storage::<f32>();
    let padded: Vec<Vec<f32>>;
    let blocks: Vec<MatRef<'_, f32>> = if columns.is_multiple_of(CONFLICTING) {
        padded = values
            .par_chunks(COPIED_ROWS * columns)
            .map(|rows| pad(rows, columns))
            .collect();
        let width = columns + PADDING;
        (padded.iter())
            .map(|rows| MatRef::from_row_major_slice(rows, rows.len() / width, width))
            .collect()
    } else {
        vec![MatRef::from_row_major_slice(values, tokens, columns)]
    };
    let mut sums: Vec<(Range<usize>, FlexTensor, FlexTensor)> = (sum.strips.iter_mut())
        .map(|strip| {
            let sum = contiguous(take(&mut strip.sum));
            let compensation = contiguous(take(&mut strip.compensation));
            (strip.rows.clone(), sum, compensation)
        })
        .collect();
    let mut tiles = Vec::new();
    for (rows, sum, compensation) in &mut sums {
        let (height, width) = (rows.len(), columns - rows.start);
        let tile = Tile {
            row: rows.start,
            column: rows.start,
            sum: MatMut::from_row_major_slice_mut(sum.storage_mut(), height, width),
            compensation: MatMut::from_row_major_slice_mut(compensation.storage_mut(), height, width),
        };
        tile.cut(&mut tiles);
    }
    tiles.into_par_iter().for_each(|tile| tile.add(&blocks));
    for (strip, (_, sum, compensation)) in sum.strips.iter_mut().zip(sums) {
        (strip.sum, strip.compensation) = (tensor(sum), tensor(compensation));
    }
    sum
}

/// Rows of `columns` elements, each longer by [`PADDING`].
fn pad(rows: &[f32], columns: usize) -> Vec<f32> {
    let mut padded = Vec::with_capacity(rows.len() / columns * (columns + PADDING));
    for row in rows.chunks_exact(columns) {
        padded.extend_from_slice(row);
        padded.extend_from_slice(&[0.0; PADDING]);
    }
    padded
}

/// Moves a tensor out, so that nobody else holds its memory and it can be written in place.
fn take(place: &mut Tensor<Flex, 2>) -> Tensor<Flex, 2> {
    std::mem::replace(place, Tensor::zeros([1, 1], &Default::default()))
}

/// A part of the sum.
struct Tile<'a> {
    /// Of its first entry in the matrix.
    row: usize,
    /// Of its first entry in the matrix.
    column: usize,
    sum: MatMut<'a, f32>,
    compensation: MatMut<'a, f32>,
}

impl<'a> Tile<'a> {
    /// What comes before so many columns, and the rest.
    fn columns_from(self, columns: usize) -> (Self, Self) {
        self.split([0, columns], |matrix| matrix.split_at_col_mut(columns))
    }

    /// What comes before so many rows, and the rest.
    fn rows_from(self, rows: usize) -> (Self, Self) {
        self.split([rows, 0], |matrix| matrix.split_at_row_mut(rows))
    }

    /// `at` cuts a matrix in two, of which the second begins `[rows, columns]` further on.
    fn split(
        self,
        [rows, columns]: [usize; 2],
        at: impl Fn(MatMut<'a, f32>) -> (MatMut<'a, f32>, MatMut<'a, f32>),
    ) -> (Self, Self) {
        let (sum, sum_beyond) = at(self.sum);
        let (compensation, compensation_beyond) = at(self.compensation);
        let before = Self {
            sum,
            compensation,
            ..self
        };
        let beyond = Self {
            row: self.row + rows,
            column: self.column + columns,
            sum: sum_beyond,
            compensation: compensation_beyond,
        };
        (before, beyond)
    }

    /// Cuts a strip that begins at the diagonal, without most of what lies below that.
    fn cut(self, tiles: &mut Vec<Self>) {
        let height = self.sum.nrows();
        let (mut diagonal, mut right) = self.columns_from(height);
        while right.sum.ncols() > 0 {
            let width = TILE_COLUMNS.min(right.sum.ncols());
            let (tile, rest) = right.columns_from(width);
            tiles.push(tile);
            right = rest;
        }
        while diagonal.sum.nrows() > DIAGONAL_ROWS {
            let (above, below) = diagonal.rows_from(DIAGONAL_ROWS);
            tiles.push(above);
            (_, diagonal) = below.columns_from(DIAGONAL_ROWS);
        }
        tiles.push(diagonal);
    }

    /// Adds its part of `XᵀX`, of all rows of `x`.
    fn add(self, x: &[MatRef<'_, f32>]) {
        let (height, width) = (self.sum.nrows(), self.sum.ncols());
        let mut product = vec![0.0; height * width];
        for (index, x) in x.iter().enumerate() {
            matmul(
                MatMut::from_row_major_slice_mut(&mut product, height, width),
                if index == 0 { Accum::Replace } else { Accum::Add },
                x.subcols(self.row, height).transpose(),
                x.subcols(self.column, width),
                1.0,
                Par::Seq,
            );
        }
        let (mut sum, mut compensation) = (self.sum, self.compensation);
        for (row, term) in product.chunks_exact(width).enumerate() {
            // What lies below the diagonal has no meaning.
            let first = (self.row + row).saturating_sub(self.column);
            let (sum, compensation) = (row_of(&mut sum, row), row_of(&mut compensation, row));
            compensated_add(&mut sum[first..], &mut compensation[first..], &term[first..]);
        }
    }
}

/// A row of a row-major matrix.
fn row_of<'m>(matrix: &'m mut MatMut<'_, f32>, row: usize) -> &'m mut [f32] {
    let row = matrix.rb_mut().row_mut(row).try_as_row_major_mut();
    row.expect("a tile of a row-major matrix").as_slice_mut()
}

/// One step of Kahan's summation for each element.
pub(super) fn compensated_add(sum: &mut [f32], compensation: &mut [f32], term: &[f32]) {
    for ((sum, compensation), term) in sum.iter_mut().zip(compensation).zip(term) {
        let corrected = term - *compensation;
        let total = *sum + corrected;
        *compensation = (total - *sum) - corrected;
        *sum = total;
    }
}

/// The whole matrix, `[n, n]`.
pub(super) fn matrix(sum: GramSum<Flex>) -> Tensor<Flex, 2> {
    let columns = sum.columns;
    let strips: Vec<_> = (sum.strips.into_iter())
        .map(|strip| (strip.rows, contiguous(strip.sum)))
        .collect();
    let strips: Vec<(Range<usize>, &[f32])> = (strips.iter())
        .map(|(rows, strip)| (rows.clone(), strip.storage::<f32>()))
        .collect();
    // Columns `from..` of a row of the matrix, on and above the diagonal.
    let upper = |row: usize, from: usize| {
        let (rows, strip) = &strips[strips.partition_point(|(rows, _)| rows.end <= row)];
        let width = columns - rows.start;
        &strip[(row - rows.start) * width + from - rows.start..][..columns - from]
    };
    let mut values = vec![0.0; columns * columns];
    (values.par_chunks_mut(BLOCK * columns.max(1)).enumerate()).for_each(|(block, out)| {
        let first = block * BLOCK;
        for above in (0..first).step_by(BLOCK) {
            for row in above..above + BLOCK {
                let mirrored = upper(row, first);
                for (out, value) in out.chunks_mut(columns).zip(mirrored) {
                    out[row] = *value;
                }
            }
        }
        for row in first..first + out.len() / columns {
            out[(row - first) * columns + row..][..columns - row].copy_from_slice(upper(row, row));
            let own = upper(row, row);
            for (out, value) in out.chunks_mut(columns).skip(row - first).zip(own) {
                out[row] = *value;
            }
        }
    });
    Tensor::from_data(TensorData::new(values, [columns, columns]), &Default::default())
}
