//! `(G + ρI)⁻¹` for a ρ that grows: by factorisation on the host where that is the cheaper way, by matrix products on the
//! device where moving the matrix is not.

use super::{CHUNK, download, largest};
use crate::error::{Error, Result, SolverError};
use burn::tensor::{Tensor, TensorData};
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt;
use faer::{MatMut, MatRef, Par, Spec};
use fista_pruner_backends::{SolverOps, UpperHalf};
use rayon::prelude::*;
use std::ops::Range;

/// `‖I − A X‖` at which an inverse by products serves the splitting as well as an exact one.
const CLOSE: f64 = 4e-3;
/// What a step may leave of it.
const LEFT: f64 = 1e-3;
/// From one half, three steps of Newton–Schulz pass it.
const NEWTON_STEPS: usize = 5;

/// Rows of a block that the host factorises, where a device inverts by blocks.
const BLOCK: usize = 1024;

/// The inverse of a shifted matrix.
pub(super) struct Inverse<B: SolverOps> {
    name: String,
    /// `G [n, n]`, on the device.
    gram: Tensor<B, 2>,
    /// Where it has been needed.
    host: Option<HostInverse>,
    inverse: Tensor<B, 2>,
    rho: f64,
    /// What `‖I − (G + ρI) X‖` may be above that of a factorisation.
    off: f64,
}

impl<B: SolverOps> Inverse<B> {
    /// `(G + ρI)⁻¹` of a symmetric `gram [n, n]`.
    pub(super) fn new(name: &str, gram: Tensor<B, 2>, rho: f64) -> Result<Self> {
        let mut inverse = Self {
            name: name.to_owned(),
            inverse: Tensor::zeros([1, 1], &gram.device()),
            gram,
            host: None,
            rho,
            off: 0.0,
        };
        if B::FACTORISE_ON_HOST || !inverse.by_blocks(BLOCK)? {
            inverse.factorise(rho)?;
        }
        Ok(inverse)
    }

    /// The inverse, `[n, n]`.
    pub(super) fn matrix(&self) -> Tensor<B, 2> {
        self.inverse.clone()
    }

    /// Moves to another ρ.
    pub(super) fn shift(&mut self, rho: f64) -> Result<()> {
        if B::FACTORISE_ON_HOST || !self.newton_schulz(rho)? {
            self.factorise(rho)?;
        }
        self.rho = rho;
        Ok(())
    }

    /// On the host.
    fn factorise(&mut self, rho: f64) -> Result<()> {
        let host = match &mut self.host {
            Some(host) => host,
            none => none.insert(HostInverse::new(download(self.gram.clone())?)),
        };
        let inverse = host.shifted(&self.name, rho)?;
        self.inverse = Tensor::from_data(TensorData::new(inverse, self.gram.dims()), &self.gram.device());
        self.off = 0.0;
        Ok(())
    }

    /// The first inverse, by products but for blocks of so many rows, and made good by a step of Newton–Schulz. Says whether it
    /// came close.
    fn by_blocks(&mut self, block: usize) -> Result<bool> {
        let identity = Tensor::eye(self.gram.dims()[0], &self.gram.device());
        let matrix = self.gram.clone() + identity.mul_scalar(self.rho);
        match inverse_by_blocks(matrix, block)? {
            Some(inverse) => self.improve(inverse, self.rho, 1.0),
            None => Ok(false),
        }
    }

