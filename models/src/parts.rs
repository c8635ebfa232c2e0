//! What the decoder families share: loading one tensor, linear operators, norms, the key and value cache.

use crate::error::ModelError;
use crate::host;
use crate::source::TensorSource;
use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor, TensorData, TensorPrimitive};
use fista_pruner_backends::gpu_product;

/// A name and the shape that the configuration gives it.
pub(crate) type NamedShape = (String, Vec<usize>);

/// Whether the backend computes in host memory on the calling thread and may be called from several at once.
pub fn on_host<B: Backend>(device: &B::Device) -> bool {
    matches!(B::name(device).as_str(), "flex" | "ndarray")
}

/// Elements of a run of rows, 128 MB of f32: what WebGPU lets a shader bind on every device (its default
/// `maxStorageBufferBindingSize`). A vocabulary's table can be larger than many devices' own limits.
const MAX_RUN: usize = 32 << 20;

/// Takes tensors with a common name prefix from a source to a device.
pub(crate) struct Loader<'a, B: Backend> {
    pub(crate) source: &'a dyn TensorSource,
    pub(crate) device: &'a B::Device,
    /// Such as `model.layers.3.`.
    pub(crate) prefix: String,
}

impl<B: Backend> Loader<'_, B> {
    /// The tensor `PREFIX NAME` as f32 of exactly `shape`.
    pub(crate) fn tensor<const D: usize>(
        &self,
        name: &str,
        shape: [usize; D],
    ) -> Result<Tensor<B, D>, ModelError> {
        let name = format!("{}{name}", self.prefix);
        let data = self.source.load(&name, &shape).map_err(ModelError::Source)?;
        Ok(Tensor::from_data(data, (self.device, DType::F32)))
    }

    /// The matrix `PREFIX NAME` as f32, cut into runs of rows that any device can bind: at most [`MAX_RUN`] elements each,
    /// but whole on a host backend, which has no such limit.
    pub(crate) fn runs_of_rows(
        &self,
        name: &str,
        [rows, columns]: [usize; 2],
    ) -> Result<Vec<Tensor<B, 2>>, ModelError> {
        if on_host::<B>(self.device) {
            return Ok(vec![self.tensor(name, [rows, columns])?]);
        }
        let name = format!("{}{name}", self.prefix);
        let data = self
            .source
            .load(&name, &[rows, columns])
            .map_err(ModelError::Source)?;
        let values: &[f32] = data.as_slice().expect("a tensor source gives f32 values");
        let run = (MAX_RUN / columns.max(1)).max(1) * columns.max(1);
        let upload = |values: &[f32]| {
            let data = TensorData::new(values.to_vec(), [values.len() / columns.max(1), columns]);
            Tensor::from_data(data, (self.device, DType::F32))
        };
        Ok(values.chunks(run).map(upload).collect())
    }

    /// A trainable tensor.
    pub(crate) fn param<const D: usize>(
        &self,
        name: &str,
        shape: [usize; D],
    ) -> Result<Param<Tensor<B, D>>, ModelError> {
        Ok(Param::from_tensor(self.tensor(name, shape)?))
    }

    /// `NAME.weight` of shape `[out, in]` as a view `[in, out]`, and `NAME.bias` of shape `[out]`.
    pub(crate) fn linear(&self, name: &str, shape: [usize; 2], bias: bool) -> Result<Linear<B>, ModelError> {
        let weight = self.tensor(&format!("{name}.weight"), shape)?.transpose();
        let bias = if bias {
            Some(self.param(&format!("{name}.bias"), [shape[0]])?)
        } else {
            None
        };
        Ok(Linear {
            weight: Param::from_tensor(weight),
            bias,
        })
    }

    /// `NAME.weight` of shape `[features]`.
    pub(crate) fn rms_norm(
        &self,
        name: &str,
        features: usize,
        epsilon: f64,
    ) -> Result<RmsNorm<B>, ModelError> {
        Ok(RmsNorm {
            weight: self.param(&format!("{name}.weight"), [features])?,
            epsilon,
        })
    }

    /// `NAME.weight` and `NAME.bias` of shape `[features]`, or neither where the norm is not affine.
    pub(crate) fn layer_norm(
        &self,
        name: &str,
        features: usize,
        affine: bool,
    ) -> Result<LayerNorm<B>, ModelError> {
        let load = |part: &str| {
            affine
                .then(|| self.param(&format!("{name}.{part}"), [features]))
                .transpose()
        };
        Ok(LayerNorm {
            weight: load("weight")?,
            bias: load("bias")?,
        })
    }
}

/// Lists what [`Loader::linear`] asks for.
pub(crate) fn linear_tensors(tensors: &mut Vec<NamedShape>, name: &str, shape: [usize; 2], bias: bool) {
    tensors.push((format!("{name}.weight"), shape.to_vec()));
    if bias {
        tensors.push((format!("{name}.bias"), vec![shape[0]]));
    }
}

