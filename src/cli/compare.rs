//! `compare`: several ways to prune one model, in one table.

use super::args::{CalibrationArgs, EvaluationArgs, Format, Global, ModelArgs, parse_propagation};
use super::progress::Bar;
use super::{inputs, show};
use crate::checkpoint::Model;
use crate::config::{Pattern, Propagation, PruneConfig, SolverConfig};
use crate::error::Result;
use crate::prune::compare::{Comparison, Row, Way};
use crate::prune::{CompareRun, ComparisonReport};
use clap::Args;
use std::collections::BTreeSet;
use std::time::Instant;

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// The ways to compare: NAME[@WARM-START][+polish[=STEPS]][+ridge=R][:ALLOCATION][/PROPAGATION]. NAME is a preset (best, fast,
    /// paper), a method as published (magnitude, wanda, sparsegpt, fista), or fista-scaled.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "magnitude,wanda,sparsegpt,paper,fast,best",
        value_name = "WAY,..."
    )]
    methods: Vec<String>,
    /// The sparsities to take every way to.
    #[arg(long, value_delimiter = ',', default_value = "0.5", value_name = "PATTERN,...", value_parser = str::parse::<Pattern>)]
    sparsity: Vec<Pattern>,
    /// Where inputs and targets come from, for ways that do not say: see `prune --help`.
    #[arg(long, default_value = "intra", value_name = "WHAT", value_parser = parse_propagation)]
    propagate: Propagation,
    /// Most rounds of fista. Default: no limit, as in the paper.
    #[arg(long, value_name = "N")]
    max_rounds: Option<usize>,
    #[command(flatten)]
    calibrate: CalibrationArgs,
    #[command(flatten)]
    evaluate: EvaluationArgs,
}

pub(crate) fn run(args: &CompareArgs, global: &Global) -> Result<()> {
    let started = Instant::now();
    let model = inputs::model(&args.model, global)?;
    let comparison = args.comparison(&model)?;
    let calibration = args.calibrate.windows(&model, global)?;
    let text_field = args.calibrate.text.text_field.as_ref();
    let evaluation = args.evaluate.windows(&model, text_field, global)?;
    let run = CompareRun {
        model: &model,
        calibration: &calibration,
        evaluation: evaluation.as_ref(),
        comparison,
        device: inputs::device(global)?,
        started,
    };
    let report = run.run(&mut Bar::new(global.quiet).with_branches(run.branches()))?;
    match global.format {
        Format::Markdown => show::print(&text(&report, show::markdown)),
        format => show::result(format, &report, |report| text(report, show::table)),
    }
}

impl CompareArgs {
    fn comparison(&self, model: &Model) -> Result<Comparison> {
        let family = model.decoder.config().family();
        let ways = self.methods.iter().map(|way| way.trim().parse());
        Ok(Comparison {
            ways: ways.collect::<Result<Vec<Way>>>()?,
            patterns: self.sparsity.clone(),
            propagation: self.propagate,
            max_rounds: self.max_rounds,
            base: PruneConfig {
                propagation: self.propagate,
                targets: self.calibrate.targets.clone(),
                ignore: self.calibrate.ignore.clone(),
                ..PruneConfig::new(self.sparsity[0], SolverConfig::best(Some(family)))
            },
        })
    }
}

/// The table, and below it what it was measured on.
fn text(report: &ComparisonReport, table: impl Fn(&[&str], &[Vec<String>]) -> String) -> String {
    let kinds: BTreeSet<&String> = report
        .table
        .rows
        .iter()
        .flat_map(|row| row.errors.keys())
        .collect();
    let mut header = vec!["method", "sparsity", "propagate"];
    header.extend(kinds.iter().map(|kind| kind.as_str()));
    header.extend(["mean error", "perplexity", "solver s", "total s"]);
    let cells = |row: &Row| -> Vec<String> {
        let mut cells = vec![
            row.method.clone(),
            row.pattern.to_string(),
            row.propagate.unwrap_or("mixed").to_owned(),
        ];
        cells.extend(kinds.iter().map(|kind| match row.errors.get(*kind) {
            Some(error) => format!("{error:.5}"),
            None => "-".to_owned(),
        }));
        cells.push(format!("{:.5}", row.mean_error));
        cells.push(row.perplexity.map_or("-".to_owned(), |p| format!("{p:.3}")));
        cells.push(format!("{:.1}", row.solver_seconds));
        cells.push(format!("{:.1}", row.seconds));
        cells
    };
    let rows: Vec<Vec<String>> = report.table.rows.iter().map(cells).collect();
    let mut text = table(&header, &rows);
    if let Some(dense) = report.table.dense_perplexity {
        text += &format!("\ndense perplexity {dense:.3}");
    }
    text += &format!(
        "\ncalibration {}: {} windows of {} tokens, seed {} (sha256 {})",
        report.calibration.sources.join(", "),
        report.calibration.windows,
        report.calibration.seq_len,
        report.seed,
        &report.calibration.sha256[..report.calibration.sha256.len().min(16)],
    );
    if let Some(evaluation) = &report.evaluation {
        text += &format!(
            "\nevaluation {}: {} windows of {} tokens (sha256 {})",
            evaluation.sources.join(", "),
            evaluation.windows,
            evaluation.seq_len,
            &evaluation.sha256[..evaluation.sha256.len().min(16)],
        );
    }
    text + &format!(
        "\n{} on {}, {:.1} s in all; errors are ‖V X* − W X‖² / ‖W X‖² on the calibration data, means over layers",
        report.model, report.device, report.seconds
    )
}
