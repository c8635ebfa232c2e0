//! What structured pruning is asked to do: how much goes, of what, how it is chosen; and the shape that comes of it.

use super::check::check;
use super::columns::{ColumnConfig, Criterion};
use super::{Pattern, Propagation};
use crate::error::{ConfigError, Error, Result};
use fista_pruner_models::{Decoder, ModelConfig, Sizes, Unit};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Removable {
    /// Channels of the MLP.
    Mlp,
    /// Heads of keys and values, with their queries.
    Heads,
    /// Whole layers.
    Layers,
}

impl Removable {
    /// Each, with the name the command line uses.
    pub const ALL: [(&'static str, Self); 3] = [
        ("mlp", Self::Mlp),
        ("heads", Self::Heads),
        ("layers", Self::Layers),
    ];
}

/// How units are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StructuredMethod {
    /// [`Criterion::Obs`].
    Obs,
    /// Greedy Output Approximation (arXiv 2407.19126).
    Greedy,
    /// Bypass Back-propagation (arXiv 2406.10576).
    PolicyGradient,
    /// [`Criterion::Flap`].
    Flap,
    /// [`Criterion::WandaSp`].
    WandaSp,
    /// [`Criterion::Magnitude`].
    Magnitude,
    /// [`Criterion::Leverage`].
    Leverage,
}

impl StructuredMethod {
    /// Each, with the name the command line uses.
    pub const ALL: [(&'static str, Self); 7] = [
        ("obs", Self::Obs),
        ("greedy", Self::Greedy),
        ("policy-gradient", Self::PolicyGradient),
        ("flap", Self::Flap),
        ("wanda-sp", Self::WandaSp),
        ("magnitude", Self::Magnitude),
        ("leverage", Self::Leverage),
    ];

    /// What shapes are tried with: itself, or [`Self::Obs`] where scores would have to be made for each of them.
    pub(crate) fn for_search(self) -> Self {
        match self.criterion() {
            Criterion::Given => Self::Obs,
            _ => self,
        }
    }

    /// What the solver judges by.
    pub fn criterion(self) -> Criterion {
        match self {
            Self::Obs => Criterion::Obs,
            Self::Greedy | Self::PolicyGradient => Criterion::Given,
            Self::Flap => Criterion::Flap,
            Self::WandaSp => Criterion::WandaSp,
            Self::Magnitude => Criterion::Magnitude,
            Self::Leverage => Criterion::Leverage,
        }
    }

    /// Where inputs and targets come from where nothing else is said: the inputs that the smaller model really has, and the operator's own
    /// output on them; for [`Self::Greedy`] the dense model's output, as published.
    pub fn propagation(self) -> Propagation {
        match self {
            Self::Greedy => Propagation::FULL,
            _ => Propagation::REFRESHED,
        }
    }

    /// Whether the columns that stay are refitted where nothing else is said: as published, but for what searches over masks,
    /// which gains by it.
    pub fn refits(self) -> bool {
        matches!(self, Self::Obs | Self::Leverage | Self::PolicyGradient)
    }
}

/// How the budget is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShapeRule {
    /// Every kind of unit gives the same share.
    Uniform,
    /// Several divisions are tried; the one closest to the dense model on held-out text is taken.
    Auto,
}

impl ShapeRule {
    /// Each, with the name the command line uses.
    pub const ALL: [(&'static str, Self); 2] = [("uniform", Self::Uniform), ("auto", Self::Auto)];
}

/// Settings of [`StructuredMethod::Greedy`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GreedyConfig {
    /// Channels by `‖W_:j‖² E x_j²`, exactly, in place of the paper's product of the two paths' moments.
    pub exact_moment: bool,
    /// Fit the first level (gate and up; query, key and value) to its dense outputs before the cut, as published.
    pub reconstruct: bool,
    /// Heads are alike below this Jensen-Shannon divergence; none: the closest pairs.
    pub similarity: Option<f64>,
    /// Windows that judge. Paper: 16.
    pub samples: usize,
    /// Their tokens. Paper: 128.
    pub tokens: usize,
}

impl Default for GreedyConfig {
    fn default() -> Self {
        Self {
            exact_moment: false,
            reconstruct: true,
            similarity: None,
            samples: 16,
            tokens: 128,
        }
    }
}

/// What a step of [`StructuredMethod::PolicyGradient`] compares a mask's loss with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Baseline {
    /// The mean loss of the last five steps, as published.
    Moving,
    /// The mean loss of the step's other masks.
    LeaveOneOut,
}

