//! A decoder layer while it is pruned: on the device all the time, or, where the device's memory is short, there only while
//! something runs through it, and read again each time.

use super::Source;
use crate::checkpoint::Overlay;
use crate::error::Result;
use crate::solver::download;
use burn::tensor::Tensor;
use fista_pruner_backends::SolverOps;
use fista_pruner_models::{Layer, OperatorSpec};

/// The dense layer.
pub(super) struct DenseLayer<'a, B: SolverOps> {
    source: Source<'a>,
    layer: usize,
    device: B::Device,
    resident: Option<Layer<B>>,
}

impl<'a, B: SolverOps> DenseLayer<'a, B> {
    pub(super) fn new(source: Source<'a>, layer: usize, device: &B::Device) -> Result<Self> {
        let load = || source.decoder.layer::<B>(layer, source.checkpoint, device);
        Ok(Self {
            source,
            layer,
            device: device.clone(),
            resident: (!source.offload).then(load).transpose()?,
        })
    }

    /// The layer, to be dropped soon.
    pub(super) fn get(&self) -> Result<Layer<B>> {
        let Self { source, .. } = self;
        match &self.resident {
            Some(layer) => Ok(layer.clone()),
            None => Ok(source
                .decoder
                .layer::<B>(self.layer, source.checkpoint, &self.device)?),
        }
    }

    /// The weight `[out, in]` of one of its operators.
    pub(super) fn weight(&self, operator: &OperatorSpec) -> Result<Option<Tensor<B, 2>>> {
        if let Some(layer) = &self.resident {
            return Ok(layer.weight(operator.name));
        }
        let shape = [operator.out_features, operator.in_features];
        let values = self.source.checkpoint.read(&self.tensor(operator), &shape)?;
        let data = burn::tensor::TensorData::new(values, shape);
        Ok(Some(Tensor::from_data(data, &self.device)))
    }

    /// The bias `[out]` of one of its operators, where it has one.
    pub(super) fn bias(&self, operator: &OperatorSpec) -> Result<Option<Vec<f32>>> {
        if let Some(layer) = &self.resident {
            return layer.bias(operator.name).map(download).transpose();
        }
        let (_, bias) = self.tensors(operator);
        let checkpoint = self.source.checkpoint;
        let there = self
            .source
            .decoder
            .layer_tensors(self.layer)
            .iter()
            .any(|(name, _)| *name == bias);
        there
            .then(|| checkpoint.read(&bias, &[operator.out_features]))
            .transpose()
    }

    /// Puts another bias `[out]` into `layer`.
    pub(super) fn set_bias(
        &self,
        layer: &mut PrunedLayer<'a, B>,
        operator: &OperatorSpec,
        bias: Vec<f32>,
    ) -> Result<()> {
        match layer {
            PrunedLayer::Resident(layer) => {
                let data = burn::tensor::TensorData::new(bias, [operator.out_features]);
                layer.set_bias(operator.name, Tensor::from_data(data, &self.device));
            }
            PrunedLayer::Offloaded(overlay) => {
                overlay.set(&self.tensors(operator).1, [operator.out_features], bias);
            }
        }
        Ok(())
    }

    fn tensor(&self, operator: &OperatorSpec) -> String {
        self.tensors(operator).0
    }

    /// Names of its weight and its bias.
    fn tensors(&self, operator: &OperatorSpec) -> (String, String) {
        let name = self.source.decoder.operator_name(self.layer, operator.name);
        (format!("{name}.weight"), format!("{name}.bias"))
    }

    /// The layer as it is before anything of it is pruned.
    pub(super) fn unpruned(&self) -> PrunedLayer<'a, B> {
        match &self.resident {
            Some(layer) => PrunedLayer::Resident(Box::new(layer.clone())),
            None => PrunedLayer::Offloaded(Overlay::new(self.source.checkpoint)),
        }
    }

    /// A pruned form of it, to be dropped soon.
    pub(super) fn pruned(&self, layer: &PrunedLayer<'a, B>) -> Result<Layer<B>> {
        match layer {
            PrunedLayer::Resident(layer) => Ok(Layer::clone(layer)),
            PrunedLayer::Offloaded(overlay) => {
                Ok(self
                    .source
                    .decoder
                    .layer::<B>(self.layer, overlay, &self.device)?)
            }
        }
    }

    /// Puts the pruned weight `[out, in]` of an operator into `layer`.
    pub(super) fn set(
        &self,
        layer: &mut PrunedLayer<'a, B>,
        operator: &OperatorSpec,
        weight: &Tensor<B, 2>,
        values: Vec<f32>,
    ) -> Result<()> {
        match layer {
            PrunedLayer::Resident(layer) => layer.set_weight(operator.name, weight.clone())?,
            PrunedLayer::Offloaded(overlay) => {
                let shape = [operator.out_features, operator.in_features];
                overlay.set(&self.tensor(operator), shape, values);
            }
        }
        Ok(())
    }
}

/// A layer as far as it is pruned.
pub(super) enum PrunedLayer<'a, B: SolverOps> {
    Resident(Box<Layer<B>>),
    Offloaded(Overlay<'a>),
}
