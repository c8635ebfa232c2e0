//! The decoder layer of LLaMA (arXiv 2302.13971; `transformers/models/llama/modeling_llama.py`) and its relatives
//! Mistral, Qwen 2 and Qwen 3: RMS norms, rotary positions, grouped queries, gated MLP. What the relatives add (biases,
//! windows, norms of queries and keys) is in the configuration, not in code of their own.

use crate::activation::Activation;
use crate::attention::causal_attention;
use crate::config::LlamaConfig;
use crate::error::ModelError;
use crate::host;
use crate::packed::Tokens;
use crate::parts::{Loader, NamedShape, RmsNorm, apply_linear, linear_tensors, split_heads};
use crate::rope::Rope;
use crate::state::LayerState;
use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use std::sync::Arc;

/// One decoder layer.
#[derive(Module, Debug)]
pub struct LlamaLayer<B: Backend> {
    input_layernorm: RmsNorm<B>,
    q_proj: Linear<B>,
    k_proj: Linear<B>,
    v_proj: Linear<B>,
    q_norm: Option<RmsNorm<B>>,
    k_norm: Option<RmsNorm<B>>,
    o_proj: Linear<B>,
    post_attention_layernorm: RmsNorm<B>,
    gate_proj: Linear<B>,
    up_proj: Linear<B>,
    activation: Activation<B>,
    down_proj: Linear<B>,
    #[module(skip)]
    rope: Arc<Rope>,
    #[module(skip)]
    num_heads: usize,
    #[module(skip)]
    num_kv_heads: usize,
    #[module(skip)]
    window: Option<usize>,
}

/// Whether an operator has a bias.
fn has_bias(config: &LlamaConfig, operator: &str) -> bool {
    match operator {
        "self_attn.q_proj" | "self_attn.k_proj" | "self_attn.v_proj" => config.qkv_bias,
        "self_attn.o_proj" => config.o_bias,
        _ => config.mlp_bias,
    }
}

/// Name and shape of every tensor of a layer, without the layer's prefix.
pub(crate) fn layer_tensors(config: &LlamaConfig) -> Vec<NamedShape> {
    let mut tensors = Vec::new();
    for operator in config.operator_groups().iter().flatten() {
        let shape = [operator.out_features, operator.in_features];
        let bias = has_bias(config, operator.name);
        linear_tensors(&mut tensors, operator.name, shape, bias);
    }
    if config.qk_norm {
        for name in ["self_attn.q_norm.weight", "self_attn.k_norm.weight"] {
            tensors.push((name.to_owned(), vec![config.head_dim]));
        }
    }
    for parameter in config.activation.parameters() {
        tensors.push((format!("mlp.act_fn.{parameter}"), vec![1]));
    }
    for name in ["input_layernorm.weight", "post_attention_layernorm.weight"] {
        tensors.push((name.to_owned(), vec![config.hidden_size]));
    }
    tensors
}