impl Baseline {
    /// Each, with the name the command line uses.
    pub const ALL: [(&'static str, Self); 2] =
        [("moving", Self::Moving), ("leave-one-out", Self::LeaveOneOut)];
}

/// What [`StructuredMethod::PolicyGradient`] makes small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyLoss {
    /// Cross entropy of the text, as published.
    CrossEntropy,
    /// Kullback-Leibler divergence from the dense model.
    Kl,
}

impl PolicyLoss {
    /// Each, with the name the command line uses.
    pub const ALL: [(&'static str, Self); 2] = [("cross-entropy", Self::CrossEntropy), ("kl", Self::Kl)];
}

/// Settings of [`StructuredMethod::PolicyGradient`]. The paper's are those of [`PolicyConfig::paper`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PolicyConfig {
    /// Steps. Paper: 15 000.
    pub steps: usize,
    /// Masks a step. Paper: 2.
    pub masks: usize,
    /// Windows a step. Paper: 8.
    pub batch: usize,
    /// Their tokens. Paper: 128.
    pub tokens: usize,
    /// First learning rate; it falls to zero by a cosine. Paper: 2e-3 for LLaMA-2-7B.
    pub learning_rate: f64,
    /// What losses are compared with.
    pub baseline: Baseline,
    /// The loss.
    pub loss: PolicyLoss,
    /// Whether every layer keeps its share in each step. Paper: only all layers together.
    pub per_layer: bool,
    /// What the first probabilities come from. Paper: [`Criterion::WandaSp`].
    pub start: Criterion,
    /// Seed of the masks.
    pub seed: u64,
}

impl PolicyConfig {
    /// As published.
    pub fn paper() -> Self {
        Self {
            steps: 15_000,
            masks: 2,
            batch: 8,
            tokens: 128,
            learning_rate: 2e-3,
            baseline: Baseline::Moving,
            loss: PolicyLoss::CrossEntropy,
            per_layer: false,
            start: Criterion::WandaSp,
            seed: 0,
        }
    }
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self {
            steps: 200,
            baseline: Baseline::LeaveOneOut,
            loss: PolicyLoss::Kl,
            per_layer: true,
            start: Criterion::Obs,
            learning_rate: 0.02,
            ..Self::paper()
        }
    }
}

/// What structured pruning is asked to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StructureConfig {
    /// How units are chosen.
    pub method: StructuredMethod,
    /// Whether the columns that stay are fitted by least squares.
    pub refit: bool,
    /// What may go.
    pub units: Vec<Removable>,
    /// Share of the weights of the decoder layers' linear operators that goes. `0 < remove < 1`.
    pub remove: f64,
    /// How it is divided.
    pub rule: ShapeRule,
    /// Widths of MLPs are multiples of this; none: 256, or less for small models.
    pub multiple: Option<usize>,
    /// For [`StructuredMethod::Greedy`].
    pub greedy: GreedyConfig,
    /// For [`StructuredMethod::PolicyGradient`].
    pub policy: PolicyConfig,
}

impl StructureConfig {
    /// The default method on channels of the MLP.
    pub fn new(remove: f64) -> Self {
        Self {
            method: StructuredMethod::Obs,
            refit: true,
            units: vec![Removable::Mlp],
            remove,
            rule: ShapeRule::Uniform,
            multiple: None,
            greedy: GreedyConfig::default(),
            policy: PolicyConfig::default(),
        }
    }

    /// Checks every value's range.
    ///
    /// # Errors
    /// [`ConfigError::Setting`], naming the flag.
    pub fn validate(&self) -> Result<()> {
        check(
            self.remove > 0.0 && self.remove < 1.0,
            "‹remove›",
            "must lie between 0 and 1",
        )?;
        check(!self.units.is_empty(), "‹units›", "name mlp, heads or layers")?;
        check(self.multiple != Some(0), "‹multiple›", "must be at least 1")?;
        check(self.policy.masks >= 2, "‹masks›", "must be at least 2")?;
        check(self.policy.steps > 0, "‹steps›", "must be at least 1")?;
        check(self.policy.batch > 0, "‹batch›", "must be at least 1")?;
        check(
            self.policy.learning_rate > 0.0 && self.policy.learning_rate.is_finite(),
            "‹learning-rate›",
            "must be positive",
        )?;
        let several = self.units.len() > 1 && self.removes(Removable::Layers);
        check(
            self.rule == ShapeRule::Auto || !several,
            "‹units›",
            "layers together with others need ‹shape› auto, which finds out how many of each",
        )
    }

    /// Whether units of a kind may go.
    pub fn removes(&self, unit: Removable) -> bool {
        self.units.contains(&unit)
    }

    /// What the solver is told.
    pub fn columns(&self) -> ColumnConfig {
        ColumnConfig {
            criterion: self.method.criterion(),
            refit: self.refit,
            fit_first: self.fits_first(),
        }
    }

    fn fits_first(&self) -> bool {
        self.method == StructuredMethod::Greedy && self.greedy.reconstruct
    }

