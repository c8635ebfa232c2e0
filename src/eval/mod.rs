//! What a model is worth: perplexity on text.

mod perplexity;

pub(crate) use perplexity::head_nll;
pub use perplexity::{Perplexity, perplexity};
