//! The rotation's settings, from what `config.json` says in any of its ways, with every frequency scaling of
//! `transformers/modeling_rope_utils.py` (version 5.23).

use crate::error::ModelError;
use crate::fields::Fields;

/// How positions turn into angles.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    /// Base of the geometric series of wavelengths.
    pub theta: f64,
    /// Features of a head, all of which are rotated; even.
    pub head_dim: usize,
    /// Change of the frequencies for long contexts.
    pub scaling: RopeScaling,
    /// What the frequencies are rounded to.
    pub precision: RopePrecision,
}

/// What rotation frequencies are rounded to before they become angles.
///
/// `from_pretrained` keeps them in f32 whatever the weights are stored as. A model that was cast to half precision in
/// memory (`model.half()`) has rounded them too, and keeps the rounded ones when it is cast back; results computed that way
/// can be reproduced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RopePrecision {
    /// Not at all: what loading a checkpoint gives.
    #[default]
    F32,
    /// f16, as after `model.half()`.
    F16,
    /// bf16, as after `model.bfloat16()`.
    BF16,
}

impl RopePrecision {
    pub(super) fn round(self, frequency: f32) -> f32 {
        match self {
            Self::F32 => frequency,
            Self::F16 => half::f16::from_f32(frequency).to_f32(),
            Self::BF16 => half::bf16::from_f32(frequency).to_f32(),
        }
    }
}

/// A change of the rotation frequencies, as `rope_type` names it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum RopeScaling {
    /// None.
    Default,
    /// All frequencies divided by `factor`.
    Linear {
        /// Divisor.
        factor: f64,
    },
    /// Only the first part of the frequencies is used, the rest are zero (no rotation).
    Proportional {
        /// Divisor.
        factor: f64,
        /// Share of the head that is rotated.
        share: f64,
    },
    /// The base grows with the sequence beyond `max_positions` (dynamic NTK).
    Dynamic {
        /// Stretch.
        factor: f64,
        /// Length up to which nothing changes.
        max_positions: usize,
    },
    /// YaRN, arXiv 2309.00071.
    Yarn {
        /// Stretch.
        factor: f64,
        /// Multiplies cosines and sines.
        attention_factor: f64,
        /// Rotations above which a frequency stays.
        beta_fast: f64,
        /// Rotations below which a frequency is divided by `factor`.
        beta_slow: f64,
        /// Whether the ramp's ends are rounded outwards.
        truncate: bool,
        /// Length of pretraining.
        original: f64,
    },
    /// LongRoPE, arXiv 2402.13753.
    Longrope {
        /// Divisors of each frequency up to the length of pretraining.
        short: Vec<f64>,
        /// Divisors beyond it.
        long: Vec<f64>,
        /// Multiplies cosines and sines.
        attention_factor: f64,
        /// Length of pretraining.
        original: f64,
    },
    /// LLaMA 3.1.
    Llama3 {
        /// Stretch of the low frequencies.
        factor: f64,
        /// Wavelengths above `original / low` are stretched.
        low: f64,
        /// Wavelengths below `original / high` stay.
        high: f64,
        /// Length of pretraining.
        original: f64,
    },
}

const ROPE_TYPES: &str = "default, linear, dynamic, yarn, longrope, llama3, proportional";

/// Base where the configuration has none (`RotaryEmbeddingConfigMixin.default_theta`).
const DEFAULT_THETA: f64 = 10_000.0;

impl RopeConfig {
    /// Reads `rope_scaling` (older) or `rope_parameters` (newer), with `rope_theta` and `partial_rotary_factor` inside
    /// or beside them (`RotaryEmbeddingConfigMixin.convert_rope_params_to_dict` and `standardize_rope_params`).
    pub(crate) fn parse(top: Fields<'_>, head_dim: usize, max_positions: usize) -> Result<Self, ModelError> {
        if !head_dim.is_multiple_of(2) {
            return Err(ModelError::Config(format!(
                "rotary embeddings need an even `head_dim`, found {head_dim}"
            )));
        }
        let parameters = match top.object("rope_scaling", "rope_scaling.")? {
            Some(parameters) => Some(parameters),
            None => top.object("rope_parameters", "rope_parameters.")?,
        };
        let theta = match parameters {
            Some(fields) => fields.positive("rope_theta")?,
            None => None,
        };
        let theta = match theta {
            Some(theta) => theta,
            None => top.positive("rope_theta")?.unwrap_or(DEFAULT_THETA),
        };
        let scaling = match parameters {
            Some(fields) => RopeScaling::parse(top, fields, head_dim, max_positions)?,
            None => RopeScaling::Default,
        };
        Ok(Self {
            theta,
            head_dim,
            scaling,
            precision: RopePrecision::F32,
        })
    }
}

