//! Who gets which share of the zeros. A run has one global budget, the zeros that a uniform rate would give; an allocation
//! moves it between layers or operators, or a table file says it all.
//!
//! In: an opened checkpoint and calibration windows, or a file. Out: a pattern for every operator, for
//! [`PruneConfig::patterns`].

use super::divergences::{Divided, PARTS, by_part, by_patterns, part_of};
use super::{Source, selected, survey};
use crate::config::{Pattern, PruneConfig, SolverConfig};
use crate::error::{ConfigError, Error, Result};
use crate::progress::Observer;
use crate::report::TriedAllocation;
use crate::solver;
use fista_pruner_backends::SolverOps;
use fista_pruner_models::LayerOperator;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// How zeros are spread over a model at a fixed global budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Allocation {
    /// The same rate for every operator.
    Uniform,
    /// Layers with more outliers keep more weights (OWL, Yin et al., arXiv 2310.05175).
    Owl,
    /// Zeros go where the measured errors say they cost least.
    Error,
    /// Zeros go where they move the model least from the dense one: by divergences that single layers' attention and MLP cause, and only as far as held-out
    /// windows agree.
    Kl,
}

impl Allocation {
    /// Every allocation, with the name the command line uses.
    pub const ALL: [(&'static str, Self); 4] = [
        ("uniform", Self::Uniform),
        ("owl", Self::Owl),
        ("error", Self::Error),
        ("kl", Self::Kl),
    ];

    /// Refuses a pattern whose zeros cannot be moved between operators.
    ///
    /// # Errors
    /// When the pattern is n:m, whose rate is fixed, and the allocation is not uniform.
    pub fn check(self, pattern: Pattern) -> Result<()> {
        match (self, pattern) {
            (Self::Owl | Self::Error | Self::Kl, Pattern::NOfM { .. }) => {
                Err(Error::from(ConfigError::Setting {
                    setting: "‹allocation›",
                    reason: format!(
                        "{pattern} fixes every operator's rate; write the patterns into a table file"
                    ),
                }))
            }
            _ => Ok(()),
        }
    }
}

/// Where every operator's rate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rates {
    /// From a rule.
    By(Allocation),
    /// From a file, which [`read_table`] reads.
    Table(PathBuf),
}

impl Rates {
    /// The rule of that name, or the file.
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse(text: &str) -> Result<Self> {
        if let Some((_, allocation)) = Allocation::ALL.iter().find(|(name, _)| *name == text) {
            return Ok(Self::By(*allocation));
        }
        if !Path::new(text).exists() {
            return Err(Error::from(ConfigError::Setting {
                setting: "‹allocation›",
                reason: format!("`{text}` is neither uniform, owl, error, kl nor a file"),
            }));
        }
        Ok(Self::Table(text.into()))
    }

    /// Whether inputs of the operators decide about the rates.
    pub fn needs_text(&self) -> bool {
        self.allocation() != Allocation::Uniform
    }

    /// The rule; a table leaves nothing to be found out.
    pub(crate) fn allocation(&self) -> Allocation {
        match self {
            Self::By(allocation) => *allocation,
            Self::Table(_) => Allocation::Uniform,
        }
    }
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::By(rule) => {
                let name = Allocation::ALL.iter().find(|(_, allocation)| allocation == rule);
                f.write_str(name.map_or("", |(name, _)| name))
            }
            Self::Table(path) => path.display().fmt(f),
        }
    }
}

/// OWL's M: an entry of `|W|·‖X‖` is an outlier above that multiple of its layer's mean. Official code: 5.
const OWL_MULTIPLE: f64 = 5.0;
/// OWL's λ: the rate of a layer differs from the global one by at most that. Official code: 0.08.
const OWL_RANGE: f64 = 0.08;
/// Where errors are measured, from the global rate; no operator's rate leaves that range.
const ERROR_STEPS: [f64; 5] = [-0.2, -0.1, 0.0, 0.1, 0.2];
/// The same for divergences.
const KL_STEPS: [f64; 3] = [-0.15, 0.0, 0.15];
/// Between two of these, the divergence's logarithm is taken to be straight; so many points are read from it.
const KL_POINTS: usize = 10;
/// How far from the uniform rates towards those by divergence: candidates.
const KL_SHARES: [f64; 3] = [0.0, 0.5, 1.0];
/// No operator loses more.
const MOST: f64 = 0.99;

