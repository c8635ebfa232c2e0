//! ℓ0 operator splitting, the family of ALPS (Meng et al., arXiv 2406.07831): the support itself is the variable.
//!
//! In scaled columns (see [`super::scaled`]) and with `G` damped, ADMM on
//!
//! ```text
//! min 1/2 tr((B−W) G (B−W)ᵀ) + tr((B−W) Pᵀ)   subject to   B = D,  D has the pattern
//! ```
//!
//! With the scaled dual `u` the steps are
//!
//! ```text
//! B = W + (ρ (D − u − W) − P) (G + ρI)⁻¹        Z = B + u        D = H(Z)        u = Z − D
//! ```
//!
//! where `H` keeps the largest entries. `D` and `u` share no entry, so `D − u` is `Z` with the sign of its cut entries
//! turned, and one matrix carries both. ρ grows by a fixed factor a step, the inverse is renewed every few steps, and ρ
//! stays what it was between renewals. The published code grows ρ by the number of entries that moved and takes up to 300
//! steps of two products each; here a step is one product.

use super::inverse::Inverse;
use super::{LayerProblem, Solution, SolveInfo, StopReason, download, scaled};
use crate::config::L0Config;
use crate::error::Result;
use crate::pattern::Pattern;
use burn::tensor::{Tensor, TensorData};
use fista_pruner_backends::SolverOps;
use rayon::prelude::*;

/// Chooses the support by splitting; the values are those of the last `D`, to be polished.
///
/// # Errors
/// When `G` is not finite, cannot be inverted, or the device fails.
pub fn prune<B: SolverOps>(
    problem: &LayerProblem<B>,
    pattern: Pattern,
    config: &L0Config,
) -> Result<Solution> {
    let (m, n) = problem.shape();
    let scaled = scaled::scale(problem)?;
    let weight = scaled.problem.weight.clone();
    let dense = download(weight.clone())?;
    let device = weight.device();
    let eye = Tensor::<B, 2>::eye(n, &device);
    let damped = scaled.problem.gram.clone() + eye.mul_scalar(config.damping);

    let mut keep = pattern.keep_largest(&dense, m, n);
    // Z with the sign of its cut entries turned: D − u. At first D = H(W), u = 0.
    let mut turned: Vec<f32> = dense
        .iter()
        .zip(&keep)
        .map(|(w, k)| if *k { *w } else { 0.0 })
        .collect();
    // Z's cut entries, as they were.
    let mut dual = vec![0.0f32; m * n];
    let mut rho = config.rho;
    let mut inverse = Inverse::new(&problem.name, damped, rho)?;
    let drift = scaled.problem.drift.clone();
    for step in 0..config.steps {
        if step > 0 && step % config.refresh == 0 {
            let next = rho * config.growth.powi(config.refresh as i32);
            // The scaled dual is V/ρ, and V stays.
            let factor = (rho / next) as f32;
            turn(&mut turned, &mut dual, &keep, factor);
            rho = next;
            inverse.shift(rho)?;
        }
        let pull = Tensor::<B, 2>::from_data(TensorData::new(turned, [m, n]), &device) - weight.clone();
        let mut right = pull.mul_scalar(rho);
        if let Some(drift) = &drift {
            right = right - drift.clone();
        }
        let moved = download(right.matmul(inverse.matrix()))?;
        let z: Vec<f32> = (dense.par_iter().zip(&moved).zip(&dual))
            .map(|((w, change), u)| w + change + u)
            .collect();
        keep = pattern.keep_largest(&z, m, n);
        dual = z
            .par_iter()
            .zip(&keep)
            .map(|(z, k)| if *k { 0.0 } else { *z })
            .collect();
        turned = z
            .par_iter()
            .zip(&keep)
            .map(|(z, k)| if *k { *z } else { -*z })
            .collect();
    }
    scaled.unscale(&mut turned);
    let info = SolveInfo {
        iterations: config.steps,
        stop_reason: StopReason::Iterations,
        ..SolveInfo::direct()
    };
    Ok(Solution::masked(turned, keep, info))
}

/// Scales the dual, in both places where it is kept.
fn turn(turned: &mut [f32], dual: &mut [f32], keep: &[bool], factor: f32) {
    turned
        .par_iter_mut()
        .zip(dual)
        .zip(keep)
        .for_each(|((t, u), keep)| {
            if !keep {
                *u *= factor;
                *t = -*u;
            }
        });
}
