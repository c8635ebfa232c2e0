//! `prune`: a dense checkpoint in, a pruned one out, with its report.

use super::args::{Global, PruneArgs};
use super::model::Chosen;
use super::progress::Bar;
use super::statistics::StatisticsFolder;
use super::{data, device, model, show, solve};
use crate::allocation::{Allocation, allocate, read_table};
use crate::calibration::TokenWindows;
use crate::checkpoint::CheckpointWriter;
use crate::config::PruneConfig;
use crate::error::{Error, Result};
use crate::eval::{Along, PerplexityScore as Score};
use crate::model::Model;
use crate::plan::{self, Plan};
use crate::prune::{self, AfterLayer, Branch, SavedStatistics, Source, WeightSink, prune_branches};
use crate::report::{
    self, EvaluationReport, LayerSeconds, ModelReport, OperatorReport, Report, StageSeconds, Timer, html,
};
use fista_pruner_backends::{DeviceJob, SolverOps, dispatch};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

pub(crate) fn run(args: &PruneArgs, global: &Global) -> Result<()> {
    let started = Instant::now();
    let mut seconds = StageSeconds::default();
    let chosen = model::open(&args.model, global)?;
    let mut config = prune_config(args, &chosen)?;
    let allocation = spread(&args.allocation, &chosen, &mut config)?;
    let windows = data::calibration_of(&chosen, &args.calibrate)?;
    let evaluation = data::evaluation_of(&chosen, &args.evaluate, &args.calibrate.text)?;
    let tokens = |windows: &TokenWindows| windows.ids.len() * windows.seq_len;
    let both = (tokens(&windows), evaluation.as_ref().map_or(0, tokens));
    let plan = plan::plan(&chosen.model.checkpoint, &chosen.model.decoder, &config, both)?;
    if args.dry_run {
        return show::result(global.format, &plan, plan_text);
    }
    let device = device::choose(global)?;
    seconds.preparation = started.elapsed().as_secs_f64();
    let copying = Instant::now();
    let writer = CheckpointWriter::create(&chosen.model.checkpoint, &args.output, args.overwrite)?;
    let statistics = match &args.save_statistics {
        Some(folder) => Some(StatisticsFolder::create(folder, writer.output())?),
        None => None,
    };
    seconds.writing = copying.elapsed().as_secs_f64();
    let mut output = Output { writer, statistics };
    let job = Job {
        model: &chosen.model,
        windows: &windows,
        evaluation: evaluation.as_ref().map_or(&[], |windows| &windows.ids),
        config: &mut config,
        allocation,
        output: &mut output,
        seconds: &mut seconds,
        quiet: global.quiet,
    };
    let pruned = dispatch(&device, job)??;
    let checking = Instant::now();
    check_written(output.writer.partial(), &pruned.operators)?;
    seconds.writing += checking.elapsed().as_secs_f64();
    let ran = Ran {
        device: device.to_string(),
        started,
        stages: seconds,
        left_out: output.writer.left_out().to_vec(),
    };
    let report = record(
        args,
        &chosen,
        &config,
        (&windows, evaluation.as_ref()),
        pruned,
        ran,
    );
    let json = report.to_json()?;
    output.writer.add_file(report::FILE_NAME, &json)?;
    // Of what readers of the file will find: parsed numbers can differ in their last bit.
    let stored: Report = serde_json::from_slice(&json).map_err(|e| Error::Internal {
        what: format!("the report cannot be read back: {e}"),
    })?;
    output
        .writer
        .add_file(report::HTML_NAME, html::page(&stored).as_bytes())?;
    if let Some(statistics) = output.statistics {
        statistics.finish()?;
    }
    output.writer.finish()?;
    show::result(global.format, &report, report_text)
}

fn prune_config(args: &PruneArgs, chosen: &Chosen) -> Result<PruneConfig> {
    let family = chosen.model.decoder.config().family();
    Ok(PruneConfig {
        pattern: args.solver.sparsity,
        solver: solve::solver_config(&args.solver, Some(family))?,
        propagation: args.propagate,
        patterns: BTreeMap::new(),
        targets: args.calibrate.targets.clone(),
        ignore: args.calibrate.ignore.clone(),
        batch_tokens: PruneConfig::BATCH_TOKENS,
    })
}

/// What `--allocation` says: one of the rules, or a file, whose table goes into `config` at once.
fn spread(text: &str, chosen: &Chosen, config: &mut PruneConfig) -> Result<Allocation> {
    if let Some((_, allocation)) = Allocation::ALL.iter().find(|(name, _)| *name == text) {
        return Ok(*allocation);
    }
    let path = Path::new(text);
    if !path.exists() {
        return Err(Error::Setting {
            setting: "--allocation",
            reason: format!("`{text}` is neither uniform, owl, error nor a file"),
        });
    }
    let names: Vec<String> = prune::selected(&chosen.model.decoder, config)
        .into_iter()
        .map(|operator| operator.name)
        .collect();
    config.patterns = read_table(path, &names)?;
    Ok(Allocation::Uniform)
}

struct Job<'a> {
    model: &'a Model,
    windows: &'a TokenWindows,
    /// May be empty.
    evaluation: &'a [Vec<u32>],
    config: &'a mut PruneConfig,
    allocation: Allocation,
    output: &'a mut Output,
    /// The loop's stages are added to it.
    seconds: &'a mut StageSeconds,
    quiet: bool,
}

/// What the device made.
struct Pruned {
    operators: Vec<OperatorReport>,
    layer_seconds: Vec<LayerSeconds>,
    /// Of the dense and the pruned model.
    scores: Option<(Score, Score)>,
}

