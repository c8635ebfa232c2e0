//! From data files to token windows: text is read as documents, tokenised, and cut into windows of equal length.
//!
//! `prune` draws random windows ([`draw_windows`], SparseGPT's loader), `eval` cuts one long text into consecutive ones
//! ([`evaluation_windows`], the protocol of all published perplexities), and both may be given finished windows in a file
//! ([`token_windows`]). [`Published`] names the data sets that published results share, with their protocols. What was used, and how, comes along for the report.

mod chat_template;
mod document;
mod documents;
mod error;
mod inputs;
mod locate;
mod parquet;
mod pieces;
mod published;
pub(crate) mod rows;
mod token_file;
mod tokenizer;
mod windows;

pub use chat_template::*;
pub use document::Document;
pub use documents::{
    DataSource, Documents, EvaluationText, TextLayout, TextOptions, read_documents, read_text,
};
pub use error::{DataError, TokenizerError};
pub use inputs::{CalibrationData, DrawFrom, EvaluationData};
pub use published::Published;
pub(crate) use rows::has_rows;
pub use rows::is_token_file;
pub use token_file::token_windows;
pub use tokenizer::Tokenizer;
pub(crate) use windows::check_windows;
pub use windows::{TokenWindows, WindowsSummary, draw_windows, evaluation_windows};
