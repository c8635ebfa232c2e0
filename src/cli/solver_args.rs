//! The settings of the solver on the command line, for `prune` and `solve`.

use crate::config::{
    FistaConfig, L0Config, LambdaSearch, LambdaUnit, Method, Pattern, Ridge, Scaling, SolverConfig,
    SparseGptConfig, Threshold, WarmStart,
};
use crate::error::Result;
use clap::{Args, ValueEnum};
use fista_pruner_models::Family;

/// Settings of the solver, shared by `prune` and `solve`.
#[derive(Debug, Clone, Args)]
pub(crate) struct SolverArgs {
    /// The zeros: a fraction (0.5), a percentage (50%), or n:m (2:4 keeps 2 of each 4 inputs).
    #[arg(long, default_value = "0.5", value_name = "PATTERN", value_parser = str::parse::<Pattern>)]
    pub(crate) sparsity: Pattern,
    /// A set of settings; single settings below override it. `best`: the lowest error; `fast`: most of that at a
    /// fraction of the cost; `paper`: FISTAPruner, or another --method, as published (arXiv 2408.03728, Sec. 4.1). Default:
    /// `best`; a --method of another name then gets the polish of `best`, and fista works in scaled columns.
    #[arg(long, value_enum)]
    preset: Option<Preset>,
    /// How an operator's weights are chosen. Default: l0, or fista with `--preset paper`.
    #[arg(long)]
    method: Option<Method>,
    /// Where fista starts. Default: sparsegpt for OPT, wanda for LLaMA and its kin, as in the paper.
    #[arg(long)]
    warm_start: Option<WarmStart>,
    /// K: FISTA iterations a round. Paper: 20.
    #[arg(long, value_name = "K", help_heading = "Solver settings")]
    iterations: Option<usize>,
    /// T: rounds without improvement before fista stops. Paper: 3.
    #[arg(long, value_name = "T", help_heading = "Solver settings")]
    patience: Option<usize>,
    /// ξ: share of the rounding error above which λ rises. Paper: 0.3.
    #[arg(long, value_name = "X", help_heading = "Solver settings")]
    xi: Option<f64>,
    /// ε: relative gain below which fista stops. Paper: 1e-6 for OPT, 1e-3 for LLaMA.
    #[arg(long, value_name = "E", help_heading = "Solver settings")]
    epsilon: Option<f64>,
    /// Most rounds of fista. Default: no limit, as in the paper.
    #[arg(long, value_name = "N", help_heading = "Solver settings")]
    max_rounds: Option<usize>,
    /// λ₀: first weight of the ℓ1 term, in --lambda-unit. Paper: 1e-5 absolute, for statistics per token. Default: 1e-6
    /// relative.
    #[arg(long, value_name = "L", help_heading = "Solver settings")]
    lambda: Option<f64>,
    /// M: upper end of the search for λ, in --lambda-unit. Paper: 1e6. Default: 1 relative.
    #[arg(long, value_name = "M", help_heading = "Solver settings")]
    lambda_max: Option<f64>,
    /// How λ moves: `expand` grows it tenfold until an upper end is known, `bisect` takes midpoints of [0, M] from the
    /// start, as the paper prints it; `bracket` takes geometric midpoints below the λ that zeroes everything. Default:
    /// bracket, or expand with `--preset paper`.
    #[arg(long, help_heading = "Solver settings")]
    lambda_search: Option<LambdaSearch>,
    /// What λ is measured in: `absolute`, or `relative` to the smallest λ that zeroes everything. Default: relative, or
    /// absolute with `--preset paper`.
    #[arg(long, help_heading = "Solver settings")]
    lambda_unit: Option<LambdaUnit>,
    /// The columns fista works in: the operator's own (`none`), or scaled to unit norm (`columns`). Default: columns, or
    /// none with `--preset paper`.
    #[arg(long, help_heading = "Solver settings")]
    scaling: Option<Scaling>,
    /// Whether fista's momentum starts anew when it points uphill. Default: true, or false with `--preset paper`.
    #[arg(long, value_name = "BOOL", help_heading = "Solver settings")]
    restart: Option<bool>,
    /// What competes for an unstructured sparsity's zeros: the whole `matrix` or each `row`. Default: the row for wanda,
    /// the matrix for others; sparsegpt always compares within blocks of columns.
    #[arg(long, help_heading = "Solver settings")]
    threshold: Option<Threshold>,
    /// FISTA stops below this norm of a step. Paper: 1e-6.
    #[arg(long, value_name = "T", help_heading = "Solver settings")]
    tolerance: Option<f64>,
    /// Conjugate-gradient steps on the final support, after any method; 0 for none. Default: 12, or 3 with
    /// `fast`, 0 with `paper`.
    #[arg(long, value_name = "N", help_heading = "Solver settings")]
    polish: Option<usize>,
    /// Steps of ℓ0 splitting. Default: 150 with `best`, 8 with `fast`.
    #[arg(long, value_name = "N", help_heading = "Solver settings")]
    l0_steps: Option<usize>,
    /// First ρ of ℓ0 splitting, for Gram matrices with unit diagonal. Default: 0.03 with `best`, 0.3 with `fast`.
    #[arg(long, value_name = "R", help_heading = "Solver settings")]
    rho: Option<f64>,
    /// Factor by which ρ grows a step. Default: 1.04 with `best`, 1.1 with `fast`.
    #[arg(long, value_name = "F", help_heading = "Solver settings")]
    rho_growth: Option<f64>,
    /// Steps of ℓ0 splitting between two renewals of its inverse. Default: 3.
    #[arg(long, value_name = "N", help_heading = "Solver settings")]
    l0_refresh: Option<usize>,
    /// Pull of l0 and of the polish towards the dense weight, relative to the Gram matrix's diagonal: a number, or `auto`, the
    /// more the fewer calibration tokens there are. Default: auto.
    #[arg(long, value_name = "R", help_heading = "Solver settings")]
    ridge: Option<Ridge>,
    /// SparseGPT's damping, relative to the mean diagonal of the Gram matrix. Official code: 0.01.
    #[arg(long, value_name = "D", help_heading = "Solver settings")]
    damping: Option<f64>,
    /// SparseGPT's block of columns. Official code: 128.
    #[arg(long, value_name = "N", help_heading = "Solver settings")]
    block: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Preset {
    Best,
    Fast,
    Paper,
}

impl SolverArgs {
    /// The solver's settings: the preset for the family, with what was set on top.
    ///
    /// # Errors
    /// When a value is out of its range.
    pub(crate) fn config(&self, family: Option<Family>) -> Result<SolverConfig> {
        let preset = match (self.preset, self.method) {
            (Some(Preset::Best), _) => SolverConfig::best(family),
            (Some(Preset::Fast), _) => SolverConfig::fast(family),
            (Some(Preset::Paper), _) => SolverConfig::paper(family),
            (None, Some(method)) if method != Method::L0 => SolverConfig::improved(method, family),
            (None, _) => SolverConfig::best(family),
        };
        let l0 = preset.l0;
        let fista = preset.fista;
        let config = SolverConfig {
            method: self.method.unwrap_or(preset.method),
            warm_start: self.warm_start.unwrap_or(preset.warm_start),
            fista: FistaConfig {
                lambda: self.lambda.unwrap_or(fista.lambda),
                lambda_max: self.lambda_max.unwrap_or(fista.lambda_max),
                search: self.lambda_search.unwrap_or(fista.search),
                iterations: self.iterations.unwrap_or(fista.iterations),
                tolerance: self.tolerance.unwrap_or(fista.tolerance),
                patience: self.patience.unwrap_or(fista.patience),
                xi: self.xi.unwrap_or(fista.xi),
                epsilon: self.epsilon.unwrap_or(fista.epsilon),
                max_rounds: self.max_rounds.or(fista.max_rounds),
                scaling: self.scaling.unwrap_or(fista.scaling),
                lambda_unit: self.lambda_unit.unwrap_or(fista.lambda_unit),
                restart: self.restart.unwrap_or(fista.restart),
            },
            sparsegpt: SparseGptConfig {
                block: self.block.unwrap_or(preset.sparsegpt.block),
                damping: self.damping.unwrap_or(preset.sparsegpt.damping),
            },
            l0: L0Config {
                steps: self.l0_steps.unwrap_or(l0.steps),
                rho: self.rho.unwrap_or(l0.rho),
                growth: self.rho_growth.unwrap_or(l0.growth),
                refresh: self.l0_refresh.unwrap_or(l0.refresh),
            },
            threshold: self.threshold.or(preset.threshold),
            ridge: self.ridge.unwrap_or(preset.ridge),
            polish: self.polish.unwrap_or(preset.polish),
        };
        config.validate()?;
        Ok(config)
    }
}
