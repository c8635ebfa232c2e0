//! Decoder layers by types of linear layers as coloured tables: every cell shows its number.

use super::format::{cell as cell_text, kind, percent, short_kind};
use crate::report::OperatorReport;
use maud::{Markup, html};
use std::collections::BTreeMap;

/// Kinds in the order of pruning.
pub(super) fn kinds(operators: &[OperatorReport]) -> Vec<&str> {
    let mut kinds: Vec<&str> = Vec::new();
    for operator in operators {
        let kind = kind(&operator.name);
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    kinds
}

/// The larger of these ratios asks for a logarithmic scale: fewer shades would be told apart on a linear one.
const LINEAR_RATIO: f64 = 10.0;

/// Relative squared errors.
pub(super) fn errors(operators: &[OperatorReport]) -> Markup {
    let found = || operators.iter().map(|o| o.relative_error).filter(|e| *e > 0.0);
    let (least, most) = (found().fold(f64::INFINITY, f64::min), found().fold(0.0, f64::max));
    let logarithmic = most > LINEAR_RATIO * least;
    let shade = |error: f64| match (error > 0.0, logarithmic) {
        (false, _) => 0.0,
        (true, true) => (error / least).ln() / (most / least).ln(),
        (true, false) => error / most,
    };
    let low = if logarithmic { least } else { 0.0 };
    html! {
        section aria-labelledby="errors" {
            h2 #errors { "Error by layer" }
            p.note {
                "How much the output of each linear layer changed on the calibration text, in percent: squared difference divided by \
                 squared output. One row per decoder layer."
            }
            (table("error", operators, |o| o.relative_error, shade))
            p.scale {
                (percent(low)) i.error {} (percent(most)) " %"
                @if logarithmic { ", logarithmic scale" }
            }
        }
    }
}

/// Whether the map of zeros would show one number only.
pub(super) fn all_alike(operators: &[OperatorReport]) -> bool {
    let mut shown = operators.iter().map(|operator| cell_text(operator.sparsity));
    shown.next().is_none_or(|first| shown.all(|next| next == first))
}

/// Shares of zeros.
pub(super) fn zeros(operators: &[OperatorReport]) -> Markup {
    html! {
        section aria-labelledby="zeros" {
            h2 #zeros { "Sparsity by layer" }
            p.note { "Zeros in each linear layer, in percent." }
            (table("zeros", operators, |o| o.sparsity, |share| share))
            p.scale { "0" i.zeros {} "100 %" }
        }
    }
}

/// `shade` gives 0 to 1. Several operators of one kind in one layer share a cell, which shows their mean.
fn table(
    class: &str,
    operators: &[OperatorReport],
    value: impl Fn(&OperatorReport) -> f64,
    shade: impl Fn(f64) -> f64,
) -> Markup {
    let kinds = kinds(operators);
    let mut layers: BTreeMap<usize, BTreeMap<&str, Vec<&OperatorReport>>> = BTreeMap::new();
    for operator in operators {
        let cells = layers.entry(operator.layer).or_default();
        cells.entry(kind(&operator.name)).or_default().push(operator);
    }
    let mean =
        |cell: &[&OperatorReport]| cell.iter().map(|o| value(o)).sum::<f64>() / cell.len().max(1) as f64;
    let tip = |cell: &[&OperatorReport]| {
        let lines: Vec<String> = cell
            .iter()
            .map(|o| format!("{}\n{} %", o.name, value(o) * 100.0))
            .collect();
        lines.join("\n")
    };
    html! {
        div.scroll tabindex="0" role="region" aria-label="by layer" {
            table class={"heat " (class)} {
                thead {
                    tr {
                        th scope="col" { "layer" }
                        @for kind in &kinds { th scope="col" title=(kind) { (short_kind(kind)) } }
                    }
                }
                tbody {
                    @for (layer, cells) in &layers {
                        tr {
                            th scope="row" { (layer) }
                            @for kind in &kinds {
                                @match cells.get(kind) {
                                    Some(cell) => td title=(tip(cell)) style={"--v:" (format!("{:.3}", shade(mean(cell)).clamp(0.0, 1.0)))} {
                                        (cell_text(mean(cell)))
                                    },
                                    None => td.none { "–" },
                                }
                            }
                        }
                    }
                }
                tfoot {
                    tr {
                        th scope="row" { "mean" }
                        @for wanted in &kinds {
                            @let all = operators.iter().filter(|o| kind(&o.name) == *wanted).collect::<Vec<_>>();
                            td title=(format!("mean of {wanted}\n{} %", mean(&all) * 100.0)) { (cell_text(mean(&all))) }
                        }
                    }
                }
            }
        }
    }
}
