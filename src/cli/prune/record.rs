//! What is written down of a run: what it is, so that it can be continued, and how it went.

use super::job::Pruned;
use crate::calibration::TokenWindows;
use crate::cli::args::PruneArgs;
use crate::cli::model::Chosen;
use crate::config::PruneConfig;
use crate::error::Result;
use crate::report::{self, EvaluationReport, ModelReport, Report, StageSeconds};
use fista_pruner_backends::DeviceSpec;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::time::Instant;

/// How a run went, besides what it made.
pub(super) struct Ran {
    pub(super) device: String,
    pub(super) started: Instant,
    pub(super) stages: StageSeconds,
    pub(super) left_out: Vec<String>,
    pub(super) output: String,
}

/// What makes a run this one and no other: what a run that continues it, and every part of it, must agree on.
pub(super) fn identity(
    args: &PruneArgs,
    chosen: &Chosen,
    config: &PruneConfig,
    (calibration, evaluation): (&TokenWindows, Option<&TokenWindows>),
    device: &DeviceSpec,
) -> Result<Value> {
    let checkpoint = &chosen.model.checkpoint;
    Ok(json!({
        "program": program(),
        "model": { "layout": checkpoint.fingerprint(), "weights": checkpoint.sample_sha256()? },
        "settings": settings(args, config),
        "calibration": windows(calibration),
        "evaluation": evaluation.map(windows),
        "device": device.kind.name(),
        "save_statistics": args.save_statistics.is_some(),
    }))
}

fn program() -> String {
    format!("fista-pruner {}", env!("CARGO_PKG_VERSION"))
}

fn windows(windows: &TokenWindows) -> Value {
    let mut hasher = Sha256::new();
    for id in windows.ids.iter().flatten() {
        hasher.update(id.to_le_bytes());
    }
    json!({
        "windows": windows.ids.len(),
        "seq_len": windows.seq_len,
        "data_sha256": windows.source.sha256,
        "tokens_sha256": format!("{:x}", hasher.finalize()),
    })
}

pub(super) fn record(
    args: &PruneArgs,
    chosen: &Chosen,
    config: &PruneConfig,
    (calibration, evaluation): (&TokenWindows, Option<&TokenWindows>),
    pruned: Pruned,
    ran: Ran,
) -> Report {
    let evaluation = evaluation
        .zip(pruned.scores)
        .map(|(windows, (dense, pruned))| EvaluationReport {
            data: windows.summary(),
            dense,
            pruned,
        });
    Report {
        report_version: report::VERSION,
        program: program(),
        model: ModelReport {
            path: chosen.name.clone(),
            family: chosen.model.decoder.config().family().to_string(),
            fingerprint: chosen.model.checkpoint.fingerprint(),
        },
        output: ran.output,
        device: ran.device,
        settings: settings(args, config),
        calibration: calibration.summary(),
        evaluation,
        sparsity: report::overall_sparsity(&pruned.operators),
        seconds: ran.started.elapsed().as_secs_f64() + pruned.earlier_seconds,
        resumed_layers: pruned.earlier_layers,
        stage_seconds: ran.stages,
        layer_seconds: pruned.layer_seconds,
        peak_host_bytes: report::peak_host_bytes(),
        left_out: ran.left_out,
        operators: pruned.operators,
    }
}

/// Every setting that shapes the result.
fn settings(args: &PruneArgs, config: &PruneConfig) -> serde_json::Value {
    let regex = |r: &Option<regex::Regex>| r.as_ref().map(|r| r.as_str().to_owned());
    serde_json::json!({
        "sparsity": config.pattern,
        "solver": config.solver,
        "propagate": config.propagation.name(),
        "propagation": config.propagation,
        "targets": regex(&config.targets),
        "ignore": regex(&config.ignore),
        "allocation": args.allocation,
        "seed": args.calibrate.seed,
        "batch_tokens": config.batch_tokens,
        "statistics": "per token",
    })
}
