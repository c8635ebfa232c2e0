//! Rotary position embeddings (RoFormer, arXiv 2104.09864) in the rotate-half layout of Hugging Face: settings -> frequencies
//! -> tables of cosines and sines -> rotated heads. Frequencies and tables are made on the host, rounded to f32 where
//! transformers rounds, because an angle of some thousand radians keeps the rounding.

mod config;

pub use config::{RopeConfig, RopePrecision, RopeScaling};

use crate::host::Rotary;
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor, TensorData};
use std::f64::consts::PI;
use std::sync::{Arc, Mutex, PoisonError};

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