    /// Newton–Schulz from the inverse at hand: with `R = I − A X`, `X ← X + X R + X R² (+ X R³)`, which takes `R` to its third or
    /// fourth power. Says whether it came close.
    ///
    /// With the old inverse as start, `A X = I + (ρ' − ρ) X` has its eigenvalues between 1 and ρ'/ρ, and dividing by their mean
    /// brings all within `(ρ' − ρ) / (ρ' + ρ)` of 1. So the residual of the first step is known without a product, but for what
    /// the old inverse was off by, which then stays; while that leaves it close, no product with `A` is needed at all.
    ///
    /// `X Rᵏ` is symmetric whatever symmetric `X` is, so half of it is enough. `A X` is symmetric only while `X` commutes with `A`;
    /// half of it, mirrored, would make each step's rounding grow by as much as `A` is ill-conditioned.
    fn newton_schulz(&mut self, rho: f64) -> Result<bool> {
        // Of as few matrices as can be: at the widest operators each is gigabytes. The old inverse is not needed again.
        let old = std::mem::replace(&mut self.inverse, Tensor::zeros([1, 1], &self.gram.device()));
        let mean = f64::midpoint(1.0, rho / self.rho);
        let x = old.div_scalar(mean);
        let bound = ((rho - self.rho) / (rho + self.rho)).abs();
        let (order, left) = step(bound);
        if left < LEFT && self.off + left < CLOSE {
            let known = from_identity(x.clone().mul_scalar(rho - self.rho), 1.0 - 1.0 / mean);
            self.inverse = series(x, known, order);
            self.off += left;
            return Ok(true);
        }
        self.improve(x, rho, bound)
    }

    /// Steps from `x`, whose residual is `bound` at most as far as is known: while no entry says otherwise, the bound says when
    /// it is close.
    fn improve(&mut self, mut x: Tensor<B, 2>, rho: f64, mut bound: f64) -> Result<bool> {
        for _ in 0..NEWTON_STEPS {
            let image = B::matmul_f32(self.gram.clone(), x.clone()) + x.clone().mul_scalar(rho);
            let residual = from_identity(image, 1.0);
            let worst = largest(residual.clone())?;
            if !worst.is_finite() {
                return Ok(false);
            }
            let (order, left) = step(bound);
            x = series(x, residual, order);
            let bounded = worst <= bound && left < LEFT;
            if bounded || worst < CLOSE {
                self.inverse = x;
                self.off = if bounded { left } else { CLOSE };
                return Ok(true);
            }
            bound = left;
        }
        Ok(false)
    }
}

/// The order of a step from a residual of at most `bound`, and what it leaves.
fn step(bound: f64) -> (i32, f64) {
    let order = if bound.powi(3) < LEFT { 3 } else { 4 };
    (order, bound.powi(order))
}

/// `factor · I − matrix`, `[n, n]`.
fn from_identity<B: SolverOps>(matrix: Tensor<B, 2>, factor: f64) -> Tensor<B, 2> {
    let identity = Tensor::eye(matrix.dims()[0], &matrix.device());
    identity.mul_scalar(factor) - matrix
}

/// `X + X R + … + X Rᵏ` up to the power before `order`, which is at least 2, `[n, n]`, where all of these are symmetric.
fn series<B: SolverOps>(x: Tensor<B, 2>, residual: Tensor<B, 2>, order: i32) -> Tensor<B, 2> {
    let (mut sum, mut term) = (x.clone(), x);
    for _ in 2..order {
        term = UpperHalf::product(term, residual.clone()).full();
        sum = sum + term.clone();
    }
    UpperHalf::product(term, residual).plus(sum).full()
}

/// The inverse of a symmetric positive definite matrix `[n, n]`: with its blocks `A`, `C` on the diagonal and `S` below,
/// `T = S A⁻¹` and `E = (C − T Sᵀ)⁻¹`, it is `A⁻¹ + Tᵀ E T`, `E`, and `−E T` below. Blocks of so many rows are factorised on the
/// host; nothing comes of it where one of them is not positive definite in f32.
fn inverse_by_blocks<B: SolverOps>(matrix: Tensor<B, 2>, block: usize) -> Result<Option<Tensor<B, 2>>> {
    let n = matrix.dims()[0];
    let device = matrix.device();
    if n <= block {
        let mut work = Work::<f32>::new(n);
        work.matrix = download(matrix)?;
        return Ok(work
            .invert_finite()
            .map(|values| Tensor::from_data(TensorData::new(values, [n, n]), &device)));
    }
    let half = n.div_ceil(2);
    let part = |rows: Range<usize>, columns: Range<usize>| matrix.clone().slice([rows, columns]);
    let (first, side, last) = (
        part(0..half, 0..half),
        part(half..n, 0..half),
        part(half..n, half..n),
    );
    drop(matrix);
    let Some(first) = inverse_by_blocks(first, block)? else {
        return Ok(None);
    };
    let t = B::matmul_f32(side.clone(), first.clone());
    let rest = last - UpperHalf::product(t.clone(), side.transpose()).full();
    let Some(last) = inverse_by_blocks(rest, block)? else {
        return Ok(None);
    };
    let below = B::matmul_f32(last.clone(), t.clone()).neg();
    let first = first - UpperHalf::product(t.transpose(), below.clone()).full();
    let above = Tensor::cat(vec![first, below.clone().transpose()], 1);
    let below = Tensor::cat(vec![below, last], 1);
    Ok(Some(Tensor::cat(vec![above, below], 0)))
}