/// What came of an allocation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Allocated {
    /// For [`PruneConfig::patterns`].
    pub patterns: BTreeMap<String, Pattern>,
    /// What was compared, where several were.
    pub tried: Vec<TriedAllocation>,
}

/// One operator's share in the decision.
struct Share {
    name: String,
    layer: usize,
    weights: usize,
    scores: Scores,
    /// `(rate, relative squared error)`, rates rising.
    errors: Vec<(f64, f64)>,
}

/// Finds a pattern for every selected operator, with the zeros of a uniform rate over all of them together.
///
/// One pass over the dense model. What `config` says of propagation does not matter here.
///
/// # Errors
/// When the pattern is n:m, whose rate is fixed; as [`crate::prune::prune`] otherwise.
pub fn allocate<B: SolverOps>(
    source: Source<'_>,
    config: &PruneConfig,
    allocation: Allocation,
    device: &B::Device,
    observer: &mut dyn Observer,
) -> Result<Allocated> {
    allocation.check(config.pattern)?;
    let Pattern::Unstructured(rate) = config.pattern else {
        return Ok(Allocated::default());
    };
    match allocation {
        Allocation::Uniform => return Ok(Allocated::default()),
        Allocation::Kl => return by_divergence::<B>(source, config, rate, device, observer),
        Allocation::Owl | Allocation::Error => {}
    }
    let shares = measure::<B>(source, config, (allocation, rate), device, observer)?;
    let budget = budget(source, config);
    let rates = match allocation {
        Allocation::Error => by_error(&shares, budget),
        _ => by_outliers(&shares, rate),
    };
    let operators: Vec<(String, usize)> = (shares.into_iter())
        .map(|share| (share.name, share.weights))
        .collect();
    Ok(Allocated {
        patterns: patterns(&operators, &rates, budget),
        tried: Vec::new(),
    })
}

/// The zeros of a uniform rate.
fn budget(source: Source<'_>, config: &PruneConfig) -> usize {
    let zeros = selected(source.decoder, config).into_iter().map(|operator| {
        let [outputs, inputs] = operator.shape();
        config.pattern.zeros(outputs, inputs)
    });
    zeros.sum()
}

/// Patterns for operators of that many weights, with the budget's zeros.
fn patterns(operators: &[(String, usize)], rates: &[f64], budget: usize) -> BTreeMap<String, Pattern> {
    let counts: Vec<usize> = operators.iter().map(|(_, weights)| *weights).collect();
    let zeros = exact(rates, &counts, budget);
    let of = |((name, weights), zeros): (&(String, usize), usize)| {
        let rate = zeros as f64 / (*weights).max(1) as f64;
        (name.clone(), Pattern::Unstructured(rate))
    };
    operators.iter().zip(zeros).map(of).collect()
}

