//! Several ways to prune one model, side by side: one pass over the model, the same calibration windows, one table.
//!
//! Perplexity is measured on the way: the evaluation windows' hidden states follow each way's pruned layers, so that no
//! pruned model is ever stored.

use crate::config::{
    Method, Pattern, Propagation, PruneConfig, Ridge, ShapeRule, SolverConfig, StructureConfig,
    StructuredMethod, WarmStart, means, shown,
};
use crate::error::{ConfigError, Error, Result};
use crate::eval::Along;
use crate::progress::Observer;
use crate::prune::{AfterLayer, Allocation, Branch, NullSink, Source, Span, allocate, prune_branches};
use crate::report::overall_sparsity;
use crate::structured::{self, Losses};
use fista_pruner_backends::SolverOps;
use fista_pruner_models::Family;
use serde::Serialize;
use std::collections::BTreeMap;

/// A way to choose weights, as it is named in a comparison:
/// `NAME[@WARM-START][+refit[=STEPS]][+ridge=R][:ALLOCATION][/PROPAGATION]`.
///
/// `NAME` is a preset (`best`, `fast`, `paper`), a published method as published (`magnitude`, `wanda`, `sparsegpt`,
/// `fista`), or `fista-scaled`.
#[derive(Debug, Clone, PartialEq)]
pub struct MethodSpec {
    /// The text it was made from.
    pub name: String,
    base: Base,
    warm_start: Option<WarmStart>,
    polish: Option<usize>,
    ridge: Option<Ridge>,
    allocation: Allocation,
    propagation: Option<Propagation>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Base {
    Best,
    Fast,
    Published(Method),
    FistaScaled,
}

impl Base {
    const ALL: [(&'static str, Self); 9] = [
        ("best", Self::Best),
        ("l0", Self::Best),
        ("fast", Self::Fast),
        ("paper", Self::Published(Method::Fista)),
        ("fista", Self::Published(Method::Fista)),
        ("fista-scaled", Self::FistaScaled),
        ("sparsegpt", Self::Published(Method::SparseGpt)),
        ("wanda", Self::Published(Method::Wanda)),
        ("magnitude", Self::Published(Method::Magnitude)),
    ];
}

fn unknown(way: &str, reason: &str) -> Error {
    Error::from(ConfigError::Setting {
        setting: "‹methods›",
        reason: format!("`{way}`: {reason}"),
    })
}

/// The member of a closed set that a part of `way` names.
fn by_name<T: Copy>(way: &str, kind: &str, name: &str, all: &[(&'static str, T)]) -> Result<T> {
    let found = all.iter().find(|(known, _)| means(name, known));
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<_> = all.iter().map(|(known, _)| shown(known)).collect();
        let names = names.join(", ");
        unknown(way, &format!("no {kind} `{name}`; there are {names}"))
    })
}

impl std::str::FromStr for MethodSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (rest, propagation) = match text.split_once('/') {
            Some((rest, name)) => (
                rest,
                Some(by_name(text, "propagation", name, &Propagation::NAMED)?),
            ),
            None => (text, None),
        };
        let (rest, allocation) = match rest.split_once(':') {
            Some((rest, name)) => (rest, by_name(text, "allocation", name, &Allocation::ALL)?),
            None => (rest, Allocation::Uniform),
        };
        let mut additions = rest.split('+');
        let rest = additions.next().unwrap_or_default();
        let (mut polish, mut ridge) = (None, None);
        for addition in additions {
            let wrong = || {
                unknown(
                    text,
                    &format!("`+{addition}` is not +refit, +refit=STEPS or +ridge=R"),
                )
            };
            match addition.split_once('=') {
                None if matches!(addition, "refit" | "polish") => {
                    polish = Some(SolverConfig::best(None).polish)
                }
                Some(("refit" | "polish", steps)) => polish = Some(steps.parse().map_err(|_| wrong())?),
                Some(("ridge", value)) => ridge = Some(value.parse().map_err(|_| wrong())?),
                _ => return Err(wrong()),
            }
        }
        let (name, warm_start) = match rest.split_once('@') {
            Some((rest, name)) => (rest, Some(by_name(text, "warm start", name, &WarmStart::ALL)?)),
            None => (rest, None),
        };
        let base = by_name(text, "method or preset", name, &Base::ALL)?;
        Ok(Self {
            name: text.to_owned(),
            base,
            warm_start,
            polish,
            ridge,
            allocation,
            propagation,
        })
    }
}

/// A way to remove units, as it is named in a comparison: `NAME[+refit|+norefit][+exact-moment][:auto]`.
#[derive(Debug, Clone, PartialEq)]
pub struct StructureSpec {
    /// The text it was made from.
    pub name: String,
    /// What it does.
    pub structure: StructureConfig,
    /// Where inputs and targets come from.
    pub propagation: Propagation,
}

