//! `prune`: a dense checkpoint in, a pruned one out, with its report; or a part of one.

use super::args::{CalibrationArgs, EvaluationArgs, Global, ModelArgs, RunArgs, SelectionArgs};
use super::help::{LONG_RUNS, METHOD, MODEL};
use super::progress::Bar;
use super::solver_args::SolverArgs;
use super::text::{plan_text, report_text};
use super::values::parse_propagation;
use super::{advice, inputs, show};
use crate::checkpoint::Model;
use crate::config::{Propagation, PruneConfig};
use crate::error::Result;
use crate::prune::{PruneRun, Rates, Shard};
use crate::text::TokenWindows;
use clap::Args;
use std::path::PathBuf;
use std::time::Instant;

#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// The folder for the pruned model.
    #[arg(long, value_name = "DIR", help_heading = MODEL)]
    output: PathBuf,
    /// Replace the output folder if it exists.
    #[arg(long, help_heading = MODEL)]
    overwrite: bool,
    #[command(flatten)]
    solver: SolverArgs,
    /// Error propagation: layers that are already pruned change the input of the next ones. This decides which input a linear
    /// layer is fitted on, and to which output. `intra`, as in the paper: each decoder layer starts from the original model, and
    /// its own pruned parts count. `none`: the original model's input everywhere. `sequential`, as SparseGPT and Wanda: each
    /// decoder layer starts from the pruned model. `true-sequential`: the same, and its own pruned parts count. `full`: pruned
    /// input everywhere, fitted to the original model's output. `partial`: as `true-sequential`, a quarter of the way towards
    /// `full`. Or three switches: input=dense|pruned,within=corrected|uncorrected,target=dense|current. In place of the target's
    /// name, a number from 0 (current) to 1 (dense).
    #[arg(long, default_value = "intra", value_name = "WHAT", value_parser = parse_propagation, help_heading = METHOD)]
    propagate: Propagation,
    /// How the zeros are divided among the linear layers. `uniform`: the same sparsity for each. `owl`: decoder layers with more
    /// outliers keep more weights (arXiv 2310.05175). `error`: more zeros where they increase the measured error least. `kl`:
    /// more zeros in the decoder layers where they change the next-token probabilities least, if that is better on held-out text. The
    /// total is always the same. Or a JSON file: an object from names or regular expressions to sparsities.
    #[arg(long, alias = "sparsity-profile", default_value = "uniform", value_name = "WHAT", help_heading = METHOD)]
    allocation: String,
    #[command(flatten)]
    select: SelectionArgs,
    #[command(flatten)]
    calibrate: CalibrationArgs,
    #[command(flatten)]
    evaluate: EvaluationArgs,
    #[command(flatten)]
    run: RunArgs,
    /// Prune only part K of N, a range of decoder layers, for example on one of several machines. All parts use the same --output;
    /// `merge` then makes one model of them. Works with every --propagate whose decoder layers start from the original model, as
    /// the default.
    #[arg(long, value_name = "K/N", value_parser = str::parse::<Shard>, help_heading = LONG_RUNS)]
    shard: Option<Shard>,
    /// Also write the weight and the calibration statistics of every linear layer into this folder, for `solve`. One file per
    /// decoder layer.
    #[arg(long, value_name = "DIR", help_heading = LONG_RUNS)]
    save_statistics: Option<PathBuf>,
}

pub(crate) fn run(args: &PruneArgs, global: &Global) -> Result<()> {
    let started = Instant::now();
    let model = inputs::model(&args.model, global)?;
    let config = args.config(&model)?;
    let rates = Rates::parse(&args.allocation)?;
    let calibration = args.calibration(&config, &rates, &model, global)?;
    let text_field = args.calibrate.draws.text_field.as_ref();
    let evaluation = args
        .evaluate
        .of_run(&model, text_field, args.shard.is_some(), global)?;
    fista_pruner_backends::exact_memory();
    let devices = inputs::devices(global)?;
    let run = PruneRun::on(&model, &calibration, config, &args.output, devices);
    let run = PruneRun {
        evaluation: evaluation.as_ref(),
        rates,
        overwrite: args.overwrite,
        shard: args.shard,
        save_statistics: args.save_statistics.clone(),
        started,
        ..args.run.of(run)
    };
    if args.run.dry_run {
        return show::result(global.format, &run.plan()?, plan_text);
    }
    let report = run.run(&mut Bar::new(global.quiet))?;
    show::with_advice(global, &report, report_text, |report| {
        advice::pruned(report, args.shard.is_some())
    })
}

impl PruneArgs {
    fn config(&self, model: &Model) -> Result<PruneConfig> {
        let family = model.decoder.config().family();
        let solver = self.solver.config(Some(family))?;
        Ok(PruneConfig {
            propagation: self.propagate,
            targets: self.select.targets.clone(),
            ignore: self.select.ignore.clone(),
            ..PruneConfig::new(self.solver.sparsity, solver)
        })
    }

    /// Magnitudes need no text, and so none has to be named.
    fn calibration(
        &self,
        config: &PruneConfig,
        rates: &Rates,
        model: &Model,
        global: &Global,
    ) -> Result<TokenWindows> {
        let needed = config.needs_text() || rates.needs_text() || self.save_statistics.is_some();
        if !needed && !model.is_demo && self.calibrate.calibration.is_empty() {
            return Ok(TokenWindows::none());
        }
        self.calibrate.windows(model, self.run.at_most(), global)
    }
}
