//! The report as a page: one file with everything in it, that fetches nothing. In: a [`Report`]. Out: HTML, light and dark,
//! readable on a phone and without scripts, which only add tips and sorting.
//!
//! `maud` escapes every text that is put into the page; nothing but the two files beside this one goes in as it is.

mod charts;
mod format;
mod heat;
mod operators;
mod seconds;
mod settings;
mod structure;

use super::{EvaluationReport, Report};
use crate::eval::PerplexityScore as Score;
use crate::text::WindowsSummary;
use format::{bytes, count, kind, many, percent, plain, short};
use maud::{DOCTYPE, Markup, PreEscaped, html};

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
                    @if let Some(structure) = &report.structure { (structure::section(structure)) }
                    div.pair {
                        (heat::errors(&report.operators))
                        @if !heat::all_alike(&report.operators) { (heat::zeros(&report.operators)) }
                        (how_to_read(report))
                    }
                    (charts::work(&report.operators))
                    (seconds::section(report))
                    div.pair {
                        (data(report))
                        (settings::section(&report.settings))
                    }
                    (operators::section(&report.operators))
                    footer { (report.program) " · report format " (report.report_version) }
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

/// What was pruned, how, and the few numbers that matter.
fn head(report: &Report, name: &str) -> Markup {
    let setting = |key: &str| settings::value(key, &report.settings[key]);
    let structured = &report.settings["structure"];
    let method = match &report.structure {
        Some(_) => plain(&structured["method"]),
        None => plain(&report.settings["solver"]["method"]),
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
                "Method " strong { (settings::method(&method)) }
                @if report.structure.is_some() {
                    ", share to remove " strong { (plain(&structured["remove"])) }
                    ", error propagation " strong { (setting("propagate")) } "."
                } @else {
                    ", target sparsity " strong { (setting("sparsity")) }
                    ", error propagation " strong { (setting("propagate")) }
                    ", allocation " strong { (setting("allocation")) } "."
                }
                br;
                @if name != report.model.path { "Original model " code { (report.model.path) } ", pruned model " }
                @else { "Pruned model " }
                code { (report.output) }
            }
            dl.cards {
                @if let Some(structure) = &report.structure {
                    div {
                        dt.key { "Parameters" }
                        dd title=(structure.parameters_after) { "−" (percent(structure.removed_of_all)) " %" }
                        dd.more { (count(structure.parameters_before)) " → " (count(structure.parameters_after)) }
                    }
                } @else { div {
                    dt.key { "Sparsity" }
                    dd title=(format!("{zeros} of {weights} weights")) { (percent(report.sparsity)) " %" }
                    dd.more { (count(zeros)) " of " (count(weights)) " weights in " (many(report.operators.len(), "linear layer")) }
                } }
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
                    dd.more { "solver " (format::seconds(seconds.solver)) }
                }
                @if let Some(peak) = report.peak_host_bytes {
                    div {
                        dt.key { "Peak RAM" }
                        dd title=(format!("{peak} bytes")) { (bytes(peak)) }
                        dd.more { "of the whole program" }
                    }
                }
                div {
                    dt.key { "Device" }
                    dd { (report.device.replace("flex", "cpu")) }
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
            p.note {
                "More damping than asked for was necessary in " (many(raised, "linear layer")) ". The table of all linear layers shows \
                 “raised” there."
            }
        }
        @if !report.left_out.is_empty() {
            p.note { "Not copied, because it still has the original weights or is no part of the model: " (report.left_out.join(", ")) }
        }
        @if report.evaluation.is_none() {
            p.note { "Perplexity was not measured. " code { "prune --eval-data FILE" } " measures it before and after pruning, in the same run." }
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
        ("original", &evaluation.dense, "f7"),
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
            p.note {
                "Lower is better. Measured on " (evaluation.data.sources.join(", ")) ": " (evaluation.data.protocol) ". Compare it only \
                 with values of the same text, tokenizer and sequence length."
            }
            table.bars {
                thead.sr { tr { th { "model" } th { "bar" } th { "perplexity" } th { "mean negative log-likelihood" } } }
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

/// How to read the errors, in plain words.
fn how_to_read(report: &Report) -> Markup {
    html! {
        section aria-labelledby="reading" {
            h2 #reading { "How to read the errors" }
            @if let (true, Some(first)) = (heat::all_alike(&report.operators), report.operators.first()) {
                p.note { "Every linear layer has " (percent(first.sparsity)) " % zeros." }
            }
            ul.reading {
                li {
                    "The error of a linear layer says how much pruning changed its output on the calibration text. 1 % (0.01 in the JSON) \
                     means: the squared difference is one hundredth of the squared output. 0 % is no change; 100 % is as bad as an \
                     output of zeros."
                }
                li {
                    "An example of usual values, layer 10 of SmolLM2-135M at 50 % with the default settings: in attention 0.3 % for "
                    code { "q_proj" } " and 1.2 % for " code { "o_proj" } ", in the MLP 1.9 % for " code { "up_proj" } " and 1.1 % for "
                    code { "down_proj" } ". With 2:4 they are two to three times as large, at 70 % three to four times."
                }
                li {
                    "Compare errors of several runs on one model and one calibration text: there, lower is better. Errors of different models \
                     say little: the same error can cost one model much more than another."
                }
                li {
                    "What counts in the end is the quality of the whole model, for example its perplexity on other text. Lower perplexity is \
                     better."
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
                dt { "sequences" } dd { (count(data.windows)) " of " (many(data.seq_len, "token")) ", " (many(data.tokens, "token")) " together" }
                dt { "protocol" } dd { (data.protocol) }
            }
        }
    };
    html! {
        section aria-labelledby="data" {
            h2 #data { "Model and data" }
            h3 { "Original model" }
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

#[cfg(test)]
mod tests;
