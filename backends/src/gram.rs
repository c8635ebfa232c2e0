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
const MIN_ROWS: usize = 128;
/// Elements that a strip may have: 128 MiB, what any wgpu device binds at once.
const MAX_ELEMENTS: usize = 1 << 25;

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
        let right = strip.clone().slice_dim(1, rows.len()..columns - rows.start);
        let right = (rows.end < columns).then_some(right);
        Tensor::cat(left.chain([diagonal]).chain(right).collect(), 1)
    });
    Tensor::cat(rows.collect(), 0)
}

#[cfg(all(test, feature = "flex"))]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use crate::ops::{SolverOps, generic};
    use crate::testing::{Matrix, matrix};
    use burn::backend::Flex;

    type Update = fn(GramSum<Flex>, Matrix) -> GramSum<Flex>;

    const UPDATES: [(&str, Update); 2] = [("own", Flex::gram_update), ("generic", generic::gram_update)];

    fn values(matrix: Matrix) -> Vec<f32> {
        matrix.into_data().into_vec().unwrap()
    }

    fn sum(update: Update, batches: &[Matrix]) -> GramSum<Flex> {
        let empty = GramSum::new(batches[0].dims()[1], &Default::default());
        batches.iter().fold(empty, |sum, x| update(sum, x.clone()))
    }

    #[test]
    fn a_sum_is_the_product_in_f64_and_symmetric_to_the_last_bit() {
        // One strip; several; a last one of a single row; fewer columns than a block, and one.
        for columns in [1, 7, 96, 2 * MIN_ROWS + 1, 700] {
            let batches = [
                matrix(33, columns, 1),
                matrix(1, columns, 2),
                matrix(0, columns, 3),
                matrix(70, columns, 4),
            ];
            let tokens: Vec<Vec<f32>> = batches
                .iter()
                .flat_map(|x| {
                    let x = values(x.clone());
                    x.chunks(columns).map(<[f32]>::to_vec).collect::<Vec<_>>()
                })
                .collect();
            for (name, update) in UPDATES {
                let gram = sum(update, &batches);
                let generic = values(generic::gram_matrix(gram.clone()));
                let gram = values(Flex::gram_matrix(gram));
                assert_eq!(gram, generic, "{name} {columns}");
                for i in (0..columns).step_by(5) {
                    for j in 0..columns {
                        let (found, mirrored) = (gram[i * columns + j], gram[j * columns + i]);
                        assert_eq!(found.to_bits(), mirrored.to_bits(), "{name} {columns} ({i}, {j})");
                        let expected: f64 = (tokens.iter().map(|x| f64::from(x[i]) * f64::from(x[j]))).sum();
                        // Some hundred additions of products below one.
                        assert!(
                            (f64::from(found) - expected).abs() < 5e-5,
                            "{name} {columns} ({i}, {j}): {found} {expected}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn what_a_sum_of_many_batches_rounds_away_is_kept() {
        // Each small square is below half a step of f32 at the large one, so that a plain sum stays where it is.
        let constant = |value: f32| Tensor::full([1, 3], value, &Default::default());
        let mut batches = vec![constant(100.0)];
        batches.extend(std::iter::repeat_n(constant(0.02), 4000));
        let expected = 1e4 + 4000.0 * f64::from(0.02f32).powi(2);
        for (name, update) in UPDATES {
            for found in values(Flex::gram_matrix(sum(update, &batches))) {
                assert!((f64::from(found) - expected).abs() < 2e-3, "{name}: {found}");
            }
        }
    }

    #[test]
    fn a_sum_does_not_depend_on_threads_or_on_the_view_of_its_batch() {
        let columns = 600;
        let wide = matrix(530, columns + 9, 1);
        let view = wide.slice_dim(1, 4..columns + 4);
        let copy = Tensor::from_data(view.clone().into_data(), &Default::default());
        let with = |threads: usize, x: Matrix| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| values(Flex::gram_matrix(sum(Flex::gram_update, &[x]))))
        };
        let one = with(1, copy);
        assert_eq!(one, with(2, view.clone()));
        assert_eq!(one, with(5, view));
    }

    #[test]
    fn strips_cover_all_rows_and_no_strip_is_larger_than_a_device_binds() {
        for columns in [0, 1, 255, 768, 4096, 14_336, 57_344] {
            let mut next = 0;
            for rows in strip_rows(columns) {
                assert_eq!(rows.start, next);
                assert!(rows.len() * (columns - rows.start) <= MAX_ELEMENTS);
                next = rows.end;
            }
            assert_eq!(next, columns);
        }
    }
}
