//! `compare`: several ways to prune one model, in one table.

use super::args::{CompareArgs, Format, Global};
use super::progress::Bar;
use super::{data, device, model, show};
use crate::calibration::{TokenWindows, WindowsSummary};
use crate::compare::{Comparison, Row, Table, Way, compare};
use crate::config::{PruneConfig, SolverConfig};
use crate::error::Result;
use crate::model::Model;
use crate::prune::{Source, StateStore};
use fista_pruner_backends::{DeviceJob, SolverOps, dispatch_opened};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

struct Job<'a> {
    model: &'a Model,
    calibration: &'a TokenWindows,
    evaluation: &'a [Vec<u32>],
    comparison: &'a Comparison,
    quiet: bool,
}

impl DeviceJob for Job<'_> {
    type Output = Result<Table>;

    fn run<B: SolverOps>(self, device: &B::Device) -> Self::Output {
        let source = Source {
            checkpoint: &self.model.checkpoint,
            decoder: &self.model.decoder,
            windows: &self.calibration.ids,
            batch_tokens: self.comparison.base.batch_tokens,
            states: StateStore::ON_DEVICE,
            offload: false,
        };
        // The order of the table, which is that of the branches.
        let branches = self.comparison.patterns.iter().flat_map(|pattern| {
            let ways = self.comparison.ways.iter();
            ways.map(move |way| format!("{} {pattern}", way.name))
        });
        compare::<B>(
            source,
            self.comparison,
            self.evaluation,
            device,
            &mut Bar::new(self.quiet).with_branches(branches.collect()),
        )
    }
}

#[derive(Debug, Serialize)]
struct Outcome {
    program: String,
    model: String,
    fingerprint: String,
    device: String,
    calibration: WindowsSummary,
    seed: u64,
    evaluation: Option<WindowsSummary>,
    seconds: f64,
    peak_host_bytes: Option<u64>,
    #[serde(flatten)]
    table: Table,
}

pub(crate) fn run(args: &CompareArgs, global: &Global) -> Result<()> {
    let started = Instant::now();
    let chosen = model::open(&args.model, global)?;
    let ways = args
        .methods
        .iter()
        .map(|way| way.trim().parse())
        .collect::<Result<Vec<Way>>>()?;
    let family = chosen.model.decoder.config().family();
    let comparison = Comparison {
        ways,
        patterns: args.sparsity.clone(),
        propagation: args.propagate,
        max_rounds: args.max_rounds,
        base: PruneConfig {
            pattern: args.sparsity[0],
            patterns: BTreeMap::new(),
            solver: SolverConfig::best(Some(family)),
            propagation: args.propagate,
            targets: args.calibrate.targets.clone(),
            ignore: args.calibrate.ignore.clone(),
            batch_tokens: PruneConfig::BATCH_TOKENS,
        },
    };
    let calibration = data::calibration_of(&chosen, &args.calibrate)?;
    let evaluation = data::evaluation_of(&chosen, &args.evaluate, &args.calibrate.text)?;
    let device = device::choose(global)?;
    let job = Job {
        model: &chosen.model,
        calibration: &calibration,
        evaluation: evaluation.as_ref().map_or(&[], |windows| &windows.ids),
        comparison: &comparison,
        quiet: global.quiet,
    };
    let table = dispatch_opened(&device, job)??;
    let outcome = Outcome {
        program: format!("fista-pruner {}", env!("CARGO_PKG_VERSION")),
        model: chosen.name,
        fingerprint: chosen.model.checkpoint.fingerprint(),
        device: device.to_string(),
        calibration: calibration.summary(),
        seed: args.calibrate.seed,
        evaluation: evaluation.map(|windows| windows.summary()),
        seconds: started.elapsed().as_secs_f64(),
        peak_host_bytes: crate::report::peak_host_bytes(),
        table,
    };
    match global.format {
        Format::Markdown => show::print(&text(&outcome, show::markdown)),
        format => show::result(format, &outcome, |outcome| text(outcome, show::table)),
    }
}

/// The table, and below it what it was measured on.
fn text(outcome: &Outcome, table: impl Fn(&[&str], &[Vec<String>]) -> String) -> String {
    let kinds: BTreeSet<&String> = outcome
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
    let rows: Vec<Vec<String>> = outcome.table.rows.iter().map(cells).collect();
    let mut text = table(&header, &rows);
    if let Some(dense) = outcome.table.dense_perplexity {
        text += &format!("\ndense perplexity {dense:.3}");
    }
    text += &format!(
        "\ncalibration {}: {} windows of {} tokens, seed {} (sha256 {})",
        outcome.calibration.sources.join(", "),
        outcome.calibration.windows,
        outcome.calibration.seq_len,
        outcome.seed,
        &outcome.calibration.sha256[..outcome.calibration.sha256.len().min(16)],
    );
    if let Some(evaluation) = &outcome.evaluation {
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
        outcome.model, outcome.device, outcome.seconds
    )
}