/// Factorisations on the host, with the memory they take each time.
struct HostInverse {
    /// `G [n, n]`.
    gram: Vec<f32>,
    work: Work<f32>,
}

impl HostInverse {
    fn new(gram: Vec<f32>) -> Self {
        let work = Work::new(gram.len().isqrt());
        Self { gram, work }
    }

    /// `(G + ρI)⁻¹` by Cholesky factorisation: in f32, and in f64 where f32 finds the matrix indefinite.
    fn shifted(&mut self, name: &str, rho: f64) -> Result<Vec<f32>> {
        let n = self.work.n;
        self.work.matrix.copy_from_slice(&self.gram);
        for value in self.work.matrix.iter_mut().step_by(n + 1) {
            *value = (f64::from(*value) + rho) as f32;
        }
        if let Some(inverse) = self.work.invert_finite() {
            return Ok(inverse);
        }
        let mut work = Work::<f64>::new(n);
        for (value, gram) in work.matrix.iter_mut().zip(&self.gram) {
            *value = f64::from(*gram);
        }
        work.matrix.iter_mut().step_by(n + 1).for_each(|v| *v += rho);
        let inverse = work.invert().ok_or_else(|| {
            Error::from(SolverError::Factorisation {
                operator: name.to_owned(),
                damping: rho,
            })
        })?;
        Ok(inverse.into_iter().map(|v| v as f32).collect())
    }
}

/// A matrix to be inverted in place, and the memory that takes.
struct Work<T> {
    n: usize,
    /// The symmetric matrix `[n, n]` on the way in.
    matrix: Vec<T>,
    triangle: Vec<T>,
    buffer: MemBuffer,
}

impl<T: faer::traits::RealField + Copy + Default> Work<T> {
    fn new(n: usize) -> Self {
        let par = Par::rayon(0);
        let scratch = llt::factor::cholesky_in_place_scratch::<T>(n, par, Spec::default())
            .or(llt::inverse::inverse_scratch::<T>(n, par));
        Self {
            n,
            matrix: vec![T::default(); n * n],
            triangle: vec![T::default(); n * n],
            buffer: MemBuffer::new(scratch),
        }
    }

    /// The inverse of the matrix, or nothing where it is not positive definite.
    fn invert(&mut self) -> Option<Vec<T>> {
        let (n, par) = (self.n, Par::rayon(0));
        let stack = MemStack::new(&mut self.buffer);
        // Rows and columns of a symmetric matrix are the same.
        llt::factor::cholesky_in_place(
            MatMut::from_column_major_slice_mut(&mut self.matrix, n, n),
            Default::default(),
            par,
            stack,
            Spec::default(),
        )
        .ok()?;
        llt::inverse::inverse(
            MatMut::from_column_major_slice_mut(&mut self.triangle, n, n),
            MatRef::from_column_major_slice(&self.matrix, n, n),
            par,
            stack,
        );
        let mut full = vec![T::default(); n * n];
        mirror(&self.triangle, &mut full, n);
        Some(full)
    }
}

