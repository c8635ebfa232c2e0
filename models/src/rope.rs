//! Rotary position embeddings (RoFormer, arXiv 2104.09864) in the rotate-half layout of Hugging Face, with every
//! frequency scaling of `transformers/modeling_rope_utils.py` (version 5.23). Frequencies and tables are made on the
//! host, rounded to f32 where transformers rounds, because an angle of some thousand radians keeps the rounding.

use crate::error::ModelError;
use crate::fields::Fields;
use crate::host::Rotary;
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor, TensorData};
use std::f64::consts::PI;
use std::sync::{Arc, Mutex, PoisonError};

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
    fn round(self, frequency: f32) -> f32 {
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

impl RopeConfig {
    /// Angle per position of each of the `head_dim / 2` pairs, and the factor on cosines and sines, for a sequence of
    /// `tokens` tokens in all.
    pub fn frequencies(&self, tokens: usize) -> (Vec<f32>, f32) {
        let (mut frequencies, factor) = self.exact_frequencies(tokens);
        for frequency in &mut frequencies {
            *frequency = self.precision.round(*frequency);
        }
        (frequencies, factor)
    }

    fn exact_frequencies(&self, tokens: usize) -> (Vec<f32>, f32) {
        let theta = self.theta as f32;
        match &self.scaling {
            RopeScaling::Default => (self.plain(theta), 1.0),
            RopeScaling::Linear { factor } => {
                let divide = |frequency: f32| frequency / *factor as f32;
                (self.plain(theta).into_iter().map(divide).collect(), 1.0)
            }
            RopeScaling::Proportional { factor, share } => {
                let rotated = (share * self.head_dim as f64 / 2.0).floor() as usize;
                let mut frequencies = self.plain(theta);
                for (i, frequency) in frequencies.iter_mut().enumerate() {
                    *frequency = if i < rotated {
                        *frequency / *factor as f32
                    } else {
                        0.0
                    };
                }
                (frequencies, 1.0)
            }
            RopeScaling::Dynamic {
                factor,
                max_positions,
            } => {
                let (dim, max) = (self.head_dim as f64, *max_positions as f64);
                let growth = factor * tokens.max(*max_positions) as f64 / max - (factor - 1.0);
                let theta = self.theta * growth.powf(dim / (dim - 2.0));
                (self.plain(theta as f32), 1.0)
            }
            RopeScaling::Yarn { attention_factor, .. } => (self.yarn(theta), *attention_factor as f32),
            RopeScaling::Longrope {
                short,
                long,
                attention_factor,
                original,
            } => {
                let factors = if tokens as f64 > *original { long } else { short };
                let frequencies = self
                    .powers(theta)
                    .zip(factors)
                    .map(|(power, factor)| 1.0 / (*factor as f32 * power))
                    .collect();
                (frequencies, *attention_factor as f32)
            }
            RopeScaling::Llama3 {
                factor,
                low,
                high,
                original,
            } => {
                let stretch = |f| llama3_frequency(f, [*factor, *low, *high, *original].map(|x| x as f32));
                (self.plain(theta).into_iter().map(stretch).collect(), 1.0)
            }
        }
    }

    /// `θ^(2i/d)` for `i` below `d/2`, in f32 as `torch.pow` gives it.
    fn powers(&self, theta: f32) -> impl Iterator<Item = f32> + use<> {
        let dim = self.head_dim;
        (0..dim / 2).map(move |i| {
            let exponent = (2 * i) as f32 / dim as f32;
            f64::from(theta).powf(f64::from(exponent)) as f32
        })
    }

    /// `1 / θ^(2i/d)`, the original frequencies.
    fn plain(&self, theta: f32) -> Vec<f32> {
        self.powers(theta).map(|power| 1.0 / power).collect()
    }

    /// YaRN's ramp between the stretched and the original frequencies (arXiv 2309.00071, Eq. 22-23, "NTK-by-parts").
    fn yarn(&self, theta: f32) -> Vec<f32> {
        let RopeScaling::Yarn {
            factor,
            beta_fast,
            beta_slow,
            truncate,
            original,
            ..
        } = self.scaling
        else {
            return self.plain(theta);
        };
        let dim = self.head_dim as f64;
        let turning =
            |rotations: f64| dim * (original / (rotations * 2.0 * PI)).ln() / (2.0 * self.theta.ln());
        let (mut low, mut high) = (turning(beta_fast), turning(beta_slow));
        if truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        let (low, mut high) = (low.max(0.0), high.min(dim - 1.0));
        if low == high {
            high += 0.001; // as transformers does, to keep the ramp finite
        }
        let (start, width) = (low as f32, (high - low) as f32);
        self.powers(theta)
            .enumerate()
            .map(|(i, power)| {
                let ramp = ((i as f32 - start) / width).clamp(0.0, 1.0);
                let keep = 1.0 - ramp;
                1.0 / (factor as f32 * power) * (1.0 - keep) + 1.0 / power * keep
            })
            .collect()
    }
}

/// LLaMA 3.1's scaling of one frequency (`_compute_llama3_parameters`).
fn llama3_frequency(frequency: f32, [factor, low, high, original]: [f32; 4]) -> f32 {
    let wavelength = (2.0 * PI) as f32 / frequency;
    if wavelength > original / low {
        frequency / factor
    } else if wavelength < original / high {
        frequency
    } else {
        let smooth = (original / wavelength - low) / (high - low);
        (1.0 - smooth) * frequency / factor + smooth * frequency
    }
}

/// The rotation of a model's queries and keys, shared by its layers; it keeps the last table it made.
#[derive(Debug)]
pub(crate) struct Rope {
    config: RopeConfig,
    last: Mutex<Option<Arc<Table>>>,
}

/// Cosines and sines of positions `first..first + tokens`, in a sequence that is `first + tokens` long.
#[derive(Debug)]
pub(crate) struct Table {
    first: usize,
    tokens: usize,
    /// `[tokens, head_dim]`, the second half of a row equal to the first.
    cos: Vec<f32>,
    /// `[tokens, head_dim]`, the first half of a row negated: rotate-half is then a swap of halves.
    sin: Vec<f32>,
}

impl Rope {
    pub(crate) fn new(config: RopeConfig) -> Self {
        Self {
            config,
            last: Mutex::new(None),
        }
    }

    /// Cosines and sines of tokens `first..first + tokens`.
    pub(crate) fn table(&self, first: usize, tokens: usize) -> Arc<Table> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = last.as_ref()
            && (table.first, table.tokens) == (first, tokens)
        {
            return Arc::clone(table);
        }
        let table = Arc::new(Table::new(&self.config, first, tokens));
        *last = Some(Arc::clone(&table));
        table
    }

    /// The rotation of tokens `first..first + tokens`, ready for [`Rotation::apply`] on a device.
    pub(crate) fn rotation<B: Backend>(
        &self,
        first: usize,
        tokens: usize,
        device: &B::Device,
    ) -> Rotation<B> {
        let table = self.table(first, tokens);
        let row = |values: &[f32]| {
            let data = TensorData::new(values.to_vec(), [1, tokens * self.config.head_dim]);
            Tensor::from_data(data, (device, DType::F32))
        };
        Rotation {
            cos: row(&table.cos),
            sin: row(&table.sin),
        }
    }
}

