//! `config.json` of the supported families, validated: sizes, options and the operator order of a decoder layer as
//! data. Defaults for absent fields are those of transformers' config classes (version 5.23); `decoder.rs`, `opt.rs`
//! and `llama.rs` build from it.

use crate::activation::ActivationKind;
use crate::error::ModelError;
use crate::fields::Fields;
use crate::rope::{RopeConfig, RopePrecision};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A supported architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// OPT, arXiv 2205.01068.
    Opt,
    /// LLaMA 1 to 3.3 and what shares their architecture, arXiv 2302.13971 and 2407.21783.
    Llama,
    /// Mistral, arXiv 2310.06825.
    Mistral,
    /// Qwen 2 and 2.5, arXiv 2407.10671.
    Qwen2,
    /// Qwen 3, arXiv 2505.09388.
    Qwen3,
}

impl Family {
    const ALL: [Self; 5] = [Self::Opt, Self::Llama, Self::Mistral, Self::Qwen2, Self::Qwen3];

    /// The name that `model_type` has in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Opt => "opt",
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }

    /// From `model_type`; without one from the first of `architectures`, such as `LlamaForCausalLM`.
    fn parse(fields: Fields<'_>) -> Result<Self, ModelError> {
        let supported = Self::ALL.map(Self::name).join(", ");
        if let Some(name) = fields.text("model_type")? {
            return Self::ALL
                .into_iter()
                .find(|family| family.name() == name)
                .ok_or_else(|| ModelError::Unsupported {
                    what: "model_type",
                    found: name.to_owned(),
                    supported,
                });
        }
        let architectures = fields.texts("architectures")?.unwrap_or_default();
        let Some(name) = architectures.first() else {
            return Err(ModelError::Config(
                "neither `model_type` nor `architectures` is given".to_owned(),
            ));
        };
        let stem = name.strip_suffix("ForCausalLM").unwrap_or("");
        Self::ALL
            .into_iter()
            .find(|family| family.name().eq_ignore_ascii_case(stem))
            .ok_or_else(|| ModelError::Unsupported {
                what: "architectures",
                found: (*name).to_owned(),
                supported,
            })
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A linear operator of a decoder layer. Its weight is `[out_features, in_features]` in the checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperatorSpec {
    /// Name inside the layer, such as `self_attn.q_proj`.
    pub name: &'static str,
    /// Rows of the weight.
    pub out_features: usize,
    /// Columns of the weight.
    pub in_features: usize,
}

/// A model's configuration.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelConfig {
    /// OPT.
    Opt(OptConfig),
    /// LLaMA, Mistral, Qwen 2 and Qwen 3: one decoder, told apart by fields.
    Llama(LlamaConfig),
}

/// Configuration of an OPT model (`OPTConfig`).
#[derive(Clone, Debug, PartialEq)]
pub struct OptConfig {
    /// Rows of the token embedding.
    pub vocab_size: usize,
    /// Features of the residual stream.
    pub hidden_size: usize,
    /// Decoder layers.
    pub num_layers: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Features between `fc1` and `fc2`.
    pub ffn_dim: usize,
    /// Learned positions; the table has two rows more.
    pub max_positions: usize,
    /// Columns of the token embedding; where this is not `hidden_size`, `project_in` and `project_out` map between.
    pub embedding_size: usize,
    /// Between `fc1` and `fc2`.
    pub activation: ActivationKind,
    /// Layer norm before attention and MLP, not after them (false in the 350M model only).
    pub norm_first: bool,
    /// Whether a layer norm precedes the head.
    pub final_norm: bool,
    /// Whether the linear operators have biases.
    pub bias: bool,
    /// Whether the layer norms have scales and shifts.
    pub norm_affine: bool,
    /// Whether the head is the token embedding.
    pub tied_head: bool,
}

