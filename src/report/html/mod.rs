//! The report as a page: one file with everything in it, that fetches nothing. In: a [`Report`]. Out: HTML, light and dark,
//! readable on a phone and without scripts, which only add tips and sorting.
//!
//! `maud` escapes every text that is put into the page; nothing but the two files beside this one goes in as it is.

mod charts;
mod format;
mod heat;
mod operators;
mod seconds;

use super::{EvaluationReport, Report};
use crate::eval::PerplexityScore as Score;
use crate::text::WindowsSummary;
use format::{bytes, count, kind, many, percent, short};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value;

/// Not one request, whatever a later change may put into the page.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      base-uri 'none'; form-action 'none'";

/// The page of a report.
pub fn page(report: &Report) -> String {
    let name = model_name(&report.model.path);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (name) " · pruning report" }
                style { (PreEscaped(include_str!("style.css"))) }
            }
            body {
                main {
                    (head(report, name))
                    (warnings(report))
                    @if let Some(evaluation) = &report.evaluation { (perplexity(evaluation)) }
                    div.pair {
                        (heat::errors(&report.operators))
                        (heat::zeros(&report.operators))
                    }
                    (charts::work(&report.operators))
                    (seconds::section(report))
                    div.pair {
                        (data(report))
                        section aria-labelledby="settings" {
                            h2 #settings { "Settings" }
                            p.note { "Everything that shapes the result. The same settings, data and kind of device give \
                                      the same weights." }
                            (settings(&report.settings))
                        }
                    }
                    (operators::section(&report.operators))
                    footer { (report.program) " · report layout " (report.report_version) }
                }
                script { (PreEscaped(include_str!("script.js"))) }
            }
        }
    };
    page.into_string()
}

/// A path's last part, without a commit of the hub; a name that is no path stays whole.
fn model_name(path: &str) -> &str {
    let trimmed = path.trim_end_matches(['/', '\\']);
    let last = match trimmed.rsplit(['/', '\\']).next() {
        Some(last) if !last.is_empty() && last != "." && last != ".." => last,
        _ => return path,
    };
    match last.split_once('@') {
        Some((name, commit)) if commit.len() == 40 && commit.bytes().all(|b| b.is_ascii_hexdigit()) => name,
        _ => last,
    }
}

/// Who, how, and the few numbers that matter.
fn head(report: &Report, name: &str) -> Markup {
    let text = |path: &[&str]| -> String {
        let value = path.iter().fold(&report.settings, |value, key| &value[key]);
        plain(value)
    };
    let weights: usize = report.operators.iter().map(|o| o.shape[0] * o.shape[1]).sum();
    let zeros: usize = report.operators.iter().map(|o| o.zeros).sum();
    let worst = report
        .operators
        .iter()
        .max_by(|a, b| a.relative_error.total_cmp(&b.relative_error));
    let seconds = &report.stage_seconds;
    html! {
        header {
            p.eyebrow { "Pruning report" }
            h1 { (name) }
            p.sub {
                "Method " strong { (text(&["solver", "method"])) }
                ", sparsity asked for " strong { (text(&["sparsity"])) }
                ", propagation " strong { (text(&["propagate"])) }
                ", allocation " strong { (text(&["allocation"])) }
                @if name != report.model.path { br; "from " code { (report.model.path) } }
                " to " code { (report.output) }
            }
            dl.cards {
                div {
                    dt.key { "Sparsity" }
                    dd title=(format!("{zeros} of {weights} weights")) { (percent(report.sparsity)) " %" }
                    dd.more { (count(zeros)) " of " (count(weights)) " weights in " (many(report.operators.len(), "operator")) }
                }
                @if let Some(evaluation) = &report.evaluation {
                    div {
                        dt.key { "Perplexity" }
                        dd { (score(evaluation.dense.perplexity)) " → " (score(evaluation.pruned.perplexity)) }
                        dd.more { (change(evaluation)) }
                    }
                }
                div {
                    dt.key { "Mean error" }
                    dd title=(report.mean_error()) { (percent(report.mean_error())) " %" }
                    @if let Some(worst) = worst {
                        dd.more { "largest " (percent(worst.relative_error)) " %, layer " (worst.layer) " " (kind(&worst.name)) }
                    }
                }
                div {
                    dt.key { "Time" }
                    dd title=(format!("{} s", report.seconds)) { (format::seconds(report.seconds)) }
                    dd.more { "of which solver " (format::seconds(seconds.solver)) }
                }
                @if let Some(peak) = report.peak_host_bytes {
                    div {
                        dt.key { "Peak memory" }
                        dd title=(format!("{peak} bytes")) { (bytes(peak)) }
                        dd.more { "of the process on the host" }
                    }
                }
                div {
                    dt.key { "Device" }
                    dd { (report.device) }
                    dd.more { "model family " (report.model.family) }
                }
            }
        }
    }
}

