//! What several tests share: fixtures, and matrices from safetensors files.

use burn::tensor::{Tensor, TensorData};
use fista_pruner_backends::SolverOps;
use safetensors::{Dtype, SafeTensors};
use std::path::{Path, PathBuf};

pub(crate) type Device = burn_flex::Flex;

/// A file under `tests/fixtures`.
pub(crate) fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(path)
}

/// A tensor's shape and its values as f64, whatever it is stored as.
pub(crate) fn values(file: &SafeTensors<'_>, name: &str) -> (Vec<usize>, Vec<f64>) {
    let view = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
    let bytes = view.data();
    let values = match view.dtype() {
        Dtype::F64 => bytes
            .chunks(8)
            .map(|b| f64::from_le_bytes(b.try_into().unwrap()))
            .collect(),
        Dtype::F32 => bytes
            .chunks(4)
            .map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap())))
            .collect(),
        Dtype::F16 => bytes
            .chunks(2)
            .map(|b| half::f16::from_le_bytes(b.try_into().unwrap()).to_f64())
            .collect(),
        Dtype::BF16 => bytes
            .chunks(2)
            .map(|b| half::bf16::from_le_bytes(b.try_into().unwrap()).to_f64())
            .collect(),
        other => panic!("{name} is stored as {other:?}"),
    };
    (view.shape().to_vec(), values)
}

/// A matrix on a device.
pub(crate) fn matrix<B: SolverOps>(file: &SafeTensors<'_>, name: &str, device: &B::Device) -> Tensor<B, 2> {
    let (shape, values) = values(file, name);
    let values: Vec<f32> = values.into_iter().map(|v| v as f32).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}