    /// Widths of MLPs are multiples of this: [`Self::MULTIPLE`], or, where that would be more than a 32nd of the width, the
    /// largest power of two that is not.
    pub fn multiple_for(&self, channels: usize) -> usize {
        let mut multiple = Self::MULTIPLE;
        while multiple > 1 && multiple * 32 > channels {
            multiple /= 2;
        }
        self.multiple.unwrap_or(multiple)
    }

    /// What llama.cpp's K-quants, FP8 blocks, GPTQ groups and tensor cores divide.
    pub const MULTIPLE: usize = 256;

    /// The shapes that remove the share, as far as whole units allow: one for [`ShapeRule::Uniform`], several for
    /// [`ShapeRule::Auto`]. `order` names layers in the order in which they may go, as many as [`Self::most_layers`] says.
    ///
    /// # Errors
    /// When the units that may go do not make up the share, or the family has no such shapes.
    pub fn shapes(&self, config: &ModelConfig, order: &[usize]) -> Result<Vec<Shape>> {
        self.shapes_with(config, order, None)
    }

    /// As [`Self::shapes`], with about that many heads of keys and values where that is known.
    ///
    /// # Errors
    /// As [`Self::shapes`].
    pub(crate) fn shapes_with(
        &self,
        config: &ModelConfig,
        order: &[usize],
        heads: Option<f64>,
    ) -> Result<Vec<Shape>> {
        self.validate()?;
        let now = config.sizes();
        let all = config.linear_weights() as f64;
        let goal = all * (1.0 - self.remove);
        let heads = self.head_counts(config, heads)?;
        let counts = match (self.rule, self.removes(Removable::Layers)) {
            (_, false) => 0..=0,
            (ShapeRule::Uniform, true) => order.len()..=order.len(),
            (ShapeRule::Auto, true) => 0..=order.len(),
        };
        let mut shapes: Vec<Shape> = Vec::new();
        for count in counts {
            let mut dropped = order[..count].to_vec();
            dropped.sort_unstable();
            for heads in &heads {
                let shape = |channels| Shape {
                    dropped: dropped.clone(),
                    channels,
                    heads: *heads,
                };
                let weights = |channels| shape(channels).config(config).map(|c| c.linear_weights() as f64);
                let multiple = self.multiple_for(now.channels);
                let channels = if self.removes(Removable::Mlp) {
                    let (most, least) = (weights(now.channels)?, weights(multiple.min(now.channels))?);
                    let each = (most - least) / (now.channels - multiple.min(now.channels)).max(1) as f64;
                    let wanted = (now.channels as f64 - (most - goal) / each) / multiple as f64;
                    // What is asked for is what goes at least nearly: half a step off at most.
                    if wanted < 0.5 || wanted * multiple as f64 > (now.channels + multiple) as f64 {
                        continue;
                    }
                    (wanted.round() as usize * multiple).min(now.channels)
                } else {
                    now.channels
                };
                shapes.push(shape(channels));
            }
        }
        let off = |shape: &Shape| {
            shape
                .removed(config)
                .map_or(1.0, |removed| (removed - self.remove).abs())
        };
        let near: Vec<Shape> = shapes.iter().filter(|shape| off(shape) < NEAR).cloned().collect();
        match self.rule {
            ShapeRule::Auto if !near.is_empty() => Ok(near),
            _ => {
                let best = shapes.into_iter().min_by(|a, b| off(a).total_cmp(&off(b)));
                match best {
                    Some(best) if off(&best) < FAR => Ok(vec![best]),
                    best => Err(self.impossible(config, best)),
                }
            }
        }
    }

    /// How many layers may go at most: as many as make up the share, and never the first.
    pub fn most_layers(&self, config: &ModelConfig) -> usize {
        let layers = config.num_layers();
        if !self.removes(Removable::Layers) {
            return 0;
        }
        let wanted = self.remove * layers as f64;
        let wanted = match self.rule {
            ShapeRule::Uniform => wanted.round() as usize,
            ShapeRule::Auto => wanted.floor() as usize,
        };
        wanted.min(layers.saturating_sub(1))
    }

    /// The counts of heads to look at: near the share for a uniform shape, all from a half on for a search.
    fn head_counts(&self, config: &ModelConfig, about: Option<f64>) -> Result<Vec<usize>> {
        let now = config.sizes().heads;
        if !self.removes(Removable::Heads) {
            return Ok(vec![now]);
        }
        let possible = config.possible_heads().map_err(|reason| {
            setting(
                "‹units›",
                format!(
                    "heads of `{}` cannot be removed: {reason}; remove mlp or layers",
                    config.family()
                ),
            )
        })?;
        let wanted = about.unwrap_or(now as f64 * (1.0 - self.remove));
        let off = |heads: usize| (heads as f64 - wanted).abs();
        match self.rule {
            ShapeRule::Uniform if about.is_some() || self.removes(Removable::Mlp) => {
                let best = possible.into_iter().min_by(|a, b| off(*a).total_cmp(&off(*b)));
                Ok(best.into_iter().collect())
            }
            ShapeRule::Uniform => Ok(possible),
            ShapeRule::Auto => Ok(possible.into_iter().filter(|heads| 2 * heads >= now).collect()),
        }
    }

