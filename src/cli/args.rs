//! What may be typed with more than one subcommand.

use super::help::{self, CALIBRATION, EVALUATION, LONG_RUNS, MEMORY, METHOD, MODEL, OUTPUT};
use super::values::{parse_bytes, parse_device};
use crate::prune::PruneRun;
use crate::prune::plan::StatePlace;
use crate::text::DrawFrom;
use clap::{ArgAction, Args, ValueEnum};
use fista_pruner_backends::DeviceSpec;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The device that computes: cpu, cuda[:N], rocm[:N], wgpu[:N], vulkan[:N], metal or ndarray (another library for the CPU).
    /// Default: the first GPU that works, otherwise the CPU. `prune` accepts several devices of one kind (cuda:0,cuda:1).
    /// Each of them prunes other layers.
    #[arg(long, global = true, value_name = "NAME,...", value_delimiter = ',', value_parser = parse_device, help_heading = MEMORY)]
    pub(crate) device: Vec<DeviceSpec>,
    /// How the result is printed: as text for people, or as one JSON document for programs. `compare` also prints a Markdown
    /// table.
    #[arg(long, global = true, value_enum, default_value_t = Format::Text, help_heading = OUTPUT)]
    pub(crate) format: Format,
    /// What stderr shows during the work. `auto`: a live view on a terminal, otherwise nothing. `bar`: a live view on a
    /// terminal, otherwise plain lines. `plain`: one line per step. `jsonl`: one JSON object per line, for programs. `none`:
    /// nothing.
    #[arg(
        long, global = true, value_enum, default_value_t = ProgressChoice::Auto, value_name = "HOW", hide_possible_values = true,
        help_heading = OUTPUT
    )]
    pub(crate) progress: ProgressChoice,
    /// Print more messages on stderr. Give it twice for even more.
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = OUTPUT)]
    pub(crate) verbose: u8,
    /// Print no warnings, no live view, and no advice below a result. `--progress plain` and `jsonl` still print their lines.
    #[arg(short, long, global = true, help_heading = OUTPUT)]
    pub(crate) quiet: bool,
    /// Print this help.
    #[arg(short = 'h', long, global = true, action = ArgAction::Help, help_heading = OUTPUT)]
    help: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
    // Of `compare` only.
    Markdown,
}

/// How progress is shown; see `Global::progress`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressChoice {
    Auto,
    Bar,
    Plain,
    Jsonl,
    None,
}

#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// The model: a folder with config.json, weights and tokenizer.json, or a model of the Hugging Face Hub (ORG/NAME), which is
    /// downloaded once. Default: the small demo model inside this program.
    #[arg(long, value_name = "DIR|ID", help_heading = MODEL)]
    pub(crate) model: Option<PathBuf>,
    /// Branch, tag or commit of a model of the Hub. Default: main.
    #[arg(long, value_name = "REV", help_heading = MODEL)]
    pub(crate) revision: Option<String>,
}

/// On which tokens a model is pruned: shared by `prune`, `shrink` and `compare`.
#[derive(Debug, Args)]
pub(crate) struct CalibrationArgs {
    /// The calibration text. Name files (text, .jsonl or .parquet; text and .jsonl also as .gz or .zst; token ids in
    /// .safetensors), or `c4`, `wikitext2` or `ptb`, or a data set of the Hub (ORG/NAME or ORG/NAME:FILE), or `demo`, the text
    /// inside this program. Several files are read as one. `c4=FILE` reads a local copy in the same way as `c4`. Default with the
    /// demo model: `demo`. Every other model needs a text.
    #[arg(long, alias = "dataset", value_name = "FILE|NAME|ID", num_args = 1.., help_heading = CALIBRATION)]
    pub(crate) calibration: Vec<String>,
    #[command(flatten)]
    pub(crate) draws: DrawArgs,
}

/// Which linear layers are pruned: shared by `prune` and `compare`.
#[derive(Debug, Args)]
pub(crate) struct SelectionArgs {
    /// Prune only the linear layers whose full name matches this regular expression.
    #[arg(long, value_name = "REGEX", help_heading = METHOD)]
    pub(crate) targets: Option<regex::Regex>,
    /// Do not prune the linear layers whose full name matches this regular expression.
    #[arg(long, value_name = "REGEX", help_heading = METHOD)]
    pub(crate) ignore: Option<regex::Regex>,
}

