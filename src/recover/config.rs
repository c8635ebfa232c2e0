//! What is asked of a recovery: the method and its settings, each default with its source.

use crate::error::{ConfigError, Error, Result};
use serde::{Deserialize, Serialize};

/// How the surviving weights are adapted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "lowercase")]
pub enum Recovery {
    /// Attention and MLP of each decoder layer against the dense model's activations (arXiv 2510.14444).
    Block(BlockConfig),
    /// All surviving weights against the dense model's distribution of the next token, by back-propagation through the whole model.
    Distill(DistillConfig),
    /// A factor for each weight from few parameters, by back-propagation through the whole model (SPP, arXiv 2405.16057).
    Spp(SppConfig),
    /// Steps along random directions, from forward passes alone (MeZO, arXiv 2305.17333).
    Mezo(MezoConfig),
    /// The same in random subspaces (SubZero, arXiv 2410.08989).
    Subzero(SubzeroConfig),
}

impl Recovery {
    /// Its name on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Block(_) => "block",
            Self::Distill(_) => "distill",
            Self::Spp(_) => "spp",
            Self::Mezo(_) => "mezo",
            Self::Subzero(_) => "subzero",
        }
    }

    /// Finds settings that no run can have.
    ///
    /// # Errors
    /// [`ConfigError::Setting`] with the flag's name.
    pub fn validate(&self) -> Result<()> {
        match self {
            Self::Block(config) => {
                at_least_one("‹epochs›", config.epochs)?;
                at_least_one("‹batch›", config.batch)?;
                positive("‹learning-rate›", config.learning_rate)
            }
            Self::Distill(config) => {
                at_least_one("‹epochs›", config.epochs)?;
                at_least_one("‹batch›", config.batch)?;
                positive("‹learning-rate›", config.learning_rate)
            }
            Self::Spp(config) => {
                at_least_one("‹epochs›", config.epochs)?;
                at_least_one("‹batch›", config.batch)?;
                at_least_one("‹rank›", config.rank)?;
                positive("‹learning-rate›", config.learning_rate)
            }
            Self::Mezo(config) => config.validate(),
            Self::Subzero(config) => {
                at_least_one("‹rank›", config.rank)?;
                at_least_one("‹refresh›", config.refresh)?;
                config.steps.validate()
            }
        }
    }
}

fn at_least_one(setting: &'static str, value: usize) -> Result<()> {
    if value > 0 {
        return Ok(());
    }
    let reason = "must be at least 1".into();
    Err(Error::from(ConfigError::Setting { setting, reason }))
}

fn positive(setting: &'static str, value: f64) -> Result<()> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    let reason = format!("{value} is not a positive number");
    Err(Error::from(ConfigError::Setting { setting, reason }))
}

/// Block reconstruction by Adam.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BlockConfig {
    /// Passes over the windows, for each part of each layer.
    pub epochs: usize,
    /// Windows a step.
    pub batch: usize,
    /// Adam's rate at its highest, relative to the root mean square of an operator's weights: it rises linearly in the first
    /// tenth of the steps and falls along a cosine to zero.
    pub learning_rate: f64,
    /// Of the order of the windows.
    pub seed: u64,
}

impl Default for BlockConfig {
    fn default() -> Self {
        Self {
            epochs: 4,
            batch: 2,
            learning_rate: 1e-2,
            seed: 0,
        }
    }
}

/// Distillation through the whole model by AdamW.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DistillConfig {
    /// Passes over the windows.
    pub epochs: usize,
    /// Windows a step.
    pub batch: usize,
    /// AdamW's rate at its highest, relative to the root mean square of an operator's weights.
    pub learning_rate: f64,
    /// Of the order of the windows.
    pub seed: u64,
}

impl DistillConfig {
    /// AdamW's β: those of SAFE (arXiv 2506.06866).
    pub(super) const BETAS: (f32, f32) = (0.9, 0.95);
}

impl Default for DistillConfig {
    fn default() -> Self {
        Self {
            epochs: 1,
            batch: 2,
            learning_rate: 2e-3,
            seed: 0,
        }
    }
}

/// Training of factors by AdamW.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SppConfig {
    /// Passes over the windows. Official code: 3.
    pub epochs: usize,
    /// Windows a step.
    pub batch: usize,
    /// Rows of the row factor `A [rank, in]`: each serves `out / rank` outputs. Official code: 16.
    pub rank: usize,
    /// `s` in `W (1 + s A B)`. Official code: 2, which is LoRA's α = 16 by r = 8.
    pub scale: f64,
    /// AdamW's rate at its highest. Official code: 4e-3.
    pub learning_rate: f64,
    /// Of the order of the windows and of the first factors.
    pub seed: u64,
}

impl Default for SppConfig {
    fn default() -> Self {
        Self {
            epochs: 3,
            batch: 4,
            rank: 16,
            scale: 2.0,
            learning_rate: 4e-3,
            seed: 0,
        }
    }
}

/// Steps of zeroth order.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MezoConfig {
    /// Steps, of two forward passes each.
    pub steps: usize,
    /// Windows a step. MeZO: 16 sentences.
    pub batch: usize,
    /// ε: half the distance between the two points of a step. MeZO: 1e-3.
    pub epsilon: f64,
    /// η at its highest; it falls linearly to zero. `None`: from the curvature that the first steps measure. MeZO: 1e-7 to
    /// 1e-5 by hand, for whole models.
    pub learning_rate: Option<f64>,
    /// Of the directions and of the order of the windows.
    pub seed: u64,
}

impl MezoConfig {
    fn validate(&self) -> Result<()> {
        at_least_one("‹steps›", self.steps)?;
        at_least_one("‹batch›", self.batch)?;
        positive("‹perturbation›", self.epsilon)?;
        self.learning_rate
            .map_or(Ok(()), |rate| positive("‹learning-rate›", rate))
    }
}

impl Default for MezoConfig {
    fn default() -> Self {
        Self {
            steps: 200,
            batch: 1,
            epsilon: 1e-3,
            learning_rate: None,
            seed: 0,
        }
    }
}

/// Steps of zeroth order in subspaces.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SubzeroConfig {
    /// What MeZO has too.
    #[serde(flatten)]
    pub steps: MezoConfig,
    /// r: rank of an operator's direction. Official code: 24 in its examples.
    pub rank: usize,
    /// T₀: steps in one subspace. Official code: 1000 of 20000 steps; here the same share of 200.
    pub refresh: usize,
}

impl Default for SubzeroConfig {
    fn default() -> Self {
        Self {
            steps: MezoConfig::default(),
            rank: 24,
            refresh: 10,
        }
    }
}
