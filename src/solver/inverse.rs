//! `(G + ρI)⁻¹` for a ρ that grows: by factorisation on the host where that is the cheaper way, by matrix products on the
//! device where moving the matrix is not.

use super::download;
use crate::error::{Error, Result};
use burn::tensor::{Tensor, TensorData};
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt;
use faer::{MatMut, MatRef, Par, Spec};
use fista_pruner_backends::{SolverOps, UpperHalf};
use rayon::prelude::*;

/// `‖I − A X‖` at which an inverse by products serves the splitting as well as an exact one.
const CLOSE: f64 = 4e-3;
/// Newton–Schulz cubes the residual; from one half, three steps pass it.
const NEWTON_STEPS: usize = 5;

/// The inverse of a shifted matrix.
pub(super) struct Inverse<B: SolverOps> {
    name: String,
    /// `G [n, n]`, on the device.
    gram: Tensor<B, 2>,
    host: HostInverse,
    inverse: Tensor<B, 2>,
    rho: f64,
    /// What `‖I − (G + ρI) X‖` may be above that of a factorisation.
    off: f64,
}

impl<B: SolverOps> Inverse<B> {
    /// `(G + ρI)⁻¹` of a symmetric `gram [n, n]`.
    pub(super) fn new(name: &str, gram: Tensor<B, 2>, rho: f64) -> Result<Self> {
        let mut host = HostInverse::new(download(gram.clone())?);
        let inverse = host.shifted(name, rho)?;
        let shape = gram.dims();
        let inverse = Tensor::from_data(TensorData::new(inverse, shape), &gram.device());
        Ok(Self {
            name: name.to_owned(),
            gram,
            host,
            inverse,
            rho,
            off: 0.0,
        })
    }

    /// The inverse, `[n, n]`.
    pub(super) fn matrix(&self) -> Tensor<B, 2> {
        self.inverse.clone()
    }

    /// Moves to another ρ.
    pub(super) fn shift(&mut self, rho: f64) -> Result<()> {
        if B::FACTORISE_ON_HOST || !self.newton_schulz(rho)? {
            let inverse = self.host.shifted(&self.name, rho)?;
            self.inverse = Tensor::from_data(TensorData::new(inverse, self.gram.dims()), &self.gram.device());
            self.off = 0.0;
        }
        self.rho = rho;
        Ok(())
    }

    /// Newton–Schulz of third order from the inverse at hand: with `R = I − A X`, `X ← X + X R + X R²`, which cubes `R`. Says
    /// whether it came close.
    ///
    /// With the old inverse as start, `A X = I + (ρ' − ρ) X` has its eigenvalues between 1 and ρ'/ρ, and dividing by their mean
    /// brings all within `(ρ' − ρ) / (ρ' + ρ)` of 1. So the residual of the first step is known without a product, but for what
    /// the old inverse was off by, which then stays; while that leaves it close, no product with `A` is needed at all.
    /// Otherwise, while no entry of the residual is above its bound, the bound says when it is close.
    ///
    /// `X R` and `X R²` are symmetric whatever symmetric `X` is, so half of each is enough. `A X` is symmetric only while `X`
    /// commutes with `A`; half of it, mirrored, would make each step's rounding grow by as much as `A` is ill-conditioned.
    pub(super) fn newton_schulz(&mut self, rho: f64) -> Result<bool> {
        // Of as few matrices as can be: at the widest operators each is gigabytes. The old inverse is not needed again.
        let old = std::mem::replace(&mut self.inverse, Tensor::zeros([1, 1], &self.gram.device()));
        let mean = f64::midpoint(1.0, rho / self.rho);
        let mut x = old.div_scalar(mean);
        let mut bound = ((rho - self.rho) / (rho + self.rho)).abs();
        if self.off + bound.powi(3) < CLOSE {
            let known = from_identity(x.clone().mul_scalar(rho - self.rho), 1.0 - 1.0 / mean);
            self.inverse = cubed(x, known);
            self.off += bound.powi(3);
            return Ok(true);
        }
        for _ in 0..NEWTON_STEPS {
            let image = B::matmul_f32(self.gram.clone(), x.clone()) + x.clone().mul_scalar(rho);
            let residual = from_identity(image, 1.0);
            let worst = f64::from(download(residual.clone().abs().max().reshape([1, 1]))?[0]);
            if !worst.is_finite() {
                return Ok(false);
            }
            x = cubed(x, residual);
            self.off = if worst <= bound { bound.powi(3) } else { CLOSE };
            bound = bound.powi(3);
            if worst < CLOSE || self.off < CLOSE {
                self.inverse = x;
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// `factor · I − matrix`, `[n, n]`.
fn from_identity<B: SolverOps>(matrix: Tensor<B, 2>, factor: f64) -> Tensor<B, 2> {
    let identity = Tensor::eye(matrix.dims()[0], &matrix.device());
    identity.mul_scalar(factor) - matrix
}

/// `X + X R + X R²`, `[n, n]`, where that is symmetric.
fn cubed<B: SolverOps>(x: Tensor<B, 2>, residual: Tensor<B, 2>) -> Tensor<B, 2> {
    let first = UpperHalf::product(x.clone(), residual.clone()).full();
    let second = UpperHalf::product(first.clone(), residual);
    second.plus(first).plus(x).full()
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
        if let Some(inverse) = self.work.invert()
            && inverse.par_iter().with_min_len(1 << 14).all(|v| v.is_finite())
        {
            return Ok(inverse);
        }
        let mut work = Work::<f64>::new(n);
        for (value, gram) in work.matrix.iter_mut().zip(&self.gram) {
            *value = f64::from(*gram);
        }
        work.matrix.iter_mut().step_by(n + 1).for_each(|v| *v += rho);
        let inverse = work.invert().ok_or_else(|| Error::Factorisation {
            operator: name.to_owned(),
            damping: rho,
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

    #[test]
    fn both_ways_give_the_inverse() {
        let (n, p) = (40, 60);
        let values: Vec<f32> = (0..n * p)
            .map(|k| ((k * k * 31 + k * 7) % 113) as f32 / 56.0 - 1.0)
            .collect();
        let x = Tensor::<Flex, 2>::from_data(TensorData::new(values, [n, p]), &Default::default());
        let gram = x.clone().matmul(x.transpose()).div_scalar(p as f32);
        // By the bound alone, without a step that only checks.
        for growth in [1.04f64.powi(3), 1.04f64.powi(5), 1.1f64.powi(3)] {
            let mut inverse = Inverse::new("w", gram.clone(), 0.1).unwrap();
            assert!(inverse.newton_schulz(0.1 * growth).unwrap());
            assert!(worst_residual(&gram, inverse.matrix(), 0.1 * growth) < CLOSE as f32);
        }
        let mut inverse = Inverse::new("w", gram.clone(), 0.1).unwrap();
        assert!(worst_residual(&gram, inverse.matrix(), 0.1) < 1e-4);
        assert!(inverse.newton_schulz(0.15).unwrap());
        assert!(worst_residual(&gram, inverse.matrix(), 0.15) < CLOSE as f32);
        inverse.rho = 0.15;
        inverse.shift(0.3).unwrap();
        assert!(worst_residual(&gram, inverse.matrix(), 0.3) < 1e-4);
    }
}