/// Rates of attention and MLP of every layer by the divergences that they cause, as far from uniform ones as held-out windows like best: no patterns for uniform.
fn by_divergence<B: SolverOps>(
    source: Source<'_>,
    config: &PruneConfig,
    rate: f64,
    device: &B::Device,
    observer: &mut dyn Observer,
) -> Result<Allocated> {
    let chosen = selected(source.decoder, config);
    let mut rates: Vec<f64> = KL_STEPS.map(|step| (rate + step).clamp(0.0, MOST)).to_vec();
    rates.dedup();
    let quick = PruneConfig {
        solver: SolverConfig::fast(Some(source.decoder.config().family())),
        ..config.clone()
    };
    let windows = Divided::of(source);
    let divergences = by_part::<B>(windows, &quick, &rates, device, observer)?;
    let part = |operator: &LayerOperator| operator.layer * PARTS + part_of::<B>(operator.group);
    let shares: Vec<Share> = (divergences.iter().enumerate())
        .map(|(i, divergences)| Share {
            name: String::new(),
            // The part's number: what has one rate.
            layer: i,
            weights: (chosen.iter())
                .filter(|operator| part(operator) == i)
                .map(|operator| operator.shape().iter().product::<usize>())
                .sum(),
            scores: Scores::default(),
            errors: between(&rates, divergences),
        })
        .filter(|share| share.weights > 0)
        .collect();
    let budget = budget(source, config);
    let found: BTreeMap<usize, f64> = (shares.iter().map(|share| share.layer))
        .zip(by_error(&shares, budget))
        .collect();
    let operators: Vec<(String, usize)> = (chosen.iter())
        .map(|operator| (operator.name.clone(), operator.shape().iter().product()))
        .collect();
    let candidates = KL_SHARES.map(|share| {
        let rates: Vec<f64> = (chosen.iter())
            .map(|operator| rate + share * (found[&part(operator)] - rate))
            .collect();
        match share > 0.0 {
            true => patterns(&operators, &rates, budget),
            false => BTreeMap::new(),
        }
    });
    let judged = by_patterns::<B>(windows, &quick, &candidates, device, observer)?;
    let tried: Vec<TriedAllocation> = (KL_SHARES.into_iter().zip(judged))
        .map(|(share, divergence)| TriedAllocation { share, divergence })
        .collect();
    let best = (tried.iter().zip(candidates)).min_by(|(a, _), (b, _)| a.divergence.total_cmp(&b.divergence));
    Ok(Allocated {
        patterns: best.map(|(_, patterns)| patterns).unwrap_or_default(),
        tried,
    })
}

/// A curve through these points: the logarithm of a divergence is nearly straight.
fn between(rates: &[f64], divergences: &[f64]) -> Vec<(f64, f64)> {
    let points: Vec<(f64, f64)> = (rates.iter().copied())
        .zip(divergences.iter().map(|d| d.max(f64::MIN_POSITIVE)))
        .collect();
    let mut curve: Vec<(f64, f64)> = points.first().copied().into_iter().collect();
    for pair in points.windows(2) {
        let ((from, low), (to, high)) = (pair[0], pair[1]);
        curve.extend((1..=KL_POINTS).map(|i| {
            let t = i as f64 / KL_POINTS as f64;
            (from + t * (to - from), low.powf(1.0 - t) * high.powf(t))
        }));
    }
    curve
}

/// Reads a table: a JSON object from operators to rates (`0.6`) or patterns (`"2:4"`). A key is an operator's full name, or
/// a regular expression that matches whole names; operators that no key matches keep the run's own pattern.
///
/// # Errors
/// When the file cannot be read or is no such object, a key matches no selected operator, two expressions match the same
/// one, or a pattern does not fit.
pub fn read_table(path: &Path, names: &[String]) -> Result<BTreeMap<String, Pattern>> {
    let refuse = |reason: String| {
        Error::from(ConfigError::Setting {
            setting: "‹allocation›",
            reason: format!("`{}`: {reason}", path.display()),
        })
    };
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    let table: BTreeMap<String, serde_json::Value> = crate::json::parse(&text)
        .map_err(|e| refuse(format!("no JSON object from operators to rates: {e}")))?;
    let mut patterns = BTreeMap::new();
    let mut by_expression: BTreeMap<&str, &str> = BTreeMap::new();
    for (key, value) in &table {
        let pattern: Pattern = match value {
            serde_json::Value::Number(rate) => Pattern::unstructured(rate.as_f64().unwrap_or(f64::NAN)),
            serde_json::Value::String(text) => text.parse(),
            other => {
                return Err(refuse(format!(
                    "`{key}`: {other} is neither a rate nor a pattern"
                )));
            }
        }
        .map_err(|e| refuse(format!("`{key}`: {e}")))?;
        if names.contains(key) {
            patterns.insert(key.clone(), pattern);
            continue;
        }
        let expression = regex::Regex::new(&format!("^(?:{key})$")).map_err(|_| {
            refuse(format!(
                "`{key}` is neither a selected operator nor a regular expression"
            ))
        })?;
        let mut matched = false;
        for name in names.iter().filter(|name| expression.is_match(name)) {
            matched = true;
            if table.contains_key(name) {
                continue;
            }
            if let Some(other) = by_expression.insert(name, key) {
                return Err(refuse(format!("`{name}` is matched by `{other}` and by `{key}`")));
            }
            patterns.insert(name.clone(), pattern);
        }
        if !matched {
            return Err(refuse(format!(
                "`{key}` matches no operator that is to be pruned"
            )));
        }
    }
    Ok(patterns)
}

