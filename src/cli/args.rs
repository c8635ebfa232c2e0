//! What may be typed. Values are checked here for their form only; their meaning is checked where they are used.

use crate::config::{LambdaSearch, LambdaUnit, Method, Propagation, Scaling, Threshold, WarmStart};
use crate::eval::tasks::Task;
use crate::pattern::Pattern;
use crate::plan::StatePlace;
use crate::shard::Shard;
use bytesize::ByteSize;
use clap::builder::PossibleValue;
use clap::{Args, Parser, Subcommand, ValueEnum};
use fista_pruner_backends::DeviceSpec;
use fista_pruner_models::RopePrecision;
use std::path::PathBuf;

/// Prunes trained language models layer by layer: a Hugging Face checkpoint in, a sparse one out.
#[derive(Debug, Parser)]
#[command(name = "fista-pruner", version, max_term_width = 110)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) global: Global,
}

#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The device to compute on: flex, ndarray, cuda[:N], rocm[:N], wgpu[:N], vulkan[:N], metal. Default: the first
    /// that this program was built with and that can be opened, GPUs first. `prune` takes several of one kind
    /// (`cuda:0,cuda:1`): each prunes other layers.
    #[arg(long, global = true, value_name = "NAME,...", value_delimiter = ',', value_parser = parse_device)]
    pub(crate) device: Vec<DeviceSpec>,
    /// Print the result for people, or as one JSON document.
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
    /// What to show of the work on stderr: `auto` (a live view on a terminal, else nothing), `bar` (the same, and plain
    /// lines where there is no terminal), `plain` (a line a step), `jsonl` (a JSON object a line, for programs), `none`.
    #[arg(long, global = true, value_enum, default_value_t = ProgressChoice::Auto, value_name = "HOW", hide_possible_values = true)]
    pub(crate) progress: ProgressChoice,
    /// Say more on stderr; twice says even more.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// No warnings and no live view on stderr; `--progress plain` and `jsonl` still write their lines.
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
    /// A Markdown table; `compare` only.
    Markdown,
}