impl StructureSpec {
    /// The way that `text` names, on top of what all ways have.
    ///
    /// # Errors
    /// When it names none.
    pub fn parse(text: &str, base: &StructureConfig) -> Result<Self> {
        let (rest, rule) = match text.split_once(':') {
            Some((rest, name)) => (rest, by_name(text, "shape", name, &ShapeRule::ALL)?),
            None => (text, base.rule),
        };
        let mut additions = rest.split('+');
        let name = additions.next().unwrap_or_default();
        let method = by_name(text, "method of structured pruning", name, &StructuredMethod::ALL)?;
        let mut structure = StructureConfig {
            method,
            refit: method.refits(),
            rule,
            ..base.clone()
        };
        for addition in additions {
            match addition {
                "refit" => structure.refit = true,
                "norefit" => structure.refit = false,
                "exact-moment" => structure.greedy.exact_moment = true,
                _ => {
                    return Err(unknown(
                        text,
                        &format!("`+{addition}` is not +refit, +norefit or +exact-moment"),
                    ));
                }
            }
        }
        Ok(Self {
            name: text.to_owned(),
            propagation: method.propagation(),
            structure,
        })
    }
}

impl MethodSpec {
    /// Its solver settings for a model family.
    pub fn solver(&self, family: Family) -> SolverConfig {
        let family = Some(family);
        let mut config = match self.base {
            Base::Best => SolverConfig::best(family),
            Base::Fast => SolverConfig::fast(family),
            Base::FistaScaled => SolverConfig::with_refit(Method::Fista, family),
            Base::Published(method) => SolverConfig {
                method,
                ..SolverConfig::paper(family)
            },
        };
        config.warm_start = self.warm_start.unwrap_or(config.warm_start);
        config.ridge = self.ridge.unwrap_or(config.ridge);
        config.polish = self.polish.unwrap_or(config.polish);
        config
    }
}

/// What is compared.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// The ways, in the order of the table.
    pub ways: Vec<MethodSpec>,
    /// Every way is taken to each of these.
    pub patterns: Vec<Pattern>,
    /// Ways of structured pruning, which take the place of all others where there are any.
    pub structures: Vec<StructureSpec>,
    /// Where a way names no propagation.
    pub propagation: Propagation,
    /// Most rounds of the paper's Algorithm 1; `None` for the published rule.
    pub max_rounds: Option<usize>,
    /// Selection and batch size; pattern, solver and propagation are the ways'.
    pub base: PruneConfig,
}

/// One row of the table.
#[derive(Debug, Clone, Serialize)]
pub struct ComparisonRow {
    /// The way's name.
    pub method: String,
    /// The zeros asked for.
    pub pattern: Pattern,
    /// Where inputs and targets came from.
    pub propagation: Propagation,
    /// The name of that combination, if it has one.
    pub propagate: Option<&'static str>,
    /// Perplexity on the evaluation windows, where there are any.
    pub perplexity: Option<f64>,
    /// Mean negative log-likelihood of each evaluation window, in nats.
    pub window_nll: Vec<f64>,
    /// Mean relative squared error by operator kind, such as `q_proj`.
    pub errors: BTreeMap<String, f64>,
    /// Mean relative squared error over all operators.
    pub mean_error: f64,
    /// Share of zeros over the pruned operators.
    pub sparsity: f64,
    /// Seconds that the solver took.
    pub solver_seconds: f64,
    /// Seconds that pruning this way alone takes: what all ways shared, and its own.
    pub seconds: f64,
}

/// The table.
#[derive(Debug, Clone, Serialize)]
pub struct Table {
    /// The dense model's perplexity.
    pub dense_perplexity: Option<f64>,
    /// Mean negative log-likelihood of each evaluation window in the dense model, in nats.
    pub dense_window_nll: Vec<f64>,
    /// The rows, pattern by pattern.
    pub rows: Vec<ComparisonRow>,
}