impl<B: Backend> LlamaLayer<B> {
    pub(crate) fn load(
        config: &LlamaConfig,
        layer: usize,
        rope: &Arc<Rope>,
        loader: &Loader<'_, B>,
    ) -> Result<Self, ModelError> {
        let (hidden, ffn) = (config.hidden_size, config.intermediate_size);
        let queries = config.num_heads * config.head_dim;
        let keys = config.num_kv_heads * config.head_dim;
        let linear = |name: &str, shape| loader.linear(name, shape, has_bias(config, name));
        let norm = |name: &str| loader.rms_norm(name, hidden, config.norm_epsilon);
        let head_norm = |name: &str| {
            config
                .qk_norm
                .then(|| loader.rms_norm(name, config.head_dim, config.norm_epsilon))
                .transpose()
        };
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            q_proj: linear("self_attn.q_proj", [queries, hidden])?,
            k_proj: linear("self_attn.k_proj", [keys, hidden])?,
            v_proj: linear("self_attn.v_proj", [keys, hidden])?,
            q_norm: head_norm("self_attn.q_norm")?,
            k_norm: head_norm("self_attn.k_norm")?,
            o_proj: linear("self_attn.o_proj", [hidden, queries])?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            gate_proj: linear("mlp.gate_proj", [ffn, hidden])?,
            up_proj: linear("mlp.up_proj", [ffn, hidden])?,
            activation: Activation::load(config.activation, "mlp.act_fn", loader)?,
            down_proj: linear("mlp.down_proj", [hidden, ffn])?,
            rope: Arc::clone(rope),
            num_heads: config.num_heads,
            num_kv_heads: config.num_kv_heads,
            window: config.windows[layer],
        })
    }

    /// `[batch, tokens, hidden]` to the input of the first group, of the same shape.
    pub(crate) fn begin(&self, hidden: Tensor<B, 3>) -> LayerState<B> {
        LayerState::new(self.input_layernorm.forward(hidden.clone()), hidden)
    }

    /// The residual stream `[batch, tokens, hidden]` after attention to the state before the MLP.
    pub(crate) fn middle(&self, stream: Tensor<B, 3>) -> LayerState<B> {
        LayerState::new(self.post_attention_layernorm.forward(stream.clone()), stream)
    }

    pub(crate) fn advance(&self, state: LayerState<B>, group: usize, tokens: Tokens<'_, B>) -> LayerState<B> {
        match group {
            0 => state.map(|input| self.attend(input, tokens)),
            1 => self.middle(state.add_residual(|input| apply_linear(&self.o_proj, input))),
            2 => state.map(|input| {
                let gate = apply_linear(&self.gate_proj, input.clone());
                self.activation.gate(gate, apply_linear(&self.up_proj, input))
            }),
            _ => {
                let sum = state.add_residual(|input| apply_linear(&self.down_proj, input));
                LayerState::last(sum)
            }
        }
    }

    /// The rows of attention over a whole sequence, `[batch, tokens, hidden]` to `[batch, tokens, heads, tokens]`.
    pub(crate) fn attention_rows(&self, input: Tensor<B, 3>) -> Tensor<B, 4> {
        let q = split_heads(apply_linear(&self.q_proj, input.clone()), self.num_heads);
        let k = split_heads(apply_linear(&self.k_proj, input), self.num_kv_heads);
        let q = normed(q, self.q_norm.as_ref()).swap_dims(1, 2);
        let k = normed(k, self.k_norm.as_ref()).swap_dims(1, 2);
        let [batch, heads, count, head_dim] = q.dims();
        let rotation = self.rope.rotation(0, count, &q.device());
        let q = rotation.apply(q).mul_scalar(1.0 / (head_dim as f64).sqrt());
        // What attention makes of unit vectors are its own rows.
        let units = Tensor::<B, 2>::eye(count, &q.device()).reshape([1, 1, count, count]);
        let units = units.repeat_dim(0, batch).repeat_dim(1, self.num_kv_heads);
        causal_attention(q, rotation.apply(k), units, self.window).reshape([batch, count, heads, count])
    }

    /// `LlamaAttention` up to `o_proj`: `[batch, tokens, hidden]` to `[batch, tokens, heads · head_dim]`.
    fn attend(&self, input: Tensor<B, 3>, mut tokens: Tokens<'_, B>) -> Tensor<B, 3> {
        let project = |linear, input, heads| split_heads(tokens.spread(apply_linear(linear, input)), heads);
        let q = project(&self.q_proj, input.clone(), self.num_heads);
        let k = project(&self.k_proj, input.clone(), self.num_kv_heads);
        let v = project(&self.v_proj, input, self.num_kv_heads);
        let q = normed(q, self.q_norm.as_ref());
        let k = normed(k, self.k_norm.as_ref());
        let [_, count, _, head_dim] = q.dims();
        if tokens.starts_sequences() && host::serves(&q) {
            let table = self.rope.table(0, count);
            let attended = host::causal_attention(q, k, v, Some(table.rotary()), self.window);
            return tokens.gather(attended);
        }
        let (q, k, v) = (q.swap_dims(1, 2), k.swap_dims(1, 2), v.swap_dims(1, 2));
        let rotation = self.rope.rotation(tokens.first_position(), count, &q.device());
        let q = rotation.apply(q).mul_scalar(1.0 / (head_dim as f64).sqrt());
        let k = rotation.apply(k);
        let (k, v) = tokens.seen(k, v, self.window);
        tokens.gather(causal_attention(q, k, v, self.window))
    }

    pub(crate) fn linear(&self, operator: &str) -> Option<&Linear<B>> {
        match operator {
            "self_attn.q_proj" => Some(&self.q_proj),
            "self_attn.k_proj" => Some(&self.k_proj),
            "self_attn.v_proj" => Some(&self.v_proj),
            "self_attn.o_proj" => Some(&self.o_proj),
            "mlp.gate_proj" => Some(&self.gate_proj),
            "mlp.up_proj" => Some(&self.up_proj),
            "mlp.down_proj" => Some(&self.down_proj),
            _ => None,
        }
    }

    pub(crate) fn linear_mut(&mut self, operator: &str) -> Option<&mut Linear<B>> {
        match operator {
            "self_attn.q_proj" => Some(&mut self.q_proj),
            "self_attn.k_proj" => Some(&mut self.k_proj),
            "self_attn.v_proj" => Some(&mut self.v_proj),
            "self_attn.o_proj" => Some(&mut self.o_proj),
            "mlp.gate_proj" => Some(&mut self.gate_proj),
            "mlp.up_proj" => Some(&mut self.up_proj),
            "mlp.down_proj" => Some(&mut self.down_proj),
            _ => None,
        }
    }
}

/// Qwen 3's norm of each head, if the model has it; `[batch, tokens, heads, head_dim]` to the same shape.
fn normed<B: Backend>(x: Tensor<B, 4>, norm: Option<&RmsNorm<B>>) -> Tensor<B, 4> {
    match norm {
        Some(norm) => norm.forward(x),
        None => x,
    }
}
