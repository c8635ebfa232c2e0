//! `merge`: the parts of a run over several machines in, the checkpoint that one machine would have made out.

use super::args::{Global, ModelArgs};
use super::prune::{add_report, check_written, report_text};
use super::{model, show};
use crate::checkpoint::CheckpointWriter;
use crate::error::{Error, Result};
use crate::report::{self, Report, StageSeconds};
use crate::shard::Parts;
use clap::Args;
use std::path::PathBuf;
use std::time::Instant;

#[derive(Debug, Args)]
pub(crate) struct MergeArgs {
    /// The folder that all parts were written to: the --output of `prune --shard`.
    #[arg(long, value_name = "DIR")]
    parts: PathBuf,
    /// Folder to write the pruned checkpoint to.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// The dense model, where it is no longer where the parts found it.
    #[arg(long, value_name = "DIR|ID")]
    model: Option<PathBuf>,
    /// Branch, tag or commit of a model of the hub. Default: main.
    #[arg(long, value_name = "REV", requires = "model")]
    revision: Option<String>,
    /// Replace the output folder if it exists.
    #[arg(long)]
    overwrite: bool,
}

pub(crate) fn run(args: &MergeArgs, global: &Global) -> Result<()> {
    let started = Instant::now();
    let parts = Parts::open(&args.parts)?;
    let first = parts.descriptions().next().ok_or_else(|| Error::Internal {
        what: "no parts".into(),
    })?;
    let wanted = ModelArgs {
        model: Some(args.model.clone().unwrap_or_else(|| first.model.clone())),
        revision: args.revision.clone(),
    };
    let chosen = model::open(&wanted, global)?;
    let checkpoint = &chosen.model.checkpoint;
    let refuse = |reason: String| Error::Parts {
        folder: args.parts.clone(),
        reason,
    };
    let known = &first.identity["model"];
    if known["layout"] != checkpoint.fingerprint() || known["weights"] != checkpoint.sample_sha256()? {
        return Err(refuse(format!(
            "they were made of another model than the one in `{}`",
            checkpoint.dir().display()
        )));
    }
    let layers = chosen.model.decoder.config().num_layers();
    let covered = parts.descriptions().last().map_or(0, |part| part.layers[1]);
    if covered != layers {
        return Err(refuse(format!("they end at layer {covered} of {layers}")));
    }
    let mut writer = CheckpointWriter::create(checkpoint, &args.output, args.overwrite)?;
    parts.tensors(|name, bytes| writer.write_stored(name, bytes))?;
    let first = Report {
        output: args.output.display().to_string(),
        left_out: writer.left_out().to_vec(),
        ..first.report.clone()
    };
    let report = merged(&parts, first, started);
    check_written(writer.partial(), &report.operators)?;
    add_report(&mut writer, &report)?;
    writer.finish()?;
    show::result(global.format, &report, report_text)
}

/// One report on all parts. Their seconds add up: they are work, not the time from begin to end.
fn merged(parts: &Parts, first: Report, started: Instant) -> Report {
    let mut report = Report {
        sparsity: 0.0,
        seconds: started.elapsed().as_secs_f64(),
        stage_seconds: StageSeconds::default(),
        layer_seconds: Vec::new(),
        resumed_layers: 0,
        peak_host_bytes: None,
        operators: Vec::new(),
        ..first
    };
    for part in parts.descriptions() {
        let own = &part.report;
        report.seconds += own.seconds;
        report.stage_seconds.add(&own.stage_seconds);
        report.layer_seconds.extend(own.layer_seconds.iter().cloned());
        report.resumed_layers += own.resumed_layers;
        report.peak_host_bytes = report.peak_host_bytes.max(own.peak_host_bytes);
        report.operators.extend(own.operators.iter().cloned());
    }
    report.stage_seconds.writing += started.elapsed().as_secs_f64();
    report.sparsity = report::overall_sparsity(&report.operators);
    report
}
