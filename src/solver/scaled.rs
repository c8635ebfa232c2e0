//! Column scaling: the same problem with every input brought to unit norm.
//!
//! With `d_j = √G_jj`, work on `V' = V·diag(d)`, `G' = G / (d dᵀ)`, `P' = P / d`. The error is the same number, the outlier
//! channels that make `λ_max(G)` huge are gone, and nothing depends on the scale of the activations any more.

use super::{LayerProblem, wanda};
use crate::error::Result;
use burn::tensor::{Tensor, TensorData};
use fista_pruner_backends::SolverOps;
use rayon::prelude::*;

/// Inputs whose norm is below this share of the largest count as silent; what is left of them is rounding noise.
const SILENT: f32 = 1e-6;

/// A problem in scaled columns, and the way back.
#[derive(Debug, Clone)]
pub struct Scaled<B: SolverOps> {
    /// The scaled problem.
    pub problem: LayerProblem<B>,
    /// `d`, `n` values.
    pub norms: Vec<f32>,
}

/// Scales a problem's columns.
///
/// # Errors
/// When `G` is not finite or the device fails.
pub fn scale<B: SolverOps>(problem: &LayerProblem<B>) -> Result<Scaled<B>> {
    let diagonal = wanda::diagonal(problem)?;
    let largest = diagonal.iter().fold(0.0f32, |a, b| a.max(*b)).sqrt();
    let floor = if largest > 0.0 { largest * SILENT } else { 1.0 };
    let norms: Vec<f32> = diagonal.iter().map(|g| g.max(0.0).sqrt().max(floor)).collect();
    let d = row::<B>(&norms, &problem.weight.device());
    let gram = problem.gram.clone() / d.clone() / d.clone().transpose();
    Ok(Scaled {
        problem: in_columns(problem, gram, d),
        norms,
    })
}

/// `[1, n]`.
fn row<B: SolverOps>(norms: &[f32], device: &B::Device) -> Tensor<B, 2> {
    Tensor::from_data(TensorData::new(norms.to_vec(), [1, norms.len()]), device)
}

/// The problem with columns scaled by `d [1, n]`, whose Gram matrix is that already.
fn in_columns<B: SolverOps>(
    problem: &LayerProblem<B>,
    gram: Tensor<B, 2>,
    d: Tensor<B, 2>,
) -> LayerProblem<B> {
    LayerProblem {
        name: problem.name.clone(),
        weight: problem.weight.clone() * d.clone(),
        gram,
        drift: problem.drift.clone().map(|p| p / d),
        drift_energy: problem.drift_energy,
        target_energy: problem.target_energy,
        tokens: problem.tokens,
        means: None,
        centred: problem.centred,
        scores: None,
    }
}

impl<B: SolverOps> Scaled<B> {
    /// Another problem with the same Gram matrix, scaled alike.
    pub(super) fn like(&self, problem: &LayerProblem<B>) -> LayerProblem<B> {
        let d = row::<B>(&self.norms, &problem.weight.device());
        in_columns(problem, self.problem.gram.clone(), d)
    }

    /// Takes values `[m, n]` of the operator's own columns to scaled ones.
    pub fn scale(&self, values: &mut [f32]) {
        for row in values.chunks_mut(self.norms.len().max(1)) {
            for (v, d) in row.iter_mut().zip(&self.norms) {
                *v *= d;
            }
        }
    }

    /// Takes scaled values `[m, n]` back to the operator's own columns.
    pub fn unscale(&self, values: &mut [f32]) {
        values
            .par_chunks_mut(self.norms.len().max(1))
            .for_each(|row| row.iter_mut().zip(&self.norms).for_each(|(v, d)| *v /= d));
    }
}
