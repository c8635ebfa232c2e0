//! What the command `prune` does, from a program of one's own; a run that was killed goes on when it is started again.
//!
//! `cargo run --release --example prune_checkpoint [MODEL TEXT OUTPUT]`, or the built-in demo into a temporary folder.

use fista_pruner::checkpoint::ModelName;
use fista_pruner::config::{PruneConfig, SolverConfig};
use fista_pruner::error::{Error, Result};
use fista_pruner::hub::from_environment;
use fista_pruner::progress::silent;
use fista_pruner::prune::PruneRun;
use fista_pruner::text::{CalibrationData, EvaluationData};

fn main() -> Result<()> {
    prune(std::env::args().skip(1))
}

#[allow(clippy::print_stdout, reason = "an example shows what it did")]
pub fn prune(mut arguments: impl Iterator<Item = String>) -> Result<()> {
    let name = arguments.next().map_or_else(ModelName::default, ModelName::new);
    let model = name.open(&mut from_environment)?;
    let data = CalibrationData {
        names: arguments.next().into_iter().collect(),
        samples: Some(32),
        ..CalibrationData::default()
    };
    let windows = data.windows(&model, &mut from_environment)?;
    let evaluation = EvaluationData::default().beside(&model, &mut from_environment)?;
    let folder = tempfile::tempdir().map_err(Error::io("create a folder in", std::env::temp_dir()))?;
    let output = arguments.next().map_or(folder.path().join("pruned"), Into::into);

    let family = model.decoder.config().family();
    let config = PruneConfig::new("2:4".parse()?, SolverConfig::best(Some(family)));
    let mut run = PruneRun::new(&model, &windows, config, output)?;
    run.evaluation = evaluation.as_ref();
    run.resume = true;
    let report = run.run(&mut silent())?;
    println!(
        "sparsity {:.4}, mean error {:.5}",
        report.sparsity,
        report.mean_error()
    );
    Ok(())
}