/// What calibration windows are drawn from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DrawFrom {
    Documents,
    Stream,
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

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Prune a checkpoint.
    Prune(Box<PruneArgs>),
    /// Measure a checkpoint's perplexity, or its accuracy on zero-shot tasks.
    Eval(EvalArgs),
    /// Show the sparsity of every linear operator, without running the model.
    Inspect(InspectArgs),
    /// Continue a prompt.
    Generate(GenerateArgs),
    /// Prune in several ways in one pass over the model, and show their errors, perplexities and times in one table.
    Compare(Box<CompareArgs>),
    /// Make the page of a finished run again, from its pruning_report.json.
    Report(ReportArgs),
    /// Prune one matrix from saved statistics.
    Solve(Box<SolveArgs>),
    /// Make one checkpoint of the parts that `prune --shard` has written.
    Merge(super::merge::MergeArgs),
    /// Write a pruned checkpoint without its zeros. Every command reads the result as it is.
    Pack(super::pack::PackArgs),
    /// Write the checkpoint that a packed one was made from, byte for byte.
    Unpack(super::pack::UnpackArgs),
    /// Write a pruned checkpoint's mask to a file, or give a dense checkpoint the zeros of one.
    #[command(subcommand)]
    Mask(super::mask::MaskCommand),
    /// Adapt the surviving weights of a pruned checkpoint; every zero stays.
    Recover(Box<super::recover::RecoverArgs>),
    /// Check a finished checkpoint: names, shapes, formats, pattern, finite values, and that nothing else has changed.
    Verify(super::verify::VerifyArgs),
    /// Print a script that completes this program's commands and flags in a shell.
    Completions(CompletionsArgs),
    /// Print a manual page, or write them all.
    Man(ManArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The subcommand to describe. Default: the program.
    #[arg(value_name = "SUBCOMMAND", conflicts_with = "output")]
    pub(crate) page: Option<String>,
    /// Write every page into this folder, which is made if it is missing.
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// Folder of the checkpoint (config.json, weights, tokenizer.json), or a model of the Hugging Face hub (ORG/NAME),
    /// which is downloaded once. Default: the built-in demo model.
    #[arg(long, value_name = "DIR|ID")]
    pub(crate) model: Option<PathBuf>,
    /// Branch, tag or commit of a model of the hub. Default: main.
    #[arg(long, value_name = "REV")]
    pub(crate) revision: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Folder to write the pruned checkpoint to.
    #[arg(long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) solver: SolverArgs,
    /// Where inputs and targets come from: `intra` (dense layer input, corrected within the layer, dense target: the
    /// paper's), `none` (no correction), `full` (corrected within and between layers, dense target), `sequential`
    /// (pruned layer input, uncorrected, current target: what SparseGPT and Wanda do), `refreshed` (pruned layer input,
    /// corrected, current target). Or the three switches themselves:
    /// `input=dense|pruned,within=corrected|uncorrected,target=dense|current`.
    #[arg(long, default_value = "intra", value_name = "WHAT", value_parser = parse_propagation)]
    pub(crate) propagate: Propagation,
    /// How the zeros are spread over the operators: `uniform`, `owl` (layers with more outliers keep more, arXiv
    /// 2310.05175), `error` (zeros go where measured errors say they cost least), all with the same number of zeros; or a
    /// JSON file with an object from operators' names or regular expressions to rates or patterns.
    #[arg(long, default_value = "uniform", value_name = "WHAT")]
    pub(crate) allocation: String,
    #[command(flatten)]
    pub(crate) calibrate: CalibrationArgs,
    #[command(flatten)]
    pub(crate) evaluate: EvaluationArgs,
    /// Also write every operator's weight and statistics into this folder, one file a layer, for `solve`.
    #[arg(long, value_name = "DIR")]
    pub(crate) save_statistics: Option<PathBuf>,
    /// Replace the output folder if it exists.
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Go on after the last finished layer of the run with these settings that was killed or stopped while it wrote to this
    /// --output; where there is none, begin. What is finished stays for the next --resume if this run ends early.
    #[arg(long)]
    pub(crate) resume: bool,
    /// Prune only part K of N: a range of layers, into a folder of its own in --output, which all parts share; `merge` makes a
    /// checkpoint of them. Needs a --propagate with dense layer inputs, as the default has.
    #[arg(long, value_name = "K/N", value_parser = str::parse::<Shard>)]
    pub(crate) shard: Option<Shard>,
    /// Where the hidden states of the calibration set wait while they are not computed with: on the `device`, in the memory of the
    /// `host`, or on `disk`, in files beside the output. Default: the first of device, host and (where the host is the device)
    /// disk that --memory-budget allows.
    #[arg(long, value_enum, value_name = "WHERE")]
    pub(crate) activations: Option<StatePlace>,
    /// Hold on the device only what the step at hand needs: a layer's weights are read again for every step, and Gram matrices
    /// wait on the host. Slower, with the same result. --memory-budget switches it on where nothing else helps.
    #[arg(long)]
    pub(crate) offload: bool,
    /// Most memory that the run may take on the device, such as 24GB or 20GiB. Decides where hidden states wait, how many
    /// tokens are computed at once, and whether to --offload. Default: no limit.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub(crate) memory_budget: Option<u64>,
    /// Show the plan (operators, shapes, memory, disk, and the time, measured on a small part of the work) and stop.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// A number of bytes with an optional unit: `24GB`, `20GiB`, `500MB`.
fn parse_bytes(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(ByteSize(bytes)) if bytes > 0 => Ok(bytes),
        _ => Err(format!("`{text}` is no number of bytes, such as 24GB or 20GiB")),
    }
}

