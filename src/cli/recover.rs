//! `recover`: a pruned checkpoint in, one with the same zeros and better weights out.

use super::args::{DrawArgs, EvaluationArgs, Global, ModelArgs};
use super::help::{CALIBRATION, LONG_RUNS, MODEL, TRAINING, named, number};
use super::progress::Bar;
use super::{advice, inputs, show};
use crate::checkpoint::Model;
use crate::error::{ConfigError, Error, Result};
use crate::eval::PerplexityScore;
use crate::recover::{
    BlockConfig, DistillConfig, MezoConfig, RecoverRun, Recovery, RecoveryReport, SppConfig, SubzeroConfig,
};
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use std::time::Instant;

#[derive(Debug, Args)]
pub(crate) struct RecoverArgs {
    /// The folder of the pruned model.
    #[arg(long, value_name = "DIR", help_heading = MODEL)]
    model: PathBuf,
    /// The dense model that it was pruned from: a folder, or a model of the Hugging Face Hub. Only for `--method block` and `distill`.
    #[arg(long, alias = "teacher", value_name = "DIR|ID", help_heading = MODEL)]
    dense: Option<PathBuf>,
    /// The folder for the recovered model.
    #[arg(long, value_name = "DIR", help_heading = MODEL)]
    output: PathBuf,
    /// Replace the output folder if it exists.
    #[arg(long, help_heading = MODEL)]
    overwrite: bool,
    /// How the remaining weights are fine-tuned. `block`: distillation from the dense model, attention and MLP of one layer after
    /// the other (arXiv 2510.14444); needs --dense. `distill`: distillation of the whole model at once, on its next tokens; needs
    /// --dense, and memory for three numbers a weight; best after `block`. `spp`: back-propagation through the whole model, few trained numbers (arXiv
    /// 2405.16057). `mezo`: zeroth-order optimisation, without gradients (arXiv 2305.17333). `subzero`: the same in random
    /// subspaces (arXiv 2410.08989). All hold one decoder layer in memory at a time. `mezo` and `subzero` need no more memory than
    /// `eval`.
    #[arg(long, value_enum, help_heading = TRAINING)]
    method: Method,
    #[command(flatten)]
    settings: Settings,
    /// The text to fine-tune on, as in `prune`. The calibration text of `prune` is a good choice.
    #[arg(long, alias = "dataset", value_name = "FILE|NAME|ID", num_args = 1.., required = true, help_heading = CALIBRATION)]
    calibration: Vec<String>,
    #[command(flatten)]
    draws: DrawArgs,
    #[command(flatten)]
    evaluate: EvaluationArgs,
    /// Save the progress in this folder. If the run is stopped, the same command continues it. The folder is removed when the
    /// output is complete.
    #[arg(long, value_name = "DIR", help_heading = LONG_RUNS)]
    checkpoints: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Method {
    Block,
    Distill,
    Spp,
    Mezo,
    Subzero,
}

#[derive(Debug, Args)]
#[command(next_help_heading = TRAINING)]
struct Settings {
    #[arg(long, value_name = "N", help = defaults("How often block, distill and spp go through the text.", |d| [
        ("block", d.block.epochs.to_string()), ("distill", d.distill.epochs.to_string()), ("spp", d.spp.epochs.to_string())]))]
    epochs: Option<usize>,
    #[arg(long, value_name = "N", help = defaults("Training steps of mezo and subzero.", |d| [
        ("mezo", d.mezo.steps.to_string()), ("subzero", d.subzero.steps.steps.to_string())]))]
    steps: Option<usize>,
    #[arg(long, value_name = "N", help = defaults("Sequences per training step.", |d| [
        ("block", d.block.batch.to_string()), ("distill", d.distill.batch.to_string()), ("spp", d.spp.batch.to_string()),
        ("mezo", d.mezo.batch.to_string()), ("subzero", d.subzero.steps.batch.to_string())]))]
    batch: Option<usize>,
    #[arg(long, value_name = "X", help = defaults(
        "Highest learning rate. block and distill: relative to the root mean square of a matrix's weights. mezo and subzero measure the curvature \
         in their first four steps and choose the rate themselves.", |d| [
        ("block", number(d.block.learning_rate)), ("distill", number(d.distill.learning_rate)), ("spp", number(d.spp.learning_rate))]))]
    learning_rate: Option<f64>,
    #[arg(long, alias = "epsilon", value_name = "E", help = defaults(
        "How far mezo and subzero move the weights to measure a slope.", |d| [
        ("mezo", number(d.mezo.epsilon)), ("subzero", number(d.subzero.steps.epsilon))]))]
    perturbation: Option<f64>,
    #[arg(long, value_name = "R", help = defaults("Rows of spp's row factors, or the rank of subzero's directions.", |d| [
        ("spp", d.spp.rank.to_string()), ("subzero", d.subzero.rank.to_string())]))]
    rank: Option<usize>,
    #[arg(long, value_name = "N", help = defaults("Steps of subzero in one subspace.", |d| [
        ("subzero", d.subzero.refresh.to_string())]))]
    refresh: Option<usize>,
}

/// What each method has where nothing is set.
#[derive(Default)]
struct Defaults {
    block: BlockConfig,
    distill: DistillConfig,
    spp: SppConfig,
    mezo: MezoConfig,
    subzero: SubzeroConfig,
}

