//! What a run is asked to do: plain values with their defaults' sources, checked before any work begins.
//!
//! The command line fills these in; a program that embeds the pruner builds them directly.

use super::check::check;
use super::{ColumnConfig, ComparisonGroup, Pattern, Ridge};
use crate::error::Result;
use fista_pruner_models::Family;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// How one operator's weights are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// ℓ0 operator splitting (the family of ALPS, arXiv 2406.07831).
    #[serde(rename = "l0")]
    Admm,
    /// FISTAPruner's Algorithm 1 (arXiv 2408.03728).
    Fista,
    /// Optimal brain surgeon, column by column (SparseGPT, arXiv 2301.00774).
    SparseGpt,
    /// `|W| · ‖X‖₂`, row by row (Wanda, arXiv 2306.11695).
    Wanda,
    /// `|W|`.
    Magnitude,
}

impl Method {
    /// Every method, with the name the command line uses.
    pub const ALL: [(&'static str, Self); 5] = [
        ("l0", Self::Admm),
        ("fista", Self::Fista),
        ("sparsegpt", Self::SparseGpt),
        ("wanda", Self::Wanda),
        ("magnitude", Self::Magnitude),
    ];
}

/// Where Algorithm 1 starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WarmStart {
    /// The dense weight itself; the first rounded iterate is always accepted.
    Dense,
    /// The result of magnitude pruning.
    Magnitude,
    /// The result of Wanda.
    Wanda,
    /// The result of SparseGPT.
    SparseGpt,
    /// The result of ℓ0 splitting.
    #[serde(rename = "l0")]
    Admm,
}

impl WarmStart {
    /// Every warm start, with the name the command line uses.
    pub const ALL: [(&'static str, Self); 5] = [
        ("l0", Self::Admm),
        ("dense", Self::Dense),
        ("magnitude", Self::Magnitude),
        ("wanda", Self::Wanda),
        ("sparsegpt", Self::SparseGpt),
    ];
}

/// How Algorithm 1 looks for λ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LambdaSearch {
    /// λ grows tenfold while no upper end is known, then midpoints. Agrees with [`LambdaSearch::Bisect`] once both ends
    /// are known, and does not waste its first failures at λ = M/2.
    Expand,
    /// The midpoint of `[lower, upper]` from the start, with `upper = M`, as Algorithm 1 prints it.
    Bisect,
    /// Geometric midpoints between ends that are known to enclose the answer: above by the smallest λ whose minimiser is
    /// zero (which rounding costs nothing), below, while no lower end is known, by a tenth at a time.
    Bracket,
}

impl LambdaSearch {
    /// Every rule, with the name the command line uses.
    pub const ALL: [(&'static str, Self); 3] = [
        ("expand", Self::Expand),
        ("bisect", Self::Bisect),
        ("bracket", Self::Bracket),
    ];
}

/// What λ is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LambdaUnit {
    /// The objective's own unit, as in the paper, with statistics per token. What a number means then depends on the scale
    /// of the activations.
    Absolute,
    /// The smallest λ whose minimiser is zero, `max |W X X*ᵀ| / p`: a number between 0 and 1 that means the same everywhere.
    Relative,
}

impl LambdaUnit {
    /// Every unit, with the name the command line uses.
    pub const ALL: [(&'static str, Self); 2] = [("absolute", Self::Absolute), ("relative", Self::Relative)];
}

/// Which columns a method works in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scaling {
    /// The operator's own, as in the paper.
    None,
    /// Every input brought to unit norm first: outlier channels no longer slow gradient steps down.
    Columns,
}

impl Scaling {
    /// Every scaling, with the name the command line uses.
    pub const ALL: [(&'static str, Self); 2] = [("none", Self::None), ("columns", Self::Columns)];
}

/// Settings of Algorithm 1 and of the FISTA iterations inside it. Symbols are the paper's (arXiv 2408.03728, Sec. 4.1).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FistaConfig {
    /// λ₀, the first weight of the ℓ1 term, for statistics per token. Paper: 1e-5.
    pub lambda: f64,
    /// M, the upper end of the search for λ. Paper: 1e6.
    pub lambda_max: f64,
    /// How λ moves between the ends.
    pub search: LambdaSearch,
    /// K, FISTA iterations a round. Paper: 20.
    pub iterations: usize,
    /// FISTA stops below this Frobenius norm of a step. Paper: 1e-6.
    pub tolerance: f64,
    /// T, rounds without improvement before Algorithm 1 stops. Paper: 3.
    pub patience: usize,
    /// ξ, the share of the rounding error above which λ rises. Paper: 0.3.
    pub xi: f64,
    /// ε, the relative gain below which Algorithm 1 stops. Paper: 1e-6 for OPT, 1e-3 for LLaMA.
    pub epsilon: f64,
    /// Most rounds of Algorithm 1; `None`, as in the paper, lets ε and T alone decide, which with ε = 1e-6 can take
    /// hundreds.
    pub max_rounds: Option<usize>,
    /// The columns that FISTA and its rounding work in. Paper: the operator's own.
    pub scaling: Scaling,
    /// What λ₀ and M are measured in. Paper: absolute.
    pub lambda_unit: LambdaUnit,
    /// Whether FISTA's momentum starts anew when it points uphill (O'Donoghue & Candès, arXiv 1204.3982, gradient scheme).
    /// Paper: no.
    pub restart: bool,
}

impl FistaConfig {
    /// The paper's settings for OPT: also where no model is known, as the stricter of the two.
    pub fn paper_opt() -> Self {
        Self {
            lambda: 1e-5,
            lambda_max: 1e6,
            search: LambdaSearch::Expand,
            iterations: 20,
            tolerance: 1e-6,
            patience: 3,
            xi: 0.3,
            epsilon: 1e-6,
            max_rounds: None,
            scaling: Scaling::None,
            lambda_unit: LambdaUnit::Absolute,
            restart: false,
        }
    }

