//! `generate`: continue a prompt.

use super::args::{Format, GenerateArgs, Global};
use super::model::Chosen;
use super::{device, model, show};
use crate::error::Result;
use crate::generate::{Generator, Sampling};
use crate::model::Model;
use crate::tokenizer::Tokenizer;
use fista_pruner_backends::{DeviceJob, SolverOps, dispatch_opened};
use fista_pruner_models::Family;
use serde::Serialize;
use std::io::Write;
use std::time::Instant;

#[derive(Debug, Serialize)]
struct Outcome {
    prompt: String,
    text: String,
    prompt_tokens: usize,
    new_tokens: usize,
    ids: Vec<u32>,
    seconds: f64,
}

struct Job<'a> {
    model: &'a Model,
    tokenizer: &'a Tokenizer,
    args: &'a GenerateArgs,
    end: Vec<u32>,
    stream: bool,
}

impl DeviceJob for Job<'_> {
    type Output = Result<Outcome>;

    fn run<B: SolverOps>(self, device: &B::Device) -> Result<Outcome> {
        let args = self.args;
        let generator = Generator::<B>::load(&self.model.checkpoint, &self.model.decoder, device)?;
        let sampling = Sampling {
            temperature: args.temperature,
            top_k: args.top_k,
            top_p: args.top_p,
            seed: args.seed,
        };
        let prompt = self.tokenizer.encode(&args.prompt)?;
        let started = Instant::now();
        let mut spoken = Spoken {
            tokenizer: self.tokenizer,
            prompt: &args.prompt,
            ids: Vec::new(),
            printed: 0,
            active: self.stream,
        };
        let ids = generator.generate(&prompt, args.max_new_tokens, &self.end, &sampling, |id| {
            spoken.say(id)
        })?;
        if ids.is_empty() {
            spoken.print(&args.prompt);
        }
        Ok(Outcome {
            prompt: args.prompt.clone(),
            text: self.tokenizer.decode(&ids)?,
            prompt_tokens: prompt.len(),
            new_tokens: ids.len(),
            ids,
            seconds: started.elapsed().as_secs_f64(),
        })
    }
}

/// Prints the prompt once the first token is known, then text as it grows. A token may end in the middle of a character, so whole texts are decoded and the new part
/// is printed once it is complete.
struct Spoken<'a> {
    tokenizer: &'a Tokenizer,
    prompt: &'a str,
    ids: Vec<u32>,
    printed: usize,
    active: bool,
}

impl Spoken<'_> {
    fn print(&self, text: &str) {
        if self.active {
            // A closed pipe or a full disk is noticed by whoever prints the result; `print!` would panic.
            let mut stdout = std::io::stdout().lock();
            let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
        }
    }

    fn say(&mut self, id: u32) {
        if self.ids.is_empty() {
            self.print(self.prompt);
        }
        self.ids.push(id);
        let Ok(text) = self.tokenizer.decode(&self.ids) else {
            return;
        };
        if !text.ends_with(char::REPLACEMENT_CHARACTER)
            && let Some(new) = text.get(self.printed..)
        {
            self.print(new);
            self.printed = text.len();
        }
    }
}

pub(crate) fn run(args: &GenerateArgs, global: &Global) -> Result<()> {
    let chosen = model::open(&args.model, global)?;
    let tokenizer = Tokenizer::open(&chosen.dir)?;
    tokenizer.check_vocabulary(chosen.model.decoder.config().vocab_size())?;
    let job = Job {
        model: &chosen.model,
        tokenizer: &tokenizer,
        args,
        end: end_tokens(&chosen),
        stream: global.format == Format::Text,
    };
    let outcome = dispatch_opened(&device::choose(global)?, job)??;
    show::result(global.format, &outcome, |outcome| {
        format!("\n\n{} tokens in {:.2} s", outcome.new_tokens, outcome.seconds)
    })
}

/// End tokens as transformers finds them: `generation_config.json`, else `config.json`, else the family's default.
fn end_tokens(chosen: &Chosen) -> Vec<u32> {
    let listed = |text: &str| -> Option<Vec<u32>> {
        let config: serde_json::Value = serde_json::from_str(text).ok()?;
        let id = |value: &serde_json::Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        match config.get("eos_token_id")? {
            serde_json::Value::Array(several) => Some(several.iter().filter_map(id).collect()),
            one => Some(id(one).into_iter().collect()),
        }
    };
    let generation = std::fs::read_to_string(chosen.dir.join("generation_config.json")).ok();
    generation
        .and_then(|text| listed(&text))
        .or_else(|| listed(chosen.model.checkpoint.config_json()))
        .unwrap_or_else(|| match chosen.model.decoder.config().family() {
            Family::Opt | Family::Llama | Family::Mistral => vec![2],
            _ => Vec::new(),
        })
}