/// Takes what the decision needs from every operator of the dense model.
fn measure<B: SolverOps>(
    source: Source<'_>,
    config: &PruneConfig,
    (allocation, rate): (Allocation, f64),
    device: &B::Device,
    observer: &mut dyn Observer,
) -> Result<Vec<Share>> {
    let quick = SolverConfig::fast(Some(source.decoder.config().family()));
    let mut shares = Vec::new();
    survey::<B>(source, config, device, observer, |layer, problem| {
        let (m, n) = problem.shape();
        let mut share = Share {
            name: problem.name.clone(),
            layer,
            weights: m * n,
            scores: Scores::default(),
            errors: Vec::new(),
        };
        if allocation == Allocation::Owl {
            share.scores = Scores::of(&solver::wanda::scores(problem)?);
        } else {
            for step in ERROR_STEPS {
                let rate = (rate + step).clamp(0.0, MOST);
                if share.errors.last().is_some_and(|(last, _)| *last >= rate) {
                    continue;
                }
                let solution = solver::solve(problem, Pattern::unstructured(rate)?, &quick)?;
                let error = problem.squared_error(problem.upload(solution.values));
                share.errors.push((rate, problem.relative(error)));
            }
        }
        shares.push(share);
        Ok(())
    })?;
    Ok(shares)
}

/// How an operator's scores `|W|·‖X‖` are spread.
#[derive(Default)]
struct Scores {
    /// Entries by the upper bits of their score: a bin is at most 0.8 % wide.
    bins: Vec<u32>,
    sum: f64,
}

impl Scores {
    fn bin(score: f32) -> usize {
        (score.max(0.0).to_bits() >> 16) as usize
    }

    fn of(scores: &[f32]) -> Self {
        let mut bins = vec![0u32; 1 << 15];
        for score in scores {
            bins[Self::bin(*score)] += 1;
        }
        Self {
            bins,
            sum: scores.iter().map(|s| f64::from(*s)).sum(),
        }
    }

    fn above(&self, score: f64) -> u64 {
        self.bins
            .iter()
            .skip(Self::bin(score as f32) + 1)
            .map(|n| u64::from(*n))
            .sum()
    }
}

