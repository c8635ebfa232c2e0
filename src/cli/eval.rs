//! `eval`: perplexity on text.

use super::args::{EvalArgs, Global};
use super::progress::Bar;
use super::{data, device, model, show};
use crate::config::PruneConfig;
use crate::error::Result;
use crate::eval::{Perplexity, perplexity};
use crate::model::Model;
use fista_pruner_backends::{DeviceJob, SolverOps, dispatch};
use serde::Serialize;
use std::time::Instant;

struct Job<'a> {
    model: &'a Model,
    windows: &'a [Vec<u32>],
    quiet: bool,
}

impl DeviceJob for Job<'_> {
    type Output = Result<Perplexity>;

    fn run<B: SolverOps>(self, device: &B::Device) -> Self::Output {
        let model = (&self.model.checkpoint, &self.model.decoder);
        perplexity::<B>(
            model,
            self.windows,
            PruneConfig::BATCH_TOKENS,
            device,
            &mut Bar::new(self.quiet),
        )
    }
}

#[derive(Debug, Serialize)]
struct Outcome {
    model: String,
    data: Vec<String>,
    data_sha256: String,
    protocol: String,
    /// Tokens of the whole text, before it is cut.
    text_tokens: usize,
    device: String,
    seconds: f64,
    peak_host_bytes: Option<u64>,
    #[serde(flatten)]
    perplexity: Perplexity,
}

pub(crate) fn run(args: &EvalArgs, global: &Global) -> Result<()> {
    let started = Instant::now();
    let chosen = model::open_with(&args.model, global, args.rope_precision.into())?;
    let windows = data::evaluation(
        &chosen,
        &args.data,
        args.text_field.as_deref(),
        (args.seq_len, args.max_windows),
    )?;
    let device = device::choose(global)?;
    let job = Job {
        model: &chosen.model,
        windows: &windows.ids,
        quiet: global.quiet,
    };
    let perplexity = dispatch(&device, job)??;
    let summary = windows.summary();
    let outcome = Outcome {
        model: chosen.name,
        data: summary.sources,
        data_sha256: summary.sha256,
        protocol: summary.protocol,
        text_tokens: summary.total_tokens,
        device: device.to_string(),
        seconds: started.elapsed().as_secs_f64(),
        peak_host_bytes: crate::report::peak_host_bytes(),
        perplexity,
    };
    show::result(global.format, &outcome, |outcome| {
        format!(
            "model       {}\ndata        {} (sha256 {})\nprotocol    {}\nperplexity  {:.4}\nmean nll    {:.6} over {} targets\ntime        {:.1} s",
            outcome.model,
            outcome.data.join(", "),
            &outcome.data_sha256[..outcome.data_sha256.len().min(16)],
            outcome.protocol,
            outcome.perplexity.perplexity,
            outcome.perplexity.mean_nll,
            outcome.perplexity.targets,
            outcome.seconds,
        )
    })
}
