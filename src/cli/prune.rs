//! `prune`: a dense checkpoint in, a pruned one out, with its report; or a part of one.

use super::args::{CalibrationArgs, EvaluationArgs, Global, ModelArgs, parse_propagation};
use super::progress::Bar;
use super::solver_args::SolverArgs;
use super::text::{plan_text, report_text};
use super::{inputs, show};
use crate::checkpoint::Model;
use crate::config::{Propagation, PruneConfig};
use crate::error::Result;
use crate::prune::plan::StatePlace;
use crate::prune::{PruneRun, Rates, Shard};
use crate::text::TokenWindows;
use clap::Args;
use std::path::PathBuf;
use std::time::Instant;

#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Folder to write the pruned checkpoint to.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    #[command(flatten)]
    solver: SolverArgs,
    /// Where inputs and targets come from: `intra` (dense layer input, corrected within the layer, dense target: the
    /// paper's), `none` (no correction), `full` (corrected within and between layers, dense target), `sequential`
    /// (pruned layer input, uncorrected, current target: what SparseGPT and Wanda do), `refreshed` (pruned layer input,
    /// corrected, current target). Or the three switches themselves:
    /// `input=dense|pruned,within=corrected|uncorrected,target=dense|current`.
    #[arg(long, default_value = "intra", value_name = "WHAT", value_parser = parse_propagation)]
    propagate: Propagation,
    /// How the zeros are spread over the operators: `uniform`, `owl` (layers with more outliers keep more, arXiv
    /// 2310.05175), `error` (zeros go where measured errors say they cost least), all with the same number of zeros; or a
    /// JSON file with an object from operators' names or regular expressions to rates or patterns.
    #[arg(long, default_value = "uniform", value_name = "WHAT")]
    allocation: String,
    #[command(flatten)]
    calibrate: CalibrationArgs,
    #[command(flatten)]
    evaluate: EvaluationArgs,
    /// Also write every operator's weight and statistics into this folder, one file a layer, for `solve`.
    #[arg(long, value_name = "DIR")]
    save_statistics: Option<PathBuf>,
    /// Replace the output folder if it exists.
    #[arg(long)]
    overwrite: bool,
    /// Go on after the last finished layer of the run with these settings that was killed or stopped while it wrote to this
    /// --output; where there is none, begin. What is finished stays for the next --resume if this run ends early.
    #[arg(long)]
    resume: bool,
    /// Prune only part K of N: a range of layers, into a folder of its own in --output, which all parts share; `merge` makes a
    /// checkpoint of them. Needs a --propagate with dense layer inputs, as the default has.
    #[arg(long, value_name = "K/N", value_parser = str::parse::<Shard>)]
    shard: Option<Shard>,
    /// Where the hidden states of the calibration set wait while they are not computed with: on the `device`, in the memory of the
    /// `host`, or on `disk`, in files beside the output. Default: the first of device, host and (where the host is the device)
    /// disk that --memory-budget allows.
    #[arg(long, value_enum, value_name = "WHERE")]
    activations: Option<StatePlace>,
    /// Hold on the device only what the step at hand needs: a layer's weights are read again for every step, and Gram matrices
    /// wait on the host. Slower, with the same result. --memory-budget switches it on where nothing else helps.
    #[arg(long)]
    offload: bool,
    /// Most memory that the run may take on the device, such as 24GB or 20GiB. Decides where hidden states wait, how many
    /// tokens are computed at once, and whether to --offload. Default: no limit.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    memory_budget: Option<u64>,
    /// Most RAM that the run may take, such as 32GB. Together with --memory-budget it decides whether hidden states wait in GPU
    /// memory, in RAM or on disk. Default: what is free when the run begins, which changes no result and refuses no run.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    host_memory: Option<u64>,
    /// Show the plan (operators, shapes, memory, disk, and the time, measured on a small part of the work) and stop.
    #[arg(long)]
    dry_run: bool,
}

/// A number of bytes with an optional unit: `24GB`, `20GiB`, `500MB`.
fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "kib" => 1024.0,
        "mib" => 1024.0 * 1024.0,
        "gib" => 1024.0 * 1024.0 * 1024.0,
        unit => return Err(format!("`{unit}` is no unit of bytes: MB, GB, MiB, GiB")),
    };
    match digits.trim().parse::<f64>() {
        Ok(number) if number > 0.0 && number * factor < u64::MAX as f64 => Ok((number * factor) as u64),
        _ => Err(format!("`{text}` is no number of bytes, such as 24GB")),
    }
}

pub(crate) fn run(args: &PruneArgs, global: &Global) -> Result<()> {
    let started = Instant::now();
    let model = inputs::model(&args.model, global)?;
    let config = args.config(&model)?;
    let rates = Rates::parse(&args.allocation)?;
    let calibration = args.calibrate.windows(&model, global)?;
    let evaluation = args.evaluation(&model, global)?;
    let run = PruneRun {
        model: &model,
        calibration: &calibration,
        evaluation: evaluation.as_ref(),
        config,
        rates,
        output: args.output.clone(),
        overwrite: args.overwrite,
        resume: args.resume,
        shard: args.shard,
        devices: inputs::devices(global)?,
        save_statistics: args.save_statistics.clone(),
        activations: args.activations,
        offload: args.offload,
        memory_budget: args.memory_budget,
        host_memory: args.host_memory,
        started,
    };
    if args.dry_run {
        return show::result(global.format, &run.plan()?, plan_text);
    }
    let report = run.run(&mut Bar::new(global.quiet))?;
    show::result(global.format, &report, report_text)
}

impl PruneArgs {
    fn config(&self, model: &Model) -> Result<PruneConfig> {
        let family = model.decoder.config().family();
        let solver = self.solver.config(Some(family))?;
        Ok(PruneConfig {
            propagation: self.propagate,
            targets: self.calibrate.targets.clone(),
            ignore: self.calibrate.ignore.clone(),
            ..PruneConfig::new(self.solver.sparsity, solver)
        })
    }

    /// A part is no model: the demo's own text is not for it.
    fn evaluation(&self, model: &Model, global: &Global) -> Result<Option<TokenWindows>> {
        if self.shard.is_some() && self.evaluate.data.is_none() {
            return Ok(None);
        }
        let text_field = self.calibrate.text.text_field.as_ref();
        self.evaluate.windows(model, text_field, global)
    }
}
