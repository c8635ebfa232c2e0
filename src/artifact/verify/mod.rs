//! Checks a finished output from its files alone. In: a checkpoint folder and, if wanted, the dense one that it was made
//! from and the pattern that it should have. Out: every problem that was found, and notes on what may differ.
//!
//! Nothing stops at the first problem: a folder with three faults gives three lines.

mod against;
mod findings;

pub use findings::{Kind, Problem, Verification};

use crate::checkpoint::{Checkpoint, StoredDtype};
use crate::config::Pattern;
use crate::error::{Error, PatternError, Result};
use crate::report::{self, StructureReport};
use fista_pruner_models::{Decoder, RopePrecision};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What of `pruning_report.json` is checked.
#[derive(Debug, Deserialize)]
struct Reported {
    report_version: u32,
    model: ReportedModel,
    settings: ReportedSettings,
    sparsity: f64,
    operators: Vec<ReportedOperator>,
    #[serde(flatten)]
    structure: Option<StructureReport>,
}

#[derive(Debug, Deserialize)]
struct ReportedModel {
    fingerprint: String,
}

#[derive(Debug, Deserialize)]
struct ReportedSettings {
    sparsity: Option<Pattern>,
}

#[derive(Debug, Deserialize)]
struct ReportedOperator {
    name: String,
    shape: [usize; 2],
    dtype: String,
    zeros: usize,
    pattern: Option<Pattern>,
}

/// An operator that is to be checked as a pruned one.
struct Pruned {
    shape: [usize; 2],
    /// Zeros and format that the report gives.
    reported: Option<(usize, String)>,
    /// The pattern that was asked for, or else its own that the report gives.
    pattern: Option<Pattern>,
}

/// Checks the folder `output`; against the dense `source` too, where that is given. `pattern` is what its operators should
/// have; without it, what `pruning_report.json` names.
///
/// # Errors
/// When `output` is no folder, or `source` cannot be opened. Whatever is wrong with `output` itself is in the result.
pub fn verify(output: &Path, source: Option<&Path>, pattern: Option<Pattern>) -> Result<Verification> {
    let source = source.map(Checkpoint::open).transpose()?;
    let mut found = Verification {
        ok: false,
        pattern,
        operators: 0,
        sparsity: 0.0,
        tensors: 0,
        tensors_compared: 0,
        files_compared: 0,
        problems: Vec::new(),
        notes: Vec::new(),
    };
    match Checkpoint::open(output) {
        Ok(checkpoint) => check(&checkpoint, source.as_ref(), &mut found)?,
        Err(error) if !output.is_dir() => return Err(error),
        Err(error) => found.problem(Kind::Unreadable, output.display().to_string(), error.to_string()),
    }
    found.ok = found.problems.is_empty();
    Ok(found)
}

fn check(output: &Checkpoint, source: Option<&Checkpoint>, found: &mut Verification) -> Result<()> {
    let decoder = decoder(output, found);
    let reported = read_report(output, found);
    let pruned = pruned(decoder.as_ref(), reported.as_ref(), found);
    if let Some(reported) = &reported {
        found.pattern = found.pattern.or(reported.settings.sparsity);
        if let Some(source) = source
            && source.fingerprint() != reported.model.fingerprint
        {
            found.note("the report names another source: the folder may have been converted or moved since");
        }
    }
    check_tensors(output, source, &pruned, found);
    check_sparsity(reported.as_ref(), found);
    if found.pattern.is_none() {
        found.note("no pattern was checked: there is no report, and no pattern was given");
    }
    if let Some(source) = source {
        let mut may_differ: BTreeSet<String> = pruned.keys().cloned().collect();
        match reported.and_then(|reported| reported.structure) {
            Some(structure) => {
                // A refit moves biases too, and a recovery all operators.
                let biases = may_differ
                    .iter()
                    .filter_map(|name| Some(format!("{}.bias", name.strip_suffix(".weight")?)));
                may_differ.extend(biases.collect::<Vec<_>>());
                if output.dir().join(crate::recover::FILE_NAME).exists() {
                    may_differ.extend(
                        decoder
                            .iter()
                            .flat_map(Decoder::operators)
                            .map(|operator| operator.weight()),
                    );
                }
                against::compare_cut(output, source, &structure, &may_differ, found)?;
            }
            None => against::compare(output, source, &may_differ, found)?,
        }
    }
    Ok(())
}

