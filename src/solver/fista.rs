//! FISTA (Beck & Teboulle 2009) on an operator's error, and FISTAPruner's Algorithm 1 around it (arXiv 2408.03728).
//!
//! Legend: see [`super`]; `L = λ_max(G)`, `λ` weighs the ℓ1 term, `t` is FISTA's momentum sequence.

use super::warm_start::warm_start;
use super::{LayerProblem, Round, Solution, SolveInfo, StopReason, download, largest, scaled};
use crate::config::{
    ComparisonGroup, FistaConfig, LambdaSearch, LambdaUnit, Pattern, Scaling, SolverConfig, WarmStart,
};
use crate::error::{Error, Result, SolverError};
use burn::tensor::{Tensor, TensorData};
use fista_pruner_backends::{AcceleratedState, AcceleratedStep, SolverOps};

/// Where FISTA ended.
#[derive(Debug, Clone)]
pub struct Minimum<B: SolverOps> {
    /// `V [m, n]`.
    pub point: Tensor<B, 2>,
    /// Iterations taken.
    pub iterations: usize,
    /// `‖x_k − x_{k−1}‖_F` of the last one.
    pub last_step: f64,
}

/// How FISTA runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Run {
    /// λ, the weight of the ℓ1 term.
    pub lambda: f64,
    /// L, at least the largest eigenvalue of `G`.
    pub lipschitz: f64,
    /// Most iterations.
    pub iterations: usize,
    /// Stops when a step's Frobenius norm falls below this.
    pub tolerance: f64,
    /// Whether the momentum starts anew when it points uphill (O'Donoghue & Candès, arXiv 1204.3982, Sec. 3.2, the gradient
    /// scheme).
    pub restart: bool,
}

/// Minimises `1/2 ‖V X* − W X‖²_F / p + λ ‖V‖₁` from `start` (Eq. 3), for all rows at once.
///
/// Textbook FISTA: the momentum runs on successive prox points, as the paper's App. B cites it; its Eq. 4d prints another
/// difference. The gradient is that of App. B, `y X* X*ᵀ − W X X*ᵀ`, where Eq. 4a prints `X X*ᵀ` for the first term.
///
/// # Errors
/// When the iterates stop being finite.
pub fn minimise<B: SolverOps>(
    problem: &LayerProblem<B>,
    start: Tensor<B, 2>,
    run: Run,
) -> Result<Minimum<B>> {
    let step = (1.0 / run.lipschitz) as f32;
    let threshold = (run.lambda / run.lipschitz) as f32;
    let mut state = AcceleratedState {
        difference: B::difference(start.clone(), problem.weight.clone()),
        prox: start.clone(),
        point: start,
    };
    let mut t = 1.0f64;
    let mut last_step = f64::INFINITY;
    let mut taken = 0;
    while taken < run.iterations && last_step >= run.tolerance {
        let image = B::matmul_f32(state.difference.clone(), problem.gram.clone());
        let t_next = (1.0 + (1.0 + 4.0 * t * t).sqrt()) / 2.0;
        let step = AcceleratedStep {
            step,
            threshold,
            momentum: ((t - 1.0) / t_next) as f32,
            restart: run.restart && t > 1.0,
        };
        let (weight, drift) = (problem.weight.clone(), problem.drift.clone());
        let progress;
        (state, progress) = B::accelerated_step(state, image, weight, drift, step);
        last_step = progress.squared_move.sqrt();
        if !last_step.is_finite() {
            return Err(Error::from(SolverError::NotFinite {
                what: "the FISTA iterate",
                operator: problem.name.clone(),
            }));
        }
        // A momentum that was wrong: go on from the prox point as from a new start.
        t = if progress.restarted { 1.0 } else { t_next };
        taken += 1;
    }
    Ok(Minimum {
        point: state.prox,
        iterations: taken,
        last_step,
    })
}