/// Prunes in all ways and evaluates on `evaluation`, windows of one length, which may be empty.
///
/// # Errors
/// As [`crate::prune::prune`] and [`crate::eval::perplexity`].
pub fn compare<B: SolverOps>(
    source: Source<'_>,
    comparison: &Comparison,
    evaluation: &[Vec<u32>],
    device: &B::Device,
    observer: &mut dyn Observer,
) -> Result<Table> {
    let configs = configs::<B>(source, comparison, device, observer)?;
    let mut sinks: Vec<NullSink> = configs.iter().map(|_| NullSink).collect();
    let branches = configs
        .iter()
        .zip(&mut sinks)
        .map(|((_, config), sink)| Branch { config, sink })
        .collect();
    let evaluated = Source {
        windows: evaluation,
        ..source
    };
    let mut along = Along::<B>::new(evaluated, configs.len(), device)?;
    let span = Span::whole(source.decoder);
    let after_layer: &mut AfterLayer<'_, B> = &mut |_, forms| along.forms(forms);
    let (outcomes, shared) = prune_branches::<B>(source, branches, span, device, observer, after_layer)?;
    let mut likelihoods = along.finish(device)?.into_iter();
    let perplexity = |nll: &Vec<f64>| (nll.iter().sum::<f64>() / nll.len() as f64).exp();
    let dense = likelihoods.next();
    let mut rows = Vec::new();
    for ((way, config), outcome) in configs.into_iter().zip(outcomes) {
        let window_nll = likelihoods.next();
        let operators = &outcome.operators;
        let mut kinds: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for operator in operators {
            let kind = operator.name.rsplit('.').next().unwrap_or(&operator.name);
            kinds
                .entry(kind.to_owned())
                .or_default()
                .push(operator.relative_error);
        }
        let mean = |errors: &[f64]| errors.iter().sum::<f64>() / errors.len().max(1) as f64;
        let all: Vec<f64> = operators.iter().map(|operator| operator.relative_error).collect();
        rows.push(ComparisonRow {
            method: way,
            pattern: config.pattern,
            propagation: config.propagation,
            propagate: config.propagation.name(),
            perplexity: window_nll.as_ref().map(perplexity),
            window_nll: window_nll.unwrap_or_default(),
            errors: kinds
                .iter()
                .map(|(kind, errors)| (kind.clone(), mean(errors)))
                .collect(),
            mean_error: mean(&all),
            sparsity: overall_sparsity(operators),
            solver_seconds: operators.iter().map(|operator| operator.seconds).sum(),
            seconds: shared + outcome.seconds,
        });
    }
    Ok(Table {
        dense_perplexity: dense.as_ref().map(perplexity),
        dense_window_nll: dense.unwrap_or_default(),
        rows,
    })
}

/// Every way at every pattern, as a run of its own would be configured.
fn configs<B: SolverOps>(
    source: Source<'_>,
    comparison: &Comparison,
    device: &B::Device,
    observer: &mut dyn Observer,
) -> Result<Vec<(String, PruneConfig)>> {
    let family = source.decoder.config().family();
    let mut configs = Vec::new();
    for way in &comparison.structures {
        let mut config = PruneConfig {
            propagation: way.propagation,
            ..comparison.base.clone()
        };
        let losses = Losses {
            earlier: Vec::new(),
            keep: &mut |_| Ok(()),
        };
        let decided = structured::decide::<B>(source, &config, &way.structure, losses, device, observer)?;
        decided.apply(&way.structure, source.decoder, &mut config);
        let (kept, of) = (
            decided.decision.shape.channels,
            source.decoder.config().sizes().channels,
        );
        config.pattern = Pattern::Columns { kept, of };
        configs.push((way.name.clone(), config));
    }
    if !configs.is_empty() {
        return Ok(configs);
    }
    for pattern in &comparison.patterns {
        let mut allocated: Vec<(Allocation, BTreeMap<String, Pattern>)> = Vec::new();
        for way in &comparison.ways {
            let mut config = PruneConfig {
                pattern: *pattern,
                solver: way.solver(family),
                propagation: way.propagation.unwrap_or(comparison.propagation),
                ..comparison.base.clone()
            };
            if comparison.max_rounds.is_some() {
                config.solver.fista.max_rounds = comparison.max_rounds;
            }
            config.patterns = match allocated
                .iter()
                .find(|(allocation, _)| *allocation == way.allocation)
            {
                Some((_, patterns)) => patterns.clone(),
                None => {
                    let patterns = allocate::<B>(source, &config, way.allocation, device, observer)?.patterns;
                    allocated.push((way.allocation, patterns.clone()));
                    patterns
                }
            };
            configs.push((way.name.clone(), config));
        }
    }
    Ok(configs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_read_as_they_are_written() {
        let way: MethodSpec = "paper@wanda+polish=5+ridge=0.01:owl/sequential".parse().unwrap();
        let config = way.solver(Family::Opt);
        assert_eq!(
            (config.method, config.warm_start, config.polish),
            (Method::Fista, WarmStart::Wanda, 5)
        );
        assert_eq!(config.ridge, Ridge::Relative(0.01));
        assert_eq!(way.propagation, Some(Propagation::SEQUENTIAL));
        assert_eq!(way.allocation, Allocation::Owl);
        let plain: MethodSpec = "wanda".parse().unwrap();
        assert_eq!(plain.solver(Family::Llama).polish, 0);
        assert_eq!(
            "best".parse::<MethodSpec>().unwrap().solver(Family::Llama),
            SolverConfig::best(Some(Family::Llama))
        );
        for (old, new) in [
            ("l0", "admm"),
            ("fista@l0", "fista@admm"),
            ("wanda+polish=3", "wanda+refit=3"),
            ("wanda+polish", "wanda+refit"),
            ("fast/refreshed", "fast/true-sequential"),
        ] {
            let [old, new]: [MethodSpec; 2] = [old, new].map(|text| text.parse().unwrap());
            assert_eq!(
                MethodSpec {
                    name: old.name.clone(),
                    ..new
                },
                old
            );
        }
        for bad in ["", "obs", "best/up", "best+shine", "best:even", "paper@nothing"] {
            assert!(bad.parse::<MethodSpec>().is_err(), "{bad}");
        }
    }
}