    /// The paper's settings for LLaMA.
    pub fn paper_llama() -> Self {
        Self {
            epsilon: 1e-3,
            ..Self::paper_opt()
        }
    }

    /// Algorithm 1 in scaled columns with a relative λ: the same whatever the amount of calibration data or the scale of
    /// the activations.
    pub fn scaled() -> Self {
        Self {
            lambda: 1e-6,
            lambda_max: 1.0,
            search: LambdaSearch::Bracket,
            epsilon: 1e-3,
            scaling: Scaling::Columns,
            lambda_unit: LambdaUnit::Relative,
            restart: true,
            ..Self::paper_opt()
        }
    }

    fn validate(&self) -> Result<()> {
        let positive = |v: f64| v.is_finite() && v > 0.0;
        check(positive(self.lambda_max), "‹lambda-max›", "must be positive")?;
        check(
            self.lambda >= 0.0 && self.lambda <= self.lambda_max,
            "‹lambda›",
            "must lie between 0 and ‹lambda-max›",
        )?;
        check(self.iterations > 0, "‹iterations›", "must be at least 1")?;
        check(self.tolerance >= 0.0, "‹tolerance›", "must not be negative")?;
        check(self.patience > 0, "‹patience›", "must be at least 1")?;
        check(
            self.xi >= 0.0 && self.xi <= 1.0,
            "‹xi›",
            "must lie between 0 and 1",
        )?;
        check(self.max_rounds != Some(0), "‹max-rounds›", "must be at least 1")?;
        check(self.epsilon >= 0.0, "‹epsilon›", "must not be negative")
    }
}

/// Settings of SparseGPT. Defaults are the official code's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SparseGptConfig {
    /// Columns pruned before the rest of the matrix is updated. Official: 128.
    pub block: usize,
    /// Damping of the Gram matrix, relative to its mean diagonal. Official: 0.01.
    pub damping: f64,
}

impl Default for SparseGptConfig {
    fn default() -> Self {
        Self {
            block: 128,
            damping: 0.01,
        }
    }
}

/// Settings of ℓ0 splitting. ρ is in units of the scaled Gram matrix, whose diagonal is one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdmmConfig {
    /// Steps, one matrix product each.
    pub steps: usize,
    /// ρ of the first step.
    pub rho: f64,
    /// Factor by which ρ grows a step.
    pub growth: f64,
    /// Steps between two renewals of the inverse; ρ stays what it is in between.
    pub refresh: usize,
}

impl AdmmConfig {
    /// Slow growth: on real layers below ALPS's published code, in about as many products as that takes at least.
    pub fn best() -> Self {
        Self {
            steps: 150,
            rho: 0.03,
            growth: 1.04,
            refresh: 5,
        }
    }

    /// Few steps: on real layers within 7 % of ALPS, for what SparseGPT costs.
    pub fn fast() -> Self {
        Self {
            steps: 8,
            rho: 0.3,
            growth: 1.1,
            refresh: 3,
        }
    }

    fn validate(&self) -> Result<()> {
        check(self.steps > 0, "‹admm-steps›", "must be at least 1")?;
        check(
            self.rho > 0.0 && self.rho.is_finite(),
            "‹rho›",
            "must be positive",
        )?;
        check(
            self.growth >= 1.0 && self.growth.is_finite(),
            "‹rho-growth›",
            "must be at least 1",
        )?;
        let last = self.rho * self.growth.powf(self.steps as f64);
        check(
            last < 1e12,
            "‹rho-growth›",
            "ρ must stay below 1e12 over all steps",
        )?;
        check(self.refresh > 0, "‹admm-refresh›", "must be at least 1")
    }
}

