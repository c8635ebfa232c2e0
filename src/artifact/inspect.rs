//! What a checkpoint's linear operators look like, without a forward pass.

use crate::checkpoint::Model;
use crate::error::Result;
use rayon::prelude::*;
use serde::Serialize;

/// One linear operator.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InspectedOperator {
    /// Full name, without `.weight`.
    pub name: String,
    /// `[out, in]`.
    pub shape: [usize; 2],
    /// Exact zeros.
    pub zeros: usize,
    /// Their share.
    pub sparsity: f64,
    /// The sparsest n:m pattern with m of 4, 8, 16 or 32 that all of it has, and most of it no sparser.
    pub n_of_m: Option<String>,
}

/// A whole model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// In the order of the layers and of evaluation.
    pub operators: Vec<InspectedOperator>,
    /// Zeros over all of them, as a share.
    pub sparsity: f64,
}

/// Reads every linear operator of the decoder layers.
///
/// # Errors
/// When a tensor cannot be read.
pub fn inspect(model: &Model) -> Result<Inspection> {
    let mut operators = Vec::new();
    for operator in model.decoder.operators() {
        let shape = operator.shape();
        let values = model.checkpoint.read(&operator.weight(), &shape)?;
        let zeros = values.par_iter().filter(|v| **v == 0.0).count();
        operators.push(InspectedOperator {
            name: operator.name,
            shape,
            zeros,
            sparsity: zeros as f64 / values.len().max(1) as f64,
            n_of_m: n_of_m(&values, shape[1]),
        });
    }
    let zeros: usize = operators.iter().map(|o| o.zeros).sum();
    let weights: usize = operators.iter().map(|o| o.shape[0] * o.shape[1]).sum();
    Ok(Inspection {
        operators,
        sparsity: zeros as f64 / weights.max(1) as f64,
    })
}

/// The n:m pattern with the lowest n/m, of those the smallest m; `None` where there is none.
///
/// At most n non-zeros in every group are not enough, as zeros spread at random leave a few in any large group: a matrix
/// pruned to n:m has exactly n of them in most.
fn n_of_m(values: &[f32], columns: usize) -> Option<String> {
    let pattern = |m: usize| {
        let kept = |group: &[f32]| group.iter().filter(|v| **v != 0.0).count();
        let densest = values.par_chunks(m).map(kept).max()?;
        let as_dense = values
            .par_chunks(m)
            .filter(|group| kept(group) == densest)
            .count();
        (0 < densest && densest < m && 2 * as_dense > values.len() / m).then_some((densest, m))
    };
    [4, 8, 16, 32]
        .into_iter()
        .filter(|m| columns.is_multiple_of(*m))
        .filter_map(pattern)
        .min_by(|(n1, m1), (n2, m2)| (n1 * m2).cmp(&(n2 * m1)).then(m1.cmp(m2)))
        .map(|(n, m)| format!("{n}:{m}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sparsest_pattern_is_named() {
        let two_of_four = [0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0];
        assert_eq!(n_of_m(&two_of_four, 8).as_deref(), Some("2:4"));
        let four_of_eight = [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0];
        assert_eq!(n_of_m(&four_of_eight, 8).as_deref(), Some("4:8"));
        assert_eq!(n_of_m(&[1.0; 8], 8), None);
        assert_eq!(n_of_m(&[1.0, 0.0, 0.0, 0.0], 4).as_deref(), Some("1:4"));
        assert_eq!(n_of_m(&[0.0; 8], 8), None);
        let scattered = |i: u32| {
            f32::from(u8::from(
                i.wrapping_mul(2_654_435_761).wrapping_add(i * i) >> 31 == 0,
            ))
        };
        let scattered: Vec<f32> = (0..1024).map(scattered).collect();
        assert_eq!(n_of_m(&scattered, 64), None);
    }
}