impl Table {
    /// What the host's attention takes.
    pub(crate) fn rotary(&self) -> Rotary<'_> {
        Rotary {
            cos: &self.cos,
            sin: &self.sin,
        }
    }

    fn new(config: &RopeConfig, first: usize, tokens: usize) -> Self {
        let (frequencies, factor) = config.frequencies(first + tokens);
        let size = tokens * config.head_dim;
        let (mut cos, mut sin) = (Vec::with_capacity(size), Vec::with_capacity(size));
        let (mut cosines, mut sines) = (Vec::new(), Vec::new());
        for position in first..first + tokens {
            cosines.clear();
            sines.clear();
            for frequency in &frequencies {
                let angle = f64::from(position as f32 * frequency);
                cosines.push(angle.cos() as f32 * factor);
                sines.push(angle.sin() as f32 * factor);
            }
            cos.extend_from_slice(&cosines);
            cos.extend_from_slice(&cosines);
            sin.extend(sines.iter().map(|sine| -sine));
            sin.extend_from_slice(&sines);
        }
        Self {
            first,
            tokens,
            cos,
            sin,
        }
    }
}

/// Cosines and signed sines of some positions, each `[1, tokens · head_dim]`.
pub(crate) struct Rotation<B: Backend> {
    cos: Tensor<B, 2>,
    sin: Tensor<B, 2>,
}

impl<B: Backend> Rotation<B> {
    /// `x cos + rotate_half(x) sin` (`apply_rotary_pos_emb`), `x` of shape `[batch, heads, tokens, head_dim]`.
    ///
    /// The two leading axes are folded so that the tables broadcast over whole rows, which is the broadcast that
    /// CPU backends vectorise.
    pub(crate) fn apply(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        let [batch, heads, tokens, dim] = x.dims();
        let rows = batch * heads;
        let x = x.reshape([rows, tokens, 2, dim / 2]);
        let upper = x.clone().slice([0..rows, 0..tokens, 1..2]);
        let lower = x.clone().slice([0..rows, 0..tokens, 0..1]);
        let swapped = Tensor::cat(vec![upper, lower], 2).reshape([rows, tokens * dim]);
        let x = x.reshape([rows, tokens * dim]);
        let rotated = x * self.cos.clone() + swapped * self.sin.clone();
        rotated.reshape([batch, heads, tokens, dim])
    }
}
