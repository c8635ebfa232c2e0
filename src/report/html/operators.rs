//! Every linear layer with all its numbers.

use super::format::{count, many, percent, seconds, short, tick};
use crate::config::Pattern;
use crate::report::OperatorReport;
use crate::solver::StopReason;
use maud::{Markup, html};
use std::collections::BTreeSet;

/// Why the solver stopped, in words.
pub(super) fn stop_reason(reason: StopReason) -> &'static str {
    match reason {
        StopReason::Direct => "one pass",
        StopReason::Iterations => "step limit",
        StopReason::Patience => "no progress",
        StopReason::SmallGain => "small gain",
        StopReason::Exact => "zero error",
    }
}

/// Columns that only some runs have something to say in.
#[derive(Clone, Copy)]
struct Columns {
    start: bool,
    damping: bool,
    /// Bytes of the names' beginning that all have in common.
    prefix: usize,
}

pub(super) fn section(operators: &[OperatorReport]) -> Markup {
    let columns = Columns {
        start: operators.iter().any(|o| o.solver.warm_start_error.is_some()),
        damping: operators.iter().any(|o| o.solver.damping.is_some()),
        prefix: common_prefix(operators),
    };
    let head = |name: &str| html! { th scope="col" { button type="button" { (name) } } };
    html! {
        section aria-labelledby="operators" {
            h2 #operators { "All linear layers" }
            p.note {
                (origin(operators))
                @if let Some(first) = operators.first().filter(|_| columns.prefix > 0) {
                    "All names begin with " code { (first.name[..columns.prefix - 1]) } ". "
                }
                "“Steps” are those of the method. “Refit” are the steps that compute the kept weights again by least squares. "
                @if columns.start { "“Start” is the error of the warm start. " }
                "Click a column's name to sort. Point at a number to see all its digits."
            }
            div.scroll tabindex="0" role="region" aria-label="all linear layers" {
                table.list {
                    thead { tr {
                        (head("linear layer")) (head("error %"))
                        @if columns.start { (head("start %")) }
                        (head("sparsity %")) (head("pattern")) (head("shape")) (head("steps")) (head("refit"))
                        (head("stopped by"))
                        @if columns.damping { (head("damping")) }
                        (head("time"))
                    } }
                    tbody { @for (position, operator) in operators.iter().enumerate() { (row(position, operator, columns)) } }
                }
            }
        }
    }
}

/// What all have in common: the calibration tokens, and how the weights are stored.
fn origin(operators: &[OperatorReport]) -> String {
    let Some(first) = operators.first() else {
        return String::new();
    };
    let dtypes: BTreeSet<&str> = operators.iter().map(|o| o.dtype.as_str()).collect();
    let dtypes: Vec<&str> = dtypes.into_iter().collect();
    format!(
        "Calibrated on {}. Weights are stored as {}. ",
        many(first.tokens, "token"),
        dtypes.join(" and ")
    )
}

/// Length of the longest beginning of all names that ends in a dot.
fn common_prefix(operators: &[OperatorReport]) -> usize {
    let Some((first, rest)) = operators.split_first().filter(|(_, rest)| !rest.is_empty()) else {
        return 0;
    };
    first
        .name
        .match_indices('.')
        .map(|(dot, _)| dot + 1)
        .take_while(|end| rest.iter().all(|o| o.name.starts_with(&first.name[..*end])))
        .last()
        .unwrap_or(0)
}

fn row(position: usize, operator: &OperatorReport, columns: Columns) -> Markup {
    let solver = &operator.solver;
    let raised = if solver.damping_raised { " (raised)" } else { "" };
    let name = &operator.name[columns.prefix..];
    let share = |value: f64| html! { td data-v=(value) title=(exact(value)) { (percent(value)) } };
    html! {
        tr {
            th scope="row" data-v=(position) title=(operator.name) { code { (name) } }
            (share(operator.relative_error))
            @if columns.start {
                @match solver.warm_start_error { Some(start) => (share(start)), None => td data-v="" { "–" } }
            }
            td data-v=(operator.sparsity) title=(format!("{} zeros", operator.zeros)) { (percent(operator.sparsity)) }
            td title=(operator.pattern) { (pattern(operator.pattern)) }
            td data-v=(operator.shape[0] * operator.shape[1]) title=(operator.dtype) { (operator.shape[0]) " × " (operator.shape[1]) }
            td data-v=(solver.iterations) title=[rounds(operator)] { (count(solver.iterations)) }
            td data-v=(solver.polish_iterations) { (count(solver.polish_iterations)) }
            td { (stop_reason(solver.stop_reason)) }
            @if columns.damping {
                @match solver.damping { Some(damping) => td data-v=(damping) { (short(damping)) (raised) }, None => td data-v="" { "–" } }
            }
            td data-v=(operator.seconds) title=(format!("{} s", operator.seconds)) { (seconds(operator.seconds)) }
        }
    }
}

/// A rate of an allocation has as many digits as it takes to get its number of zeros.
fn pattern(pattern: Pattern) -> String {
    match pattern {
        Pattern::Unstructured(rate) => tick(rate),
        Pattern::NOfM { .. } | Pattern::Columns { .. } => pattern.to_string(),
    }
}

fn exact(share: f64) -> String {
    format!("{} %", share * 100.0)
}

/// λ and errors of the last rounds; the JSON has them all.
fn rounds(operator: &OperatorReport) -> Option<String> {
    /// More lines do not fit beside a finger.
    const SHOWN: usize = 8;
    let rounds = &operator.solver.rounds;
    let skipped = rounds.len().saturating_sub(SHOWN);
    let lines = rounds.iter().enumerate().skip(skipped).map(|(number, round)| {
        let taken = if round.accepted { "accepted" } else { "refused" };
        format!(
            "round {}: λ {}, {} %, {taken}",
            number + 1,
            short(round.lambda),
            percent(round.rounded_error)
        )
    });
    let mut lines: Vec<String> = lines.collect();
    if skipped > 0 {
        lines.insert(0, format!("{skipped} earlier rounds, then:"));
    }
    (!lines.is_empty()).then(|| lines.join("\n"))
}
