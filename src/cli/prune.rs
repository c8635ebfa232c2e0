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
use crate::model::Model;
use crate::plan::{self, Plan};
use crate::prune::{self, SavedStatistics, WeightSink};
use crate::report::{self, ModelReport, OperatorReport, Report};
use fista_pruner_backends::{DeviceJob, DeviceSpec, SolverOps, dispatch};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

pub(crate) fn run(args: &PruneArgs, global: &Global) -> Result<()> {
    let started = Instant::now();
    let chosen = model::open(&args.model, global)?;
    let mut config = prune_config(args, &chosen)?;
    let allocation = spread(&args.allocation, &chosen, &mut config)?;
    let windows = data::calibration_of(&chosen, &args.calibrate)?;
    let tokens = windows.ids.len() * windows.seq_len;
    let plan = plan::plan(&chosen.model.checkpoint, &chosen.model.decoder, &config, tokens)?;
    if args.dry_run {
        return show::result(global.format, &plan, plan_text);
    }
    let device = device::choose(global)?;
    let writer = CheckpointWriter::create(&chosen.model.checkpoint, &args.output, args.overwrite)?;
    let statistics = match &args.save_statistics {
        Some(folder) => Some(StatisticsFolder::create(folder, writer.output())?),
        None => None,
    };
    let mut output = Output { writer, statistics };
    let job = Job {
        model: &chosen.model,
        windows: &windows,
        config: &mut config,
        allocation,
        output: &mut output,
        quiet: global.quiet,
    };
    let operators = dispatch(&device, job)??;
    check_written(output.writer.partial(), &operators)?;
    let report = record(
        args,
        &chosen,
        &config,
        &windows,
        &device,
        operators,
        output.writer.left_out(),
        started,
    );
    let json = serde_json::to_vec_pretty(&report).map_err(|e| Error::Internal {
        what: format!("the report is no JSON: {e}"),
    })?;
    output.writer.add_file(report::FILE_NAME, &json)?;
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
    config: &'a mut PruneConfig,
    allocation: Allocation,
    output: &'a mut Output,
    quiet: bool,
}

impl DeviceJob for Job<'_> {
    type Output = Result<Vec<OperatorReport>>;

    fn run<B: SolverOps>(self, device: &B::Device) -> Self::Output {
        let mut bar = Bar::new(self.quiet);
        // A uniform rate leaves what a table file may have said.
        if self.allocation != Allocation::Uniform {
            let source = job(self.model, self.windows, self.config).source();
            self.config.patterns = allocate::<B>(source, self.config, self.allocation, device, &mut bar)?;
        }
        let job = job(self.model, self.windows, self.config);
        prune::prune::<B>(job, device, self.output, &mut bar)
    }
}

fn job<'a>(model: &'a Model, windows: &'a TokenWindows, config: &'a PruneConfig) -> prune::Job<'a> {
    prune::Job {
        checkpoint: &model.checkpoint,
        decoder: &model.decoder,
        windows: &windows.ids,
        config,
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

#[expect(clippy::too_many_arguments, reason = "a record of everything there was")]
fn record(
    args: &PruneArgs,
    chosen: &Chosen,
    config: &PruneConfig,
    windows: &TokenWindows,
    device: &DeviceSpec,
    operators: Vec<OperatorReport>,
    left_out: &[String],
    started: Instant,
) -> Report {
    let propagation = config.propagation;
    let regex = |r: &Option<regex::Regex>| r.as_ref().map(|r| r.as_str().to_owned());
    Report {
        report_version: report::VERSION,
        program: format!("fista-pruner {}", env!("CARGO_PKG_VERSION")),
        model: ModelReport {
            path: chosen.name.clone(),
            family: chosen.model.decoder.config().family().to_string(),
            fingerprint: chosen.model.checkpoint.fingerprint(),
        },
        output: args.output.display().to_string(),
        device: device.to_string(),
        settings: serde_json::json!({
            "sparsity": config.pattern,
            "solver": config.solver,
            "propagate": propagation.name(),
            "propagation": propagation,
            "targets": regex(&config.targets),
            "ignore": regex(&config.ignore),
            "allocation": args.allocation,
            "seed": args.calibrate.seed,
            "batch_tokens": config.batch_tokens,
            "statistics": "per token",
        }),
        calibration: serde_json::json!(windows.summary()),
        sparsity: report::overall_sparsity(&operators),
        seconds: started.elapsed().as_secs_f64(),
        peak_host_bytes: report::peak_host_bytes(),
        left_out: left_out.to_vec(),
        operators,
    }
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
    show::table(&["operator", "shape", "zeros"], &rows)
        + &format!(
            "\n{} operators in {} layers, {} weights, {} zeros\n{} calibration tokens\nabout {} on the device, {} on disk",
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
    let mean = report.operators.iter().map(|o| o.relative_error).sum::<f64>() / report.operators.len() as f64;
    text += &format!(
        "\n\nsparsity {:.4} over {} operators, mean relative error {mean:.5}\nwrote {} in {:.1} s",
        report.sparsity,
        report.operators.len(),
        report.output,
        report.seconds,
    );
    if let Some(bytes) = report.peak_host_bytes {
        text += &format!(", peak memory {}", show::bytes(bytes));
    }
    text.trim_start().to_owned()
}