impl DeviceJob for Job<'_> {
    type Output = Result<Pruned>;

    fn run<B: SolverOps>(self, device: &B::Device) -> Self::Output {
        let mut bar = Bar::new(self.quiet);
        let source = Source {
            checkpoint: &self.model.checkpoint,
            decoder: &self.model.decoder,
            windows: &self.windows.ids,
            batch_tokens: self.config.batch_tokens,
        };
        let seconds = self.seconds;
        // A uniform rate leaves what a table file may have said.
        if self.allocation != Allocation::Uniform {
            let started = Instant::now();
            self.config.patterns = allocate::<B>(source, self.config, self.allocation, device, &mut bar)?;
            seconds.allocation = started.elapsed().as_secs_f64();
        }
        let embedding = Instant::now();
        let evaluated = Source {
            windows: self.evaluation,
            ..source
        };
        let mut along = Along::<B>::new(evaluated, 1, device)?;
        seconds.evaluation = embedding.elapsed().as_secs_f64();
        let timer = Timer::new();
        let branch = Branch {
            config: self.config,
            sink: &mut timer.sink(self.output),
        };
        let after_layer: &mut AfterLayer<'_, B> = &mut |layer, dense, pruned| {
            timer.layer(layer, || {
                along.layer(dense, pruned);
                Ok(())
            })
        };
        let (outcomes, _) = prune_branches::<B>(source, vec![branch], device, &mut bar, after_layer)?;
        let operators = outcomes.into_iter().flat_map(|o| o.operators).collect::<Vec<_>>();
        let layer_seconds = timer.finish(&operators);
        seconds.add_layers(&layer_seconds);
        let scoring = Instant::now();
        let scores: Vec<Score> = along.finish(device)?.iter().map(|nll| Score::of(nll)).collect();
        seconds.evaluation += scoring.elapsed().as_secs_f64();
        Ok(Pruned {
            operators,
            layer_seconds,
            scores: <[Score; 2]>::try_from(scores)
                .ok()
                .map(|[dense, pruned]| (dense, pruned)),
        })
    }
}

/// Where a run's weights and statistics go.
struct Output {
    writer: CheckpointWriter,
    statistics: Option<StatisticsFolder>,
}

impl WeightSink for Output {
    fn weight(&mut self, name: &str, values: &[f32], keep: &[bool]) -> Result<()> {
        self.writer.write_weight(name, values, keep)
    }

    fn wants_statistics(&self) -> bool {
        self.statistics.is_some()
    }

    fn statistics(&mut self, operator: SavedStatistics) -> Result<()> {
        if let Some(folder) = &mut self.statistics {
            folder.add(operator);
        }
        Ok(())
    }

    fn layer_done(&mut self, layer: usize) -> Result<()> {
        match &mut self.statistics {
            Some(folder) => folder.write(layer),
            None => Ok(()),
        }
    }
}

/// Reads every pruned operator back and checks its pattern and its zeros, before the output gets its name.
fn check_written(partial: &Path, operators: &[OperatorReport]) -> Result<()> {
    let written = crate::checkpoint::Checkpoint::open(partial)?;
    for operator in operators {
        let values = written.read(&format!("{}.weight", operator.name), &operator.shape)?;
        let [rows, columns] = operator.shape;
        operator.pattern.check(&operator.name, &values, rows, columns)?;
        let zeros = values.iter().filter(|v| **v == 0.0).count();
        if zeros != operator.zeros {
            return Err(Error::PatternBroken {
                pattern: operator.pattern,
                operator: operator.name.clone(),
                reason: format!("{zeros} zeros were written, {} were meant", operator.zeros),
            });
        }
    }
    Ok(())
}

/// How a run went, besides what it made.
struct Ran {
    device: String,
    started: Instant,
    stages: StageSeconds,
    left_out: Vec<String>,
}

fn record(
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
        program: format!("fista-pruner {}", env!("CARGO_PKG_VERSION")),
        model: ModelReport {
            path: chosen.name.clone(),
            family: chosen.model.decoder.config().family().to_string(),
            fingerprint: chosen.model.checkpoint.fingerprint(),
        },
        output: args.output.display().to_string(),
        device: ran.device,
        settings: settings(args, config),
        calibration: calibration.summary(),
        evaluation,
        sparsity: report::overall_sparsity(&pruned.operators),
        seconds: ran.started.elapsed().as_secs_f64(),
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

fn plan_text(plan: &Plan) -> String {
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
    let evaluation = match plan.evaluation_tokens {
        0 => String::new(),
        tokens => format!(", {tokens} to measure perplexity on"),
    };
    show::table(&["operator", "shape", "zeros"], &rows)
        + &format!(
            "\n{} operators in {} layers, {} weights, {} zeros\n{} calibration tokens{evaluation}\n\
             about {} on the device, {} on disk",
            plan.operators.len(),
            plan.layers,
            plan.weights,
            plan.zeros,
            plan.tokens,
            show::bytes(plan.device_bytes),
            show::bytes(plan.disk_bytes),
        )
}

/// A line a layer: its operators' errors.
fn report_text(report: &Report) -> String {
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
    for file in &report.left_out {
        text += &format!("\nnot copied, it would still be dense: {file}");
    }
    let raised = report
        .operators
        .iter()
        .filter(|o| o.solver.damping_raised)
        .count();
    if raised > 0 {
        text += &format!(
            "\n{raised} factorisations needed more damping; see {}",
            report::FILE_NAME
        );
    }
    text += &format!(
        "\n\nsparsity {:.4} over {} operators, mean relative error {:.5}",
        report.sparsity,
        report.operators.len(),
        report.mean_error(),
    );
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
    text.trim_start().to_owned()
}