/// Configuration of a LLaMA-like model (`LlamaConfig`, `MistralConfig`, `Qwen2Config`, `Qwen3Config`).
#[derive(Clone, Debug, PartialEq)]
pub struct LlamaConfig {
    /// Which of the four.
    pub family: Family,
    /// Rows of the token embedding.
    pub vocab_size: usize,
    /// Features of the residual stream.
    pub hidden_size: usize,
    /// Features between `up_proj` and `down_proj`.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub num_layers: usize,
    /// Heads of queries.
    pub num_heads: usize,
    /// Heads of keys and values.
    pub num_kv_heads: usize,
    /// Features of a head.
    pub head_dim: usize,
    /// `max_position_embeddings`.
    pub max_positions: usize,
    /// Added to the mean square in RMS norms.
    pub norm_epsilon: f64,
    /// On `gate_proj`'s output.
    pub activation: ActivationKind,
    /// Biases of `q_proj`, `k_proj` and `v_proj`.
    pub qkv_bias: bool,
    /// Bias of `o_proj`.
    pub o_bias: bool,
    /// Biases of the MLP.
    pub mlp_bias: bool,
    /// RMS norms on each head of queries and keys.
    pub qk_norm: bool,
    /// Rotary embedding.
    pub rope: RopeConfig,
    /// For each layer the tokens that attention looks back at, itself included, if limited.
    pub windows: Vec<Option<usize>>,
    /// Whether the head is the token embedding.
    pub tied_head: bool,
}

impl ModelConfig {
    /// Parses and validates a `config.json`.
    ///
    /// # Errors
    /// [`ModelError::Unsupported`] for another family or an option without an implementation, [`ModelError::Config`]
    /// for anything malformed or inconsistent.
    pub fn from_json(text: &str) -> Result<Self, ModelError> {
        let value: serde_json::Value =
            serde_json::from_str(text).map_err(|error| ModelError::Config(error.to_string()))?;
        let map = value
            .as_object()
            .ok_or_else(|| ModelError::Config("not a JSON object".to_owned()))?;
        let fields = Fields::new(map, "");
        let family = Family::parse(fields)?;
        if let Some(quantized) = fields.value("quantization_config") {
            return Err(ModelError::Unsupported {
                what: "quantization_config",
                found: quantized.to_string(),
                supported: "weights in f32, f16 or bf16".to_owned(),
            });
        }
        match family {
            Family::Opt => OptConfig::parse(fields).map(Self::Opt),
            other => LlamaConfig::parse(other, fields).map(Self::Llama),
        }
    }

    /// Rounds rotation frequencies as a model cast to half precision in memory has them; without effect on OPT.
    #[must_use]
    pub fn with_rope_precision(mut self, precision: RopePrecision) -> Self {
        if let Self::Llama(config) = &mut self {
            config.rope.precision = precision;
        }
        self
    }

    /// The architecture.
    pub fn family(&self) -> Family {
        match self {
            Self::Opt(_) => Family::Opt,
            Self::Llama(config) => config.family,
        }
    }

    /// Rows of the token embedding.
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Opt(config) => config.vocab_size,
            Self::Llama(config) => config.vocab_size,
        }
    }

    /// Features of the residual stream.
    pub fn hidden_size(&self) -> usize {
        match self {
            Self::Opt(config) => config.hidden_size,
            Self::Llama(config) => config.hidden_size,
        }
    }

    /// Attention heads of a layer.
    pub fn num_heads(&self) -> usize {
        match self {
            Self::Opt(config) => config.num_heads,
            Self::Llama(config) => config.num_heads,
        }
    }

    /// Decoder layers.
    pub fn num_layers(&self) -> usize {
        match self {
            Self::Opt(config) => config.num_layers,
            Self::Llama(config) => config.num_layers,
        }
    }

    /// The longest sequence that the model was made for (`max_position_embeddings`).
    pub fn max_positions(&self) -> usize {
        match self {
            Self::Opt(config) => config.max_positions,
            Self::Llama(config) => config.max_positions,
        }
    }

    /// The longest sequence that the model can evaluate at all, if there is a limit: learned positions end, rotary
    /// ones do not.
    pub fn position_limit(&self) -> Option<usize> {
        match self {
            Self::Opt(config) => Some(config.max_positions),
            Self::Llama(_) => None,
        }
    }

    /// Whether the head is the token embedding where the checkpoint has no tensor of its own for it.
    pub fn tied_head(&self) -> bool {
        match self {
            Self::Opt(config) => config.tied_head,
            Self::Llama(config) => config.tied_head,
        }
    }

    /// The linear operators of a decoder layer in groups of equal input, in the order of evaluation.
    pub fn operator_groups(&self) -> Vec<Vec<OperatorSpec>> {
        match self {
            Self::Opt(config) => config.operator_groups(),
            Self::Llama(config) => config.operator_groups(),
        }
    }
}

fn operator(name: &'static str, out_features: usize, in_features: usize) -> OperatorSpec {
    OperatorSpec {
        name,
        out_features,
        in_features,
    }
}