/// The decoder that the configuration describes; every tensor that it needs is there with its shape.
fn decoder(output: &Checkpoint, found: &mut Verification) -> Option<Decoder> {
    let decoder = match output.decoder(RopePrecision::F32) {
        Ok(decoder) => decoder,
        Err(error) => {
            found.problem(Kind::Config, "config.json", error.to_string());
            return None;
        }
    };
    let needed: BTreeMap<String, Vec<usize>> = decoder.tensors().into_iter().collect();
    for (name, shape) in &needed {
        match output.info(name) {
            None => found.problem(Kind::Tensors, name, "it is missing"),
            Some(info) if info.shape != *shape => {
                let message = format!("its shape is {:?} and should be {shape:?}", info.shape);
                found.problem(Kind::Shape, name, message);
            }
            Some(info) if !info.dtype.is_weight() => {
                let message = format!(
                    "it is stored as {}, which is no floating-point format",
                    info.dtype
                );
                found.problem(Kind::Dtype, name, message);
            }
            Some(_) => {}
        }
    }
    let unused = output
        .tensors()
        .filter(|(name, _)| !needed.contains_key(*name))
        .count();
    if unused > 0 {
        found.note(format!("{unused} tensors are not used by the decoder"));
    }
    Some(decoder)
}

fn read_report(output: &Checkpoint, found: &mut Verification) -> Option<Reported> {
    let path = output.dir().join(report::FILE_NAME);
    if !path.exists() {
        found.note(format!("there is no {}", report::FILE_NAME));
        return None;
    }
    let read = std::fs::read(&path)
        .map_err(|e| e.to_string())
        .and_then(|text| serde_json::from_slice::<Reported>(&text).map_err(|e| e.to_string()));
    match read {
        Ok(reported) if reported.report_version == report::VERSION => Some(reported),
        Ok(reported) => {
            let message = format!("version {} of the report is not known", reported.report_version);
            found.problem(Kind::Report, report::FILE_NAME, message);
            None
        }
        Err(reason) => {
            found.problem(
                Kind::Report,
                report::FILE_NAME,
                format!("it cannot be read: {reason}"),
            );
            None
        }
    }
}

/// The operators that should be pruned: those of the report, or every one of the decoder.
fn pruned(
    decoder: Option<&Decoder>,
    reported: Option<&Reported>,
    found: &mut Verification,
) -> BTreeMap<String, Pruned> {
    let known: BTreeMap<String, Pruned> = decoder
        .into_iter()
        .flat_map(Decoder::operators)
        .map(|operator| {
            let unreported = Pruned {
                shape: operator.shape(),
                reported: None,
                pattern: None,
            };
            (operator.weight(), unreported)
        })
        .collect();
    let Some(reported) = reported else {
        return known;
    };
    let mut pruned = BTreeMap::new();
    for operator in &reported.operators {
        let name = format!("{}.weight", operator.name);
        let shape = operator.shape;
        match known.get(&name) {
            None if decoder.is_some() => {
                found.problem(
                    Kind::Report,
                    &operator.name,
                    "the report names it, and the model has no such operator",
                );
            }
            Some(known) if known.shape != shape => {
                let message = format!(
                    "the report gives the shape {shape:?}, the model {:?}",
                    known.shape
                );
                found.problem(Kind::Report, &operator.name, message);
            }
            _ => {}
        }
        let reported = Some((operator.zeros, operator.dtype.clone()));
        let operator_checked = Pruned {
            shape,
            reported,
            // What was asked for goes before what the report says.
            pattern: found.pattern.or(operator.pattern),
        };
        if pruned.insert(name, operator_checked).is_some() {
            found.problem(Kind::Report, &operator.name, "the report names it twice");
        }
    }
    pruned
}

