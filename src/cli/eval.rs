//! `eval`: perplexity on text, accuracy on tasks, or both.

use super::args::{Global, ModelArgs};
use super::help::{self, EVALUATION};
use super::progress::Bar;
use super::zeroshot::{self, ZeroShotArgs};
use super::{advice, inputs, show};
use crate::checkpoint::{Model, ModelName};
use crate::demo;
use crate::error::{ConfigError, Error, Result};
use crate::eval::tasks::TasksReport;
use crate::eval::{Perplexity, measure};
use crate::text::{EvaluationData, TokenWindows};
use clap::{Args, ValueEnum};
use fista_pruner_models::RopePrecision;
use serde::Serialize;
use std::time::Instant;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Precision {
    F32,
    F16,
    Bf16,
}

impl From<Precision> for RopePrecision {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::F16 => Self::F16,
            Precision::Bf16 => Self::BF16,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// The text to measure perplexity on: a file (text, .jsonl or .parquet; text and .jsonl also as .gz or .zst; token ids in
    /// .safetensors), or `wikitext2`, `c4` or `ptb` in their published way, or a data set of the Hub (ORG/NAME or ORG/NAME:FILE).
    /// `ptb=FILE` reads a local copy in the same way as `ptb`. Default: `demo`, the stories inside this program, which suit only
    /// the demo model. With --tasks alone no text is measured.
    #[arg(long, value_name = "FILE|NAME|ID", help_heading = EVALUATION)]
    data: Option<String>,
    /// The field of a JSON line, or the column of a parquet file, that holds the text. A list of messages (role, content) is
    /// put through the model's chat template. Default: `text`, and if there is none, `messages`.
    #[arg(long, value_name = "NAME", help_heading = EVALUATION)]
    text_field: Option<String>,
    #[arg(long, value_name = "N", help_heading = EVALUATION, help = help::seq_len("Tokens in one sequence."))]
    seq_len: Option<usize>,
    /// Measure only the first N sequences. Default: all.
    #[arg(long, alias = "max-windows", value_name = "N", help_heading = EVALUATION)]
    eval_samples: Option<usize>,
    /// Precision of the rotary position embedding's frequencies. f16 and bf16 repeat results of models that were cast with
    /// `model.half()`. transformers keeps f32 when it loads a checkpoint.
    #[arg(long, value_enum, default_value_t = Precision::F32, help_heading = EVALUATION)]
    rope_precision: Precision,
    #[command(flatten)]
    zeroshot: ZeroShotArgs,
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
    tasks: Option<TasksReport>,
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
    let hub = &mut inputs::hub(global.quiet);
    let name = ModelName {
        name: args.model.model.clone(),
        revision: args.model.revision.clone(),
        precision: args.rope_precision.into(),
    };
    let model = name.open(hub)?;
    let windows = windows(args, &model, global)?;
    let text = windows.as_ref().map_or(&[][..], |windows| &windows.source.paths);
    let asked = args.zeroshot.read(&model, text, global.quiet)?;
    let device = inputs::device(global)?;
    let text = match windows {
        None => None,
        Some(windows) => {
            let found = measure(&model, &windows.ids, &device, &mut Bar::new(global.quiet))?;
            Some(TextOutcome::new(&windows, found))
        }
    };
    let tasks = match asked {
        None => None,
        Some(asked) => Some(asked.answer(&model, &device, global.quiet)?),
    };
    let outcome = Outcome {
        model: model.name,
        device: device.to_string(),
        seconds: started.elapsed().as_secs_f64(),
        peak_host_bytes: crate::report::peak_host_bytes(),
        text,
        tasks,
    };
    show::with_advice(global, &outcome, Outcome::in_words, |o| {
        advice::measured(o.text.is_some())
    })
}

/// The text to evaluate, unless only tasks are asked for.
fn windows(args: &EvalArgs, model: &Model, global: &Global) -> Result<Option<TokenWindows>> {
    if args.data.is_none() && args.zeroshot.tasks.is_some() {
        let given = [
            ("--seq-len", args.seq_len.is_some()),
            ("--eval-samples", args.eval_samples.is_some()),
        ];
        let reason = "is about text, which --tasks does without; name a text with --data as well";
        return match given.into_iter().find(|(_, given)| *given) {
            None => Ok(None),
            Some((setting, _)) => Err(Error::from(ConfigError::Setting {
                setting,
                reason: reason.into(),
            })),
        };
    }
    let data = EvaluationData {
        name: args.data.clone(),
        text_field: args.text_field.clone(),
        seq_len: args.seq_len,
        max_windows: args.eval_samples,
    };
    let windows = data.windows(model, &mut inputs::hub(global.quiet))?;
    if args.data.is_none() && !demo::is_configuration(model.checkpoint.config_json()) {
        tracing::warn!(
            "perplexity of `{}` is measured on the stories inside this program, which were made for the demo model. DO NOT compare the \
             number with published ones. Name a text: --data wikitext2, or --data FILE",
            model.name
        );
    }
    Ok(Some(windows))
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
        let tasks = self.tasks.as_ref().map_or_else(String::new, zeroshot::in_words);
        format!(
            "model       {}\n{text}time        {:.1} s\n{tasks}",
            self.model, self.seconds
        )
    }
}