impl RopeScaling {
    fn parse(
        top: Fields<'_>,
        fields: Fields<'_>,
        head_dim: usize,
        max_positions: usize,
    ) -> Result<Self, ModelError> {
        let kind = match fields.text("rope_type")? {
            Some(kind) => kind,
            None => fields.text("type")?.unwrap_or("default"),
        };
        let share = match fields.number("partial_rotary_factor")? {
            Some(share) => share,
            None => top.number("partial_rotary_factor")?.unwrap_or(1.0),
        };
        for nested in ["full_attention", "sliding_attention"] {
            if fields.has(nested) {
                return Err(unsupported("rope_parameters by layer type", nested));
            }
        }
        // The models of this family rotate whole heads: transformers ignores the share for `default`, and for the
        // other types it makes tables that do not fit the heads.
        let rotated = (head_dim as f64 * share) as usize;
        if !matches!(kind, "default" | "proportional") && rotated != head_dim {
            return Err(ModelError::Unsupported {
                what: "partial_rotary_factor",
                found: share.to_string(),
                supported: format!("1.0 where rope_type is `{kind}`"),
            });
        }
        match kind {
            "default" => Ok(Self::Default),
            "linear" => Ok(Self::Linear {
                factor: fields.required_positive("factor")?,
            }),
            "proportional" if (0.0..=1.0).contains(&share) => Ok(Self::Proportional {
                factor: fields.positive("factor")?.unwrap_or(1.0),
                share,
            }),
            "proportional" => Err(ModelError::Config(format!(
                "`partial_rotary_factor` must be between 0 and 1, found {share}"
            ))),
            "dynamic" if head_dim == 2 => Err(ModelError::Config(
                "rope type `dynamic` needs a `head_dim` above 2".to_owned(),
            )),
            "dynamic" => Ok(Self::Dynamic {
                factor: fields.required_positive("factor")?,
                max_positions,
            }),
            "yarn" => Self::yarn(fields, original(top, fields, max_positions)?, max_positions),
            "longrope" => Self::longrope(
                fields,
                original(top, fields, max_positions)?,
                max_positions,
                head_dim / 2,
            ),
            "llama3" => Ok(Self::Llama3 {
                factor: fields.required_positive("factor")?,
                low: fields.required_positive("low_freq_factor")?,
                high: fields.required_positive("high_freq_factor")?,
                original: original(top, fields, max_positions)?,
            }),
            other => Err(unsupported("rope_type", other)),
        }
    }

    /// `_compute_yarn_parameters`: where it says `x or default`, zero counts as absent.
    fn yarn(fields: Fields<'_>, original: f64, max_positions: usize) -> Result<Self, ModelError> {
        let factor = match fields.positive("factor")? {
            Some(factor) => factor,
            None if fields.has("factor") => max_positions as f64 / original,
            None => fields.required_positive("factor")?,
        };
        let nonzero = |name| Ok(fields.number(name)?.filter(|number| *number != 0.0));
        let scale = |mscale: f64| {
            if factor <= 1.0 {
                1.0
            } else {
                0.1 * mscale * factor.ln() + 1.0
            }
        };
        let inferred = match (nonzero("mscale")?, nonzero("mscale_all_dim")?) {
            (Some(mscale), Some(all)) => scale(mscale) / scale(all),
            _ => scale(1.0),
        };
        Ok(Self::Yarn {
            factor,
            attention_factor: fields.number("attention_factor")?.unwrap_or(inferred),
            beta_fast: nonzero("beta_fast")?.unwrap_or(32.0),
            beta_slow: nonzero("beta_slow")?.unwrap_or(1.0),
            truncate: fields.flag("truncate", true)?,
            original,
        })
    }

    /// `_compute_longrope_parameters`.
    fn longrope(
        fields: Fields<'_>,
        original: f64,
        max_positions: usize,
        frequencies: usize,
    ) -> Result<Self, ModelError> {
        let list = |name: &str| {
            let numbers = fields.required_numbers(name)?;
            if numbers.len() == frequencies {
                return Ok(numbers);
            }
            Err(ModelError::Config(format!(
                "`{name}` must have {frequencies} entries, half of `head_dim`, found {}",
                numbers.len()
            )))
        };
        let factor = fields
            .positive("factor")?
            .unwrap_or(max_positions as f64 / original);
        let inferred = if factor <= 1.0 {
            1.0
        } else {
            (1.0 + factor.ln() / original.ln()).sqrt()
        };
        Ok(Self::Longrope {
            short: list("short_factor")?,
            long: list("long_factor")?,
            attention_factor: fields.number("attention_factor")?.unwrap_or(inferred),
            original,
        })
    }
}

/// `original_max_position_embeddings`: beside the rope parameters (Phi-3 style, which wins), inside them, or the
/// model's own length.
fn original(top: Fields<'_>, fields: Fields<'_>, max_positions: usize) -> Result<f64, ModelError> {
    let name = "original_max_position_embeddings";
    let original = match top.positive(name)? {
        Some(original) => original,
        None => fields.positive(name)?.unwrap_or(max_positions as f64),
    };
    Ok(original)
}

fn unsupported(what: &'static str, found: &str) -> ModelError {
    ModelError::Unsupported {
        what,
        found: found.to_owned(),
        supported: ROPE_TYPES.to_owned(),
    }
}