/// OWL: each layer's share of outliers, brought to a range of 2λ, moves its rate down.
fn by_outliers(shares: &[Share], rate: f64) -> Vec<f64> {
    let mut layers: BTreeMap<usize, (f64, usize)> = BTreeMap::new();
    for share in shares {
        let (sum, weights) = layers.entry(share.layer).or_default();
        *sum += share.scores.sum;
        *weights += share.weights;
    }
    let outliers: BTreeMap<usize, f64> = layers
        .iter()
        .map(|(layer, (sum, weights))| {
            let mean = sum / *weights as f64;
            let count: u64 = shares
                .iter()
                .filter(|share| share.layer == *layer)
                .map(|share| share.scores.above(OWL_MULTIPLE * mean))
                .sum();
            (*layer, count as f64 / *weights as f64)
        })
        .collect();
    let (least, most) = outliers
        .values()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| {
            (a.min(*v), b.max(*v))
        });
    let scaled = |layer: usize| match most > least {
        true => (outliers[&layer] - least) / (most - least) * 2.0 * OWL_RANGE,
        false => 0.0,
    };
    let total: usize = layers.values().map(|(_, weights)| weights).sum();
    let mean: f64 = layers
        .iter()
        .map(|(layer, (_, weights))| scaled(*layer) * *weights as f64 / total as f64)
        .sum();
    shares
        .iter()
        .map(|share| (rate - scaled(share.layer) + mean).clamp(0.0, MOST))
        .collect()
}

/// Gives zeros, a small portion at a time, to the operator whose error they raise least.
fn by_error(shares: &[Share], budget: usize) -> Vec<f64> {
    /// Portions between two measured rates.
    const PORTIONS: usize = 20;
    let curves: Vec<Vec<(f64, f64)>> = shares.iter().map(|share| convex(&share.errors)).collect();
    let mut rates: Vec<f64> = curves.iter().map(|curve| curve[0].0).collect();
    let zeros = |rates: &[f64]| -> f64 {
        rates
            .iter()
            .zip(shares)
            .map(|(rate, share)| rate * share.weights as f64)
            .sum()
    };
    // Every portion of every curve, cheapest first: curves are convex, so that is the greedy order.
    let mut portions: Vec<(f64, usize, f64)> = Vec::new();
    for (i, (curve, share)) in curves.iter().zip(shares).enumerate() {
        for pair in curve.windows(2) {
            let width = pair[1].0 - pair[0].0;
            let cost = (pair[1].1 - pair[0].1) / (width * share.weights as f64);
            portions.extend((0..PORTIONS).map(|_| (cost, i, width / PORTIONS as f64)));
        }
    }
    portions.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut left = budget as f64 - zeros(&rates);
    for (_, i, width) in portions {
        let weights = shares[i].weights as f64;
        let width = width.min(left / weights);
        if width <= 0.0 {
            break;
        }
        rates[i] += width;
        left -= width * weights;
    }
    rates
}

/// The lower convex hull of a curve of rising abscissas.
fn convex(curve: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut hull: Vec<(f64, f64)> = Vec::with_capacity(curve.len());
    for point in curve {
        while let [.., a, b] = hull[..] {
            let slope = |p: (f64, f64), q: (f64, f64)| (q.1 - p.1) / (q.0 - p.0);
            if slope(a, b) < slope(b, *point) {
                break;
            }
            hull.pop();
        }
        hull.push(*point);
    }
    hull
}

