//! `generate`: continue a prompt.

use super::args::{Format, Global, ModelArgs};
use super::help::PROMPT;
use super::{inputs, show};
use crate::error::Result;
use crate::eval::{Prompt, Sampling};
use clap::Args;
use std::io::Write;

#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// The text to continue.
    #[arg(long, value_name = "TEXT", help_heading = PROMPT)]
    prompt: String,
    /// Maximum number of new tokens.
    #[arg(long, default_value_t = 64, value_name = "N", help_heading = PROMPT)]
    max_new_tokens: usize,
    /// The logits are divided by this. 0 always chooses the most likely token.
    #[arg(long, default_value_t = 0.0, value_name = "T", help_heading = PROMPT)]
    temperature: f64,
    /// Draw only from the N most likely tokens. 0: from all.
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = PROMPT)]
    top_k: usize,
    /// Draw only from the most likely tokens that together have this probability.
    #[arg(long, default_value_t = 1.0, value_name = "P", help_heading = PROMPT)]
    top_p: f64,
    /// Seed of the random draws.
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = PROMPT)]
    seed: u64,
}

pub(crate) fn run(args: &GenerateArgs, global: &Global) -> Result<()> {
    let model = inputs::model(&args.model, global)?;
    let prompt = Prompt {
        text: args.prompt.clone(),
        max_new_tokens: args.max_new_tokens,
        sampling: Sampling {
            temperature: args.temperature,
            top_k: args.top_k,
            top_p: args.top_p,
            seed: args.seed,
        },
    };
    let device = inputs::device(global)?;
    let mut say = |text: &str| {
        if global.format == Format::Text {
            // A closed pipe or a full disk is noticed by whoever prints the result; `print!` would panic.
            let mut stdout = std::io::stdout().lock();
            let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
        }
    };
    let outcome = prompt.continued(&model, &device, &mut say)?;
    show::result(global.format, &outcome, |outcome| {
        format!("\n\n{} tokens in {:.2} s", outcome.new_tokens, outcome.seconds)
    })
}
