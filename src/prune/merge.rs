//! The parts of a run over several machines in, the checkpoint that one machine would have made out.

use super::job::{add_report, check_written};
use super::shard::Parts;
use crate::checkpoint::{CheckpointWriter, Model};
use crate::error::{PruneError, Result};
use crate::report::{self, Report, StageSeconds};
use crate::structured;
use crate::system::Destination;
use std::path::Path;
use std::time::Instant;

/// Makes one checkpoint of `parts`, with the report on all of them. `model` is the dense model that they were made of.
///
/// # Errors
/// When the parts are of another model or do not cover it, a file of them is damaged, or as [`CheckpointWriter::create`].
pub fn merge(parts: &Parts, model: &Model, output: &Path, overwrite: bool) -> Result<Report> {
    let started = Instant::now();
    let checkpoint = &model.checkpoint;
    let refuse = |reason: String| PruneError::Parts {
        folder: parts.folder().to_path_buf(),
        reason,
    };
    let first = parts.first();
    let known = &first.identity["model"];
    if known["layout"] != checkpoint.fingerprint() || known["weights"] != checkpoint.sample_sha256()? {
        let dir = checkpoint.dir().display();
        return Err(refuse(format!("they were made of another model than the one in `{dir}`")).into());
    }
    let layers = model.decoder.config().num_layers();
    let covered = parts.descriptions().last().map_or(0, |part| part.layers[1]);
    if covered != layers {
        return Err(refuse(format!("they end at layer {covered} of {layers}")).into());
    }
    let destination = Destination::new(output, overwrite)
        .apart_from(parts.folder())
        .apart_from(model.dir());
    let mut writer = CheckpointWriter::create_at(checkpoint, &destination)?;
    parts.tensors(|name, bytes| writer.write_stored(name, bytes))?;
    let first = Report {
        output: output.display().to_string(),
        left_out: writer.left_out().to_vec(),
        ..first.report.clone()
    };
    let mut report = merged(parts, first, started);
    check_written(writer.partial(), &report.operators)?;
    if let Some(decision) = report.uncut.take() {
        let (mut smaller, structure) =
            structured::cut(model, &writer, &destination, &decision, &mut report.operators)?;
        report.structure = Some(structure);
        report.sparsity = report::overall_sparsity(&report.operators);
        add_report(&mut smaller, &report)?;
        smaller.finish()?;
        return Ok(report);
    }
    add_report(&mut writer, &report)?;
    writer.finish()?;
    Ok(report)
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
