//! `eval`: perplexity on text, accuracy on tasks, or both.

use super::args::{EvalArgs, Global};
use super::model::Chosen;
use super::progress::Bar;
use super::zeroshot::{self, TasksOutcome};
use super::{data, device, model, show};
use crate::calibration::TokenWindows;
use crate::config::PruneConfig;
use crate::error::{Error, Result};
use crate::eval::{Perplexity, perplexity};
use crate::model::Model;
use fista_pruner_backends::{DeviceJob, SolverOps, dispatch_opened};
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
    device: String,
    seconds: f64,
    peak_host_bytes: Option<u64>,
    #[serde(flatten)]
    text: Option<TextOutcome>,
    #[serde(flatten)]
    tasks: Option<TasksOutcome>,
}

#[derive(Debug, Serialize)]
struct TextOutcome {
    data: Vec<String>,
    data_sha256: String,
    protocol: String,
    /// Tokens of the whole text, before it is cut.
    text_tokens: usize,
    #[serde(flatten)]
    perplexity: Perplexity,
}

pub(crate) fn run(args: &EvalArgs, global: &Global) -> Result<()> {
    let started = Instant::now();
    let chosen = model::open_with(&args.model, global, args.rope_precision.into())?;
    let windows = windows(args, &chosen)?;
    let asked = zeroshot::read(&args.zeroshot, global.quiet)?;
    let device = device::choose(global)?;
    let text = match windows {
        None => None,
        Some(windows) => {
            let job = Job {
                model: &chosen.model,
                windows: &windows.ids,
                quiet: global.quiet,
            };
            Some(TextOutcome::new(&windows, dispatch_opened(&device, job)??))
        }
    };
    let tasks = match asked {
        None => None,
        Some(asked) => Some(zeroshot::answer(asked, &chosen, &device, global.quiet)?),
    };
    let outcome = Outcome {
        model: chosen.name,
        device: device.to_string(),
        seconds: started.elapsed().as_secs_f64(),
        peak_host_bytes: crate::report::peak_host_bytes(),
        text,
        tasks,
    };
    show::result(global.format, &outcome, Outcome::in_words)
}

/// The text to evaluate, unless only tasks are asked for.
fn windows(args: &EvalArgs, chosen: &Chosen) -> Result<Option<TokenWindows>> {
    let name = match (&args.data, &args.zeroshot.tasks) {
        (Some(name), _) => name,
        (None, None) => data::DEMO,
        (None, Some(_)) => {
            let given = [
                ("--seq-len", args.seq_len.is_some()),
                ("--max-windows", args.max_windows.is_some()),
            ];
            return match given.into_iter().find(|(_, given)| *given) {
                None => Ok(None),
                Some((setting, _)) => Err(Error::Setting {
                    setting,
                    reason: "is about text, which --tasks does without; name a text with --data as well"
                        .into(),
                }),
            };
        }
    };
    let sizes = (args.seq_len, args.max_windows);
    data::evaluation(chosen, name, args.text_field.as_deref(), sizes).map(Some)
}

impl TextOutcome {
    fn new(windows: &TokenWindows, perplexity: Perplexity) -> Self {
        let summary = windows.summary();
        Self {
            data: summary.sources,
            data_sha256: summary.sha256,
            protocol: summary.protocol,
            text_tokens: summary.total_tokens,
            perplexity,
        }
    }

    fn in_words(&self) -> String {
        format!(
            "data        {} (sha256 {})\nprotocol    {}\nperplexity  {:.4}\nmean nll    {:.6} over {} targets\n",
            self.data.join(", "),
            &self.data_sha256[..self.data_sha256.len().min(16)],
            self.protocol,
            self.perplexity.perplexity,
            self.perplexity.mean_nll,
            self.perplexity.targets,
        )
    }
}

impl Outcome {
    fn in_words(&self) -> String {
        let text = self.text.as_ref().map_or_else(String::new, TextOutcome::in_words);
        let tasks = self
            .tasks
            .as_ref()
            .map_or_else(String::new, TasksOutcome::in_words);
        format!(
            "model       {}\n{text}time        {:.1} s\n{tasks}",
            self.model, self.seconds
        )
    }
}