/// Reads every tensor: finite, undamaged, and the pruned ones with their pattern and zeros.
fn check_tensors(
    output: &Checkpoint,
    source: Option<&Checkpoint>,
    pruned: &BTreeMap<String, Pruned>,
    found: &mut Verification,
) {
    let (mut zeros, mut weights) = (0, 0);
    for (name, info) in output.tensors() {
        found.tensors += 1;
        if !info.dtype.is_weight() {
            if let Err(error) = output.raw(name) {
                found.problem(Kind::Content, name, error.to_string());
            }
            continue;
        }
        let values = match output.read(name, &info.shape) {
            Ok(values) => values,
            Err(error) => {
                let not_finite = matches!(
                    error,
                    Error::Checkpoint(crate::checkpoint::CheckpointError::NotFinite { .. })
                );
                // What the source has as well is not the pruning's fault, nor that of a copy.
                if not_finite && !pruned.contains_key(name) && source.is_some_and(|s| same(output, s, name)) {
                    found.note(format!("{error}; the source has the same"));
                    continue;
                }
                let kind = if not_finite {
                    Kind::NotFinite
                } else {
                    Kind::Content
                };
                found.problem(kind, name, error.to_string());
                continue;
            }
        };
        if let Some(operator) = pruned.get(name) {
            zeros += check_operator(name, operator, &values, (&info.shape, &info.dtype), found);
            weights += values.len();
            found.operators += 1;
        }
    }
    for name in pruned.keys().filter(|name| output.info(name).is_none()) {
        found.problem(Kind::Tensors, name, "the operator is missing");
    }
    found.sparsity = zeros as f64 / weights.max(1) as f64;
}

/// Whether both have the same bytes for a tensor.
fn same(output: &Checkpoint, source: &Checkpoint, name: &str) -> bool {
    source.info(name) == output.info(name)
        && matches!((output.raw(name), source.raw(name)), (Ok(after), Ok(before)) if after == before)
}

/// A pruned operator's pattern, and what the report says of it. Gives its zeros.
fn check_operator(
    name: &str,
    operator: &Pruned,
    values: &[f32],
    (shape, dtype): (&[usize], &StoredDtype),
    found: &mut Verification,
) -> usize {
    let zeros = values.iter().filter(|v| **v == 0.0).count();
    if shape != operator.shape {
        let message = format!("its shape is {shape:?} and should be {:?}", operator.shape);
        found.problem(Kind::Shape, name, message);
        return zeros;
    }
    let [rows, columns] = operator.shape;
    if let Some(pattern) = operator.pattern.or(found.pattern)
        && let Err(error) = pattern
            .check_inputs(name, columns)
            .and_then(|()| pattern.check(name, values, rows, columns))
    {
        let message = match error {
            PatternError::Broken { pattern, reason, .. } => format!("it is not {pattern}: {reason}"),
            other => other.to_string(),
        };
        found.problem(Kind::Pattern, name, message);
    }
    if let Some((reported, reported_dtype)) = &operator.reported {
        if *reported != zeros {
            let message = format!("it has {zeros} zeros, the report says {reported}");
            found.problem(Kind::Report, name, message);
        }
        if dtype.name() != reported_dtype {
            let message = format!("it is stored as {dtype}, the report says {reported_dtype}");
            found.problem(Kind::Dtype, name, message);
        }
    }
    zeros
}

/// The report's overall sparsity.
fn check_sparsity(reported: Option<&Reported>, found: &mut Verification) {
    if let Some(reported) = reported
        && found.operators == reported.operators.len()
        && (reported.sparsity - found.sparsity).abs() > 1e-9
    {
        let message = format!(
            "it says a sparsity of {}, the files have {}",
            reported.sparsity, found.sparsity
        );
        found.problem(Kind::Report, report::FILE_NAME, message);
    }
}
