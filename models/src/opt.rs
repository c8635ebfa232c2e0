//! The decoder layer of OPT (arXiv 2205.01068; `transformers/models/opt/modeling_opt.py`): learned positions are in the
//! embedding, attention and a two-operator MLP here, layer norms before them or, in the 350M model, after them.

use crate::activation::Activation;
use crate::attention::causal_attention;
use crate::config::OptConfig;
use crate::error::ModelError;
use crate::host;
use crate::packed::Tokens;
use crate::parts::{LayerNorm, Loader, NamedShape, apply_linear, linear_tensors, split_heads};
use crate::state::LayerState;
use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// One decoder layer.
#[derive(Module, Debug)]
pub struct OptLayer<B: Backend> {
    q_proj: Linear<B>,
    k_proj: Linear<B>,
    v_proj: Linear<B>,
    out_proj: Linear<B>,
    self_attn_layer_norm: LayerNorm<B>,
    fc1: Linear<B>,
    activation: Activation<B>,
    fc2: Linear<B>,
    final_layer_norm: LayerNorm<B>,
    #[module(skip)]
    num_heads: usize,
    #[module(skip)]
    norm_first: bool,
}

/// Name and shape of every tensor of a layer, without the layer's prefix.
pub(crate) fn layer_tensors(config: &OptConfig) -> Vec<NamedShape> {
    let mut tensors = Vec::new();
    for operator in config.operator_groups().iter().flatten() {
        let shape = [operator.out_features, operator.in_features];
        linear_tensors(&mut tensors, operator.name, shape, config.bias);
    }
    for parameter in config.activation.parameters() {
        tensors.push((format!("activation_fn.{parameter}"), vec![1]));
    }
    for norm in ["self_attn_layer_norm", "final_layer_norm"] {
        tensors.extend(norm_tensors(config, norm));
    }
    tensors
}

/// Scale and shift of a norm over the residual stream, if it has them.
pub(crate) fn norm_tensors(config: &OptConfig, name: &str) -> Vec<NamedShape> {
    let parts: &[&str] = if config.norm_affine {
        &["weight", "bias"]
    } else {
        &[]
    };
    parts
        .iter()
        .map(|part| (format!("{name}.{part}"), vec![config.hidden_size]))
        .collect()
}

impl<B: Backend> OptLayer<B> {
    pub(crate) fn load(config: &OptConfig, loader: &Loader<'_, B>) -> Result<Self, ModelError> {
        let (hidden, ffn) = (config.hidden_size, config.ffn_dim);
        let linear = |name: &str, shape: [usize; 2]| loader.linear(name, shape, config.bias);
        let norm = |name: &str| loader.layer_norm(name, hidden, config.norm_affine);
        Ok(Self {
            q_proj: linear("self_attn.q_proj", [hidden, hidden])?,
            k_proj: linear("self_attn.k_proj", [hidden, hidden])?,
            v_proj: linear("self_attn.v_proj", [hidden, hidden])?,
            out_proj: linear("self_attn.out_proj", [hidden, hidden])?,
            self_attn_layer_norm: norm("self_attn_layer_norm")?,
            fc1: linear("fc1", [ffn, hidden])?,
            activation: Activation::load(config.activation, "activation_fn", loader)?,
            fc2: linear("fc2", [hidden, ffn])?,
            final_layer_norm: norm("final_layer_norm")?,
            num_heads: config.num_heads,
            norm_first: config.norm_first,
        })
    }

    /// `[batch, tokens, hidden]` to the input of the first group, of the same shape.
    pub(crate) fn begin(&self, hidden: Tensor<B, 3>) -> LayerState<B> {
        let input = if self.norm_first {
            self.self_attn_layer_norm.forward(hidden.clone())
        } else {
            hidden.clone()
        };
        LayerState::new(input, hidden)
    }

    /// The residual stream `[batch, tokens, hidden]` after attention to the state before the MLP.
    pub(crate) fn middle(&self, stream: Tensor<B, 3>) -> LayerState<B> {
        let input = if self.norm_first {
            self.final_layer_norm.forward(stream.clone())
        } else {
            stream.clone()
        };
        LayerState::new(input, stream)
    }

    pub(crate) fn advance(&self, state: LayerState<B>, group: usize, tokens: Tokens<'_, B>) -> LayerState<B> {
        match group {
            0 => state.map(|input| self.attend(input, tokens)),
            1 => {
                let sum = state.add_residual(|input| apply_linear(&self.out_proj, input));
                self.middle(if self.norm_first {
                    sum
                } else {
                    self.self_attn_layer_norm.forward(sum)
                })
            }
            2 => state.map(|input| self.activation.forward(apply_linear(&self.fc1, input))),
            _ => {
                let sum = state.add_residual(|input| apply_linear(&self.fc2, input));
                LayerState::last(if self.norm_first {
                    sum
                } else {
                    self.final_layer_norm.forward(sum)
                })
            }
        }
    }

    /// `OPTAttention` up to `out_proj`: `[batch, tokens, hidden]` to the same shape. Queries are scaled before the
    /// product, as transformers does.
    fn attend(&self, input: Tensor<B, 3>, mut tokens: Tokens<'_, B>) -> Tensor<B, 3> {
        let project = |linear, input| {
            let x = tokens.spread(apply_linear(linear, input));
            split_heads(x, self.num_heads)
        };
        let q = project(&self.q_proj, input.clone());
        let k = project(&self.k_proj, input.clone());
        let v = project(&self.v_proj, input);
        if tokens.starts_sequences() && host::serves(&q) {
            return tokens.gather(host::causal_attention(q, k, v, None, None));
        }
        let (q, k, v) = (q.swap_dims(1, 2), k.swap_dims(1, 2), v.swap_dims(1, 2));
        let head_dim = q.dims()[3];
        let q = q.mul_scalar(1.0 / (head_dim as f64).sqrt());
        let (k, v) = tokens.seen(k, v, None);
        tokens.gather(causal_attention(q, k, v, None))
    }

    pub(crate) fn linear(&self, operator: &str) -> Option<&Linear<B>> {
        match operator {
            "self_attn.q_proj" => Some(&self.q_proj),
            "self_attn.k_proj" => Some(&self.k_proj),
            "self_attn.v_proj" => Some(&self.v_proj),
            "self_attn.out_proj" => Some(&self.out_proj),
            "fc1" => Some(&self.fc1),
            "fc2" => Some(&self.fc2),
            _ => None,
        }
    }

    pub(crate) fn linear_mut(&mut self, operator: &str) -> Option<&mut Linear<B>> {
        match operator {
            "self_attn.q_proj" => Some(&mut self.q_proj),
            "self_attn.k_proj" => Some(&mut self.k_proj),
            "self_attn.v_proj" => Some(&mut self.v_proj),
            "self_attn.out_proj" => Some(&mut self.out_proj),
            "fc1" => Some(&mut self.fc1),
            "fc2" => Some(&mut self.fc2),
            _ => None,
        }
    }
}