    fn impossible(&self, config: &ModelConfig, nearest: Option<Shape>) -> Error {
        let reason = match nearest.and_then(|shape| Some((shape.removed(config).ok()?, shape))) {
            Some((removed, shape)) => format!(
                "no shape of these units removes {:.0} %; the nearest removes {:.1} %: {shape}",
                100.0 * self.remove,
                100.0 * removed
            ),
            None => {
                let most = Shape {
                    channels: self.multiple_for(config.sizes().channels),
                    ..Shape::whole(config)
                };
                let most = most.removed(config).unwrap_or(0.0);
                format!(
                    "{:.0} % of the linear weights are not in these units; at most {:.0} % can go. Name more ‹units›",
                    100.0 * self.remove,
                    100.0 * most
                )
            }
        };
        setting("‹remove›", reason)
    }
}

/// How far off the share a candidate of a search may be.
const NEAR: f64 = 0.02;
/// How far off the only shape there is may be.
const FAR: f64 = 0.1;

fn setting(setting: &'static str, reason: String) -> Error {
    Error::from(ConfigError::Setting { setting, reason })
}

/// What is left of a model, the same in every layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// The layers that go, in order.
    pub dropped: Vec<usize>,
    /// Hidden features of every MLP that stay.
    pub channels: usize,
    /// Heads of keys and values of every layer that stay, with their queries.
    pub heads: usize,
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "MLP width {}, {} heads of keys and values",
            self.channels, self.heads
        )?;
        match self.dropped.len() {
            0 => Ok(()),
            _ => write!(f, ", without layers {}", list(&self.dropped)),
        }
    }
}

fn list(layers: &[usize]) -> String {
    let names: Vec<String> = layers.iter().map(usize::to_string).collect();
    names.join(", ")
}

impl Shape {
    /// Everything.
    pub fn whole(config: &ModelConfig) -> Self {
        let Sizes { channels, heads, .. } = config.sizes();
        Self {
            dropped: Vec::new(),
            channels,
            heads,
        }
    }

    /// The layers that stay, in order.
    pub fn layers(&self, config: &ModelConfig) -> Vec<usize> {
        (0..config.num_layers())
            .filter(|layer| !self.dropped.contains(layer))
            .collect()
    }

    /// Units of a kind that stay.
    pub fn kept(&self, unit: Unit) -> usize {
        match unit {
            Unit::Channel => self.channels,
            Unit::Head => self.heads,
        }
    }

    /// The configuration of what is left of a model.
    ///
    /// # Errors
    /// When nothing is, or there is less of something in the model.
    pub fn config(&self, config: &ModelConfig) -> Result<ModelConfig> {
        Ok(config.resized(&self.layers(config), self.channels, self.heads)?)
    }

    /// The share of the linear operators' weights that goes.
    ///
    /// # Errors
    /// As [`Self::config`].
    pub fn removed(&self, config: &ModelConfig) -> Result<f64> {
        Ok(1.0 - self.config(config)?.linear_weights() as f64 / config.linear_weights().max(1) as f64)
    }

    /// The operators of the layers that stay whose columns are units, each with what it keeps; of a layer before a hole also those
    /// that keep everything, as they are fitted to what the hole added.
    pub(crate) fn patterns(&self, decoder: &Decoder, asked: &StructureConfig) -> BTreeMap<String, Pattern> {
        let config = decoder.config();
        let mut patterns = BTreeMap::new();
        for layer in self.layers(config) {
            for unit in Unit::ALL {
                let (kept, of) = (self.kept(unit), config.units(unit));
                let hole = unit == Unit::Channel && asked.refit && self.dropped.contains(&(layer + 1));
                if kept < of || hole {
                    let name = decoder.operator_name(layer, config.operator_of(unit));
                    patterns.insert(name, Pattern::Columns { kept, of });
                    if asked.fits_first() {
                        // The level before, whole: its outputs are the units.
                        for operator in config.operators_before(unit) {
                            let of = operator.in_features;
                            let name = decoder.operator_name(layer, operator.name);
                            patterns.insert(name, Pattern::Columns { kept: of, of });
                        }
                    }
                }
            }
        }
        patterns
    }
}
