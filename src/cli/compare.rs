//! `compare`: several ways to prune one model, in one table.

use super::args::{CalibrationArgs, EvaluationArgs, Format, Global, ModelArgs, SelectionArgs};
use super::help::{EXPERT, METHOD};
use super::progress::Bar;
use super::values::parse_propagation;
use super::{advice, inputs, show};
use crate::checkpoint::Model;
use crate::config::{Pattern, Propagation, PruneConfig, Removable, SolverConfig, StructureConfig, shown};
use crate::error::Result;
use crate::prune::compare::{Comparison, ComparisonRow, MethodSpec, StructureSpec};
use crate::prune::{CompareRun, ComparisonReport};
use clap::Args;
use std::collections::BTreeSet;
use std::time::Instant;

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// The methods to compare: NAME[@WARM-START][+refit[=STEPS]][+ridge=R][:ALLOCATION][/PROPAGATION]. NAME is a preset (best, fast,
    /// paper), a published method (magnitude, wanda, sparsegpt, fista), or fista-scaled. Here a published method has no refit, as in
    /// its paper. `prune --method sparsegpt` has one: that is `sparsegpt+refit` here. Add /sequential for the error propagation of
    /// SparseGPT and Wanda.
    ///
    /// With --remove: the methods of `shrink`, NAME[+refit|+norefit][:auto]. Default then: magnitude,wanda-sp,flap,leverage,obs.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "magnitude,wanda,sparsegpt,paper,fast,best",
        default_value_if("remove", clap::builder::ArgPredicate::IsPresent, "magnitude,wanda-sp,flap,leverage,obs"),
        value_name = "METHOD,...",
        help_heading = METHOD
    )]
    methods: Vec<String>,
    /// Structured pruning: compare the methods of `shrink` at these shares of the linear weights.
    #[arg(long, value_delimiter = ',', value_name = "SHARE,...", conflicts_with = "sparsity", help_heading = METHOD)]
    remove: Vec<f64>,
    /// With --remove: what is removed, as in `shrink`.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "mlp", value_name = "UNIT,...", requires = "remove", help_heading = METHOD)]
    units: Vec<Removable>,
    /// With --remove: steps of policy-gradient.
    #[arg(long, value_name = "N", requires = "remove", help_heading = EXPERT)]
    steps: Option<usize>,
    /// The sparsities; each method is run with each of them. See `prune --help` for the patterns.
    #[arg(
        long, value_delimiter = ',', default_value = "0.5", value_name = "PATTERN,...", value_parser = str::parse::<Pattern>,
        help_heading = METHOD
    )]
    sparsity: Vec<Pattern>,
    /// Error propagation of the methods that name none: see `prune --help` and `shrink --help`. Default: `intra`, and with --remove
    /// that of `shrink`.
    #[arg(long, value_name = "WHAT", value_parser = parse_propagation, help_heading = METHOD)]
    propagate: Option<Propagation>,
    /// Maximum number of rounds of fista. Default: no limit, as in the paper.
    #[arg(long, value_name = "N", help_heading = EXPERT)]
    max_rounds: Option<usize>,
    #[command(flatten)]
    select: SelectionArgs,
    #[command(flatten)]
    calibrate: CalibrationArgs,
    #[command(flatten)]
    evaluate: EvaluationArgs,
}

pub(crate) fn run(args: &CompareArgs, global: &Global) -> Result<()> {
    let started = Instant::now();
    let model = inputs::model(&args.model, global)?;
    let comparison = args.comparison(&model)?;
    let calibration = args.calibrate.windows(&model, None, global)?;
    let text_field = args.calibrate.draws.text_field.as_ref();
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
        _ => show::with_advice(
            global,
            &report,
            |report| text(report, show::table),
            advice::compared,
        ),
    }
}

impl CompareArgs {
    fn comparison(&self, model: &Model) -> Result<Comparison> {
        let family = model.decoder.config().family();
        let mut structures = Vec::new();
        for remove in &self.remove {
            let base = StructureConfig {
                units: self.units.clone(),
                ..StructureConfig::new(*remove)
            };
            for way in &self.methods {
                let mut way = StructureSpec::parse(way.trim(), &base)?;
                way.structure.policy.steps = self.steps.unwrap_or(way.structure.policy.steps);
                way.structure.policy.seed = self.calibrate.draws.seed;
                way.structure.validate()?;
                way.propagation = self.propagate.unwrap_or(way.propagation);
                structures.push(way);
            }
        }
        let ways = self.methods.iter().filter(|_| structures.is_empty());
        Ok(Comparison {
            ways: ways
                .map(|way| way.trim().parse())
                .collect::<Result<Vec<MethodSpec>>>()?,
            structures,
            patterns: self.sparsity.clone(),
            propagation: self.propagate.unwrap_or(Propagation::INTRA),
            max_rounds: self.max_rounds,
            base: PruneConfig {
                propagation: self.propagate.unwrap_or(Propagation::INTRA),
                targets: self.select.targets.clone(),
                ignore: self.select.ignore.clone(),
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
    let cells = |row: &ComparisonRow| -> Vec<String> {
        let mut cells = vec![
            row.method.clone(),
            row.pattern.to_string(),
            row.propagate.map_or("mixed", shown).to_owned(),
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
        "\ncalibration {}: {} sequences of {} tokens, seed {} (sha256 {})",
        report.calibration.sources.join(", "),
        report.calibration.windows,
        report.calibration.seq_len,
        report.seed,
        &report.calibration.sha256[..report.calibration.sha256.len().min(16)],
    );
    if let Some(evaluation) = &report.evaluation {
        text += &format!(
            "\nevaluation {}: {} sequences of {} tokens (sha256 {})",
            evaluation.sources.join(", "),
            evaluation.windows,
            evaluation.seq_len,
            &evaluation.sha256[..evaluation.sha256.len().min(16)],
        );
    }
    text + &format!(
        "\n{} on {}, {:.1} s in all; errors are ‖V X* − W X‖² / ‖W X‖² on the calibration data, means over the layers",
        report.model,
        show::device(&report.device),
        report.seconds
    )
}