/// Everything that chooses one operator's weights from its statistics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SolverConfig {
    /// The method.
    pub method: Method,
    /// Where `fista` starts; the other methods ignore it.
    pub warm_start: WarmStart,
    /// Settings of `fista`.
    pub fista: FistaConfig,
    /// Settings of `sparsegpt`, as a method and as a warm start.
    pub sparsegpt: SparseGptConfig,
    /// Settings of `l0`.
    pub l0: AdmmConfig,
    /// Which entries compete for an unstructured pattern's zeros; `None` leaves each method its own: the row for `wanda`,
    /// blocks of columns for `sparsegpt`, the matrix for the others.
    pub threshold: Option<ComparisonGroup>,
    /// Conjugate-gradient steps on the final support, after any method. 0 leaves the method's own values.
    pub polish: usize,
    /// Pull of `l0` and of the polish towards the dense weight.
    pub ridge: Ridge,
    /// How whole columns are chosen, where patterns ask for them: structured pruning, whatever `method` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<ColumnConfig>,
}

impl SolverConfig {
    /// The paper's settings for a model family: OPT starts from SparseGPT, LLaMA and its kin from Wanda
    /// (arXiv 2408.03728, Sec. 4.1). Without a family, OPT's.
    pub fn paper(family: Option<Family>) -> Self {
        let (warm_start, fista) = match family {
            None | Some(Family::Opt) => (WarmStart::SparseGpt, FistaConfig::paper_opt()),
            Some(_) => (WarmStart::Wanda, FistaConfig::paper_llama()),
        };
        Self {
            method: Method::Fista,
            warm_start,
            fista,
            sparsegpt: SparseGptConfig::default(),
            l0: AdmmConfig::best(),
            threshold: None,
            polish: 0,
            ridge: Ridge::Auto,
            columns: None,
        }
    }

    /// A published method with what later work added: FISTA in scaled columns, every method's values made the best ones
    /// for its support.
    pub fn with_refit(method: Method, family: Option<Family>) -> Self {
        Self {
            method,
            fista: FistaConfig::scaled(),
            polish: Self::best(family).polish,
            ..Self::paper(family)
        }
    }

    /// The lowest error for about the cost of ALPS: slow ℓ0 splitting, then the exact values on its support.
    pub fn best(family: Option<Family>) -> Self {
        Self {
            method: Method::Admm,
            polish: 12,
            ..Self::paper(family)
        }
    }

    /// Below SparseGPT's error for less than its cost: quick ℓ0 splitting and a short polish.
    pub fn fast(family: Option<Family>) -> Self {
        Self {
            method: Method::Admm,
            l0: AdmmConfig::fast(),
            polish: 3,
            ..Self::paper(family)
        }
    }

    pub(crate) fn threshold_or(&self, own: ComparisonGroup) -> ComparisonGroup {
        self.threshold.unwrap_or(own)
    }

    /// Checks every value's range.
    ///
    /// # Errors
    /// [`ConfigError::Setting`](super::ConfigError::Setting), naming the flag.
    pub fn validate(&self) -> Result<()> {
        self.fista.validate()?;
        self.l0.validate()?;
        check(self.sparsegpt.block > 0, "‹block-size›", "must be at least 1")?;
        check(
            self.threshold.is_none() || self.method != Method::SparseGpt,
            "‹comparison-group›",
            "sparsegpt always compares within blocks of columns",
        )?;
        check(
            !matches!(self.ridge, Ridge::Relative(r) if !(r >= 0.0 && r.is_finite())),
            "‹ridge›",
            "must not be negative",
        )?;
        let damping = self.sparsegpt.damping;
        check(
            damping > 0.0 && damping.is_finite(),
            "‹damping›",
            "must be positive",
        )
    }
}

/// Which model's activation enters a decoder layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerInput {
    /// The dense model's: layers are independent of each other.
    Dense,
    /// That of the model pruned so far.
    Pruned,
}

/// Where an operator's input and target come from: three independent switches.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Propagation {
    /// What enters each decoder layer on the path whose activations the operators will really see.
    pub layer_input: LayerInput,
    /// Whether operators pruned earlier in a layer change the inputs of the later ones.
    pub corrected: bool,
    /// `s` of the target `W (s X + (1 − s) X*)`: 1 for the dense model's activations, 0 for the operator's own input, and
    /// between them a part of what separates the two.
    pub dense_share: f64,
}

