//! Where the time went: by stage, by type of linear layer, by decoder layer.

use super::format::{kind, seconds};
use super::heat::kinds;
use crate::report::{LayerSeconds, OperatorReport, Report};
use maud::{Markup, html};

/// A stage's colour and what belongs to it, by its name in JSON.
fn about(stage: &str) -> (&'static str, &'static str) {
    match stage {
        "preparation" => ("f6", "opening the model, tokenising text"),
        "allocation" => ("f3", "measuring which layers can have more zeros"),
        "statistics" => (
            "f0",
            "forward passes, Gram matrices (called Hessian in SparseGPT and GPTQ)",
        ),
        "solver" => ("f1", "choosing which weights are kept, and their values"),
        "evaluation" => ("f2", "perplexity before and after"),
        "writing" => ("f5", "copying files, writing weights, reading them back"),
        _ => ("f7", "everything else"),
    }
}

pub(super) fn section(report: &Report) -> Markup {
    let mut stages: Vec<(&str, f64)> = report.stage_seconds.named().to_vec();
    let known: f64 = stages.iter().map(|(_, seconds)| seconds).sum();
    stages.push(("other", (report.seconds - known).max(0.0)));
    stages.retain(|(_, seconds)| *seconds > 0.0);
    let whole = known.max(report.seconds).max(f64::MIN_POSITIVE);
    html! {
        section aria-labelledby="time" {
            h2 #time { "Where the time went" }
            p.note { "GPU work runs in the background; its time is counted in the step that waits for the result, so the split is approximate." }
            div.stack aria-hidden="true" {
                @for (name, value) in &stages {
                    i class=(about(name).0) style={"width:" (format!("{:.3}", 100.0 * value / whole)) "%"}
                        title=(format!("{name}\n{value} s")) {}
                }
            }
            div.scroll {
                table.list {
                    thead { tr { th scope="col" { "stage" } th scope="col" { "time" } th scope="col" { "share" } } }
                    tbody {
                        @for (name, value) in &stages {
                            tr {
                                th scope="row" title=(about(name).1) { span class={"dot " (about(name).0)} {} (name) }
                                td title=(format!("{value} s")) { (seconds(*value)) }
                                td { (format!("{:.1} %", 100.0 * value / whole)) }
                            }
                        }
                    }
                }
            }
            div.split {
                div { (by_kind(&report.operators)) }
                @if !report.layer_seconds.is_empty() { div { (by_layer(&report.layer_seconds)) } }
            }
        }
    }
}

fn by_kind(operators: &[OperatorReport]) -> Markup {
    let sum = |wanted: &str| -> f64 {
        let own = operators.iter().filter(|o| kind(&o.name) == wanted);
        own.map(|o| o.seconds).sum()
    };
    let rows: Vec<(&str, f64)> = kinds(operators)
        .into_iter()
        .map(|kind| (kind, sum(kind)))
        .collect();
    let longest = rows.iter().map(|(_, s)| *s).fold(f64::MIN_POSITIVE, f64::max);
    html! {
        h3 { "Solver time by type of layer" }
        table.bars {
            thead.sr { tr { th { "type" } th { "bar" } th { "time" } } }
            tbody {
                @for (name, value) in rows {
                    tr title=(format!("{name}\n{value} s in all decoder layers")) {
                        th scope="row" { (name) }
                        td.track { div { i.f1 style=(width(value, longest)) {} } }
                        td { (seconds(value)) }
                    }
                }
            }
        }
    }
}

fn by_layer(layers: &[LayerSeconds]) -> Markup {
    let parts = |layer: &LayerSeconds| {
        [
            ("statistics", layer.statistics),
            ("solver", layer.solver),
            ("evaluation", layer.evaluation),
            ("writing", layer.writing),
        ]
    };
    let sum = |layer: &LayerSeconds| parts(layer).iter().map(|(_, s)| s).sum::<f64>();
    let longest = layers.iter().map(sum).fold(f64::MIN_POSITIVE, f64::max);
    let tip = |layer: &LayerSeconds| {
        let lines = parts(layer).map(|(name, value)| format!("{name} {value} s"));
        format!("layer {}\n{}", layer.layer, lines.join("\n"))
    };
    html! {
        h3 { "All stages by decoder layer" }
        table.bars {
            thead.sr { tr { th { "layer" } th { "bar" } th { "time" } } }
            tbody {
                @for layer in layers {
                    tr title=(tip(layer)) {
                        th scope="row" { (layer.layer) }
                        td.track { div {
                            @for (name, value) in parts(layer) {
                                i class=(about(name).0) style=(width(value, longest)) {}
                            }
                        } }
                        td { (seconds(sum(layer))) }
                    }
                }
            }
        }
    }
}

fn width(value: f64, longest: f64) -> String {
    format!("width:{:.3}%", 100.0 * value / longest)
}
