//! `eval`: perplexity on text, accuracy on tasks, or both.

use super::args::{Global, ModelArgs};
use super::progress::Bar;
use super::zeroshot::{TasksOutcome, ZeroShotArgs};
use super::{inputs, show};
use crate::checkpoint::{Model, ModelName};
use crate::error::{ConfigError, Error, Result};
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
    /// Evaluation data: a file of text, `.jsonl`, `.parquet`, the first two also with `.gz` or `.zst`, or token ids in
    /// `.safetensors`. `wikitext2`, `c4` and `ptb` are those data sets with their published protocols (`ptb=FILE`: of a local
    /// copy), `ORG/NAME` or `ORG/NAME:FILE` another one of the hub. Default: `demo`, the built-in text, or none
    /// with --tasks.
    #[arg(long, value_name = "FILE|NAME|ID")]
    data: Option<String>,
    /// Field of a JSON line, or column of a parquet file, with the text or a list of messages (role, content), for the model's
    /// chat template. Default: `text`, or else `messages`.
    #[arg(long, value_name = "NAME")]
    text_field: Option<String>,
    /// Tokens of a window. Default: the model's longest sequence, at most 2048, or that of a file of token ids.
    #[arg(long, value_name = "N")]
    seq_len: Option<usize>,
    /// Round rotary frequencies as a model cast to half precision in memory (`model.half()`) has them, to reproduce
    /// results computed that way. Loading a checkpoint with transformers keeps f32.
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    rope_precision: Precision,
    /// Evaluate only the first windows.
    #[arg(long, value_name = "N")]
    max_windows: Option<usize>,
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
    let hub = &mut inputs::hub(global.quiet);
    let name = ModelName {
        name: args.model.model.clone(),
        revision: args.model.revision.clone(),
        precision: args.rope_precision.into(),
    };
    let model = name.open(hub)?;
    let windows = windows(args, &model, global)?;
    let asked = args.zeroshot.read(global.quiet)?;
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
    show::result(global.format, &outcome, Outcome::in_words)
}

/// The text to evaluate, unless only tasks are asked for.
fn windows(args: &EvalArgs, model: &Model, global: &Global) -> Result<Option<TokenWindows>> {
    if args.data.is_none() && args.zeroshot.tasks.is_some() {
        let given = [
            ("--seq-len", args.seq_len.is_some()),
            ("--max-windows", args.max_windows.is_some()),
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
        max_windows: args.max_windows,
    };
    data.windows(model, &mut inputs::hub(global.quiet)).map(Some)
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
