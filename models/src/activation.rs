//! The activation functions between the two halves of an MLP: every name that transformers' `ACT2FN` has
//! (`transformers/activations.py`). Used by both families.

use crate::error::ModelError;
use crate::host;
use crate::parts::Loader;
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::activation as act;
use burn::tensor::backend::Backend;
use std::f64::consts::{PI, SQRT_2};

/// An elementwise function, as `hidden_act` or `activation_function` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ActivationKind {
    /// `x · Φ(x)` (`gelu`, `gelu_python`); Hendrycks and Gimpel, arXiv 1606.08415.
    Gelu,
    /// GELU clipped to [-10, 10] (`gelu_10`).
    ClippedGelu,
    /// GELU by its tanh approximation (`gelu_new`, `gelu_fast`, `gelu_pytorch_tanh`, `gelu_python_tanh`, `gelu_accurate`).
    GeluTanh,
    /// `x · σ(1.702 x)` (`quick_gelu`).
    QuickGelu,
    /// `x · relu6(x + 3) / 6` (`hardswish`).
    HardSwish,
    /// Normal distribution function with mean 0.707107 and deviation 0.282095 (`laplace`); MEGA, arXiv 2209.10655.
    Laplace,
    /// Slope 0.01 below zero (`leaky_relu`).
    LeakyRelu,
    /// The identity (`linear`).
    Linear,
    /// `x · tanh(softplus(x))` (`mish`); Misra, arXiv 1908.08681.
    Mish,
    /// `relu`.
    Relu,
    /// `relu(x)²` (`relu2`); Primer, arXiv 2109.08668.
    ReluSquared,
    /// `relu` clipped at 6 (`relu6`).
    Relu6,
    /// `sigmoid`.
    Sigmoid,
    /// `x · σ(x)` (`silu`, `swish`).
    Silu,
    /// `√softplus(x)` (`sqrtsoftplus`).
    SqrtSoftplus,
    /// `tanh`.
    Tanh,
    /// A learned slope below zero (`prelu`), one for all features.
    Prelu,
    /// `xielu` with its learned curvatures; arXiv 2411.13010.
    Xielu,
}

/// Every accepted name. Names that share a function differ in transformers only by rounding.
const NAMES: &[(&str, ActivationKind)] = &[
    ("gelu", ActivationKind::Gelu),
    ("gelu_10", ActivationKind::ClippedGelu),
    ("gelu_accurate", ActivationKind::GeluTanh),
    ("gelu_fast", ActivationKind::GeluTanh),
    ("gelu_new", ActivationKind::GeluTanh),
    ("gelu_python", ActivationKind::Gelu),
    ("gelu_python_tanh", ActivationKind::GeluTanh),
    ("gelu_pytorch_tanh", ActivationKind::GeluTanh),
    ("hardswish", ActivationKind::HardSwish),
    ("laplace", ActivationKind::Laplace),
    ("leaky_relu", ActivationKind::LeakyRelu),
    ("linear", ActivationKind::Linear),
    ("mish", ActivationKind::Mish),
    ("prelu", ActivationKind::Prelu),
    ("quick_gelu", ActivationKind::QuickGelu),
    ("relu", ActivationKind::Relu),
    ("relu2", ActivationKind::ReluSquared),
    ("relu6", ActivationKind::Relu6),
    ("sigmoid", ActivationKind::Sigmoid),
    ("silu", ActivationKind::Silu),
    ("sqrtsoftplus", ActivationKind::SqrtSoftplus),
    ("swish", ActivationKind::Silu),
    ("tanh", ActivationKind::Tanh),
    ("xielu", ActivationKind::Xielu),
];

impl ActivationKind {
    /// The function that transformers gives that name.
    ///
    /// # Errors
    /// [`ModelError::Unsupported`] with the accepted names.
    pub fn parse(field: &'static str, name: &str) -> Result<Self, ModelError> {
        NAMES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, kind)| *kind)
            .ok_or_else(|| {
                let known: Vec<&str> = NAMES.iter().map(|(known, _)| *known).collect();
                ModelError::Unsupported {
                    what: field,
                    found: name.to_owned(),
                    supported: known.join(", "),
                }
            })
    }

    /// Names of the learned scalars under the activation's own name in the checkpoint, each of shape `[1]`.
    pub(crate) fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::Prelu => &["weight"],
            Self::Xielu => &["alpha_p", "alpha_n"],
            _ => &[],
        }
    }
}

/// An activation with its learned scalars, if it has any.
#[derive(Module, Debug)]
pub(crate) struct Activation<B: Backend> {
    #[module(skip)]
    kind: ActivationKind,
    /// In the order of [`ActivationKind::parameters`], each of shape `[1]`.
    parameters: Vec<Param<Tensor<B, 1>>>,
}

impl<B: Backend> Activation<B> {
    /// Takes the learned scalars `NAME.weight` and so on from the source.
    pub(crate) fn load(kind: ActivationKind, name: &str, loader: &Loader<'_, B>) -> Result<Self, ModelError> {
        let parameters = kind
            .parameters()
            .iter()
            .map(|parameter| loader.param(&format!("{name}.{parameter}"), [1]))
            .collect::<Result<_, _>>()?;
        Ok(Self { kind, parameters })
    }

    /// The function of every element of `gate`, times `up`; any equal shapes.
    pub(crate) fn gate<const D: usize>(&self, gate: Tensor<B, D>, up: Tensor<B, D>) -> Tensor<B, D> {
        match self.kind {
            ActivationKind::Silu if host::serves(&gate) => host::silu_gated(gate, up),
            _ => self.forward(gate) * up,
        }
    }

