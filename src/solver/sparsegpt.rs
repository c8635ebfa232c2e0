//! SparseGPT (Frantar & Alistarh, arXiv 2301.00774): optimal brain surgeon, column by column in blocks.
//!
//! As the official code computes it, with two differences: the number of zeros is exact (its threshold `<=` cuts one
//! weight more a block, and ties), and a Gram matrix that 1 % damping does not make positive definite is damped more,
//! which the result says, instead of failing. `W X*` is the target: the method knows no other.
//!
//! Legend, beyond [`super`]'s: `U` is the upper Cholesky factor of the damped inverse, `G⁻¹ = Uᵀ U`; `d = U_jj`.

use super::{LayerProblem, Solution, SolveInfo, download};
use crate::config::select::{keep_all_but, keep_in_groups};
use crate::config::{Pattern, SparseGptConfig};
use crate::error::{Error, Result, SolverError};
use burn::tensor::{Tensor, TensorData};
use faer::{Mat, Par, Side};
use fista_pruner_backends::SolverOps;
use rayon::prelude::*;

/// Dampings above which a matrix is given up: ten times its mean diagonal leaves nothing of it.
const MAX_DAMPING: f64 = 10.0;

/// Prunes by Algorithm 1 of the SparseGPT paper.
///
/// # Errors
/// When `G` is not finite, cannot be factorised, or the device fails.
pub fn prune<B: SolverOps>(
    problem: &LayerProblem<B>,
    pattern: Pattern,
    config: &SparseGptConfig,
) -> Result<Solution> {
    let (m, n) = problem.shape();
    let gram = download(problem.gram.clone())?;
    let dead: Vec<bool> = (0..n).map(|j| gram[j * n + j] == 0.0).collect();
    let (factor, damping) = inverse_factor(&problem.name, gram, config.damping)?;
    let device = problem.weight.device();
    let width = block_width(config.block, pattern);

    // Columns not reached yet, on the device, where the wide updates are made.
    let mut rest = problem.weight.clone();
    let mut values = vec![0.0f32; m * n];
    let mut keep = vec![true; m * n];
    let mut start = 0;
    while start < n {
        let end = (start + width).min(n);
        let block_columns = end - start;
        let mut block = Block {
            width: block_columns,
            values: download(rest.clone().slice([0..m, 0..block_columns]))?,
            keep: Vec::new(),
            errors: vec![0.0; m * block_columns],
        };
        block.silence(&dead[start..end]);
        block.select(pattern, &factor, start, n);
        block.eliminate(pattern, &factor, start);
        for row in 0..m {
            let (from, to) = (row * block_columns, row * n + start);
            values[to..to + block_columns].copy_from_slice(&block.values[from..from + block_columns]);
            keep[to..to + block_columns].copy_from_slice(&block.keep[from..from + block_columns]);
        }
        if end < n {
            let strip: Vec<f32> = (start..end)
                .flat_map(|i| (end..n).map(move |j| (i, j)))
                .map(|(i, j)| factor[(i, j)] as f32)
                .collect();
            let errors =
                Tensor::<B, 2>::from_data(TensorData::new(block.errors, [m, block_columns]), &device);
            let strip = Tensor::<B, 2>::from_data(TensorData::new(strip, [block_columns, n - end]), &device);
            rest = rest.slice([0..m, block_columns..n - start]) - B::matmul_f32(errors, strip);
        }
        start = end;
    }
    let info = SolveInfo {
        damping: Some(damping),
        damping_raised: damping > config.damping,
        ..SolveInfo::direct()
    };
    Ok(Solution::masked(values, keep, info))
}

/// The block's width: a multiple of the group of an n:m pattern, so that no group straddles two blocks.
fn block_width(block: usize, pattern: Pattern) -> usize {
    match pattern {
        Pattern::NOfM { m, .. } => (block / m).max(1) * m,
        Pattern::Unstructured(_) | Pattern::Columns { .. } => block,
    }
}

/// The block of columns in work, `[m, width]` row-major.
struct Block {
    width: usize,
    values: Vec<f32>,
    keep: Vec<bool>,
    /// `(w − q) / d` of each eliminated weight, for the columns right of the block.
    errors: Vec<f32>,
}

impl Block {
    /// Weights of inputs that are always zero become zero.
    fn silence(&mut self, dead: &[bool]) {
        for row in self.values.chunks_mut(self.width) {
            for (value, dead) in row.iter_mut().zip(dead) {
                if *dead {
                    *value = 0.0;
                }
            }
        }
    }

    /// For an unstructured pattern, chooses the block's zeros by `w² / d²` over all its rows.
    fn select(&mut self, pattern: Pattern, factor: &Mat<f64>, start: usize, n: usize) {
        if let Pattern::Unstructured(_) = pattern {
            let rows = self.values.len() / self.width;
            let zeros = pattern.zeros(rows, n) as u128;
            let upto = |column: usize| (zeros * column as u128 / n as u128) as usize;
            let budget = upto(start + self.width) - upto(start);
            self.keep = keep_all_but(&scores(&self.values, self.width, factor, start), budget);
        } else {
            self.keep = vec![true; self.values.len()];
        }
    }