/// `λ_max(G)` by power iteration, as an upper bound: the Rayleigh quotient plus the norm of its residual.
///
/// # Errors
/// When `G` is not finite, or the device fails.
pub fn lipschitz<B: SolverOps>(problem: &LayerProblem<B>) -> Result<f64> {
    /// The gap between the two largest eigenvalues of a Gram matrix of activations is wide; a few dozen steps suffice.
    const STEPS: usize = 200;
    /// Relative residual at which the bound is as good as the value.
    const CLOSE: f64 = 1e-4;
    let n = problem.shape().1;
    // A start that is no eigenvector by accident, the same on every device.
    let start: Vec<f32> = (0..n).map(|j| 1.0 + ((j * 7919) % 101) as f32 / 101.0).collect();
    let mut v = Tensor::<B, 2>::from_data(TensorData::new(start, [1, n]), &problem.gram.device());
    let mut bound = 0.0;
    for _ in 0..STEPS {
        let norm = B::inner(v.clone(), v.clone()).sqrt();
        if norm == 0.0 {
            return Ok(0.0);
        }
        v = v.mul_scalar(1.0 / norm);
        let image = B::matmul_f32(v.clone(), problem.gram.clone());
        let quotient = B::inner(v.clone(), image.clone());
        let residual = B::squared_distance(image.clone(), v.clone().mul_scalar(quotient)).sqrt();
        bound = quotient + residual;
        if !bound.is_finite() {
            return Err(Error::from(SolverError::NotFinite {
                what: "the Gram matrix",
                operator: problem.name.clone(),
            }));
        }
        if residual <= CLOSE * quotient {
            break;
        }
        v = image;
    }
    Ok(bound)
}

/// λ between its two ends.
struct Bracket {
    lambda: f64,
    lower: f64,
    /// Not known until a round asked for less, unless the rule knows it.
    upper: Option<f64>,
    search: LambdaSearch,
    max: f64,
}

impl Bracket {
    /// `zeroing` is the smallest λ whose minimiser is zero; settings in absolute units that do not bracket leave it aside.
    fn new(config: &FistaConfig, zeroing: f64) -> Self {
        let unit = match config.lambda_unit {
            LambdaUnit::Absolute => 1.0,
            LambdaUnit::Relative => zeroing,
        };
        let (lambda, max) = (config.lambda * unit, config.lambda_max * unit);
        Self {
            lambda,
            lower: 0.0,
            upper: match config.search {
                LambdaSearch::Expand => None,
                LambdaSearch::Bisect => Some(max),
                LambdaSearch::Bracket => Some(max.min(zeroing).max(lambda)),
            },
            search: config.search,
            max,
        }
    }

    /// Rounding costs too much: a larger λ makes the minimiser itself sparser.
    fn raise(&mut self) {
        self.lower = self.lambda;
        self.lambda = match (self.upper, self.search) {
            (None, _) => (self.lambda.max(f64::MIN_POSITIVE) * 10.0).min(self.max),
            (Some(upper), _) => self.middle(upper),
        };
    }

    fn lower(&mut self) {
        self.upper = Some(self.lambda);
        self.lambda = self.middle(self.lambda);
    }

    fn middle(&self, upper: f64) -> f64 {
        match self.search {
            LambdaSearch::Expand | LambdaSearch::Bisect => f64::midpoint(self.lower, upper),
            LambdaSearch::Bracket if self.lower > 0.0 => (self.lower * upper).sqrt(),
            LambdaSearch::Bracket => upper / 10.0,
        }
    }
}

/// The rounding operator `H` (Sec. 3.3): zeroes the smallest `|V|` until the pattern is met.
fn round<B: SolverOps>(
    problem: &LayerProblem<B>,
    v: Tensor<B, 2>,
    (pattern, threshold): (Pattern, ComparisonGroup),
) -> Result<Solution> {
    let values = download(v)?;
    let (m, n) = problem.shape();
    let keep = pattern.keep_within(threshold, &values, m, n);
    Ok(Solution::masked(values, keep, SolveInfo::direct()))
}

/// FISTAPruner's Algorithm 1: FISTA, rounding, and a search for λ, from a warm start; in the operator's own columns or in
/// scaled ones.
///
/// The result's error is never above the warm start's (unless that is the dense weight, which has no zeros).
///
/// # Errors
/// As [`super::solve`].
pub fn prune<B: SolverOps>(
    problem: &LayerProblem<B>,
    pattern: Pattern,
    config: &SolverConfig,
) -> Result<Solution> {
    let mut best = match config.fista.scaling {
        Scaling::None => {
            let start = warm_start(problem, pattern, config)?;
            algorithm_1(problem, start, pattern, config)?
        }
        Scaling::Columns => {
            let scaled = scaled::scale(problem)?;
            let mut start = warm_start(problem, pattern, config)?;
            scaled.scale(&mut start.values);
            let mut best = algorithm_1(&scaled.problem, start, pattern, config)?;
            scaled.unscale(&mut best.values);
            best
        }
    };
    keep_what_is_kept(&mut best, &download(problem.weight.clone())?);
    Ok(best)
}