impl Work<f32> {
    /// As [`Work::invert`]; nothing either where f32 overflows on the way.
    fn invert_finite(&mut self) -> Option<Vec<f32>> {
        let finite = |values: &Vec<f32>| values.par_iter().with_min_len(CHUNK).all(|v| v.is_finite());
        self.invert().filter(finite)
    }
}

/// Fills both triangles of `full` from the one that a factorisation fills of `upper`, both `[n, n]` row-major.
fn mirror<T: Copy + Send + Sync>(upper: &[T], full: &mut [T], n: usize) {
    /// Rows and columns of a tile that fits the first-level cache twice.
    const TILE: usize = 32;
    full.par_chunks_mut(TILE * n)
        .enumerate()
        .for_each(|(tile, rows)| {
            let first = tile * TILE;
            for left in (0..first + TILE).step_by(TILE) {
                for (r, row) in rows.chunks_exact_mut(n).enumerate() {
                    for c in left..(left + TILE).min(first + r) {
                        row[c] = upper[c * n + first + r];
                    }
                }
            }
            for (r, row) in rows.chunks_exact_mut(n).enumerate() {
                let from = first + r;
                row[from..].copy_from_slice(&upper[from * n + from..from * n + n]);
            }
        });
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn_flex::Flex;

    fn worst_residual(gram: &Tensor<Flex, 2>, inverse: Tensor<Flex, 2>, rho: f64) -> f32 {
        let eye = Tensor::<Flex, 2>::eye(gram.dims()[0], &Default::default());
        let product = (gram.clone() + eye.clone().mul_scalar(rho)).matmul(inverse);
        (product - eye).abs().max().into_scalar()
    }

    fn gram(n: usize, p: usize) -> Tensor<Flex, 2> {
        let values: Vec<f32> = (0..n * p)
            .map(|k| ((k * k * 31 + k * 7) % 113) as f32 / 56.0 - 1.0)
            .collect();
        let x = Tensor::<Flex, 2>::from_data(TensorData::new(values, [n, p]), &Default::default());
        x.clone().matmul(x.transpose()).div_scalar(p as f32)
    }

    #[test]
    fn both_ways_give_the_inverse() {
        let gram = gram(40, 60);
        // By what is known of the residual alone, by the bound, and by several steps.
        for growth in [1.04f64.powi(3), 1.04f64.powi(10), 2.0] {
            let mut inverse = Inverse::new("w", gram.clone(), 0.1).unwrap();
            assert!(inverse.newton_schulz(0.1 * growth).unwrap());
            assert!(worst_residual(&gram, inverse.matrix(), 0.1 * growth) < CLOSE as f32);
        }
        // Of many renewals in a row none is further off than the first may be.
        let mut inverse = Inverse::new("w", gram.clone(), 0.1).unwrap();
        assert!(worst_residual(&gram, inverse.matrix(), 0.1) < 1e-4);
        let mut rho = 0.1;
        for _ in 0..30 {
            rho *= 1.04f64.powi(5);
            assert!(inverse.newton_schulz(rho).unwrap());
            inverse.rho = rho;
            assert!(
                worst_residual(&gram, inverse.matrix(), rho) < CLOSE as f32,
                "{rho}"
            );
        }
        inverse.shift(0.3).unwrap();
        assert!(worst_residual(&gram, inverse.matrix(), 0.3) < 1e-4);
    }

    #[test]
    fn blocks_give_the_inverse() {
        let gram = gram(70, 200);
        for block in [1, 7, 32, 70] {
            let mut inverse = Inverse::new("w", gram.clone(), 0.1).unwrap();
            assert!(inverse.by_blocks(block).unwrap(), "{block}");
            assert!(worst_residual(&gram, inverse.matrix(), 0.1) < 1e-4, "{block}");
        }
        // A matrix that is not positive definite has a block that is not.
        let indefinite = gram - Tensor::eye(70, &Default::default()).mul_scalar(100.0);
        assert!(inverse_by_blocks(indefinite, 16).unwrap().is_none());
    }
}
