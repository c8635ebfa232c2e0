//! What a solver is given: one operator's weight and statistics, on a device, and the errors that they define.

use super::SolverError;
use crate::error::{Error, Result};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use fista_pruner_backends::{SolverOps, device_failure};
use fista_pruner_models::on_host;

/// One operator's pruning problem, on a device.
#[derive(Debug, Clone)]
pub struct LayerProblem<B: SolverOps> {
    /// The operator's full name, for errors.
    pub name: String,
    /// `W [m, n]`.
    pub weight: Tensor<B, 2>,
    /// `G [n, n]`.
    pub gram: Tensor<B, 2>,
    /// `P [m, n]`; `None` where `X* = X`.
    pub drift: Option<Tensor<B, 2>>,
    /// `R`.
    pub drift_energy: f64,
    /// `T`.
    pub target_energy: f64,
    /// Different calibration tokens behind `G`; `None` where that is not known.
    pub tokens: Option<usize>,
    /// Means of inputs and of the output's drift, where they were gathered.
    pub means: Option<Means>,
    /// Whether `G`, `P` and `R` are those of inputs and outputs less their means: the operator's bias takes care of these.
    pub centred: bool,
    /// One number a block of columns, from elsewhere: the larger, the less it may go.
    pub scores: Option<Vec<f32>>,
}

/// Means over the calibration tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Means {
    /// Of `X*`, `[n]`.
    pub input: Vec<f32>,
    /// Of `W (X* − X)`, `[m]`.
    pub drift: Vec<f32>,
}

impl<B: SolverOps> LayerProblem<B> {
    /// A problem whose target is the operator's own dense output, `X* = X`.
    pub fn new(name: impl Into<String>, weight: Tensor<B, 2>, gram: Tensor<B, 2>) -> Self {
        let product = B::matmul_f32(weight.clone(), gram.clone());
        let target_energy = not_below_zero(B::inner(product, weight.clone()));
        Self {
            name: name.into(),
            weight,
            gram,
            drift: None,
            drift_energy: 0.0,
            target_energy,
            tokens: None,
            means: None,
            centred: false,
            scores: None,
        }
    }

    /// The problem of an operator whose bias changes with its weight, so that only deviations from the means are left to fit:
    /// `G − μ μᵀ`, `P − d μᵀ` and, with the drift's mean made good as well, `R − ‖d‖²`.
    #[must_use]
    pub fn centred(mut self, drift_too: bool) -> Self {
        let Some(means) = self.means.clone().filter(|_| !self.centred) else {
            return self;
        };
        let (m, n) = self.shape();
        let device = self.weight.device();
        let row = |values: &[f32], shape: [usize; 2]| {
            Tensor::<B, 2>::from_data(TensorData::new(values.to_vec(), shape), &device)
        };
        let (mu, d) = (row(&means.input, [1, n]), row(&means.drift, [m, 1]));
        self.gram = self.gram - B::matmul_f32(mu.clone().transpose(), mu.clone());
        self.drift = self.drift.map(|drift| drift - B::matmul_f32(d, mu));
        if drift_too {
            let energy: f64 = means.drift.iter().map(|d| f64::from(*d).powi(2)).sum();
            self.drift_energy = not_below_zero(self.drift_energy - energy);
        }
        self.centred = true;
        self
    }

    /// `(m, n)`: outputs and inputs.
    pub fn shape(&self) -> (usize, usize) {
        let [m, n] = self.weight.dims();
        (m, n)
    }

    /// The gradient of half the squared error, `(V − W) G + P`, `[m, n]`.
    pub fn gradient(&self, v: Tensor<B, 2>) -> Tensor<B, 2> {
        let gradient = B::matmul_f32(B::difference(v, self.weight.clone()), self.gram.clone());
        match &self.drift {
            Some(drift) => gradient + drift.clone(),
            None => gradient,
        }
    }

    /// `‖V X* − W X‖²_F / p`.
    pub fn squared_error(&self, v: Tensor<B, 2>) -> f64 {
        let difference = B::difference(v, self.weight.clone());
        let mut product = B::matmul_f32(difference.clone(), self.gram.clone());
        if let Some(drift) = &self.drift {
            product = product + drift.clone().mul_scalar(2.0);
        }
        not_below_zero(B::inner(product, difference) + self.drift_energy)
    }

