//! What structured pruning removes: channels of the MLP, heads of keys and values with their queries, whole layers. As data: along
//! which axis of which tensor they lie, which counts a family's runtimes accept, and how the fields of `config.json` are called.

use crate::config::{ModelConfig, OperatorSpec};
use crate::error::ModelError;
use crate::{llama, opt};
use serde::{Deserialize, Serialize};

/// A kind of unit inside a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// A hidden feature of the MLP.
    Channel,
    /// A head of keys and values, with the heads of queries that share it.
    Head,
}

impl Unit {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Head, Self::Channel];
}

/// How much there is of everything that can be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// Decoder layers.
    pub layers: usize,
    /// Hidden features of every MLP.
    pub channels: usize,
    /// Heads of keys and values of every layer.
    pub heads: usize,
}

/// The rows or columns of a tensor that belong to units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnitAxis {
    /// The kind.
    pub unit: Unit,
    /// Which axis they lie along.
    pub axis: usize,
    /// Consecutive entries that belong to one unit.
    pub width: usize,
}

impl ModelConfig {
    /// How much there is.
    pub fn sizes(&self) -> Sizes {
        match self {
            Self::Opt(config) => Sizes {
                layers: config.num_layers,
                channels: config.ffn_dim,
                heads: config.num_heads,
            },
            Self::Llama(config) => Sizes {
                layers: config.num_layers,
                channels: config.intermediate_size,
                heads: config.num_kv_heads,
            },
        }
    }

    /// Units of a kind in every layer.
    pub fn units(&self, unit: Unit) -> usize {
        match unit {
            Unit::Channel => self.sizes().channels,
            Unit::Head => self.sizes().heads,
        }
    }

