//! What is written down of a run: what it is, so that it can be continued, and how it went.

use super::run::PruneRun;
use super::work::Pruned;
use crate::config::PruneConfig;
use crate::error::Result;
use crate::report::{self, EvaluationReport, ModelReport, Report, StageSeconds, StructureReport, program};
use crate::text::TokenWindows;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// How a run went, besides what it made.
pub(crate) struct Ran {
    pub(crate) stages: StageSeconds,
    pub(crate) left_out: Vec<String>,
    pub(crate) structure: Option<StructureReport>,
    pub(crate) output: String,
}

/// What makes a run this one and no other: what a run that continues it, and every part of it, must agree on. `config` is what
/// the run has made of its own: the tokens computed at once, a table of rates.
pub(crate) fn identity(run: &PruneRun<'_>, config: &PruneConfig) -> Result<Value> {
    let checkpoint = &run.model.checkpoint;
    Ok(json!({
        "program": program(),
        "model": { "layout": checkpoint.fingerprint(), "weights": checkpoint.sample_sha256()? },
        "settings": settings(run, config),
        "calibration": windows(run.calibration),
        "evaluation": run.evaluation.map(windows),
        "device": run.devices[0].kind.name(),
        "save_statistics": run.save_statistics.is_some(),
    }))
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

/// The report.
pub(crate) fn record(run: &PruneRun<'_>, config: &PruneConfig, pruned: Pruned, ran: Ran) -> Report {
    let evaluation = run
        .evaluation
        .zip(pruned.scores)
        .map(|(windows, (dense, pruned))| EvaluationReport {
            data: windows.summary(),
            dense,
            pruned,
        });
    let devices: Vec<String> = run.devices.iter().map(ToString::to_string).collect();
    Report {
        report_version: report::VERSION,
        program: program(),
        model: ModelReport::of(run.model),
        output: ran.output,
        device: devices.join(","),
        settings: settings(run, config),
        calibration: run.calibration.summary(),
        evaluation,
        sparsity: report::overall_sparsity(&pruned.operators),
        seconds: run.started.elapsed().as_secs_f64() + pruned.earlier_seconds,
        resumed_layers: pruned.earlier_layers,
        stage_seconds: ran.stages,
        layer_seconds: pruned.layer_seconds,
        peak_host_bytes: report::peak_host_bytes(),
        left_out: ran.left_out,
        uncut: pruned.decision.filter(|_| ran.structure.is_none()),
        structure: ran.structure,
        tried_allocations: pruned.tried_allocations,
        operators: pruned.operators,
    }
}

/// Every setting that shapes the result.
fn settings(run: &PruneRun<'_>, config: &PruneConfig) -> Value {
    let regex = |r: &Option<regex::Regex>| r.as_ref().map(|r| r.as_str().to_owned());
    json!({
        "sparsity": config.pattern,
        "solver": config.solver,
        "propagate": config.propagation.name(),
        "propagation": config.propagation,
        "targets": regex(&config.targets),
        "ignore": regex(&config.ignore),
        "allocation": run.rates.to_string(),
        "structure": run.structure,
        "seed": run.calibration.seed,
        "batch_tokens": config.batch_tokens,
        "statistics": "per token",
    })
}
