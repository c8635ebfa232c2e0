//! What a model is worth: perplexity on text, and accuracy on zero-shot tasks.

mod loglikelihood;
mod perplexity;
pub mod tasks;

pub use loglikelihood::{Request, Score, Work, loglikelihoods};
pub(crate) use perplexity::head_nll;
pub use perplexity::{Perplexity, perplexity};
