//! What a model is worth: perplexity on text.

mod along;
mod perplexity;

pub use along::Score;
pub(crate) use along::{Along, check_windows};
pub use perplexity::{Perplexity, perplexity};
