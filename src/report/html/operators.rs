//! Every operator with all its numbers.

use super::format::{count, many, percent, seconds, short};
use crate::report::OperatorReport;
use crate::solver::StopReason;
use maud::{Markup, html};

/// As the JSON spells it, in words.
pub(super) fn stop_reason(reason: StopReason) -> &'static str {
    match reason {
        StopReason::Direct => "direct",
        StopReason::Iterations => "iterations",
        StopReason::Patience => "patience",
        StopReason::SmallGain => "small gain",
        StopReason::Exact => "exact",
    }
}

pub(super) fn section(operators: &[OperatorReport]) -> Markup {
    const COLUMNS: [&str; 12] = [
        "operator",
        "error %",
        "start %",
        "sparsity %",
        "pattern",
        "shape",
        "dtype",
        "iterations",
        "polish",
        "stopped by",
        "damping",
        "time",
    ];
    html! {
        section aria-labelledby="operators" {
            h2 #operators { "All operators" }
            p.note {
                "Start is the error of the warm start, iterations those of the method, polish conjugate-gradient steps on the \
                 final support. " (tokens(operators)) "Tap a column's name to sort by it, a number for all its digits."
            }
            div.scroll tabindex="0" role="region" aria-label="all operators" {
                table.list {
                    thead { tr { @for column in COLUMNS { th scope="col" { button type="button" { (column) } } } } }
                    tbody { @for (position, operator) in operators.iter().enumerate() { (row(position, operator)) } }
                }
            }
        }
    }
}

/// The tokens of the statistics, which all operators have in common.
fn tokens(operators: &[OperatorReport]) -> String {
    match operators.first() {
        Some(operator) => format!("Statistics are those of {}. ", many(operator.tokens, "token")),
        None => String::new(),
    }
}

fn row(position: usize, operator: &OperatorReport) -> Markup {
    let solver = &operator.solver;
    let raised = if solver.damping_raised { " (raised)" } else { "" };
    html! {
        tr {
            th scope="row" data-v=(position) { code { (operator.name) } }
            td data-v=(operator.relative_error) title=(exact(operator.relative_error)) { (percent(operator.relative_error)) }
            @match solver.warm_start_error {
                Some(start) => td data-v=(start) title=(exact(start)) { (percent(start)) },
                None => td data-v="" { "–" },
            }
            td data-v=(operator.sparsity) title=(format!("{} zeros", operator.zeros)) { (percent(operator.sparsity)) }
            td { (operator.pattern.to_string()) }
            td data-v=(operator.shape[0] * operator.shape[1]) { (operator.shape[0]) " × " (operator.shape[1]) }
            td { (operator.dtype) }
            td data-v=(solver.iterations) title=[rounds(operator)] { (count(solver.iterations)) }
            td data-v=(solver.polish_iterations) { (count(solver.polish_iterations)) }
            td { (stop_reason(solver.stop_reason)) }
            @match solver.damping {
                Some(damping) => td data-v=(damping) { (short(damping)) (raised) },
                None => td data-v="" { "–" },
            }
            td data-v=(operator.seconds) title=(format!("{} s", operator.seconds)) { (seconds(operator.seconds)) }
        }
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
        lines.insert(0, format!("after {skipped} earlier rounds:"));
    }
    (!lines.is_empty()).then(|| lines.join("\n"))
}