    /// The column loop, for each row on its own: zero what is not kept, spread the error over the columns to its right.
    fn eliminate(&mut self, pattern: Pattern, factor: &Mat<f64>, start: usize) {
        let width = self.width;
        let triangle: Vec<f32> = (0..width * width)
            .map(|k| factor[(start + k / width, start + k % width)] as f32)
            .collect();
        self.values
            .par_chunks_mut(width)
            .zip(self.keep.par_chunks_mut(width))
            .zip(self.errors.par_chunks_mut(width))
            .for_each(|((values, keep), errors)| {
                for i in 0..width {
                    if let Pattern::NOfM { n, m } = pattern
                        && i % m == 0
                    {
                        let group = scores(&values[i..i + m], m, factor, start + i);
                        keep[i..i + m].copy_from_slice(&keep_in_groups(&group, n, m));
                    }
                    let row = &triangle[i * width..(i + 1) * width];
                    if keep[i] {
                        continue;
                    }
                    let error = values[i] / row[i];
                    values[i] = 0.0;
                    errors[i] = error;
                    for (value, u) in values[i + 1..].iter_mut().zip(&row[i + 1..]) {
                        *value -= error * u;
                    }
                }
            });
    }
}

/// The cost of removing each weight, `w² / d²`, for columns that begin at `start`.
fn scores(values: &[f32], width: usize, factor: &Mat<f64>, start: usize) -> Vec<f32> {
    let inverse: Vec<f32> = (start..start + width)
        .map(|j| (1.0 / factor[(j, j)]) as f32)
        .collect();
    values
        .iter()
        .enumerate()
        .map(|(k, w)| (w * inverse[k % width]).powi(2))
        .collect()
}

/// `U` with `(G + damping · mean(diag G) · I)⁻¹ = Uᵀ U`, and the damping used: `damping`, or ten times more each time
/// the matrix is not positive definite. Inputs that are always zero get a one on the diagonal, as in the official code.
///
/// With `J` the reversal and `J G J = L Lᵀ`, `J L J` is upper triangular and its inverse is `U`: one factorisation and
/// one triangular inverse, in f64 on the host.
fn inverse_factor(name: &str, gram: Vec<f32>, damping: f64) -> Result<(Mat<f64>, f64)> {
    let n = gram.len().isqrt();
    let mean = (0..n).map(|j| f64::from(gram[j * n + j])).sum::<f64>() / n as f64;
    if !gram.iter().all(|g| g.is_finite()) {
        return Err(Error::from(SolverError::NotFinite {
            what: "the Gram matrix",
            operator: name.to_owned(),
        }));
    }
    let mut used = damping;
    while used <= MAX_DAMPING {
        let shift = used * mean;
        let reversed = Mat::from_fn(n, n, |i, j| {
            let (i, j) = (n - 1 - i, n - 1 - j);
            let value = f64::from(gram[i * n + j]);
            match i == j {
                true if value == 0.0 => 1.0 + shift,
                true => value + shift,
                false => value,
            }
        });
        if let Ok(llt) = reversed.llt(Side::Lower) {
            let mut inverse = Mat::zeros(n, n);
            faer::linalg::triangular_inverse::invert_lower_triangular(
                inverse.as_mut(),
                llt.L(),
                Par::rayon(0),
            );
            return Ok((inverse.reverse_rows_and_cols().to_owned(), used));
        }
        used *= 10.0;
    }
    Err(Error::from(SolverError::Factorisation {
        operator: name.to_owned(),
        damping: used / 10.0,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factor_is_the_cholesky_factor_of_the_inverse() {
        let n = 7;
        let a = Mat::from_fn(n, 12, |i, j| ((i * 5 + j * j * 3) % 11) as f64 - 5.0);
        let gram = &a * a.transpose();
        let flat: Vec<f32> = (0..n * n).map(|k| gram[(k / n, k % n)] as f32).collect();
        let (factor, damping) = inverse_factor("w", flat, 0.01).unwrap();
        assert_eq!(damping, 0.01);
        let shift = 0.01 * (0..n).map(|j| gram[(j, j)]).sum::<f64>() / n as f64;
        let damped = Mat::from_fn(n, n, |i, j| gram[(i, j)] + if i == j { shift } else { 0.0 });
        let product = factor.transpose() * &factor * damped;
        for i in 0..n {
            for j in 0..n {
                let expected = f64::from(u8::from(i == j));
                assert!(
                    (product[(i, j)] - expected).abs() < 1e-9,
                    "{i},{j}: {}",
                    product[(i, j)]
                );
                assert!(j >= i || factor[(i, j)] == 0.0);
            }
        }
    }

    #[test]
    fn a_matrix_that_is_not_semidefinite_is_damped_more_and_says_so() {
        // Eigenvalues 4 and −2: up to the mean diagonal is not enough, ten times it is.
        let (_, damping) = inverse_factor("w", vec![1.0, 3.0, 3.0, 1.0], 0.01).unwrap();
        assert!(damping > 1.0);
        assert!(matches!(
            inverse_factor("w", vec![1.0, 200.0, 200.0, 1.0], 0.01),
            Err(Error::Solver(SolverError::Factorisation { .. }))
        ));
    }
}
