//! Perplexity by the protocol of all published tables (SparseGPT's): non-overlapping windows, mean cross entropy over the
//! targets of each, `exp` of the mean. The decoder is streamed: one layer at a time over all windows of a pass.

use crate::checkpoint::{Checkpoint, Model};
use crate::config::PruneConfig;
use crate::error::{Error, Result, SolverError};
use crate::progress::{Event, Observer};
use crate::prune::{Limits, token_batches};
use burn::tensor::{Int, Tensor, TensorData};
use fista_pruner_backends::{DeviceJob, DeviceSpec, SolverOps, dispatch_opened};
use fista_pruner_models::Decoder;
use serde::Serialize;

/// Hidden states held at once, in bytes. A longer text is evaluated in several passes over the model.
pub(super) const PASS_BYTES: usize = 1 << 30;

/// The outcome of an evaluation.
#[derive(Debug, Clone, Serialize)]
pub struct Perplexity {
    /// `exp(mean_nll)`.
    pub perplexity: f64,
    /// Mean negative log-likelihood per target, in nats.
    pub mean_nll: f64,
    /// Tokens read: `windows · seq_len`.
    pub tokens: usize,
    /// Tokens predicted: `windows · (seq_len − 1)`.
    pub targets: usize,
    /// Number of windows.
    pub windows: usize,
    /// Tokens of a window.
    pub seq_len: usize,
    /// Mean negative log-likelihood of each window.
    pub window_nll: Vec<f64>,
}

/// Evaluates windows of one length. `batch_tokens` tokens are computed at once.
///
/// # Errors
/// When a tensor cannot be read, the device fails, or a likelihood is not finite.
pub fn perplexity<B: SolverOps>(
    (checkpoint, decoder): (&Checkpoint, &Decoder),
    windows: &[Vec<u32>],
    batch_tokens: usize,
    device: &B::Device,
    observer: &mut dyn Observer,
) -> Result<Perplexity> {
    let seq_len = windows.first().map_or(0, Vec::len);
    crate::text::check_windows(windows, "‹seq-len›")?;
    decoder.head_weight()?;
    let config = decoder.config();
    let window_bytes = seq_len * config.hidden_size() * size_of::<f32>();
    let per_pass = (PASS_BYTES / window_bytes.max(1)).max(1);
    let passes = windows.len().div_ceil(per_pass);
    observer.event(Event::Stage {
        name: "layers",
        steps: passes * (config.num_layers() + 1),
    });
    let mut window_nll = Vec::with_capacity(windows.len());
    for pass in windows.chunks(per_pass) {
        window_nll.extend(one_pass::<B>(
            (checkpoint, decoder),
            pass,
            batch_tokens,
            device,
            observer,
        )?);
    }
    observer.event(Event::Done);
    let mean_nll = window_nll.iter().sum::<f64>() / window_nll.len() as f64;
    if !mean_nll.is_finite() {
        return Err(Error::from(SolverError::NotFinite {
            what: "the likelihood",
            operator: "the evaluated text".into(),
        }));
    }
    Ok(Perplexity {
        perplexity: mean_nll.exp(),
        mean_nll,
        tokens: windows.len() * seq_len,
        targets: windows.len() * (seq_len - 1),
        windows: windows.len(),
        seq_len,
        window_nll,
    })
}

/// [`perplexity`] on a device that is open.
///
/// # Errors
/// As [`perplexity`].
pub fn measure(
    model: &Model,
    windows: &[Vec<u32>],
    device: &DeviceSpec,
    observer: &mut dyn Observer,
) -> Result<Perplexity> {
    let work = Work {
        model,
        windows,
        observer,
    };
    dispatch_opened(device, work)?
}

/// What runs on the device.
struct Work<'a> {
    model: &'a Model,
    windows: &'a [Vec<u32>],
    observer: &'a mut dyn Observer,
}