/// What a reader has to know before anything else.
fn warnings(report: &Report) -> Markup {
    let raised = report
        .operators
        .iter()
        .filter(|o| o.solver.damping_raised)
        .count();
    html! {
        @if raised > 0 {
            p.note { (many(raised, "factorisation")) " needed more damping than was asked for; the table of operators says which." }
        }
        @if !report.left_out.is_empty() {
            p.note { "Not copied, because it would still be dense: " (report.left_out.join(", ")) }
        }
        @if report.evaluation.is_none() {
            p.note { "Perplexity was not measured; " code { "prune --data FILE" } " measures it before and after in the same pass." }
        }
    }
}

fn score(value: Option<f64>) -> String {
    value.map_or("not finite".to_owned(), |value| match value {
        v if v < 1000.0 => format!("{v:.2}"),
        v => short(v),
    })
}

/// By how much perplexity rose.
fn change(evaluation: &EvaluationReport) -> Markup {
    match (evaluation.dense.perplexity, evaluation.pruned.perplexity) {
        (Some(dense), Some(pruned)) => {
            let change = pruned / dense - 1.0;
            let (class, sign) = if change > 0.0 {
                ("up", "+")
            } else {
                ("down", "−")
            };
            html! { span class=(class) { (sign) (percent(change.abs())) " %" } " on " (evaluation.data.sources.join(", ")) }
        }
        _ => html! { "on " (evaluation.data.sources.join(", ")) },
    }
}

fn perplexity(evaluation: &EvaluationReport) -> Markup {
    let models = [
        ("dense", &evaluation.dense, "f7"),
        ("pruned", &evaluation.pruned, "f0"),
    ];
    let largest = models
        .iter()
        .filter_map(|(_, s, _)| s.perplexity)
        .fold(0.0, f64::max);
    let exact = |value: Option<f64>, digits: usize| match value {
        Some(value) => format!("{value:.digits$}"),
        None => "not finite".to_owned(),
    };
    let width = |s: &Score| {
        s.perplexity
            .map_or(0.0, |p| 100.0 * p / largest.max(f64::MIN_POSITIVE))
    };
    html! {
        section aria-labelledby="perplexity" {
            h2 #perplexity { "Perplexity before and after" }
            p.note { "On " (evaluation.data.sources.join(", ")) ": " (evaluation.data.protocol) ". Lower is better." }
            table.bars {
                thead.sr { tr { th { "model" } th { "bar" } th { "perplexity" } th { "mean nll" } } }
                tbody {
                    @for (name, score, class) in models {
                        tr {
                            th scope="row" { (name) }
                            td.track { div { i class=(class) style={"width:" (format!("{:.2}", width(score))) "%"} {} } }
                            td { strong { (exact(score.perplexity, 4)) } }
                            td title=(exact(score.mean_nll, 9)) { (exact(score.mean_nll, 4)) " nats" }
                        }
                    }
                }
            }
        }
    }
}

/// What went in, by its hashes.
fn data(report: &Report) -> Markup {
    let windows = |name: &str, data: &WindowsSummary| {
        html! {
            h3 { (name) }
            dl.facts {
                dt { "files" } dd { (data.sources.join(", ")) }
                dt { "SHA-256" } dd { code { (data.sha256) } }
                dt { "windows" } dd { (count(data.windows)) " of " (many(data.seq_len, "token")) ", " (many(data.tokens, "token")) " in all" }
                dt { "protocol" } dd { (data.protocol) }
            }
        }
    };
    html! {
        section aria-labelledby="data" {
            h2 #data { "Model and data" }
            h3 { "Dense model" }
            dl.facts {
                dt { "path" } dd { (report.model.path) }
                dt { "family" } dd { (report.model.family) }
                dt { "fingerprint" } dd { code { (report.model.fingerprint) } }
                dt { "output" } dd { (report.output) }
            }
            (windows("Calibration", &report.calibration))
            @if let Some(evaluation) = &report.evaluation { (windows("Evaluation", &evaluation.data)) }
        }
    }
}

/// Plain values as a list, objects folded below it.
fn settings(value: &Value) -> Markup {
    let Some(object) = value.as_object() else {
        return html! { p { (plain(value)) } };
    };
    let (nested, flat): (Vec<_>, Vec<_>) = object.iter().partition(|(_, value)| value.is_object());
    html! {
        dl.facts {
            @for (key, value) in flat { dt { (key) } dd { (plain(value)) } }
        }
        @for (key, value) in nested {
            details open[key == "solver"] {
                summary { (key) }
                (settings(value))
            }
        }
    }
}

/// A setting in words.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
