//! A prompt continued, as the command `generate` does it: text in, text out as it grows.

use super::{Generator, Sampling};
use crate::checkpoint::Model;
use crate::error::Result;
use crate::text::Tokenizer;
use fista_pruner_backends::{DeviceJob, DeviceSpec, SolverOps, dispatch_opened};
use fista_pruner_models::Family;
use serde::Serialize;
use std::time::Instant;

/// What to continue, and how.
#[derive(Debug, Clone)]
pub struct Prompt {
    /// The text.
    pub text: String,
    /// Most tokens to add.
    pub max_new_tokens: usize,
    /// How tokens are drawn.
    pub sampling: Sampling,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Continuation {
    /// The prompt.
    pub prompt: String,
    /// The text after it.
    pub text: String,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens that were added.
    pub new_tokens: usize,
    /// Their ids.
    pub ids: Vec<u32>,
    /// Seconds, the loading of the model not included.
    pub seconds: f64,
}

impl Prompt {
    /// Continues it on a device that is open. `say` gets the prompt once the first token is known, then text as it grows.
    ///
    /// # Errors
    /// When the tokenizer does not fit, a setting is out of its range, or the model or the device fails.
    pub fn continued(
        &self,
        model: &Model,
        device: &DeviceSpec,
        say: &mut dyn FnMut(&str),
    ) -> Result<Continuation> {
        let tokenizer = model.tokenizer()?;
        let job = Job {
            model,
            tokenizer: &tokenizer,
            prompt: self,
            say,
        };
        dispatch_opened(device, job)?
    }
}

/// What runs on the device.
struct Job<'a> {
    model: &'a Model,
    tokenizer: &'a Tokenizer,
    prompt: &'a Prompt,
    say: &'a mut dyn FnMut(&str),
}

impl DeviceJob for Job<'_> {
    type Output = Result<Continuation>;

    fn run<B: SolverOps>(self, device: &B::Device) -> Self::Output {
        let Prompt {
            text,
            max_new_tokens,
            sampling,
        } = self.prompt;
        let generator = Generator::<B>::load(&self.model.checkpoint, &self.model.decoder, device)?;
        let prompt = self.tokenizer.encode(text)?;
        let started = Instant::now();
        let mut spoken = Spoken {
            tokenizer: self.tokenizer,
            prompt: text,
            ids: Vec::new(),
            said: 0,
            say: self.say,
        };
        let end = end_tokens(self.model);
        let ids = generator.generate(&prompt, *max_new_tokens, &end, sampling, |id| spoken.token(id))?;
        if ids.is_empty() {
            (spoken.say)(text);
        }
        Ok(Continuation {
            prompt: text.clone(),
            text: self.tokenizer.decode(&ids)?,
            prompt_tokens: prompt.len(),
            new_tokens: ids.len(),
            ids,
            seconds: started.elapsed().as_secs_f64(),
        })
    }
}

/// Text as it grows. A token may end in the middle of a character, so whole texts are decoded and the new part is said once it
/// is complete.
struct Spoken<'a> {
    tokenizer: &'a Tokenizer,
    prompt: &'a str,
    ids: Vec<u32>,
    /// Bytes of the text that were said.
    said: usize,
    say: &'a mut dyn FnMut(&str),
}

impl Spoken<'_> {
    fn token(&mut self, id: u32) {
        if self.ids.is_empty() {
            (self.say)(self.prompt);
        }
        self.ids.push(id);
        let Ok(text) = self.tokenizer.decode(&self.ids) else {
            return;
        };
        if !text.ends_with(char::REPLACEMENT_CHARACTER)
            && let Some(new) = text.get(self.said..)
        {
            (self.say)(new);
            self.said = text.len();
        }
    }
}

/// End tokens as transformers finds them: `generation_config.json`, else `config.json`, else the family's default.
fn end_tokens(model: &Model) -> Vec<u32> {
    let listed = |text: &str| -> Option<Vec<u32>> {
        let config: serde_json::Value = crate::json::parse(text).ok()?;
        let id = |value: &serde_json::Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        match config.get("eos_token_id")? {
            serde_json::Value::Array(several) => Some(several.iter().filter_map(id).collect()),
            one => Some(id(one).into_iter().collect()),
        }
    };
    let generation = std::fs::read_to_string(model.dir().join("generation_config.json")).ok();
    generation
        .and_then(|text| listed(&text))
        .or_else(|| listed(model.checkpoint.config_json()))
        .unwrap_or_else(|| match model.decoder.config().family() {
            Family::Opt | Family::Llama | Family::Mistral => vec![2],
            _ => Vec::new(),
        })
}