impl Propagation {
    /// FISTAPruner's intra-layer error correction: dense layer input, corrected within the layer, dense target.
    pub const INTRA: Self = Self {
        layer_input: LayerInput::Dense,
        corrected: true,
        dense_share: 1.0,
    };
    /// No correction at all: every operator sees the dense model's activations.
    pub const NONE: Self = Self {
        layer_input: LayerInput::Dense,
        corrected: false,
        dense_share: 1.0,
    };
    /// Correction within and between layers: everything is pruned up to here, the target is the dense model's.
    pub const FULL: Self = Self {
        layer_input: LayerInput::Pruned,
        corrected: true,
        dense_share: 1.0,
    };
    /// What SparseGPT, Wanda and ALPS do: pruned layer input, uncorrected within the layer, target on that input.
    pub const SEQUENTIAL: Self = Self {
        layer_input: LayerInput::Pruned,
        corrected: false,
        dense_share: 0.0,
    };

    /// As [`Propagation::SEQUENTIAL`], and corrected within the layer too: every operator sees the input it will have.
    pub const REFRESHED: Self = Self {
        layer_input: LayerInput::Pruned,
        corrected: true,
        dense_share: 0.0,
    };

    /// As [`Propagation::REFRESHED`], and a quarter of the way back to the dense model's output: the factor of GPTAQ (arXiv
    /// 2504.02692).
    pub const PARTIAL: Self = Self {
        dense_share: 0.25,
        ..Self::REFRESHED
    };

    /// The named combinations, as the command line spells them.
    pub const NAMED: [(&'static str, Self); 6] = [
        ("intra", Self::INTRA),
        ("none", Self::NONE),
        ("full", Self::FULL),
        ("sequential", Self::SEQUENTIAL),
        ("refreshed", Self::REFRESHED),
        ("partial", Self::PARTIAL),
    ];

    /// The name of a named combination.
    pub fn name(&self) -> Option<&'static str> {
        Self::NAMED.iter().find(|(_, p)| p == self).map(|(name, _)| *name)
    }

    /// Whether the dense model's activations are part of the target.
    pub fn dense_target(&self) -> bool {
        self.dense_share > 0.0
    }

    /// Whether an operator's real input can differ from the dense one, so that both must be computed.
    pub fn two_paths(&self) -> bool {
        self.corrected || self.layer_input == LayerInput::Pruned
    }
}

/// What a whole pruning run does, once model and data are there.
#[derive(Debug, Clone)]
pub struct PruneConfig {
    /// The zeros each operator must have, where `patterns` says nothing else.
    pub pattern: Pattern,
    /// Operators, by full name, with a pattern of their own: see [`crate::prune::allocate`].
    pub patterns: BTreeMap<String, Pattern>,
    /// Only the operators that `patterns` names are pruned, and these layers are left out of the model: structured pruning.
    pub dropped: Option<BTreeSet<usize>>,
    /// One number for each block of columns of an operator, by full name, for [`Criterion::Given`](super::Criterion::Given).
    pub scores: BTreeMap<String, Vec<f32>>,
    /// How an operator's weights are chosen.
    pub solver: SolverConfig,
    /// Where inputs and targets come from.
    pub propagation: Propagation,
    /// Only operators whose full name matches are pruned.
    pub targets: Option<regex::Regex>,
    /// Operators whose full name matches are left dense.
    pub ignore: Option<regex::Regex>,
    /// Tokens computed at once on the device. Part of the result's last bits, so fixed by default.
    pub batch_tokens: usize,
}

impl PruneConfig {
    /// Enough tokens to keep matrix products at full speed on a CPU, few enough to stay small next to one layer.
    pub const BATCH_TOKENS: usize = 4096;

    /// The pattern for every operator, by this solver, as the command line has it where nothing else is said.
    pub fn new(pattern: Pattern, solver: SolverConfig) -> Self {
        Self {
            pattern,
            solver,
            propagation: Propagation::INTRA,
            patterns: BTreeMap::new(),
            dropped: None,
            scores: BTreeMap::new(),
            targets: None,
            ignore: None,
            batch_tokens: Self::BATCH_TOKENS,
        }
    }

    /// Whether inputs of the operators decide about weights. Magnitudes alone do without.
    pub fn needs_text(&self) -> bool {
        self.solver.method != Method::Magnitude || self.solver.polish > 0 || self.solver.columns.is_some()
    }

    /// The zeros that the operator of this full name must have.
    pub fn pattern_for(&self, operator: &str) -> Pattern {
        self.patterns.get(operator).copied().unwrap_or(self.pattern)
    }

    /// Whether a layer is left out of the model.
    pub fn drops(&self, layer: usize) -> bool {
        self.dropped
            .as_ref()
            .is_some_and(|dropped| dropped.contains(&layer))
    }

    /// Whether the operator of this full name (`model.layers.0.mlp.up_proj`) is to be pruned.
    pub fn selects(&self, operator: &str) -> bool {
        (self.dropped.is_none() || self.patterns.contains_key(operator))
            && self.targets.as_ref().is_none_or(|r| r.is_match(operator))
            && !self.ignore.as_ref().is_some_and(|r| r.is_match(operator))
    }
}
