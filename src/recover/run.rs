//! A recovery as the command `recover` does it: a pruned checkpoint in, one with the same zeros and better weights out, with its
//! report.

use super::{
    FILE_NAME, RecoverJob, Recovered, Recovery, RecoveryEvaluation, RecoveryReport, VERSION, kept_layers,
    recover, remove_checkpoints,
};
use crate::checkpoint::{Checkpoint, CheckpointWriter, Model};
use crate::config::PruneConfig;
use crate::error::{ConfigError, Error, Result};
use crate::eval::{PerplexityScore, perplexity};
use crate::progress::Observer;
use crate::report::{self, ModelReport, program};
use crate::system::{Destination, PartialFolder};
use crate::text::TokenWindows;
use fista_pruner_backends::{DeviceJob, DeviceSpec, SolverOps, dispatch_opened};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Everything that a recovery is asked to do.
#[derive(Debug, Clone)]
pub struct RecoverRun<'a> {
    /// The pruned model.
    pub pruned: &'a Model,
    /// The dense model that it was made from, for [`Recovery::Block`] and [`Recovery::Distill`].
    pub dense: Option<&'a Model>,
    /// The windows to adapt the weights on.
    pub calibration: &'a TokenWindows,
    /// The windows to measure perplexity on, before and after.
    pub evaluation: Option<&'a TokenWindows>,
    /// How.
    pub recovery: Recovery,
    /// The folder to write to.
    pub output: PathBuf,
    /// Whether an earlier output is replaced.
    pub overwrite: bool,
    /// A folder for what is done, in which an interrupted run like this one is found again.
    pub checkpoints: Option<PathBuf>,
    /// A device that [`open`](fista_pruner_backends::open) has opened.
    pub device: DeviceSpec,
    /// When the work on it began, for the report's seconds.
    pub started: Instant,
}

impl RecoverRun<'_> {
    /// Does it, and gives the report that lies beside the weights.
    ///
    /// # Errors
    /// As [`recover`]; when the output cannot be written.
    pub fn run(&self, observer: &mut dyn Observer) -> Result<RecoveryReport> {
        self.recovery.validate()?;
        let destination = self.destination(&self.output);
        let mut writer = CheckpointWriter::create_at(&self.pruned.checkpoint, &destination)?;
        let folder = match &self.checkpoints {
            Some(folder) => Some(checkpoints(&self.destination(folder), writer.output())?),
            None => None,
        };

        // The weights of mezo and subzero live in files: beside the output, where there is room for a model.
        let beside = match (&folder, &self.recovery) {
            (None, Recovery::Mezo(_) | Recovery::Subzero(_)) => Some(beside(writer.output())?),
            _ => None,
        };
        let work = Work {
            run: self,
            checkpoints: folder.as_deref().or(beside.as_ref().map(PartialFolder::path)),
            writer: &mut writer,
            observer,
        };
        let (recovered, evaluation) = dispatch_opened(&self.device, work)??;
        let report = RecoveryReport {
            report_version: VERSION,
            program: program(),
            model: ModelReport::of(self.pruned),
            dense: self.dense.map(ModelReport::of),
            output: self.output.display().to_string(),
            device: self.device.to_string(),
            settings: self.recovery,
            calibration: self.calibration.summary(),
            evaluation,
            recovered,
            seconds: self.started.elapsed().as_secs_f64(),
            peak_host_bytes: report::peak_host_bytes(),
        };
        remove_stale(writer.partial())?;
        writer.add_file(FILE_NAME, &report.to_json()?)?;
        writer.finish()?;
        if let Some(folder) = &folder {
            remove_checkpoints(folder)?;
        }
        Ok(report)
    }

    /// A path to write to, apart from everything that the run reads.
    fn destination(&self, path: &Path) -> Destination {
        let data = std::iter::once(self.calibration).chain(self.evaluation);
        Destination::new(path, self.overwrite)
            .apart_from(self.pruned.dir())
            .apart_from_all(self.dense.map(Model::dir))
            .apart_from_all(data.flat_map(|windows| &windows.source.paths))
    }
}

/// The folder of checkpoints: a new one, or one with nothing in it but those of a recovery.
fn checkpoints(destination: &Destination, output: &Path) -> Result<PathBuf> {
    let folder = destination.shared_folder([])?;
    match folder.starts_with(output) || output.starts_with(&folder) {
        false => Ok(folder),
        true => Err(Error::from(ConfigError::Setting {
            setting: "‹checkpoints›",
            reason: format!("`{}` and the folder of ‹output› overlap", folder.display()),
        })),
    }
}

/// A folder that is gone at the end, however that comes.
fn beside(output: &Path) -> Result<PartialFolder> {
    let name = output.file_name().unwrap_or_default();
    let mut steps = name.to_os_string();
    steps.push(".steps");
    PartialFolder::create(output.parent().unwrap_or(Path::new(".")), &steps)
}

/// The pruning's page shows errors and perplexities of other weights. Its JSON file stays: zeros and patterns in it hold.
fn remove_stale(folder: &Path) -> Result<()> {
    let stale = folder.join(report::HTML_NAME);
    match stale.exists() {
        true => std::fs::remove_file(&stale).map_err(Error::io("remove", &stale)),
        false => Ok(()),
    }
}

/// What runs on the device.
struct Work<'a, 'r> {
    run: &'a RecoverRun<'r>,
    checkpoints: Option<&'a Path>,
    writer: &'a mut CheckpointWriter,
    observer: &'a mut dyn Observer,
}

impl DeviceJob for Work<'_, '_> {
    type Output = Result<(Recovered, Option<RecoveryEvaluation>)>;

    fn run<B: SolverOps>(self, device: &B::Device) -> Self::Output {
        let Self { run, observer, .. } = self;
        let kept = kept_layers(run.pruned);
        let job = RecoverJob {
            pruned: run.pruned,
            dense: run.dense,
            kept_layers: kept.as_deref(),
            windows: &run.calibration.ids,
            recovery: &run.recovery,
            checkpoints: self.checkpoints,
        };
        let recovered = recover::<B>(job, device, self.writer, observer)?;
        let written = Model::open(self.writer.partial())?;
        check_zeros(run.pruned, &written.checkpoint)?;
        let Some(windows) = run.evaluation else {
            return Ok((recovered, None));
        };
        let mut score = |model: &Model| -> Result<PerplexityScore> {
            let parts = (&model.checkpoint, &model.decoder);
            let batch = PruneConfig::BATCH_TOKENS;
            let found = perplexity::<B>(parts, &windows.ids, batch, device, observer)?;
            Ok(PerplexityScore::of(&found.window_nll))
        };
        let evaluation = RecoveryEvaluation {
            data: windows.summary(),
            pruned: score(run.pruned)?,
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
            return Err(Error::internal(format!("`{name}` has lost a zero")));
        }
    }
    Ok(())
}
