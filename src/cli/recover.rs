//! `recover`: a pruned checkpoint in, one with the same zeros and better weights out.

use super::args::{EvaluationArgs, Global, ModelArgs, TextArgs};
use super::progress::Bar;
use super::{inputs, show};
use crate::checkpoint::Model;
use crate::error::{ConfigError, Error, Result};
use crate::eval::PerplexityScore;
use crate::recover::{
    BlockConfig, RecoverRun, Recovery, RecoveryReport, SppConfig, SubspaceConfig, ZerothConfig,
};
use crate::text::CalibrationData;
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use std::time::Instant;

#[derive(Debug, Args)]
pub(crate) struct RecoverArgs {
    /// Folder of the pruned checkpoint.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// `block`: attention and MLP of each layer are trained to give the dense model's activations (arXiv 2510.14444), needs
    /// --dense. `spp`: a factor a weight, from few parameters, is trained on the text by back-propagation (arXiv 2405.16057).
    /// `mezo`: steps along random directions, from forward passes alone (arXiv 2305.17333); `subzero`: the same in random
    /// subspaces (arXiv 2410.08989). All need the memory of one layer; the last two no more than evaluation.
    #[arg(long, value_enum)]
    method: Method,
    /// The dense model that it was pruned from: a folder, or a model of the Hugging Face hub.
    #[arg(long, value_name = "DIR|ID")]
    dense: Option<PathBuf>,
    /// Folder to write the recovered checkpoint to.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Text to adapt the weights on, as in `prune`: best the same.
    #[arg(long, value_name = "FILE|NAME|ID", num_args = 1.., required = true)]
    calibration: Vec<String>,
    #[command(flatten)]
    text: TextArgs,
    /// Number of windows. Default: 128, or all of a file of token ids.
    #[arg(long, value_name = "N")]
    samples: Option<usize>,
    /// Tokens of a window. Default: the model's longest sequence, at most 2048, or that of a file of token ids.
    #[arg(long, value_name = "N")]
    seq_len: Option<usize>,
    /// Seed of the windows, of their order, and of whatever else is drawn.
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    evaluate: EvaluationArgs,
    /// Keep what is done in this folder, and go on from there if a run like this one was interrupted. Removed once the
    /// output is complete.
    #[arg(long, value_name = "DIR")]
    checkpoints: Option<PathBuf>,
    /// Replace the output folder if it exists.
    #[arg(long)]
    overwrite: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Method {
    Block,
    Spp,
    Mezo,
    Subzero,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Training")]
struct Settings {
    /// Passes over the windows, for block and spp. Default: 4 with block, 3 with spp, as its official code.
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    /// Steps of mezo and subzero. Default: 200.
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// Windows a step. Default: 2 with block, 4 with spp, 1 with mezo and subzero.
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Highest learning rate. Default: 1e-2 with block, of the root mean square of an operator's weights; 4e-3 with spp, as
    /// its official code; with mezo and subzero from the curvature that the first four steps measure.
    #[arg(long, value_name = "X")]
    learning_rate: Option<f64>,
    /// Half the distance between the two points of a step of mezo and subzero. MeZO: 1e-3.
    #[arg(long, value_name = "E")]
    epsilon: Option<f64>,
    /// Rows of spp's row factors, or the rank of subzero's directions. Default: 16 and 24, as their official codes.
    #[arg(long, value_name = "R")]
    rank: Option<usize>,
    /// Steps of subzero in one subspace. Default: 10.
    #[arg(long, value_name = "N")]
    refresh: Option<usize>,
}

/// The method with its settings; a setting that the method has not got is an error.
fn recovery(args: &RecoverArgs) -> Result<Recovery> {
    let settings = &args.settings;
    let seed = args.seed;
    let (epochs, steps) = (settings.epochs.is_some(), settings.steps.is_some());
    let (epsilon, rank, refresh) = (
        settings.epsilon.is_some(),
        settings.rank.is_some(),
        settings.refresh.is_some(),
    );
    let foreign: &[(&'static str, bool)] = match args.method {
        Method::Block => &[
            ("--steps", steps),
            ("--epsilon", epsilon),
            ("--rank", rank),
            ("--refresh", refresh),
        ],
        Method::Spp => &[("--steps", steps), ("--epsilon", epsilon), ("--refresh", refresh)],
        Method::Mezo => &[("--epochs", epochs), ("--rank", rank), ("--refresh", refresh)],
        Method::Subzero => &[("--epochs", epochs)],
    };
    let dense = ("--dense", args.dense.is_some() && args.method != Method::Block);
    if let Some((setting, _)) = foreign.iter().chain([&dense]).find(|(_, given)| *given) {
        let method = args.method.to_possible_value();
        let reason = format!(
            "`{}` does without it",
            method.as_ref().map_or("", |m| m.get_name())
        );
        return Err(Error::from(ConfigError::Setting { setting, reason }));
    }
    let zeroth = || {
        let default = ZerothConfig::default();
        ZerothConfig {
            steps: settings.steps.unwrap_or(default.steps),
            batch: settings.batch.unwrap_or(default.batch),
            epsilon: settings.epsilon.unwrap_or(default.epsilon),
            learning_rate: settings.learning_rate.or(default.learning_rate),
            seed,
        }
    };
    Ok(match args.method {
        Method::Block => {
            let default = BlockConfig::default();
            Recovery::Block(BlockConfig {
                epochs: settings.epochs.unwrap_or(default.epochs),
                batch: settings.batch.unwrap_or(default.batch),
                learning_rate: settings.learning_rate.unwrap_or(default.learning_rate),
                seed,
            })
        }
        Method::Spp => {
            let default = SppConfig::default();
            Recovery::Spp(SppConfig {
                epochs: settings.epochs.unwrap_or(default.epochs),
                batch: settings.batch.unwrap_or(default.batch),
                rank: settings.rank.unwrap_or(default.rank),
                scale: default.scale,
                learning_rate: settings.learning_rate.unwrap_or(default.learning_rate),
                seed,
            })
        }
        Method::Mezo => Recovery::Mezo(zeroth()),
        Method::Subzero => {
            let default = SubspaceConfig::default();
            Recovery::Subzero(SubspaceConfig {
                steps: zeroth(),
                rank: settings.rank.unwrap_or(default.rank),
                refresh: settings.refresh.unwrap_or(default.refresh),
            })
        }
    })
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
    let calibration = args.data().windows(&pruned, &mut inputs::hub(global.quiet))?;
    let text_field = args.text.text_field.as_ref();
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
    show::result(global.format, &report, text)
}

impl RecoverArgs {
    fn data(&self) -> CalibrationData {
        CalibrationData {
            names: self.calibration.clone(),
            draw: self.text.draw,
            text_field: self.text.text_field.clone(),
            samples: self.samples,
            seq_len: self.seq_len,
            seed: self.seed,
        }
    }
}

/// A line a curve.
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