/// How sequences are drawn from the calibration text: shared by `prune`, `compare` and `recover`.
#[derive(Debug, Args)]
pub(crate) struct DrawArgs {
    #[arg(long, alias = "nsamples", value_name = "N", help_heading = CALIBRATION,
        help = help::samples("Number of calibration sequences. More is better and takes longer."))]
    pub(crate) samples: Option<usize>,
    #[arg(long, value_name = "N", help_heading = CALIBRATION, help = help::seq_len("Tokens in one calibration sequence."))]
    pub(crate) seq_len: Option<usize>,
    /// Seed for everything that is drawn at random, such as the calibration sequences.
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = CALIBRATION)]
    pub(crate) seed: u64,
    /// Where each calibration sequence comes from. `documents`: one document that is long enough, as in SparseGPT's code.
    /// `stream`: any place in the text of all documents, one after the other. Default: `stream` for plain text, `documents` for
    /// .jsonl and .parquet. `c4`, `wikitext2` and `ptb` have their published way.
    #[arg(long, value_name = "WHAT", help_heading = CALIBRATION)]
    pub(crate) draw: Option<DrawFrom>,
    /// The field of a JSON line, or the column of a parquet file, that holds the text. A list of messages (role, content) is
    /// put through the model's chat template. Default: `text`, and if there is none, `messages`.
    #[arg(long, value_name = "NAME", help_heading = CALIBRATION)]
    pub(crate) text_field: Option<String>,
}

/// What perplexity is measured on, before and after: shared by `prune`, `compare` and `recover`.
#[derive(Debug, Args)]
pub(crate) struct EvaluationArgs {
    /// The text to measure perplexity on, before and after, in the same run. Names are those of `eval --data`. Its hidden states
    /// stay in memory: --eval-samples limits them. Default: `demo` with the demo model. Otherwise nothing is measured.
    #[arg(long, alias = "data", value_name = "FILE|NAME|ID", help_heading = EVALUATION)]
    pub(crate) eval_data: Option<String>,
    #[arg(long, value_name = "N", help_heading = EVALUATION, help = help::seq_len("Tokens in one evaluation sequence."))]
    pub(crate) eval_seq_len: Option<usize>,
    /// Measure only the first N sequences. Default: all.
    #[arg(long, alias = "max-windows", value_name = "N", help_heading = EVALUATION)]
    pub(crate) eval_samples: Option<usize>,
}

/// Memory, plans and resumed runs: shared by `prune` and `shrink`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Maximum GPU memory for this run, such as 24GB or 20GiB. It decides where hidden states wait, how many tokens are computed
    /// at once, and whether weights are offloaded. The result is the same. Default: no limit.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, help_heading = MEMORY)]
    pub(crate) memory_budget: Option<u64>,
    /// Maximum RAM for this run, such as 32GB. Together with --memory-budget it decides whether hidden states wait in GPU memory, in
    /// RAM or on disk. Default: what is free when the run starts. The default changes no result and stops no run.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, help_heading = MEMORY)]
    pub(crate) host_memory: Option<u64>,
    /// Where the hidden states of the calibration text wait while they are not needed. `none`: in GPU memory. `cpu`: in RAM.
    /// `disk`: in files next to the output. Default: the first of the three that fits --memory-budget and --host-memory. On the CPU: the first
    /// of none and disk.
    #[arg(long, alias = "activations", value_enum, value_name = "WHERE", help_heading = MEMORY)]
    pub(crate) offload_activations: Option<StatePlace>,
    /// Keep only what the current step needs in GPU memory: weights are read again for every step, and Gram matrices wait in RAM.
    /// Slower, with the same result. --memory-budget switches it on if nothing else helps.
    #[arg(long, alias = "offload", help_heading = MEMORY)]
    pub(crate) offload_weights: bool,
    /// Print the plan and stop: the linear layers, memory, disk, and the time, which is estimated from a small part of the work.
    #[arg(long, help_heading = LONG_RUNS)]
    pub(crate) dry_run: bool,
    /// Continue a run that was stopped. Repeat the command with the same settings and the same --output. Finished layers are not
    /// computed again. If there is nothing to continue, the run starts from the beginning. If this run is stopped, the next
    /// --resume continues it.
    #[arg(long, help_heading = LONG_RUNS)]
    pub(crate) resume: bool,
}

impl RunArgs {
    /// The most windows to draw: of what a plan measures, some batches are enough.
    pub(crate) fn at_most(&self) -> Option<usize> {
        self.dry_run.then_some(1024)
    }

    /// The run with these settings.
    pub(crate) fn of<'a>(&self, run: PruneRun<'a>) -> PruneRun<'a> {
        PruneRun {
            resume: self.resume,
            activations: self.offload_activations,
            offload: self.offload_weights,
            memory_budget: self.memory_budget,
            host_memory: self.host_memory,
            ..run
        }
    }
}
