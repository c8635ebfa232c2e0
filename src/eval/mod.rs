//! What a model is worth: perplexity on text, and accuracy on zero-shot tasks.

mod along;
mod generate;
mod loglikelihood;
mod perplexity;
mod prompt;
mod score;
pub mod tasks;

pub(crate) use along::{Along, divergence};

pub use generate::{Generator, Sampling};
pub use loglikelihood::{LoglikelihoodScore, Request, Work, loglikelihoods};
pub use perplexity::{Perplexity, measure, perplexity};
pub(crate) use perplexity::{finite, mean_nll};
pub use prompt::{Continuation, Prompt};
pub use score::Score as PerplexityScore;