/// The smallest λ whose minimiser is zero: the largest entry of the gradient there, `|W G − P|`.
fn zeroing_lambda<B: SolverOps>(problem: &LayerProblem<B>) -> Result<f64> {
    largest(problem.gradient(problem.weight.zeros_like()))
}

fn algorithm_1<B: SolverOps>(
    problem: &LayerProblem<B>,
    start: Solution,
    pattern: Pattern,
    config: &SolverConfig,
) -> Result<Solution> {
    let scope = (pattern, config.threshold_or(ComparisonGroup::Matrix));
    let fista = &config.fista;
    let lipschitz = lipschitz(problem)?;
    let mut point = problem.upload(start.values.clone());
    let start_error = problem.squared_error(point.clone());
    // A dense start is no candidate: whatever is rounded first replaces it.
    let dense = config.warm_start == WarmStart::Dense;
    let mut best_error = if dense { f64::INFINITY } else { start_error.sqrt() };
    let mut info = SolveInfo {
        stop_reason: StopReason::Exact,
        warm_start_error: (!dense).then(|| problem.relative(start_error)),
        ..start.info.clone()
    };
    let mut best = start;
    if lipschitz <= 0.0 {
        // No input ever was anything but zero: every weight is as good as another.
        let rounded = round(problem, point, scope)?;
        return Ok(Solution { info, ..rounded });
    }
    // A tolerance means the same in every unit only if it is measured against the weight.
    let tolerance = match fista.lambda_unit {
        LambdaUnit::Absolute => fista.tolerance,
        LambdaUnit::Relative => {
            fista.tolerance * B::inner(problem.weight.clone(), problem.weight.clone()).sqrt()
        }
    };
    let absolute = fista.lambda_unit == LambdaUnit::Absolute && fista.search != LambdaSearch::Bracket;
    let zeroing = match absolute {
        true => f64::INFINITY,
        false => zeroing_lambda(problem)?,
    };
    let mut bracket = Bracket::new(fista, zeroing);
    let mut fails = 0;
    while best_error > 0.0 {
        if fista.max_rounds.is_some_and(|most| info.rounds.len() >= most) {
            info.stop_reason = StopReason::Iterations;
            break;
        }
        let run = Run {
            lambda: bracket.lambda,
            lipschitz,
            iterations: fista.iterations,
            tolerance,
            restart: fista.restart,
        };
        let minimum = minimise(problem, point.clone(), run)?;
        let continuous = problem.squared_error(minimum.point.clone()).sqrt();
        let rounded = round(problem, minimum.point, scope)?;
        let candidate = problem.upload(rounded.values.clone());
        let total = problem.squared_error(candidate.clone()).sqrt();
        let accepted = total < best_error;
        info.iterations += minimum.iterations;
        info.rounds.push(Round {
            lambda: bracket.lambda,
            iterations: minimum.iterations,
            continuous_error: problem.relative(continuous * continuous),
            rounded_error: problem.relative(total * total),
            accepted,
        });
        if accepted {
            let gain = (best_error - total) / best_error;
            (best, point, best_error, fails) = (rounded, candidate, total, 0);
            if gain < fista.epsilon {
                info.stop_reason = StopReason::SmallGain;
                break;
            }
        } else {
            fails += 1;
            if fails >= fista.patience {
                info.stop_reason = StopReason::Patience;
                break;
            }
        }
        if total - continuous > fista.xi * total {
            bracket.raise();
        } else {
            bracket.lower();
        }
    }
    Ok(Solution { info, ..best })
}

/// The soft threshold can leave a weight at zero that the pattern keeps. It stays a kept weight, of the smallest size there
/// is, so that the number of zeros is the one asked for.
fn keep_what_is_kept(solution: &mut Solution, dense: &[f32]) {
    for ((value, keep), dense) in solution.values.iter_mut().zip(&solution.keep).zip(dense) {
        if *keep && *value == 0.0 && *dense != 0.0 {
            *value = f32::MIN_POSITIVE.copysign(*dense);
        }
    }
}
