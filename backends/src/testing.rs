//! What the unit tests share.

use burn::backend::Flex;
use burn::tensor::{Tensor, TensorData};

pub(crate) type Matrix = Tensor<Flex, 2>;

/// Entries of both signs, no two of one size; other ones for another seed.
pub(crate) fn matrix(rows: usize, columns: usize, seed: u32) -> Matrix {
    let values: Vec<f32> = (0..rows * columns)
        .map(|k| {
            (k as u32)
                .wrapping_mul(2_654_435_761)
                .wrapping_add(seed.wrapping_mul(40_503))
        })
        .map(|bits| (bits >> 8) as f32 / 8_388_608.0 - 1.0)
        .collect();
    Tensor::from_data(TensorData::new(values, [rows, columns]), &Default::default())
}