/// Whole zeros for fractional rates, exactly `budget` of them. Every operator keeps a weight: [`Pattern::zeros`], whose sum the budget
/// is, leaves each one too.
fn exact(rates: &[f64], weights: &[usize], budget: usize) -> Vec<usize> {
    let wanted = rates
        .iter()
        .zip(weights)
        .map(|(rate, weights)| rate * *weights as f64);
    let most: Vec<usize> = weights.iter().map(|weights| weights.saturating_sub(1)).collect();
    let wanted = wanted.map(|zeros| zeros.max(0.0).floor() as usize);
    let mut zeros: Vec<usize> = wanted.zip(&most).map(|(zeros, most)| zeros.min(*most)).collect();
    let mut total: usize = zeros.iter().sum();
    // Rounding and clamping leave a little; it goes round from the first operator on.
    while total != budget {
        let short = budget.abs_diff(total);
        let each = (short / zeros.len().max(1)).max(1);
        let before = total;
        for (zeros, most) in zeros.iter_mut().zip(&most) {
            let change = each.min(budget.abs_diff(total));
            if total < budget {
                let change = change.min(most - *zeros);
                *zeros += change;
                total += change;
            } else {
                let change = change.min(*zeros);
                *zeros -= change;
                total -= change;
            }
        }
        if total == before {
            break;
        }
    }
    zeros
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn share(layer: usize, weights: usize, errors: &[(f64, f64)]) -> Share {
        Share {
            name: format!("layers.{layer}"),
            layer,
            weights,
            scores: Scores::default(),
            errors: errors.to_vec(),
        }
    }

    #[test]
    fn zeros_go_where_they_cost_least() {
        let steep = [(0.3, 0.1), (0.5, 0.5), (0.7, 2.0)];
        let flat = [(0.3, 0.01), (0.5, 0.02), (0.7, 0.04)];
        let shares = [share(0, 1000, &steep), share(1, 1000, &flat)];
        let rates = by_error(&shares, 1000);
        assert!(
            (rates[0] - 0.3).abs() < 1e-9 && (rates[1] - 0.7).abs() < 1e-9,
            "{rates:?}"
        );
        // Per zero, an operator twice as large costs half as much for the same error.
        let shares = [share(0, 1000, &steep), share(1, 4000, &steep)];
        let rates = by_error(&shares, 2500);
        assert!(rates[1] > rates[0], "{rates:?}");
    }

    #[test]
    fn between_two_rates_a_divergence_grows_by_a_factor() {
        let curve = between(&[0.5, 0.6, 0.7], &[0.1, 0.4, 6.4]);
        assert_eq!(curve.len(), 2 * KL_POINTS + 1);
        let at = |i: usize| curve[i];
        assert!((at(KL_POINTS / 2).0 - 0.55).abs() < 1e-12 && (at(KL_POINTS / 2).1 - 0.2).abs() < 1e-12);
        assert!((at(KL_POINTS).1 - 0.4).abs() < 1e-12);
        assert!((at(3 * KL_POINTS / 2).1 - 1.6).abs() < 1e-12);
        // A layer that no rate changes, and rates at the border, give no more than there is.
        assert!(between(&[0.5], &[0.0])[0].1 > 0.0);
    }

    #[test]
    fn a_dent_in_a_curve_is_bridged() {
        assert_eq!(
            convex(&[(0.0, 0.0), (1.0, 3.0), (2.0, 4.0)]),
            [(0.0, 0.0), (2.0, 4.0)]
        );
        assert_eq!(convex(&[(0.0, 0.0), (1.0, 1.0), (2.0, 4.0)]).len(), 3);
    }

    #[test]
    fn layers_with_outliers_keep_more() {
        let mut shares = [share(0, 1000, &[]), share(1, 1000, &[])];
        let even = vec![1.0f32; 1000];
        let mut spiky = even.clone();
        spiky[..20].fill(100.0);
        shares[0].scores = Scores::of(&spiky);
        shares[1].scores = Scores::of(&even);
        let rates = by_outliers(&shares, 0.5);
        assert!(
            (rates[0] - 0.42).abs() < 1e-9 && (rates[1] - 0.58).abs() < 1e-9,
            "{rates:?}"
        );
    }

    proptest! {
        #[test]
        fn the_budget_is_met_exactly(
            operators in prop::collection::vec((1usize..500, 0.0f64..1.2), 1..20),
            share in 0.0f64..=1.0,
        ) {
            let (weights, rates): (Vec<usize>, Vec<f64>) = operators.into_iter().unzip();
            let most: usize = weights.iter().map(|weights| weights - 1).sum();
            let budget = (most as f64 * share) as usize;
            let zeros = exact(&rates, &weights, budget);
            prop_assert_eq!(zeros.iter().sum::<usize>(), budget);
            for (zeros, weights) in zeros.iter().zip(&weights) {
                prop_assert!(zeros < weights);
                let pattern = Pattern::unstructured(*zeros as f64 / *weights as f64).unwrap();
                prop_assert_eq!(pattern.zeros(1, *weights), *zeros);
            }
        }
    }
}
