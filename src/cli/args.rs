//! What may be typed with more than one subcommand. Values are checked here for their form only; their meaning is checked where
//! they are used.

use crate::config::{LambdaSearch, LambdaUnit, Method, Propagation, Scaling, Threshold, WarmStart};
use crate::prune::plan::StatePlace;
use crate::text::DrawFrom;
use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use fista_pruner_backends::DeviceSpec;
use std::path::PathBuf;

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
    /// Folder of the checkpoint (config.json, weights, tokenizer.json), or a model of the Hugging Face hub (ORG/NAME),
    /// which is downloaded once. Default: the built-in demo model.
    #[arg(long, value_name = "DIR|ID")]
    pub(crate) model: Option<PathBuf>,
    /// Branch, tag or commit of a model of the hub. Default: main.
    #[arg(long, value_name = "REV")]
    pub(crate) revision: Option<String>,
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

fn parse_device(text: &str) -> Result<DeviceSpec, String> {
    text.parse()
        .map_err(|e: fista_pruner_backends::DeviceError| e.to_string())
}

pub(crate) fn parse_propagation(text: &str) -> Result<Propagation, String> {
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
named_values!(StatePlace);
named_values!(DrawFrom);

#[cfg(test)]
mod tests {
    use super::*;

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
