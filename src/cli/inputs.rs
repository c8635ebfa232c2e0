//! From arguments to what the library takes: the model, the windows of its data, the device, the hub.

use super::args::{CalibrationArgs, DrawArgs, EvaluationArgs, Global, ModelArgs};
use super::log;
use super::progress::DownloadBar;
use crate::checkpoint::{Model, ModelName};
use crate::error::{ConfigError, Error, Result};
use crate::hub::{Hub, HubError, from_environment_telling};
use crate::text::{CalibrationData, EvaluationData, TokenWindows};
use fista_pruner_backends::{DeviceKind, DeviceSpec, compiles_first, open, open_default};

/// Opens the hub that the environment describes, with a bar for downloads.
pub(crate) fn hub(quiet: bool) -> impl FnMut() -> Result<Hub<'static>, HubError> {
    move || {
        let mut bar = DownloadBar::new(quiet);
        from_environment_telling(move |transfer| bar.show(&transfer))
    }
}

/// The model of a run.
///
/// # Errors
/// When it cannot be had or opened.
pub(crate) fn model(args: &ModelArgs, global: &Global) -> Result<Model> {
    let name = ModelName {
        name: args.model.clone(),
        revision: args.revision.clone(),
        ..ModelName::default()
    };
    name.open(&mut hub(global.quiet))
}

impl DrawArgs {
    /// Calibration data of these names.
    pub(crate) fn data(&self, names: &[String]) -> CalibrationData {
        CalibrationData {
            names: names.to_vec(),
            draw: self.draw,
            text_field: self.text_field.clone(),
            samples: self.samples,
            seq_len: self.seq_len,
            seed: self.seed,
            at_most: None,
        }
    }
}

impl CalibrationArgs {
    /// The windows to calibrate with, as many as asked for or `at_most`.
    ///
    /// # Errors
    /// As [`CalibrationData::windows`].
    pub(crate) fn windows(
        &self,
        model: &Model,
        at_most: Option<usize>,
        global: &Global,
    ) -> Result<TokenWindows> {
        let data = CalibrationData {
            at_most,
            ..self.draws.data(&self.calibration)
        };
        data.windows(model, &mut hub(global.quiet))
    }
}

impl EvaluationArgs {
    /// As [`windows`](Self::windows), of a run or of a part of one. A part is no model: the demo's own text is not for it.
    ///
    /// # Errors
    /// As [`EvaluationData::beside`].
    pub(crate) fn of_run(
        &self,
        model: &Model,
        text_field: Option<&String>,
        is_part: bool,
        global: &Global,
    ) -> Result<Option<TokenWindows>> {
        match is_part && self.eval_data.is_none() {
            true => Ok(None),
            false => self.windows(model, text_field, global),
        }
    }

    /// The windows to measure perplexity on, if any.
    ///
    /// # Errors
    /// As [`EvaluationData::beside`].
    pub(crate) fn windows(
        &self,
        model: &Model,
        text_field: Option<&String>,
        global: &Global,
    ) -> Result<Option<TokenWindows>> {
        let data = EvaluationData {
            name: self.eval_data.clone(),
            text_field: text_field.cloned(),
            seq_len: self.eval_seq_len,
            max_windows: self.eval_samples,
        };
        data.beside(model, &mut hub(global.quiet))
    }
}

/// The device to use, opened once so that a wrong choice is known before the long work. Where none was named, says on
/// stderr which were passed over and why.
///
/// # Errors
/// When the device named, or every compiled-in one, cannot be opened.
pub(crate) fn device(global: &Global) -> Result<DeviceSpec> {
    match devices(global)?[..] {
        [device] => Ok(device),
        _ => Err(Error::from(ConfigError::Setting {
            setting: "--device",
            reason: "only `prune` works on several devices".into(),
        })),
    }
}

/// The devices to use, at least one; as [`device`].
///
/// # Errors
/// As [`device`].
pub(crate) fn devices(global: &Global) -> Result<Vec<DeviceSpec>> {
    if !global.device.is_empty() {
        for device in &global.device {
            announce(device, global.quiet);
            open(device)?;
        }
        return Ok(global.device.clone());
    }
    let cuda = DeviceSpec {
        kind: DeviceKind::Cuda,
        index: None,
    };
    announce(&cuda, global.quiet);
    let (device, passed_over) = open_default()?;
    for error in passed_over {
        tracing::warn!("{error}; using `{}`", device.shown());
    }
    Ok(vec![device])
}

/// Why nothing seems to happen when a GPU is opened for the first time.
fn announce(device: &DeviceSpec, quiet: bool) {
    if !quiet && compiles_first(device) {
        log::note(
            "the first start on this GPU compiles its kernels, which takes up to a minute; later starts take seconds",
        );
    }
}