    /// The function of every element; any shape.
    pub(crate) fn forward<const D: usize>(&self, x: Tensor<B, D>) -> Tensor<B, D> {
        match self.kind {
            ActivationKind::Gelu => act::gelu(x),
            ActivationKind::ClippedGelu => act::gelu(x).clamp(-10.0, 10.0),
            ActivationKind::GeluTanh => gelu_tanh(x),
            ActivationKind::QuickGelu => act::sigmoid(x.clone().mul_scalar(1.702)) * x,
            ActivationKind::HardSwish => x.clone().add_scalar(3.0).clamp(0.0, 6.0).div_scalar(6.0) * x,
            ActivationKind::Laplace => laplace(x),
            ActivationKind::LeakyRelu => act::leaky_relu(x, 0.01),
            ActivationKind::Linear => x,
            ActivationKind::Mish => softplus(x.clone()).tanh() * x,
            ActivationKind::Relu => act::relu(x),
            ActivationKind::ReluSquared => act::relu(x).square(),
            ActivationKind::Relu6 => x.clamp(0.0, 6.0),
            ActivationKind::Sigmoid => act::sigmoid(x),
            ActivationKind::Silu => act::sigmoid(x.clone()) * x,
            ActivationKind::SqrtSoftplus => softplus(x).sqrt(),
            ActivationKind::Tanh => x.tanh(),
            ActivationKind::Prelu => {
                let slope: Tensor<B, D> = self.parameters[0].val().unsqueeze();
                act::relu(x.clone()) - act::relu(x.neg()) * slope
            }
            ActivationKind::Xielu => xielu(
                x,
                self.parameters[0].val().unsqueeze(),
                self.parameters[1].val().unsqueeze(),
            ),
        }
    }
}

/// `0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))`, arXiv 1606.08415.
fn gelu_tanh<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
    let cubic = x.clone().square().mul_scalar(0.044_715).add_scalar(1.0) * x.clone();
    let gate = cubic.mul_scalar((2.0 / PI).sqrt()).tanh();
    gate.add_scalar(1.0).mul_scalar(0.5) * x
}

/// `0.5 (1 + erf((x - µ) / (σ √2)))` with the constants of `LaplaceActivation`, µ = √½ and σ = √(1/4π) to six digits.
fn laplace<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
    const MEAN: f64 = 707_107e-6;
    const DEVIATION: f64 = 282_095e-6;
    x.sub_scalar(MEAN)
        .div_scalar(DEVIATION * SQRT_2)
        .erf()
        .add_scalar(1.0)
        .mul_scalar(0.5)
}

/// `ln(1 + eˣ)` as `max(x, 0) + ln(1 + e^-|x|)`, which never overflows.
fn softplus<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
    let tail = x.clone().abs().neg().exp().log1p();
    act::relu(x) + tail
}

/// xIELU (arXiv 2411.13010, as `XIELUActivation._xielu_python`): `αp x² + β x` above zero and
/// `(e^min(x, ε) - 1 - x) αn + β x` below, where `αp = softplus(alpha_p)` and `αn = β + softplus(alpha_n)`.
///
/// β = 0.5 and ε = -1e-6 are constants of the paper; ε is what bf16 makes of it.
fn xielu<B: Backend, const D: usize>(
    x: Tensor<B, D>,
    alpha_p: Tensor<B, D>,
    alpha_n: Tensor<B, D>,
) -> Tensor<B, D> {
    const BETA: f64 = 0.5;
    const EPSILON: f64 = -9.98e-7;
    let positive = x.clone().square() * softplus(alpha_p);
    let exponential = x.clone().clamp_max(EPSILON).exp().sub_scalar(1.0);
    let negative = (exponential - x.clone()) * softplus(alpha_n).add_scalar(BETA);
    let below = x.clone().lower_equal_elem(0.0);
    positive.mask_where(below, negative) + x.mul_scalar(BETA)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::collections::{BTreeMap, HashMap};

    type B = burn::backend::Flex;

    /// `x` and, by name, what `ACT2FN[name](x)` gives, made by `tests/generate_fixtures.py --activations`.
    #[derive(serde::Deserialize)]
    struct Reference {
        x: Vec<f32>,
        parameters: BTreeMap<String, f32>,
        values: BTreeMap<String, Vec<f32>>,
    }

    #[test]
    fn every_name_gives_what_torch_gives() {
        let text = include_str!("../tests/fixtures/activations.json");
        let reference: Reference = serde_json::from_str(text).unwrap();
        let source: HashMap<String, (Vec<usize>, Vec<f32>)> = reference
            .parameters
            .iter()
            .map(|(name, value)| (name.clone(), (vec![1], vec![*value])))
            .collect();
        let device = Default::default();
        let loader = Loader::<B> {
            source: &source,
            device: &device,
            prefix: String::new(),
        };
        let known: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
        assert!(reference.values.keys().eq(known.iter()), "{known:?}");
        for (name, expected) in &reference.values {
            let kind = ActivationKind::parse("hidden_act", name).unwrap();
            let activation = Activation::load(kind, name, &loader).unwrap();
            let x = Tensor::<B, 1>::from_floats(reference.x.as_slice(), &device);
            let found = activation.forward(x.clone().reshape([1, 1, reference.x.len()]));
            let found = found.into_data().into_vec::<f32>().unwrap();
            for ((x, found), expected) in reference.x.iter().zip(&found).zip(expected) {
                let bound = 2e-6 * expected.abs().max(1.0);
                assert!(
                    (found - expected).abs() <= bound,
                    "{name}({x}): {found} {expected}"
                );
            }
        }
    }
}