/// Applies an operator to `[batch, tokens, in]`, giving `[batch, tokens, out]`.
///
/// Batch and tokens are folded into one axis: a single large product keeps all cores busy at any batch size.
pub(crate) fn apply_linear<B: Backend>(linear: &Linear<B>, x: Tensor<B, 3>) -> Tensor<B, 3> {
    let [batch, tokens, features] = x.dims();
    let x = x.reshape([batch * tokens, features]);
    let y = match (gpu_product(&x, &linear.weight.val()), &linear.bias) {
        (Some(y), Some(bias)) => y + bias.val().unsqueeze(),
        (Some(y), None) => y,
        (None, _) => linear.forward(x),
    };
    let [_, out] = y.dims();
    y.reshape([batch, tokens, out])
}

/// `x / √(mean(x²) + ε) · weight` over the last axis (`LlamaRMSNorm`; arXiv 1910.07467).
#[derive(Module, Debug)]
pub(crate) struct RmsNorm<B: Backend> {
    /// Shape `[features]`.
    weight: Param<Tensor<B, 1>>,
    #[module(skip)]
    epsilon: f64,
}

impl<B: Backend> RmsNorm<B> {
    /// `[.., features]` to the same shape.
    pub(crate) fn forward<const D: usize>(&self, x: Tensor<B, D>) -> Tensor<B, D> {
        if host::serves(&x) {
            return host::rms_norm(x, self.weight.val(), self.epsilon);
        }
        let mean_square = x.clone().square().mean_dim(D - 1);
        let scale = mean_square.add_scalar(self.epsilon).sqrt().recip();
        x * scale * self.weight.val().unsqueeze()
    }
}

/// `(x - mean) / √(var + 1e-5) · weight + bias` over the last axis (`torch.nn.LayerNorm`, whose ε no OPT changes).
#[derive(Module, Debug)]
pub(crate) struct LayerNorm<B: Backend> {
    /// Shape `[features]`.
    weight: Option<Param<Tensor<B, 1>>>,
    /// Shape `[features]`.
    bias: Option<Param<Tensor<B, 1>>>,
}

impl<B: Backend> LayerNorm<B> {
    const EPSILON: f64 = 1e-5;

    /// `[.., features]` to the same shape.
    pub(crate) fn forward<const D: usize>(&self, x: Tensor<B, D>) -> Tensor<B, D> {
        let primitive = |tensor: Tensor<B, 1>| tensor.into_primitive().tensor();
        let weight = match &self.weight {
            Some(weight) => weight.val(),
            None => Tensor::ones([x.dims()[D - 1]], (&x.device(), x.dtype())),
        };
        let bias = self.bias.as_ref().map(|bias| primitive(bias.val()));
        Tensor::from_primitive(TensorPrimitive::Float(B::layer_norm(
            x.into_primitive().tensor(),
            primitive(weight),
            bias,
            Self::EPSILON,
        )))
    }
}

/// `[batch, tokens, heads · dim]` to `[batch, tokens, heads, dim]`.
pub(crate) fn split_heads<B: Backend>(x: Tensor<B, 3>, heads: usize) -> Tensor<B, 4> {
    let [batch, tokens, features] = x.dims();
    x.reshape([batch, tokens, heads, features / heads])
}

/// The keys and values that one layer has seen, for generation.
#[derive(Clone, Debug)]
pub struct KvCache<B: Backend> {
    /// Keys and values, each `[batch, kv_heads, kept, head_dim]`.
    kept: Option<(Tensor<B, 4>, Tensor<B, 4>)>,
    /// Tokens seen, which may be more than are kept.
    tokens: usize,
}

impl<B: Backend> Default for KvCache<B> {
    fn default() -> Self {
        Self {
            kept: None,
            tokens: 0,
        }
    }
}

impl<B: Backend> KvCache<B> {
    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tokens seen so far: the position of the next one.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Appends new keys and values `[batch, kv_heads, new, head_dim]` and gives all that the new tokens may see, which
    /// ends with them. Where attention has a window, what no later token can see is dropped.
    pub(crate) fn append(
        &mut self,
        keys: Tensor<B, 4>,
        values: Tensor<B, 4>,
        window: Option<usize>,
    ) -> (Tensor<B, 4>, Tensor<B, 4>) {
        self.tokens += keys.dims()[2];
        let (keys, values) = match self.kept.take() {
            Some((old_keys, old_values)) => (
                Tensor::cat(vec![old_keys, keys], 2),
                Tensor::cat(vec![old_values, values], 2),
            ),
            None => (keys, values),
        };
        let length = keys.dims()[2];
        let first = window.map_or(0, |window| length.saturating_sub(window - 1));
        if first < length {
            let tail = |x: &Tensor<B, 4>| x.clone().slice_dim(2, first..length);
            self.kept = Some((tail(&keys), tail(&values)));
        }
        (keys, values)
    }
}
