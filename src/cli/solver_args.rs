//! The settings of the solver on the command line, for `prune` and `solve`.

use super::help::{self, EXPERT, METHOD, by_preset, named, number, of_fista};
use crate::config::{
    AdmmConfig, ComparisonGroup, FistaConfig, LambdaSearch, LambdaUnit, Method, Pattern, Ridge, Scaling,
    SolverConfig, SparseGptConfig, WarmStart,
};
use crate::error::Result;
use clap::{Args, ValueEnum};
use fista_pruner_models::Family;

/// Settings of the solver, shared by `prune` and `solve`.
#[derive(Debug, Clone, Args)]
pub(crate) struct SolverArgs {
    /// Which part of the weights becomes zero: a fraction (0.5), a percentage (50%), or a pattern n:m. In an n:m pattern, n of
    /// each m neighbouring weights of a row are KEPT. SparseGPT and llm-compressor write how many are pruned. So 2:4 and 4:8 mean
    /// the same there, but 1:4 and 3:4 mean the opposite.
    #[arg(long, default_value = "0.5", value_name = "PATTERN", value_parser = str::parse::<Pattern>, help_heading = METHOD)]
    pub(crate) sparsity: Pattern,
    /// A set of settings. Single settings override it. `best`: best quality. `fast`: a little more error, in about a third of the time.
    /// `paper`: FISTAPruner as published (arXiv 2408.03728, Sec. 4.1), or another --method as published. Default: `best`. With a
    /// --method other than admm and without --preset, the method gets the refit of `best`, and fista works in scaled columns.
    #[arg(long, value_enum, help_heading = METHOD)]
    preset: Option<Preset>,
    #[arg(long, help_heading = METHOD, help = by_preset(
        "How the weights of a linear layer are chosen. `admm`: ADMM (operator splitting, as in ALPS). `fista`: the algorithm of \
         FISTAPruner. `sparsegpt`, `wanda`, `magnitude`: these choose the zeros, and then the remaining weights are refitted, so \
         the result is better than in their papers. For the published form add `--preset paper --propagate sequential`. In \
         `compare` the same three names, and `fista`, mean the published form.", |c| named(c.method)))]
    method: Option<Method>,
    #[arg(long, help_heading = EXPERT, help = help::warm_start("Where fista starts: the result of another method."))]
    warm_start: Option<WarmStart>,
    #[arg(long, value_name = "K", help_heading = EXPERT, help = of_fista("K: FISTA iterations per round.", |f| f.iterations))]
    iterations: Option<usize>,
    #[arg(long, value_name = "T", help_heading = EXPERT,
        help = of_fista("T: fista stops after this many rounds without improvement.", |f| f.patience))]
    patience: Option<usize>,
    #[arg(long, value_name = "X", help_heading = EXPERT,
        help = of_fista("ξ: λ rises if the rounding error is more than this fraction of the total error.", |f| number(f.xi)))]
    xi: Option<f64>,
    #[arg(long, value_name = "E", help_heading = EXPERT,
        help = of_fista("ε: fista stops if a round improves the error by less than this fraction.", |f| number(f.epsilon)))]
    epsilon: Option<f64>,
    #[arg(long, value_name = "N", help_heading = EXPERT,
        help = of_fista("Maximum number of rounds of fista.", |f| f.max_rounds.map_or("no limit".into(), |n| n.to_string())))]
    max_rounds: Option<usize>,
    #[arg(long, value_name = "L", help_heading = EXPERT,
        help = of_fista("λ₀: first weight of the ℓ1 term, in --lambda-unit.", |f| number(f.lambda)))]
    lambda: Option<f64>,
    #[arg(long, value_name = "M", help_heading = EXPERT,
        help = of_fista("M: upper end of the search for λ, in --lambda-unit.", |f| number(f.lambda_max)))]
    lambda_max: Option<f64>,
    #[arg(long, help_heading = EXPERT, help = of_fista(
        "How λ is searched. `expand`: ten times larger until an upper end is known, then midpoints. `bisect`: midpoints of \
         [0, M] from the start, as the paper prints it. `bracket`: geometric midpoints below the λ that makes every weight zero.",
        |f| named(f.search)))]
    lambda_search: Option<LambdaSearch>,
    #[arg(long, help_heading = EXPERT, help = of_fista(
        "The unit of λ: `absolute`, or `relative` to the smallest λ that makes every weight zero.", |f| named(f.lambda_unit)))]
    lambda_unit: Option<LambdaUnit>,
    #[arg(long, help_heading = EXPERT, help = of_fista(
        "The columns that fista works in: those of the linear layer (`none`), or scaled to unit norm (`columns`).",
        |f| named(f.scaling)))]
    scaling: Option<Scaling>,
    #[arg(long, value_name = "BOOL", help_heading = EXPERT,
        help = of_fista("Whether fista's momentum is reset when it points uphill.", |f| f.restart))]
    restart: Option<bool>,
    /// Only for unstructured sparsity: the group of weights that are compared with each other. `layer`: all weights of the matrix.
    /// `output`: the weights of one row, so that each output gets the same number of zeros. Default: output for wanda, layer for
    /// the others. sparsegpt always compares within blocks of columns.
    #[arg(long, alias = "threshold", help_heading = EXPERT)]
    comparison_group: Option<ComparisonGroup>,
    #[arg(long, value_name = "T", help_heading = EXPERT,
        help = of_fista("FISTA stops if the norm of a step is below this.", |f| number(f.tolerance)))]
    tolerance: Option<f64>,
    #[arg(long, alias = "polish", value_name = "N", help_heading = EXPERT, help = by_preset(
        "Steps of the refit: after any method, the kept weights are fitted again by conjugate gradients; the mask stays. 0 switches \
         it off.", |c| c.polish))]
    refit_steps: Option<usize>,
    #[arg(long, alias = "l0-steps", value_name = "N", help_heading = EXPERT, help = by_preset("Steps of ADMM.", |c| c.l0.steps))]
    admm_steps: Option<usize>,
    #[arg(long, value_name = "R", help_heading = EXPERT, help = by_preset(
        "First ρ of ADMM, for a Gram matrix (called Hessian in SparseGPT and GPTQ) that is scaled to a diagonal of ones.",
        |c| number(c.l0.rho)))]
    rho: Option<f64>,
    #[arg(long, value_name = "F", help_heading = EXPERT,
        help = by_preset("ρ is multiplied by this factor in each step of ADMM.", |c| number(c.l0.growth)))]
    rho_growth: Option<f64>,
    #[arg(long, alias = "l0-refresh", value_name = "N", help_heading = EXPERT,
        help = by_preset("ADMM computes its inverse matrix again after this many steps.", |c| c.l0.refresh))]
    admm_refresh: Option<usize>,
    #[arg(long, value_name = "R", help_heading = EXPERT, help = by_preset(
        "L2 regularisation of ADMM and of the refit: it holds the weights near their dense values and so prevents overfitting to \
         the calibration text. A number relative to the diagonal of the Gram matrix, or `auto`: less text, stronger.", |c| c.ridge))]
    ridge: Option<Ridge>,
    #[arg(long, alias = "percdamp", value_name = "D", help_heading = EXPERT, help = by_preset(
        "SparseGPT's damping, relative to the mean of the Gram matrix's diagonal.", |c| number(c.sparsegpt.damping)))]
    damping: Option<f64>,
    #[arg(long, alias = "block", value_name = "N", help_heading = EXPERT, help = by_preset(
        "SparseGPT prunes this many columns before it updates the rest.", |c| c.sparsegpt.block))]
    block_size: Option<usize>,
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
            (None, Some(method)) if method != Method::Admm => SolverConfig::with_refit(method, family),
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
                block: self.block_size.unwrap_or(preset.sparsegpt.block),
                damping: self.damping.unwrap_or(preset.sparsegpt.damping),
            },
            l0: AdmmConfig {
                steps: self.admm_steps.unwrap_or(l0.steps),
                rho: self.rho.unwrap_or(l0.rho),
                growth: self.rho_growth.unwrap_or(l0.growth),
                refresh: self.admm_refresh.unwrap_or(l0.refresh),
            },
            threshold: self.comparison_group.or(preset.threshold),
            ridge: self.ridge.unwrap_or(preset.ridge),
            polish: self.refit_steps.unwrap_or(preset.polish),
            columns: None,
        };
        config.validate()?;
        Ok(config)
    }
}