impl DeviceJob for Work<'_> {
    type Output = Result<Perplexity>;

    fn run<B: SolverOps>(self, device: &B::Device) -> Self::Output {
        let model = (&self.model.checkpoint, &self.model.decoder);
        perplexity::<B>(
            model,
            self.windows,
            PruneConfig::BATCH_TOKENS,
            device,
            self.observer,
        )
    }
}

fn one_pass<B: SolverOps>(
    (checkpoint, decoder): (&Checkpoint, &Decoder),
    windows: &[Vec<u32>],
    batch_tokens: usize,
    device: &B::Device,
    observer: &mut dyn Observer,
) -> Result<Vec<f64>> {
    let batch_tokens = Limits::of::<B>(decoder, device)?.batch_tokens(batch_tokens, windows)?;
    let embedding = decoder.embedding::<B>(checkpoint, device)?;
    let mut hidden: Vec<Tensor<B, 3>> = token_batches::<B>(windows, batch_tokens, device)
        .map(|ids| embedding.forward(ids, 0))
        .collect();
    drop(embedding);
    let layers = decoder.config().num_layers();
    for layer in 0..layers {
        observer.event(Event::Layer {
            layer,
            layers,
            operators: 0,
        });
        let layer = decoder.layer::<B>(layer, checkpoint, device)?;
        hidden = hidden.into_iter().map(|h| layer.forward(h)).collect();
        observer.event(Event::Step);
    }
    observer.event(Event::Working { on: "head" });
    let hidden = hidden.into_iter().map(Ok);
    let window_nll = head_nll::<B>((checkpoint, decoder), hidden, windows, device)?;
    observer.event(Event::Step);
    Ok(window_nll)
}

/// Mean negative log-likelihood of each window, from the hidden states after the last layer: batches of as many windows
/// each as their first dimension says.
///
/// # Errors
/// When a tensor cannot be read, or the device fails.
pub(crate) fn head_nll<B: SolverOps>(
    (checkpoint, decoder): (&Checkpoint, &Decoder),
    hidden: impl Iterator<Item = Result<Tensor<B, 3>>>,
    windows: &[Vec<u32>],
    device: &B::Device,
) -> Result<Vec<f64>> {
    let head = decoder.head::<B>(checkpoint, device)?;
    let mut window_nll = Vec::with_capacity(windows.len());
    let mut rest = windows;
    for hidden in hidden {
        let hidden = hidden?;
        let [batch, tokens, width] = hidden.dims();
        let these;
        (these, rest) = rest.split_at(batch);
        let predicting = hidden.slice([0..batch, 0..tokens - 1, 0..width]);
        let targets: Vec<i64> = these
            .iter()
            .flat_map(|window| &window[1..])
            .map(|id| i64::from(*id))
            .collect();
        let targets = Tensor::<B, 2, Int>::from_data(TensorData::new(targets, [batch, tokens - 1]), device);
        let nll = crate::solver::download(head.token_nll(predicting, targets))?;
        window_nll.extend(
            nll.chunks(tokens - 1)
                .map(|window| window.iter().map(|v| f64::from(*v)).sum::<f64>() / (tokens - 1) as f64),
        );
    }
    Ok(window_nll)
}

/// The mean of [`head_nll`] over all windows.
///
/// # Errors
/// As [`head_nll`].
pub(crate) fn mean_nll<B: SolverOps>(
    model: (&Checkpoint, &Decoder),
    hidden: impl Iterator<Item = Result<Tensor<B, 3>>>,
    windows: &[Vec<u32>],
    device: &B::Device,
) -> Result<f64> {
    let nll = head_nll::<B>(model, hidden, windows, device)?;
    Ok(nll.iter().sum::<f64>() / nll.len().max(1) as f64)
}

/// A loss that can be made smaller.
pub(crate) fn finite(loss: f64, of: &str) -> Result<f64> {
    if loss.is_finite() {
        return Ok(loss);
    }
    Err(Error::from(SolverError::NotFinite {
        what: "the loss",
        operator: of.to_owned(),
    }))
}
