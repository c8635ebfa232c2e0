//! `recover`: a pruned checkpoint in, one with the same zeros and better weights out.

use super::args::{EvaluationArgs, Global, ModelArgs, TextArgs};
use super::model::Chosen;
use super::progress::Bar;
use super::{data, device, model, show};
use crate::calibration::TokenWindows;
use crate::checkpoint::{Checkpoint, CheckpointWriter, PartialFolder};
use crate::config::PruneConfig;
use crate::error::{Error, Result};
use crate::eval::{PerplexityScore, perplexity};
use crate::model::Model;
use crate::prune::WeightSink;
use crate::recover::{
    self, BlockConfig, Recovered, Recovery, RecoveryEvaluation, RecoveryReport, SppConfig, SubspaceConfig,
    ZerothConfig, recover, remove_checkpoints,
};
use crate::report::{self, ModelReport};
use clap::{Args, ValueEnum};
use fista_pruner_backends::{DeviceJob, SolverOps, dispatch_opened};
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
        return Err(Error::Setting { setting, reason });
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
    let open = |path: &Path| {
        let named = ModelArgs {
            model: Some(path.to_path_buf()),
            revision: None,
        };
        model::open(&named, global)
    };
    let pruned = open(&args.model)?;
    let dense = args.dense.as_deref().map(open).transpose()?;
    let draw = data::Draw {
        samples: args.samples,
        seq_len: args.seq_len,
        seed: args.seed,
    };
    let windows = data::calibration(&pruned, &args.calibration, &args.text, &draw)?;
    let evaluation = data::evaluation_of(&pruned, &args.evaluate, &args.text)?;
    let device = device::choose(global)?;
    let mut writer = CheckpointWriter::create(&pruned.model.checkpoint, &args.output, args.overwrite)?;
    // The weights of mezo and subzero live in files: beside the output, where there is room for a model.
    let beside = match (&args.checkpoints, &recovery) {
        (None, Recovery::Mezo(_) | Recovery::Subzero(_)) => Some(beside(writer.output())?),
        _ => None,
    };
    let job = Job {
        pruned: &pruned,
        dense: dense.as_ref(),
        windows: &windows,
        evaluation: evaluation.as_ref(),
        recovery: &recovery,
        checkpoints: args
            .checkpoints
            .as_deref()
            .or(beside.as_ref().map(PartialFolder::path)),
        writer: &mut writer,
        quiet: global.quiet,
    };
    let (recovered, evaluation) = dispatch_opened(&device, job)??;
    let report = RecoveryReport {
        report_version: recover::VERSION,
        program: format!("fista-pruner {}", env!("CARGO_PKG_VERSION")),
        model: named(&pruned),
        dense: dense.as_ref().map(named),
        output: args.output.display().to_string(),
        device: device.to_string(),
        settings: recovery,
        calibration: windows.summary(),
        evaluation,
        recovered,
        seconds: started.elapsed().as_secs_f64(),
        peak_host_bytes: report::peak_host_bytes(),
    };
    remove_stale(writer.partial())?;
    writer.add_file(recover::FILE_NAME, &report.to_json()?)?;
    writer.finish()?;
    if let Some(folder) = &args.checkpoints {
        remove_checkpoints(folder)?;
    }
    show::result(global.format, &report, text)
}

/// A folder that is gone at the end, however that comes.
fn beside(output: &Path) -> Result<PartialFolder> {
    let name = output.file_name().unwrap_or_default();
    let mut steps = name.to_os_string();
    steps.push(".steps");
    PartialFolder::create(output.parent().unwrap_or(Path::new(".")), &steps)
}

fn named(chosen: &Chosen) -> ModelReport {
    ModelReport {
        path: chosen.name.clone(),
        family: chosen.model.decoder.config().family().to_string(),
        fingerprint: chosen.model.checkpoint.fingerprint(),
    }
}

/// The pruning's page shows errors and perplexities of other weights. Its JSON file stays: zeros and patterns in it hold.
fn remove_stale(folder: &Path) -> Result<()> {
    let stale = folder.join(report::HTML_NAME);
    match stale.exists() {
        true => std::fs::remove_file(&stale).map_err(Error::io("remove", &stale)),
        false => Ok(()),
    }
}

struct Job<'a> {
    pruned: &'a Chosen,
    dense: Option<&'a Chosen>,
    windows: &'a TokenWindows,
    evaluation: Option<&'a TokenWindows>,
    recovery: &'a Recovery,
    checkpoints: Option<&'a Path>,
    writer: &'a mut CheckpointWriter,
    quiet: bool,
}

/// Weights go straight into the new checkpoint.
struct Sink<'a>(&'a mut CheckpointWriter);

impl WeightSink for Sink<'_> {
    fn weight(&mut self, name: &str, values: &[f32], keep: &[bool]) -> Result<()> {
        self.0.write_weight(name, values, keep)
    }
}

impl DeviceJob for Job<'_> {
    type Output = Result<(Recovered, Option<RecoveryEvaluation>)>;

    fn run<B: SolverOps>(self, device: &B::Device) -> Self::Output {
        let mut bar = Bar::new(self.quiet);
        let job = recover::Job {
            pruned: &self.pruned.model,
            dense: self.dense.map(|dense| &dense.model),
            windows: &self.windows.ids,
            recovery: self.recovery,
            checkpoints: self.checkpoints,
        };
        let recovered = recover::<B>(job, device, &mut Sink(self.writer), &mut bar)?;
        let written = Model::open(self.writer.partial())?;
        check_zeros(&self.pruned.model, &written.checkpoint)?;
        let Some(windows) = self.evaluation else {
            return Ok((recovered, None));
        };
        let mut score = |model: &Model| -> Result<PerplexityScore> {
            let parts = (&model.checkpoint, &model.decoder);
            let batch = PruneConfig::BATCH_TOKENS;
            let found = perplexity::<B>(parts, &windows.ids, batch, device, &mut bar)?;
            Ok(PerplexityScore::of(&found.window_nll))
        };
        let evaluation = RecoveryEvaluation {
            data: windows.summary(),
            pruned: score(&self.pruned.model)?,
            recovered: score(&written)?,
        };
        Ok((recovered, Some(evaluation)))
    }
}

/// Reads every operator back: what was zero is zero.
fn check_zeros(pruned: &Model, written: &Checkpoint) -> Result<()> {
    for operator in pruned.decoder.operators() {
        let (name, shape) = (operator.weight(), operator.shape());
        let before = pruned.checkpoint.read(&name, &shape)?;
        let after = written.read(&name, &shape)?;
        if before
            .iter()
            .zip(&after)
            .any(|(before, after)| *before == 0.0 && after.to_bits() != 0)
        {
            return Err(Error::Internal {
                what: format!("`{name}` has lost a zero"),
            });
        }
    }
    Ok(())
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
