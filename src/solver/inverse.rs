//! `(G + ρI)⁻¹` for a ρ that grows: by factorisation on the host where that is the cheaper way, by matrix products on the
//! device where moving the matrix is not.

use super::download;
use crate::error::{Error, Result};
use burn::tensor::{Tensor, TensorData};
use faer::linalg::solvers::DenseSolveCore;
use faer::{Mat, Side};
use fista_pruner_backends::SolverOps;

/// `‖I − A X‖_max` at which an inverse by products is as exact as f32 products make it.
const CLOSE: f64 = 1e-4;
/// Newton–Schulz squares the residual; from one half, six steps pass f32's precision.
const NEWTON_STEPS: usize = 8;

/// The inverse of a shifted matrix.
pub(super) struct Inverse<B: SolverOps> {
    name: String,
    /// `G [n, n]`, on the device.
    gram: Tensor<B, 2>,
    /// The same on the host, for factorisations.
    host: Vec<f32>,
    inverse: Tensor<B, 2>,
    rho: f64,
}

impl<B: SolverOps> Inverse<B> {
    /// `(G + ρI)⁻¹` of a symmetric `gram [n, n]`.
    pub(super) fn new(name: &str, gram: Tensor<B, 2>, rho: f64) -> Result<Self> {
        let host = download(gram.clone())?;
        let inverse = factorised(name, &host, rho)?;
        let n = gram.dims()[0];
        let inverse = Tensor::from_data(TensorData::new(inverse, [n, n]), &gram.device());
        Ok(Self {
            name: name.to_owned(),
            gram,
            host,
            inverse,
            rho,
        })
    }

    /// The inverse, `[n, n]`.
    pub(super) fn matrix(&self) -> Tensor<B, 2> {
        self.inverse.clone()
    }

    /// Moves to another ρ.
    pub(super) fn shift(&mut self, rho: f64) -> Result<()> {
        if !B::FACTORISE_ON_HOST && self.newton_schulz(rho)? {
            self.rho = rho;
            return Ok(());
        }
        let n = self.gram.dims()[0];
        let inverse = factorised(&self.name, &self.host, rho)?;
        self.inverse = Tensor::from_data(TensorData::new(inverse, [n, n]), &self.gram.device());
        self.rho = rho;
        Ok(())
    }

    /// Newton–Schulz from the inverse at hand: `X ← X (2I − A X)`. Says whether it came close; with the old inverse as
    /// start, `A X = I + (ρ' − ρ) X` has its eigenvalues between 1 and ρ'/ρ, and half their mean brings all within reach.
    pub(super) fn newton_schulz(&mut self, rho: f64) -> Result<bool> {
        let n = self.gram.dims()[0];
        let eye = Tensor::<B, 2>::eye(n, &self.gram.device());
        let shifted = self.gram.clone() + eye.clone().mul_scalar(rho);
        let mut x = self.inverse.clone().mul_scalar(2.0 / (1.0 + rho / self.rho));
        for _ in 0..NEWTON_STEPS {
            let residual = eye.clone() - shifted.clone().matmul(x.clone());
            let worst = download(residual.clone().abs().max().reshape([1, 1]))?[0];
            if !worst.is_finite() {
                return Ok(false);
            }
            x = x.clone() + x.matmul(residual);
            if f64::from(worst) < CLOSE {
                // Rounding breaks the symmetry a little; the splitting wants it whole.
                self.inverse = (x.clone() + x.transpose()).mul_scalar(0.5);
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The inverse by Cholesky factorisation on the host: in f32, and in f64 where f32 finds the matrix indefinite.
fn factorised(name: &str, gram: &[f32], rho: f64) -> Result<Vec<f32>> {
    let n = gram.len().isqrt();
    let shifted = |i: usize, j: usize| f64::from(gram[i * n + j]) + if i == j { rho } else { 0.0 };
    if let Ok(llt) = Mat::<f32>::from_fn(n, n, |i, j| shifted(i, j) as f32).llt(Side::Lower) {
        let inverse = llt.inverse();
        let values: Vec<f32> = (0..n).flat_map(|j| inverse.col(j).iter().copied()).collect();
        if values.iter().all(|v| v.is_finite()) {
            return Ok(values);
        }
    }
    let llt = Mat::<f64>::from_fn(n, n, shifted)
        .llt(Side::Lower)
        .map_err(|_| Error::Factorisation {
            operator: name.to_owned(),
            damping: rho,
        })?;
    let inverse = llt.inverse();
    Ok((0..n)
        .flat_map(|j| inverse.col(j).iter().map(|v| *v as f32))
        .collect())
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
        let mut inverse = Inverse::new("w", gram.clone(), 0.1).unwrap();
        assert!(worst_residual(&gram, inverse.matrix(), 0.1) < 1e-4);
        assert!(inverse.newton_schulz(0.15).unwrap());
        assert!(worst_residual(&gram, inverse.matrix(), 0.15) < 1e-4);
        inverse.rho = 0.15;
        inverse.shift(0.3).unwrap();
        assert!(worst_residual(&gram, inverse.matrix(), 0.3) < 1e-4);
    }
}
