//! Running sums of Gram matrices on Flex: products that stop at the diagonal, and one pass over memory for a sum.
#![cfg(feature = "flex")]

use crate::flex::{contiguous, primitive, tensor};
use crate::gram::GramSum;
use burn::backend::Flex;
use burn::tensor::{Tensor, TensorData};
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;
use std::ops::Range;

/// Rows and columns of a block that is mirrored at once: it and its mirror stay in the first-level cache.
const BLOCK: usize = 16;

/// Adds `XᵀX`, `x [tokens, n]`.
///
/// Each entry is summed over tokens in an order that depends neither on threads nor on strips.
pub(crate) fn update(mut sum: GramSum<Flex>, x: Tensor<Flex, 2>) -> GramSum<Flex> {
    let [tokens, columns] = x.dims();
    assert_eq!(columns, sum.columns, "activations of another width");
    if tokens == 0 {
        return sum;
    }
    let x = contiguous(primitive(x));
    let x = MatRef::from_row_major_slice(x.storage::<f32>(), tokens, columns);
    let largest = sum
        .strips
        .iter()
        .map(|strip| strip.rows.len() * (columns - strip.rows.start));
    let mut product = vec![0.0; largest.max().unwrap_or(0)];
    for strip in &mut sum.strips {
        let width = columns - strip.rows.start;
        let product = &mut product[..strip.rows.len() * width];
        strip_product(product, x, strip.rows.clone());
        let mut total = contiguous(primitive(take(&mut strip.sum)));
        let mut compensation = contiguous(primitive(take(&mut strip.compensation)));
        (total.storage_mut::<f32>().par_chunks_mut(width))
            .zip(compensation.storage_mut::<f32>().par_chunks_mut(width))
            .zip(product.par_chunks(width))
            .enumerate()
            .for_each(|(row, ((total, compensation), term))| {
                compensated_add(&mut total[row..], &mut compensation[row..], &term[row..]);
            });
        (strip.sum, strip.compensation) = (tensor(total), tensor(compensation));
    }
    sum
}

/// Moves a tensor out, so that nobody else holds its memory and it can be written in place.
fn take(place: &mut Tensor<Flex, 2>) -> Tensor<Flex, 2> {
    std::mem::replace(place, Tensor::zeros([1, 1], &Default::default()))
}

/// Rows `rows` of `XᵀX` from their diagonal block on, `[rows, n − rows.start]` row-major. The diagonal block is computed
/// whole: what that wastes is less than what products that stop at the diagonal lose in speed.
fn strip_product(product: &mut [f32], x: MatRef<'_, f32>, rows: Range<usize>) {
    let width = x.ncols() - rows.start;
    let product = MatMut::from_row_major_slice_mut(product, rows.len(), width);
    let own = x.subcols(rows.start, rows.len());
    let others = x.subcols(rows.start, width);
    matmul(
        product,
        Accum::Replace,
        own.transpose(),
        others,
        1.0,
        Par::rayon(0),
    );
}

/// One step of Kahan's summation for each element.
pub(crate) fn compensated_add(sum: &mut [f32], compensation: &mut [f32], term: &[f32]) {
    for ((sum, compensation), term) in sum.iter_mut().zip(compensation).zip(term) {
        let corrected = term - *compensation;
        let total = *sum + corrected;
        *compensation = (total - *sum) - corrected;
        *sum = total;
    }
}

/// The whole matrix, `[n, n]`.
pub(crate) fn matrix(sum: GramSum<Flex>) -> Tensor<Flex, 2> {
    let columns = sum.columns;
    let strips: Vec<_> = (sum.strips.into_iter())
        .map(|strip| (strip.rows, contiguous(primitive(strip.sum))))
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