    /// A squared error as a share of the target's energy; an operator without output has none.
    pub fn relative(&self, squared_error: f64) -> f64 {
        if self.target_energy > 0.0 {
            squared_error / self.target_energy
        } else {
            0.0
        }
    }

    pub(crate) fn upload(&self, values: Vec<f32>) -> Tensor<B, 2> {
        let (m, n) = self.shape();
        Tensor::from_data(TensorData::new(values, [m, n]), &self.weight.device())
    }
}

/// Numbers that a core takes at a time where there is next to nothing to do for each.
pub(crate) const CHUNK: usize = 1 << 14;

/// A sum of squares that rounding may have taken below zero. Unlike `f64::max`, it keeps what is not a number.
pub(crate) fn not_below_zero(value: f64) -> f64 {
    if value < 0.0 { 0.0 } else { value }
}

/// What is read from a GPU at once, in bytes. A GPU's library takes memory of the host that cannot be moved for it, as much as is
/// read, and keeps it.
const READ_AT_ONCE: usize = 64 << 20;

/// Row-major values of a tensor on the host.
///
/// # Errors
/// When the device reports a failure, or failed at something before.
pub(crate) fn download<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Result<Vec<f32>> {
    if on_host::<B>(&tensor.device()) {
        return read(tensor);
    }
    download_by(tensor, READ_AT_ONCE)
}

/// In blocks of rows of at most so many bytes, or single rows.
fn download_by<B: Backend, const D: usize>(tensor: Tensor<B, D>, bytes: usize) -> Result<Vec<f32>> {
    let (rows, entries) = (tensor.dims()[0], tensor.shape().num_elements());
    if entries * size_of::<f32>() <= bytes {
        return read(tensor);
    }
    let height = (bytes / size_of::<f32>() / (entries / rows)).max(1);
    let mut values = Vec::with_capacity(entries);
    for start in (0..rows).step_by(height) {
        let block = tensor.clone().slice_dim(0, start..(start + height).min(rows));
        values.extend(read(block)?);
    }
    Ok(values)
}

fn read<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Result<Vec<f32>> {
    let failed = |reason: String| Error::from(SolverError::DeviceFailed { reason });
    let data = tensor.try_into_data().map_err(|e| failed(e.to_string()))?;
    if let Some(reason) = device_failure() {
        return Err(failed(reason));
    }
    data.convert::<f32>()
        .into_vec::<f32>()
        .map_err(|e| failed(format!("{e:?}")))
}

/// The largest size of an entry; not a number where an entry is none, which the maximum of a GPU passes over.
///
/// # Errors
/// As [`download`].
pub(crate) fn largest<B: SolverOps>(matrix: Tensor<B, 2>) -> Result<f64> {
    let nothing = B::inner(matrix.clone(), matrix.zeros_like());
    let largest = download(matrix.abs().max().reshape([1, 1]))?;
    Ok(f64::from(largest[0]) + nothing)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use burn::backend::Flex;

    #[test]
    fn blocks_of_rows_are_the_whole() {
        let values: Vec<f32> = (0..7 * 3 * 2).map(|k| k as f32).collect();
        let tensor =
            Tensor::<Flex, 3>::from_data(TensorData::new(values.clone(), [7, 3, 2]), &Default::default());
        // Less than a row, two rows, and all.
        for bytes in [1, 48, 1 << 20] {
            assert_eq!(download_by(tensor.clone(), bytes).unwrap(), values);
        }
        let nothing = Tensor::<Flex, 2>::zeros([0, 3], &Default::default());
        assert_eq!(download_by(nothing, 1).unwrap(), Vec::<f32>::new());
    }

    #[test]
    fn the_largest_of_what_is_no_number_is_none() {
        let of = |values: [f32; 4]| {
            largest::<Flex>(Tensor::from_data(
                TensorData::new(values.to_vec(), [2, 2]),
                &Default::default(),
            ))
            .unwrap()
        };
        assert_eq!(of([1.0, -3.0, 2.0, 0.0]), 3.0);
        assert_eq!(of([f32::MAX, -1.0, 0.0, 1.0]), f64::from(f32::MAX));
        for none in [f32::NAN, f32::INFINITY] {
            assert!(!of([1.0, none, 2.0, 0.0]).is_finite());
        }
    }
}