    /// The operator whose inputs are the units: where they are chosen, and what is fitted to those that stay.
    pub fn operator_of(&self, unit: Unit) -> &'static str {
        match (self, unit) {
            (Self::Opt(_), Unit::Channel) => "fc2",
            (Self::Opt(_), Unit::Head) => "self_attn.out_proj",
            (Self::Llama(_), Unit::Channel) => "mlp.down_proj",
            (Self::Llama(_), Unit::Head) => "self_attn.o_proj",
        }
    }

    /// The operators whose outputs make the units.
    pub fn operators_before(&self, unit: Unit) -> Vec<OperatorSpec> {
        let groups = self.operator_groups();
        let of = groups
            .iter()
            .position(|group| group.iter().any(|o| o.name == self.operator_of(unit)));
        of.and_then(|of| groups.into_iter().nth(of.checked_sub(1)?))
            .unwrap_or_default()
    }

    /// Where the units of a layer's tensor lie, by its name within the layer such as `mlp.up_proj.weight`.
    pub fn unit_axis(&self, tensor: &str) -> Option<UnitAxis> {
        let (operator, part) = tensor.rsplit_once('.')?;
        let rows = |unit, width| Some(UnitAxis { unit, axis: 0, width });
        let columns = |unit, width| {
            let axis = UnitAxis { unit, axis: 1, width };
            (part == "weight").then_some(axis)
        };
        match self {
            Self::Opt(config) => {
                let width = config.hidden_size / config.num_heads;
                match operator {
                    "fc1" => rows(Unit::Channel, 1),
                    "fc2" => columns(Unit::Channel, 1),
                    "self_attn.q_proj" | "self_attn.k_proj" | "self_attn.v_proj" => rows(Unit::Head, width),
                    "self_attn.out_proj" => columns(Unit::Head, width),
                    _ => None,
                }
            }
            Self::Llama(config) => {
                let queries = config.head_dim * (config.num_heads / config.num_kv_heads);
                match operator {
                    "mlp.gate_proj" | "mlp.up_proj" => rows(Unit::Channel, 1),
                    "mlp.down_proj" => columns(Unit::Channel, 1),
                    "self_attn.k_proj" | "self_attn.v_proj" => rows(Unit::Head, config.head_dim),
                    "self_attn.q_proj" => rows(Unit::Head, queries),
                    "self_attn.o_proj" => columns(Unit::Head, queries),
                    _ => None,
                }
            }
        }
    }

    /// The counts of heads of keys and values, the present one last, with which every runtime loads the model.
    ///
    /// # Errors
    /// Why there is no other than the present one.
    pub fn possible_heads(&self) -> Result<Vec<usize>, &'static str> {
        match self {
            Self::Opt(_) => Err(
                "OPT's attention is square: its runtimes take the size of a head from `hidden_size` and the number of heads",
            ),
            Self::Llama(config) => {
                let group = config.num_heads / config.num_kv_heads;
                let divides = |heads: &usize| config.hidden_size.is_multiple_of(heads * group);
                let any = config.family != crate::config::Family::Llama;
                let counts: Vec<usize> = (1..=config.num_kv_heads)
                    .filter(|heads| any || divides(heads))
                    .collect();
                match counts.len() {
                    1 => Err(
                        "transformers refuses a LLaMA whose `hidden_size` is not a multiple of its number of heads, and no \
                              smaller number divides it",
                    ),
                    _ => Ok(counts),
                }
            }
        }
    }

    /// Whether what a layer adds to the residual stream is added as it is: not where a norm follows the sum.
    pub fn residual_is_plain(&self) -> bool {
        match self {
            Self::Opt(config) => config.norm_first,
            Self::Llama(_) => true,
        }
    }

    /// The configuration of the model with those layers of this one, and so many units in each.
    ///
    /// # Errors
    /// When there is more of something than this model has, or nothing.
    pub fn resized(&self, layers: &[usize], channels: usize, heads: usize) -> Result<Self, ModelError> {
        let now = self.sizes();
        let of = |what: &str, wanted: usize, most: usize| match wanted {
            0 => Err(ModelError::Config(format!("a model without {what} is none"))),
            wanted if wanted > most => Err(ModelError::Config(format!("{wanted} {what} of {most}"))),
            _ => Ok(()),
        };
        of("layers", layers.len(), now.layers)?;
        of("channels", channels, now.channels)?;
        of("heads", heads, now.heads)?;
        let mut resized = self.clone();
        match &mut resized {
            Self::Opt(config) => {
                config.num_layers = layers.len();
                config.ffn_dim = channels;
            }
            Self::Llama(config) => {
                config.windows = layers
                    .iter()
                    .filter_map(|l| config.windows.get(*l).copied())
                    .collect();
                config.num_layers = layers.len();
                config.intermediate_size = channels;
                config.num_heads = config.num_heads / config.num_kv_heads * heads;
                config.num_kv_heads = heads;
            }
        }
        Ok(resized)
    }

    /// The sizes as `config.json` has them, the defaulted ones too.
    pub fn size_fields(&self) -> Vec<(&'static str, usize)> {
        match self {
            Self::Opt(config) => vec![
                ("num_hidden_layers", config.num_layers),
                ("ffn_dim", config.ffn_dim),
            ],
            Self::Llama(config) => vec![
                ("num_hidden_layers", config.num_layers),
                ("intermediate_size", config.intermediate_size),
                ("num_attention_heads", config.num_heads),
                ("num_key_value_heads", config.num_kv_heads),
                ("head_dim", config.head_dim),
            ],
        }
    }

    /// Name within the layer and shape of every tensor of a decoder layer.
    pub fn layer_tensors(&self) -> Vec<(String, Vec<usize>)> {
        match self {
            Self::Opt(config) => opt::layer_tensors(config),
            Self::Llama(config) => llama::layer_tensors(config),
        }
    }

    /// Weights of the linear operators of all decoder layers.
    pub fn linear_weights(&self) -> usize {
        let operators = self.operator_groups().into_iter().flatten();
        let layer: usize = operators.map(|o| o.in_features * o.out_features).sum();
        layer * self.num_layers()
    }
}
