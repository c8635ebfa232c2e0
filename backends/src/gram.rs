//! Running sums of Gram matrices, of which only what lies on and above the diagonal is computed: half the work of a
//! product, and half the memory. [`SolverOps`](crate::SolverOps) adds a batch to one and gives its matrix; `upper_half` takes
//! the same strips for other products.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use std::ops::Range;

/// Strips of a matrix: one in seventeen of the work lies below the diagonal, and each strip is a product large enough for a
/// device to be at its best with.
const STRIPS: usize = 16;
/// Rows below which a strip does not pay.
pub(crate) const MIN_ROWS: usize = 128;
/// Elements that a strip may have: 128 MiB, what any wgpu device binds at once.
pub(crate) const MAX_ELEMENTS: usize = 1 << 25;

/// A compensated running sum of `XᵀX` over batches `X [tokens, n]`.
///
/// The matrix is held in strips of rows, each from its diagonal block to the last column. What a strip holds below the
/// diagonal has no meaning.
#[derive(Debug, Clone)]
pub struct GramSum<B: Backend> {
    /// `n`
    pub(crate) columns: usize,
    pub(crate) strips: Vec<Strip<B>>,
}

/// Rows of a running sum.
#[derive(Debug, Clone)]
pub(crate) struct Strip<B: Backend> {
    /// Which rows.
    pub(crate) rows: Range<usize>,
    /// The sum, `[rows, n − rows.start]`.
    pub(crate) sum: Tensor<B, 2>,
    /// What rounding kept out of it, of the same shape.
    pub(crate) compensation: Tensor<B, 2>,
}

impl<B: Backend> GramSum<B> {
    /// A sum of nothing, for activations of `columns` inputs.
    pub fn new(columns: usize, device: &B::Device) -> Self {
        let strips = strip_rows(columns)
            .map(|rows| {
                let sum = Tensor::zeros([rows.len(), columns - rows.start], device);
                Strip {
                    rows,
                    compensation: sum.clone(),
                    sum,
                }
            })
            .collect();
        Self { columns, strips }
    }
}

/// The rows of each strip. They depend on the matrix's size alone, and so does every sum's order.
pub(crate) fn strip_rows(columns: usize) -> impl Iterator<Item = Range<usize>> {
    let height = (columns.div_ceil(STRIPS).max(MIN_ROWS))
        .min(MAX_ELEMENTS / columns.max(1))
        .max(1);
    (0..columns)
        .step_by(height)
        .map(move |start| start..(start + height).min(columns))
}

/// The symmetric matrix `[columns, columns]` of strips, each from its diagonal block on.
pub(crate) fn mirrored<B: Backend>(
    columns: usize,
    strips: Vec<(Range<usize>, Tensor<B, 2>)>,
) -> Tensor<B, 2> {
    let rows = (strips.iter().enumerate()).map(|(index, (rows, strip))| {
        let left = strips[..index].iter().map(|(above, strip)| {
            let block = rows.start - above.start..rows.end - above.start;
            strip.clone().slice_dim(1, block).transpose()
        });
        let diagonal = strip.clone().slice_dim(1, 0..rows.len());
        let diagonal = diagonal.clone().triu(0) + diagonal.triu(1).transpose();
        let right =
            (rows.end < columns).then(|| strip.clone().slice_dim(1, rows.len()..columns - rows.start));
        Tensor::cat(left.chain([diagonal]).chain(right).collect(), 1)
    });
    Tensor::cat(rows.collect(), 0)
}
