//! The pull towards the dense weight, as a change of the Gram matrix.

use super::{LayerProblem, wanda};
use crate::config::Ridge;
use crate::error::Result;
use burn::tensor::{Tensor, TensorData};
use fista_pruner_backends::SolverOps;

/// Adds the ridge to the diagonal of the problems' common Gram matrix: the error plus that much of the distance to the
/// dense weight.
pub(crate) fn with_ridge<B: SolverOps>(problems: &mut [LayerProblem<B>], ridge: Ridge) -> Result<()> {
    let Some(first) = problems.first_mut() else {
        return Ok(());
    };
    let relative = ridge.relative(first.shape().1, first.tokens);
    if relative == 0.0 {
        return Ok(());
    }
    let diagonal = wanda::diagonal(first)?;
    let n = diagonal.len();
    let mean = diagonal.iter().map(|g| f64::from(*g)).sum::<f64>() / n.max(1) as f64;
    // Inputs that carry next to nothing are held too, or the matrix might be singular.
    let floor = FAINT * mean;
    let added: Vec<f32> = diagonal
        .iter()
        .map(|g| (relative * (mean * f64::from(*g).max(floor)).sqrt()) as f32)
        .collect();
    let device = first.gram.device();
    let added = Tensor::<B, 2>::from_data(TensorData::new(added, [1, n]), &device);
    let gram = first.gram.clone() + Tensor::eye(n, &device) * added;
    for problem in problems {
        problem.gram = gram.clone();
    }
    Ok(())
}

/// Energy of an input, relative to the mean, below which it is held as if it had that much.
const FAINT: f64 = 1e-4;
