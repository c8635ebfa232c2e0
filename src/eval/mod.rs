//! What a model is worth: perplexity on text, and accuracy on zero-shot tasks.

mod along;
mod loglikelihood;
mod perplexity;
pub mod tasks;

pub use along::Score as PerplexityScore;
pub(crate) use along::{Along, check_windows};
pub use loglikelihood::{Request, Score, Work, loglikelihoods};
pub(crate) use perplexity::head_nll;
pub use perplexity::{Perplexity, perplexity};