/// Decoder layers. A number that no model has is refused here, as much is made for each of them.
fn layers(fields: Fields<'_>, default: usize) -> Result<usize, ModelError> {
    const MOST: usize = 100_000;
    match fields.size_or("num_hidden_layers", default)? {
        layers if layers <= MOST => Ok(layers),
        layers => Err(ModelError::Config(format!(
            "`num_hidden_layers` is {layers}; no model has more than {MOST}"
        ))),
    }
}

/// Features of a head where the configuration does not say: `hidden / heads`, which must be whole.
fn even_share(hidden: usize, heads: usize) -> Result<usize, ModelError> {
    if !hidden.is_multiple_of(heads) {
        return Err(ModelError::Config(format!(
            "`hidden_size` {hidden} is not a multiple of `num_attention_heads` {heads}"
        )));
    }
    Ok(hidden / heads)
}

impl OptConfig {
    /// `OPTConfig` of `transformers/models/opt/configuration_opt.py`.
    fn parse(fields: Fields<'_>) -> Result<Self, ModelError> {
        let hidden_size = fields.size_or("hidden_size", 768)?;
        let num_heads = fields.size_or("num_attention_heads", 12)?;
        even_share(hidden_size, num_heads)?;
        let norm_first = fields.flag("do_layer_norm_before", true)?;
        let activation = fields.text_or("activation_function", "relu")?;
        Ok(Self {
            vocab_size: fields.size_or("vocab_size", 50272)?,
            hidden_size,
            num_layers: layers(fields, 12)?,
            num_heads,
            ffn_dim: fields.size_or("ffn_dim", 3072)?,
            max_positions: fields.size_or("max_position_embeddings", 2048)?,
            embedding_size: fields.size("word_embed_proj_dim")?.unwrap_or(hidden_size),
            activation: ActivationKind::parse("activation_function", activation)?,
            norm_first,
            final_norm: norm_first && !fields.flag("_remove_final_layer_norm", false)?,
            bias: fields.flag("enable_bias", true)?,
            norm_affine: fields.flag("layer_norm_elementwise_affine", true)?,
            tied_head: fields.flag("tie_word_embeddings", true)?,
        })
    }

    pub(crate) fn operator_groups(&self) -> Vec<Vec<OperatorSpec>> {
        let (hidden, ffn) = (self.hidden_size, self.ffn_dim);
        vec![
            vec![
                operator("self_attn.q_proj", hidden, hidden),
                operator("self_attn.k_proj", hidden, hidden),
                operator("self_attn.v_proj", hidden, hidden),
            ],
            vec![operator("self_attn.out_proj", hidden, hidden)],
            vec![operator("fc1", ffn, hidden)],
            vec![operator("fc2", hidden, ffn)],
        ]
    }
}

/// What the four configuration classes differ in.
struct LlamaDefaults {
    vocab_size: usize,
    intermediate_size: usize,
    /// `None`: as many as `num_attention_heads`.
    num_kv_heads: Option<usize>,
    /// `None`: `hidden_size / num_attention_heads`.
    head_dim: Option<usize>,
    max_positions: usize,
}

impl LlamaDefaults {
    /// `transformers/models/{llama,mistral,qwen2,qwen3}/configuration_*.py`.
    fn of(family: Family) -> Self {
        match family {
            Family::Opt | Family::Llama => Self {
                vocab_size: 32000,
                intermediate_size: 11008,
                num_kv_heads: None,
                head_dim: None,
                max_positions: 2048,
            },
            Family::Mistral => Self {
                vocab_size: 32000,
                intermediate_size: 14336,
                num_kv_heads: Some(8),
                head_dim: None,
                max_positions: 4096 * 32,
            },
            Family::Qwen2 | Family::Qwen3 => Self {
                vocab_size: 151_936,
                intermediate_size: 22016,
                num_kv_heads: Some(32),
                head_dim: (family == Family::Qwen3).then_some(128),
                max_positions: 32768,
            },
        }
    }
}

