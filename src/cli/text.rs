//! Plans and reports for people.

use super::show;
use crate::eval::PerplexityScore as Score;
use crate::prune::plan::{Plan, StatePlace};
use crate::report::{self, Report};

pub(crate) fn plan_text(plan: &Plan) -> String {
    let rows: Vec<Vec<String>> = plan
        .operators
        .iter()
        .map(|o| {
            vec![
                o.name.clone(),
                format!("{}x{}", o.shape[0], o.shape[1]),
                o.zeros.to_string(),
            ]
        })
        .collect();
    show::table(&["linear layer", "shape", "zeros"], &rows)
        + &format!(
            "\n{} linear layers in {} decoder layers, {} weights, {} zeros\n",
            plan.operators.len(),
            plan.layers,
            plan.weights,
            plan.zeros,
        )
        + &plan_memory_text(plan)
}

/// Tokens, memory and seconds of a plan.
pub(crate) fn plan_memory_text(plan: &Plan) -> String {
    let evaluation = match plan.evaluation_tokens {
        0 => String::new(),
        tokens => format!(", {tokens} to measure perplexity on"),
    };
    let mut text = format!(
        "{} calibration tokens{evaluation}, {} at once, hidden states {}{}\nabout {} on the device, {} of RAM besides, {} on disk",
        plan.tokens,
        plan.batch_tokens,
        match plan.activations {
            StatePlace::Device => "on the device",
            StatePlace::Host => "in RAM",
            StatePlace::Disk => "in files",
        },
        if plan.offload {
            ", weights and Gram matrices on the device only when they are needed"
        } else {
            ""
        },
        show::bytes(plan.device_bytes),
        show::bytes(plan.host_bytes),
        show::bytes(plan.disk_bytes + plan.activation_disk_bytes),
    );
    if let Some(sentence) = plan.about_free_memory() {
        text += &format!("\n{sentence}");
    }
    if let Some(seconds) = plan.seconds {
        text += &format!(
            "\nabout {:.0} s: statistics {:.0}, solver {:.0}, evaluation {:.0}",
            seconds.total, seconds.statistics, seconds.solver, seconds.evaluation,
        );
    }
    text
}

/// One line per decoder layer, with the errors of its linear layers.
pub(crate) fn errors_text(report: &Report) -> String {
    let mut text = String::new();
    let mut layer = None;
    for operator in &report.operators {
        if layer != Some(operator.layer) {
            layer = Some(operator.layer);
            text += &format!("\nlayer {:>3}  ", operator.layer);
        }
        let short = operator.name.rsplit('.').next().unwrap_or(&operator.name);
        text += &format!("{short} {:.4}  ", operator.relative_error);
    }
    text
}

/// The errors, what had to be said, and what the model is worth.
pub(crate) fn report_text(report: &Report) -> String {
    let mut text = errors_text(report);
    for file in &report.left_out {
        text +=
            &format!("\nnot copied, because it holds unpruned weights or is no part of the model: {file}");
    }
    let raised = report
        .operators
        .iter()
        .filter(|o| o.solver.damping_raised)
        .count();
    if raised > 0 {
        text += &format!(
            "\n{raised} linear layers needed more damping than was set; see {}",
            report::FILE_NAME
        );
    }
    text += &format!(
        "\n\nsparsity {:.4} over {} linear layers, mean relative error {:.5}",
        report.sparsity,
        report.operators.len(),
        report.mean_error(),
    );
    text += &allocation_text(report);
    text += &evaluation_text(report);
    text.trim_start().to_owned()
}

/// What was compared for `--allocation kl`, and what was taken.
fn allocation_text(report: &Report) -> String {
    let tried = &report.tried_allocations;
    let Some(best) = tried.iter().min_by(|a, b| a.divergence.total_cmp(&b.divergence)) else {
        return String::new();
    };
    let uniform = tried.iter().find(|tried| tried.share == 0.0);
    let uniform = uniform.map_or(f64::NAN, |tried| tried.divergence);
    match best.share > 0.0 {
        true => format!(
            "\nallocation kl: divergence from the original model on held-out text {:.4}, with the same sparsity everywhere {uniform:.4}",
            best.divergence
        ),
        false => format!(
            "\nallocation kl: the same sparsity everywhere is best on held-out text, and was used (divergence {uniform:.4})"
        ),
    }
}

/// Perplexities, where they were measured, seconds and memory.
pub(crate) fn evaluation_text(report: &Report) -> String {
    let mut text = String::new();
    if let Some(evaluation) = &report.evaluation {
        let number = |score: &Score| match score.perplexity {
            Some(perplexity) => format!("{perplexity:.4}"),
            None => "not finite".to_owned(),
        };
        text += &format!(
            "\nperplexity {} before, {} after, on {}",
            number(&evaluation.dense),
            number(&evaluation.pruned),
            evaluation.data.sources.join(", "),
        );
    }
    text += &format!("\nwrote {} in {:.1} s", report.output, report.seconds,);
    if let Some(bytes) = report.peak_host_bytes {
        text += &format!(", peak memory {}", show::bytes(bytes));
    }
    text
}
