//! What a model is worth: perplexity on text.

mod perplexity;

pub use perplexity::{Perplexity, perplexity};