/// What is pruned, and on which tokens: shared by `prune` and `compare`.
#[derive(Debug, Args)]
pub(crate) struct CalibrationArgs {
    /// Calibration data: files of text, `.jsonl`, `.parquet`, the first two also with `.gz` or `.zst`, or token ids in
    /// `.safetensors`; several are read as one. `c4`, `wikitext2` and `ptb` are those data sets with their published
    /// protocols (`c4=FILE`: of a local copy), `ORG/NAME` or `ORG/NAME:FILE` another one of the hub, `demo` the built-in text.
    /// Default with the demo model: `demo`.
    #[arg(long, value_name = "FILE|NAME|ID", num_args = 1..)]
    pub(crate) calibration: Vec<String>,
    #[command(flatten)]
    pub(crate) text: TextArgs,
    /// Number of calibration windows. Default: 128, as in the paper, or all of a file of token ids.
    #[arg(long, value_name = "N")]
    pub(crate) samples: Option<usize>,
    /// Tokens of a calibration window. Default: the model's longest sequence, at most 2048, or that of a file of token ids.
    #[arg(long, value_name = "N")]
    pub(crate) seq_len: Option<usize>,
    /// Seed of the calibration windows.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) seed: u64,
    /// Prune only operators whose full name matches.
    #[arg(long, value_name = "REGEX")]
    pub(crate) targets: Option<regex::Regex>,
    /// Leave operators dense whose full name matches.
    #[arg(long, value_name = "REGEX")]
    pub(crate) ignore: Option<regex::Regex>,
}

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// The ways to compare: NAME[@WARM-START][+polish[=STEPS]][+ridge=R][:ALLOCATION][/PROPAGATION]. NAME is a preset (best, fast,
    /// paper), a method as published (magnitude, wanda, sparsegpt, fista), or fista-scaled.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "magnitude,wanda,sparsegpt,paper,fast,best",
        value_name = "WAY,..."
    )]
    pub(crate) methods: Vec<String>,
    /// The sparsities to take every way to.
    #[arg(long, value_delimiter = ',', default_value = "0.5", value_name = "PATTERN,...", value_parser = str::parse::<Pattern>)]
    pub(crate) sparsity: Vec<Pattern>,
    /// Where inputs and targets come from, for ways that do not say: see `prune --help`.
    #[arg(long, default_value = "intra", value_name = "WHAT", value_parser = parse_propagation)]
    pub(crate) propagate: Propagation,
    /// Most rounds of fista. Default: no limit, as in the paper.
    #[arg(long, value_name = "N")]
    pub(crate) max_rounds: Option<usize>,
    #[command(flatten)]
    pub(crate) calibrate: CalibrationArgs,
    #[command(flatten)]
    pub(crate) evaluate: EvaluationArgs,
}

/// What perplexity is measured on while pruning: shared by `prune` and `compare`.
#[derive(Debug, Args)]
pub(crate) struct EvaluationArgs {
    /// Data to measure perplexity on, before and after, in the same pass over the model; as in `eval`. Its hidden states
    /// stay in memory: see --max-windows. Default: `demo` with the demo model, else no perplexity.
    #[arg(long, value_name = "FILE")]
    pub(crate) data: Option<String>,
    /// Tokens of an evaluation window. Default: the model's longest sequence, at most 2048.
    #[arg(long, value_name = "N")]
    pub(crate) eval_seq_len: Option<usize>,
    /// Evaluate only the first windows.
    #[arg(long, value_name = "N")]
    pub(crate) max_windows: Option<usize>,
}

/// How text files are cut into documents.
#[derive(Debug, Args)]
pub(crate) struct TextArgs {
    /// What calibration windows are drawn from: single documents longer than a window, as SparseGPT's loader does, or the stream
    /// that all documents make. Default: the stream for plain text, documents for rows; named data sets have their own protocol.
    #[arg(long, value_name = "WHAT")]
    pub(crate) draw: Option<DrawFrom>,
    /// Field of a JSON line, or column of a parquet file, with the text or a list of messages (role, content), for the model's
    /// chat template. Default: `text`, or else `messages`.
    #[arg(long, value_name = "NAME")]
    pub(crate) text_field: Option<String>,
}