impl LlamaConfig {
    fn parse(family: Family, fields: Fields<'_>) -> Result<Self, ModelError> {
        let defaults = LlamaDefaults::of(family);
        let hidden_size = fields.size_or("hidden_size", 4096)?;
        let num_heads = fields.size_or("num_attention_heads", 32)?;
        let num_kv_heads = fields
            .size_or_null("num_key_value_heads", defaults.num_kv_heads)?
            .unwrap_or(num_heads);
        if !num_heads.is_multiple_of(num_kv_heads) {
            return Err(ModelError::Config(format!(
                "`num_attention_heads` {num_heads} is not a multiple of `num_key_value_heads` {num_kv_heads}"
            )));
        }
        let head_dim = match fields.size_or_null("head_dim", defaults.head_dim)? {
            Some(explicit) => explicit,
            None => even_share(hidden_size, num_heads)?,
        };
        if family == Family::Llama {
            even_share(hidden_size, num_heads)?; // LlamaConfig insists even with an explicit `head_dim`
        }
        let num_layers = layers(fields, 32)?;
        let max_positions = fields.size_or("max_position_embeddings", defaults.max_positions)?;
        let activation = fields.text_or("hidden_act", "silu")?;
        let attention_bias = match family {
            Family::Llama | Family::Qwen3 => fields.flag("attention_bias", false)?,
            _ => false,
        };
        Ok(Self {
            family,
            vocab_size: fields.size_or("vocab_size", defaults.vocab_size)?,
            hidden_size,
            intermediate_size: fields.size_or("intermediate_size", defaults.intermediate_size)?,
            num_layers,
            num_heads,
            num_kv_heads,
            head_dim,
            max_positions,
            norm_epsilon: fields.positive("rms_norm_eps")?.unwrap_or(1e-6),
            activation: ActivationKind::parse("hidden_act", activation)?,
            qkv_bias: attention_bias || family == Family::Qwen2,
            o_bias: attention_bias,
            mlp_bias: family == Family::Llama && fields.flag("mlp_bias", false)?,
            qk_norm: family == Family::Qwen3,
            rope: RopeConfig::parse(fields, head_dim, max_positions)?,
            windows: windows(family, fields, num_layers)?,
            tied_head: fields.flag("tie_word_embeddings", false)?,
        })
    }

    pub(crate) fn operator_groups(&self) -> Vec<Vec<OperatorSpec>> {
        let (hidden, ffn) = (self.hidden_size, self.intermediate_size);
        let (queries, keys) = (self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim);
        vec![
            vec![
                operator("self_attn.q_proj", queries, hidden),
                operator("self_attn.k_proj", keys, hidden),
                operator("self_attn.v_proj", keys, hidden),
            ],
            vec![operator("self_attn.o_proj", hidden, queries)],
            vec![
                operator("mlp.gate_proj", ffn, hidden),
                operator("mlp.up_proj", ffn, hidden),
            ],
            vec![operator("mlp.down_proj", hidden, ffn)],
        ]
    }
}

/// The attention window of each layer: none in LLaMA, one for all layers in Mistral, by `layer_types` in Qwen, or from
/// layer `max_window_layers` on where that list is absent.
fn windows(family: Family, fields: Fields<'_>, layers: usize) -> Result<Vec<Option<usize>>, ModelError> {
    /// `sliding_window` of an absent field, in all three classes that have it.
    const DEFAULT_WINDOW: usize = 4096;
    match family {
        Family::Opt | Family::Llama => Ok(vec![None; layers]),
        Family::Mistral => {
            let window = fields.size_or_null("sliding_window", Some(DEFAULT_WINDOW))?;
            Ok(vec![window; layers])
        }
        Family::Qwen2 | Family::Qwen3 => {
            let window = if fields.flag("use_sliding_window", false)? {
                fields.size_or_null("sliding_window", Some(DEFAULT_WINDOW))?
            } else {
                None
            };
            match fields.texts("layer_types")? {
                Some(types) => windows_by_type(&types, window, layers),
                None => {
                    let full = match fields.value("max_window_layers") {
                        Some(value) if value.as_u64() == Some(0) => 0,
                        _ => fields.size("max_window_layers")?.unwrap_or(28),
                    };
                    Ok((0..layers).map(|i| window.filter(|_| i >= full)).collect())
                }
            }
        }
    }
}

fn windows_by_type(
    types: &[&str],
    window: Option<usize>,
    layers: usize,
) -> Result<Vec<Option<usize>>, ModelError> {
    if types.len() != layers {
        return Err(ModelError::Config(format!(
            "`layer_types` has {} entries for `num_hidden_layers` {layers}",
            types.len()
        )));
    }
    types
        .iter()
        .map(|kind| match (*kind, window) {
            ("full_attention", _) => Ok(None),
            ("sliding_attention", Some(window)) => Ok(Some(window)),
            ("sliding_attention", None) => Err(ModelError::Config(
                "`layer_types` asks for sliding attention, but there is no `sliding_window` in use"
                    .to_owned(),
            )),
            (other, _) => Err(ModelError::Unsupported {
                what: "layer_types",
                found: other.to_owned(),
                supported: "full_attention, sliding_attention".to_owned(),
            }),
        })
        .collect()
}
