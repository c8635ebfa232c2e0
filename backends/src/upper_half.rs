//! Products that are known to be symmetric, of which only what lies on and above the diagonal is computed, in the strips of
//! `gram`. Solvers renew inverses with them.

use crate::gram::strip_rows;
use crate::ops::SolverOps;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use std::ops::Range;

/// A symmetric matrix of which only what lies on and above the diagonal, and little more, is held: what a product that is
/// known to be symmetric takes half the work for.
#[derive(Debug, Clone)]
pub struct UpperHalf<B: Backend> {
    columns: usize,
    /// Rows, and the matrix there from the diagonal block on: `[rows, n − rows.start]`.
    strips: Vec<(Range<usize>, Tensor<B, 2>)>,
}

impl<B: SolverOps> UpperHalf<B> {
    /// `A B` of `A [n, k]` and `B [k, n]` whose product is symmetric, by [`SolverOps::matmul_f32`].
    pub fn product(a: Tensor<B, 2>, b: Tensor<B, 2>) -> Self {
        let columns = a.dims()[0];
        let strips = strip_rows(columns).map(|rows| {
            let right = b.clone().slice_dim(1, rows.start..columns);
            let strip = B::matmul_f32(a.clone().slice_dim(0, rows.clone()), right);
            (rows, strip)
        });
        Self {
            columns,
            strips: strips.collect(),
        }
    }

    /// With a symmetric matrix `[n, n]` added.
    pub fn plus(self, matrix: Tensor<B, 2>) -> Self {
        let columns = self.columns;
        let strips = self.strips.into_iter().map(|(rows, strip)| {
            let part = matrix.clone().slice([rows.clone(), rows.start..columns]);
            (rows, strip + part)
        });
        Self {
            columns,
            strips: strips.collect(),
        }
    }

    /// The whole matrix, `[n, n]`: symmetric to the last bit.
    pub fn full(self) -> Tensor<B, 2> {
        B::mirrored(self.columns, self.strips)
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::testing::{Matrix, matrix};

    #[test]
    fn half_of_a_symmetric_product_is_all_of_it() {
        for columns in [1, 7, 300] {
            let middle = matrix(columns, columns, 1);
            let middle = middle.clone() + middle.transpose();
            let side = matrix(columns, columns, 2);
            let (a, b) = (side.clone().matmul(middle.clone()), side.transpose());
            let expected = a.clone().matmul(b.clone()) + middle.clone();
            let found = UpperHalf::product(a, b).plus(middle).full();
            let largest = expected.clone().abs().max().into_scalar();
            let worst = |a: Matrix, b: Matrix| (a - b).abs().max().into_scalar();
            assert!(worst(found.clone(), expected) < 1e-5 * largest, "{columns}");
            assert_eq!(worst(found.clone(), found.transpose()), 0.0, "{columns}");
        }
    }
}