/// Settings of the solver, shared by `prune` and `solve`.
#[derive(Debug, Clone, Args)]
pub(crate) struct SolverArgs {
    /// The zeros: a fraction (0.5), a percentage (50%), or n:m (2:4 keeps 2 of each 4 inputs).
    #[arg(long, default_value = "0.5", value_name = "PATTERN", value_parser = str::parse::<Pattern>)]
    pub(crate) sparsity: Pattern,
    /// A set of settings; single settings below override it. `best`: the lowest error; `fast`: most of that at a
    /// fraction of the cost; `paper`: FISTAPruner, or another --method, as published (arXiv 2408.03728, Sec. 4.1). Default:
    /// `best`; a --method of another name then gets the polish of `best`, and fista works in scaled columns.
    #[arg(long, value_enum)]
    pub(crate) preset: Option<Preset>,
    /// How an operator's weights are chosen. Default: l0, or fista with `--preset paper`.
    #[arg(long)]
    pub(crate) method: Option<Method>,
    /// Where fista starts. Default: sparsegpt for OPT, wanda for LLaMA and its kin, as in the paper.
    #[arg(long)]
    pub(crate) warm_start: Option<WarmStart>,
    /// K: FISTA iterations a round. Paper: 20.
    #[arg(long, value_name = "K", help_heading = "Solver settings")]
    pub(crate) iterations: Option<usize>,
    /// T: rounds without improvement before fista stops. Paper: 3.
    #[arg(long, value_name = "T", help_heading = "Solver settings")]
    pub(crate) patience: Option<usize>,
    /// ξ: share of the rounding error above which λ rises. Paper: 0.3.
    #[arg(long, value_name = "X", help_heading = "Solver settings")]
    pub(crate) xi: Option<f64>,
    /// ε: relative gain below which fista stops. Paper: 1e-6 for OPT, 1e-3 for LLaMA.
    #[arg(long, value_name = "E", help_heading = "Solver settings")]
    pub(crate) epsilon: Option<f64>,
    /// Most rounds of fista. Default: no limit, as in the paper.
    #[arg(long, value_name = "N", help_heading = "Solver settings")]
    pub(crate) max_rounds: Option<usize>,
    /// λ₀: first weight of the ℓ1 term, in --lambda-unit. Paper: 1e-5 absolute, for statistics per token. Default: 1e-6
    /// relative.
    #[arg(long, value_name = "L", help_heading = "Solver settings")]
    pub(crate) lambda: Option<f64>,
    /// M: upper end of the search for λ, in --lambda-unit. Paper: 1e6. Default: 1 relative.
    #[arg(long, value_name = "M", help_heading = "Solver settings")]
    pub(crate) lambda_max: Option<f64>,
    /// How λ moves: `expand` grows it tenfold until an upper end is known, `bisect` takes midpoints of [0, M] from the
    /// start, as the paper prints it; `bracket` takes geometric midpoints below the λ that zeroes everything. Default:
    /// bracket, or expand with `--preset paper`.
    #[arg(long, help_heading = "Solver settings")]
    pub(crate) lambda_search: Option<LambdaSearch>,
    /// What λ is measured in: `absolute`, or `relative` to the smallest λ that zeroes everything. Default: relative, or
    /// absolute with `--preset paper`.
    #[arg(long, help_heading = "Solver settings")]
    pub(crate) lambda_unit: Option<LambdaUnit>,
    /// The columns fista works in: the operator's own (`none`), or scaled to unit norm (`columns`). Default: columns, or
    /// none with `--preset paper`.
    #[arg(long, help_heading = "Solver settings")]
    pub(crate) scaling: Option<Scaling>,
    /// Whether fista's momentum starts anew when it points uphill. Default: true, or false with `--preset paper`.
    #[arg(long, value_name = "BOOL", help_heading = "Solver settings")]
    pub(crate) restart: Option<bool>,
    /// What competes for an unstructured sparsity's zeros: the whole `matrix` or each `row`. Default: the row for wanda,
    /// the matrix for others; sparsegpt always compares within blocks of columns.
    #[arg(long, help_heading = "Solver settings")]
    pub(crate) threshold: Option<Threshold>,
    /// FISTA stops below this norm of a step. Paper: 1e-6.
    #[arg(long, value_name = "T", help_heading = "Solver settings")]
    pub(crate) tolerance: Option<f64>,
    /// Conjugate-gradient steps on the final support, after any method; 0 for none. Default: 12, or 3 with
    /// `fast`, 0 with `paper`.
    #[arg(long, value_name = "N", help_heading = "Solver settings")]
    pub(crate) polish: Option<usize>,
    /// Steps of ℓ0 splitting. Default: 150 with `best`, 8 with `fast`.
    #[arg(long, value_name = "N", help_heading = "Solver settings")]
    pub(crate) l0_steps: Option<usize>,
    /// First ρ of ℓ0 splitting, for Gram matrices with unit diagonal. Default: 0.03 with `best`, 0.3 with `fast`.
    #[arg(long, value_name = "R", help_heading = "Solver settings")]
    pub(crate) rho: Option<f64>,
    /// Factor by which ρ grows a step. Default: 1.04 with `best`, 1.1 with `fast`.
    #[arg(long, value_name = "F", help_heading = "Solver settings")]
    pub(crate) rho_growth: Option<f64>,
    /// Steps of ℓ0 splitting between two renewals of its inverse. Default: 3.
    #[arg(long, value_name = "N", help_heading = "Solver settings")]
    pub(crate) l0_refresh: Option<usize>,
    /// Pull of l0 and of the polish towards the dense weight, relative to the Gram matrix's diagonal: a number, or `auto`, the
    /// more the fewer calibration tokens there are. Default: auto.
    #[arg(long, value_name = "R", help_heading = "Solver settings")]
    pub(crate) ridge: Option<crate::ridge::Ridge>,
    /// SparseGPT's damping, relative to the mean diagonal of the Gram matrix. Official code: 0.01.
    #[arg(long, value_name = "D", help_heading = "Solver settings")]
    pub(crate) damping: Option<f64>,
    /// SparseGPT's block of columns. Official code: 128.
    #[arg(long, value_name = "N", help_heading = "Solver settings")]
    pub(crate) block: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Preset {
    Best,
    Fast,
    Paper,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Precision {
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
    pub(crate) model: ModelArgs,
    /// Evaluation data: a file of text, `.jsonl`, `.parquet`, the first two also with `.gz` or `.zst`, or token ids in
    /// `.safetensors`. `wikitext2`, `c4` and `ptb` are those data sets with their published protocols (`ptb=FILE`: of a local
    /// copy), `ORG/NAME` or `ORG/NAME:FILE` another one of the hub. Default: `demo`, the built-in text, or none
    /// with --tasks.
    #[arg(long, value_name = "FILE|NAME|ID")]
    pub(crate) data: Option<String>,
    /// Field of a JSON line, or column of a parquet file, with the text or a list of messages (role, content), for the model's
    /// chat template. Default: `text`, or else `messages`.
    #[arg(long, value_name = "NAME")]
    pub(crate) text_field: Option<String>,
    /// Tokens of a window. Default: the model's longest sequence, at most 2048, or that of a file of token ids.
    #[arg(long, value_name = "N")]
    pub(crate) seq_len: Option<usize>,
    /// Round rotary frequencies as a model cast to half precision in memory (`model.half()`) has them, to reproduce
    /// results computed that way. Loading a checkpoint with transformers keeps f32.
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    pub(crate) rope_precision: Precision,
    /// Evaluate only the first windows.
    #[arg(long, value_name = "N")]
    pub(crate) max_windows: Option<usize>,
    #[command(flatten)]
    pub(crate) zeroshot: ZeroShotArgs,
}

/// What `eval` measures by tasks.
#[derive(Debug, Args)]
#[command(next_help_heading = "Tasks")]
pub(crate) struct ZeroShotArgs {
    /// Answer the questions of tasks, as lm-evaluation-harness does: arc_challenge, arc_easy, boolq, hellaswag,
    /// openbookqa, piqa, winogrande, rte, qnli, wnli, lambada_openai, separated by commas; `paper` is the seven of
    /// FISTAPruner's Table 5, `all` is all.
    #[arg(long, value_name = "NAMES", value_parser = parse_tasks)]
    pub(crate) tasks: Option<TaskList>,
    /// Folder with the tasks' data: TASK.jsonl (also .gz or .zst) or TASK.parquet, and TASK.train.jsonl or so where examples
    /// come from it. Default: the data sets that lm-evaluation-harness uses, of the Hugging Face hub, downloaded once.
    #[arg(long, value_name = "DIR", alias = "task-dir", requires = "tasks")]
    pub(crate) task_data: Option<PathBuf>,
    /// Put this many solved examples before each question.
    #[arg(long, default_value_t = 0, value_name = "N", requires = "tasks")]
    pub(crate) num_fewshot: usize,
    /// Answer only the first questions of each task.
    #[arg(long, value_name = "N", requires = "tasks")]
    pub(crate) limit: Option<usize>,
    /// Write every question with its log-likelihoods to this file, one JSON object a line.
    #[arg(long, value_name = "FILE", requires = "tasks")]
    pub(crate) log_samples: Option<PathBuf>,
}

/// Tasks in the order they were named.
#[derive(Debug, Clone)]
pub(crate) struct TaskList(pub(crate) Vec<Task>);

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Folder of the pruned checkpoint, or the report's JSON file.
    #[arg(long, value_name = "DIR|FILE")]
    pub(crate) input: PathBuf,
    /// The page to write; it replaces an earlier one. Default: report.html beside the JSON file.
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// The text to continue.
    #[arg(long, value_name = "TEXT")]
    pub(crate) prompt: String,
    /// Most tokens to add.
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub(crate) max_new_tokens: usize,
    /// Divides the logits; 0 always takes the most likely token.
    #[arg(long, default_value_t = 0.0, value_name = "T")]
    pub(crate) temperature: f64,
    /// Draw from the N most likely tokens only; 0 means all.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) top_k: usize,
    /// Draw from the most likely tokens that together reach this probability.
    #[arg(long, default_value_t = 1.0, value_name = "P")]
    pub(crate) top_p: f64,
    /// Seed of the draws.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) seed: u64,
}

#[derive(Debug, Args)]
pub(crate) struct SolveArgs {
    /// File with NAME.weight [out, in], NAME.gram [in, in] (X* X*ᵀ) and, if inputs differ, NAME.cross (X X*ᵀ) and
    /// NAME.dense_gram (X Xᵀ).
    #[arg(long, value_name = "FILE")]
    pub(crate) statistics: PathBuf,
    /// The operator's NAME in the file.
    #[arg(long, value_name = "NAME")]
    pub(crate) operator: String,
    /// Write the pruned weight to this safetensors file, as NAME.weight.
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) solver: SolverArgs,
}