/// `what`, and the defaults of the methods that have the setting.
fn defaults<const N: usize>(what: &str, of: impl Fn(&Defaults) -> [(&'static str, String); N]) -> String {
    let told = of(&Defaults::default()).map(|(method, value)| format!("{value} with {method}"));
    format!("{what} Default: {}.", told.join(", "))
}

/// The method with its settings.
fn recovery(args: &RecoverArgs) -> Result<Recovery> {
    refuse_foreign(args)?;
    let (settings, seed) = (&args.settings, args.draws.seed);
    let Defaults {
        block,
        distill,
        spp,
        mezo,
        subzero,
    } = Defaults::default();
    let zeroth = |default: MezoConfig| MezoConfig {
        steps: settings.steps.unwrap_or(default.steps),
        batch: settings.batch.unwrap_or(default.batch),
        epsilon: settings.perturbation.unwrap_or(default.epsilon),
        learning_rate: settings.learning_rate.or(default.learning_rate),
        seed,
    };
    Ok(match args.method {
        Method::Block => Recovery::Block(BlockConfig {
            epochs: settings.epochs.unwrap_or(block.epochs),
            batch: settings.batch.unwrap_or(block.batch),
            learning_rate: settings.learning_rate.unwrap_or(block.learning_rate),
            seed,
        }),
        Method::Distill => Recovery::Distill(DistillConfig {
            epochs: settings.epochs.unwrap_or(distill.epochs),
            batch: settings.batch.unwrap_or(distill.batch),
            learning_rate: settings.learning_rate.unwrap_or(distill.learning_rate),
            seed,
        }),
        Method::Spp => Recovery::Spp(SppConfig {
            epochs: settings.epochs.unwrap_or(spp.epochs),
            batch: settings.batch.unwrap_or(spp.batch),
            rank: settings.rank.unwrap_or(spp.rank),
            scale: spp.scale,
            learning_rate: settings.learning_rate.unwrap_or(spp.learning_rate),
            seed,
        }),
        Method::Mezo => Recovery::Mezo(zeroth(mezo)),
        Method::Subzero => Recovery::Subzero(SubzeroConfig {
            steps: zeroth(subzero.steps),
            rank: settings.rank.unwrap_or(subzero.rank),
            refresh: settings.refresh.unwrap_or(subzero.refresh),
        }),
    })
}

/// A setting that the method has not got is an error.
fn refuse_foreign(args: &RecoverArgs) -> Result<()> {
    let settings = &args.settings;
    let (epochs, steps) = (settings.epochs.is_some(), settings.steps.is_some());
    let (perturbation, rank, refresh) = (
        settings.perturbation.is_some(),
        settings.rank.is_some(),
        settings.refresh.is_some(),
    );
    let foreign: &[(&'static str, bool)] = match args.method {
        Method::Block | Method::Distill => &[
            ("--steps", steps),
            ("--perturbation", perturbation),
            ("--rank", rank),
            ("--refresh", refresh),
        ],
        Method::Spp => &[
            ("--steps", steps),
            ("--perturbation", perturbation),
            ("--refresh", refresh),
        ],
        Method::Mezo => &[("--epochs", epochs), ("--rank", rank), ("--refresh", refresh)],
        Method::Subzero => &[("--epochs", epochs)],
    };
    let dense = (
        "--dense",
        args.dense.is_some() && !matches!(args.method, Method::Block | Method::Distill),
    );
    match foreign.iter().chain([&dense]).find(|(_, given)| *given) {
        None => Ok(()),
        Some((setting, _)) => Err(Error::from(ConfigError::Setting {
            setting,
            reason: format!("`{}` does without it", named(args.method)),
        })),
    }
}

pub(crate) fn run(args: &RecoverArgs, global: &Global) -> Result<()> {
    let started = Instant::now();
    let recovery = recovery(args)?;
    recovery.validate()?;
    let open = |path: &Path| -> Result<Model> {
        let named = ModelArgs {
            model: Some(path.to_path_buf()),
            revision: None,
        };
        inputs::model(&named, global)
    };
    let pruned = open(&args.model)?;
    let dense = args.dense.as_deref().map(open).transpose()?;
    let calibration = args
        .draws
        .data(&args.calibration)
        .windows(&pruned, &mut inputs::hub(global.quiet))?;
    let text_field = args.draws.text_field.as_ref();
    let evaluation = args.evaluate.windows(&pruned, text_field, global)?;
    let run = RecoverRun {
        pruned: &pruned,
        dense: dense.as_ref(),
        calibration: &calibration,
        evaluation: evaluation.as_ref(),
        recovery,
        output: args.output.clone(),
        overwrite: args.overwrite,
        checkpoints: args.checkpoints.clone(),
        device: inputs::device(global)?,
        started,
    };
    let report = run.run(&mut Bar::new(global.quiet))?;
    show::with_advice(global, &report, text, advice::recovered)
}

/// One line per curve.
fn text(report: &RecoveryReport) -> String {
    let recovered = &report.recovered;
    let rows: Vec<Vec<String>> = recovered
        .curves
        .iter()
        .map(|curve| {
            vec![
                curve.name.clone(),
                format!("{:.4e}", curve.before),
                format!("{:.4e}", curve.after),
                curve.steps.len().to_string(),
                format!("{:.1}", curve.seconds),
            ]
        })
        .collect();
    let mut text = show::table(&["trained", "loss before", "after", "steps", "s"], &rows);
    text += &format!(
        "\n{} of {} weights are zero, as before\n",
        recovered.zeros, recovered.weights
    );
    if let Some(evaluation) = &report.evaluation {
        let shown =
            |score: &PerplexityScore| score.perplexity.map_or("overflow".into(), |p| format!("{p:.4}"));
        text += &format!(
            "perplexity  pruned {}, recovered {}\n",
            shown(&evaluation.pruned),
            shown(&evaluation.recovered)
        );
    }
    text + &format!("{:.1} s\nwrote {}", report.seconds, report.output)
}
