//! The operators of a layer on the host: their weights as stored, and which of them survive.

use super::RecoverJob;
use crate::checkpoint::{StoredDtype, round_to};
use crate::error::{ConfigError, Error, Result};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor, TensorData};

/// A linear operator.
#[derive(Debug, Clone)]
pub(super) struct Operator {
    /// Within its layer, such as `self_attn.q_proj`.
    pub(super) name: &'static str,
    /// Its place in the model, counted over all layers.
    pub(super) index: usize,
    pub(super) group: usize,
    /// Full name of its weight.
    pub(super) tensor: String,
    /// `[out, in]`.
    pub(super) shape: [usize; 2],
    pub(super) dtype: StoredDtype,
    /// `[out, in]` row-major, as a reader of the checkpoint sees them.
    pub(super) values: Vec<f32>,
    /// Which of them are not zero in the pruned model.
    pub(super) keep: Vec<bool>,
}

impl Operator {
    /// Rounds new weights to what is stored, with the zeros in place.
    pub(super) fn stored(&self, mut values: Vec<f32>) -> Vec<f32> {
        round_to(&mut values, Some(&self.keep), &self.dtype);
        values
    }

    /// The weights `[out, in]` on the device.
    pub(super) fn upload<B: Backend>(&self, device: &B::Device) -> Tensor<B, 2> {
        self.tensor_of(self.values.clone(), device)
    }

    /// Values `[out, in]` on the device.
    pub(super) fn tensor_of<B: Backend>(&self, values: Vec<f32>, device: &B::Device) -> Tensor<B, 2> {
        Tensor::from_data(TensorData::new(values, self.shape), (device, DType::F32))
    }

    /// That of the surviving weights.
    pub(super) fn root_mean_square(&self) -> f64 {
        let squares: f64 = self.values.iter().map(|v| f64::from(*v).powi(2)).sum();
        let survivors = self.keep.iter().filter(|keep| **keep).count().max(1);
        // One of zeros alone has no scale.
        (squares / survivors as f64)
            .sqrt()
            .max(f64::from(f32::MIN_POSITIVE))
    }

    /// The decoder does not know its own operator.
    pub(super) fn lost(&self) -> Error {
        Error::internal(format!(
            "the decoder has no operator of the tensor `{}`",
            self.tensor
        ))
    }
}

/// The operators of a layer that are trained, in the order of evaluation: those that have zeros, as one without was left dense on
/// purpose; all where whole units went.
pub(super) fn layer_operators(job: &RecoverJob<'_>, layer: usize) -> Result<Vec<Operator>> {
    let model = job.pruned;
    let mut found = Vec::new();
    for (index, operator) in model.decoder.operators().enumerate() {
        if operator.layer != layer {
            continue;
        }
        let (tensor, shape) = (operator.weight(), operator.shape());
        let dtype = model.checkpoint.expect(&tensor, &shape)?.dtype.clone();
        let values = model.checkpoint.read(&tensor, &shape)?;
        let keep: Vec<bool> = values.iter().map(|v| *v != 0.0).collect();
        if keep.contains(&false) || job.kept_layers.is_some() {
            found.push(Operator {
                name: operator.spec.name,
                index,
                group: operator.group,
                tensor,
                shape,
                dtype,
                values,
                keep,
            });
        }
    }
    Ok(found)
}

/// Finds out whether there is anything to adapt.
pub(super) fn check_zeros(job: &RecoverJob<'_>) -> Result<()> {
    for layer in 0..job.pruned.decoder.config().num_layers() {
        if !layer_operators(job, layer)?.is_empty() {
            return Ok(());
        }
    }
    Err(Error::from(ConfigError::Setting {
        setting: "‹model›",
        reason: "no operator of the model has a zero: prune it first".into(),
    }))
}