fn parse_device(text: &str) -> Result<DeviceSpec, String> {
    text.parse()
        .map_err(|e: fista_pruner_backends::DeviceError| e.to_string())
}

fn parse_tasks(text: &str) -> Result<TaskList, String> {
    Task::list(text.split(',')).map(TaskList)
}

fn parse_propagation(text: &str) -> Result<Propagation, String> {
    use crate::config::LayerInput::{Dense, Pruned};
    if let Some((_, named)) = Propagation::NAMED.iter().find(|(name, _)| *name == text) {
        return Ok(*named);
    }
    let mut propagation = Propagation::INTRA;
    for switch in text.split(',') {
        match switch.trim() {
            "input=dense" => propagation.layer_input = Dense,
            "input=pruned" => propagation.layer_input = Pruned,
            "within=corrected" => propagation.corrected = true,
            "within=uncorrected" => propagation.corrected = false,
            "target=dense" => propagation.dense_target = true,
            "target=current" => propagation.dense_target = false,
            other => {
                return Err(format!(
                    "`{other}` is neither intra, none, full, sequential, refreshed nor a switch"
                ));
            }
        }
    }
    Ok(propagation)
}

/// Names of a closed set of values, from the table that the value's own module keeps.
macro_rules! named_values {
    ($kind:ty) => {
        impl ValueEnum for $kind {
            fn value_variants<'a>() -> &'a [Self] {
                const VARIANTS: [$kind; <$kind>::ALL.len()] = {
                    let mut variants = [<$kind>::ALL[0].1; <$kind>::ALL.len()];
                    let mut i = 0;
                    while i < variants.len() {
                        variants[i] = <$kind>::ALL[i].1;
                        i += 1;
                    }
                    variants
                };
                &VARIANTS
            }

            fn to_possible_value(&self) -> Option<PossibleValue> {
                Self::ALL
                    .iter()
                    .find(|(_, v)| v == self)
                    .map(|(name, _)| PossibleValue::new(*name))
            }
        }
    };
}

named_values!(Method);
named_values!(WarmStart);
named_values!(LambdaSearch);
named_values!(LambdaUnit);
named_values!(Scaling);
named_values!(Threshold);

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn propagation_by_name_and_by_switches() {
        for (name, propagation) in Propagation::NAMED {
            assert_eq!(parse_propagation(name), Ok(propagation));
        }
        assert_eq!(
            parse_propagation("input=pruned,within=uncorrected,target=current"),
            Ok(Propagation::SEQUENTIAL)
        );
        assert!(parse_propagation("input=sparse").is_err());
    }
}
