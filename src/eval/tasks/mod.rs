//! Zero-shot tasks as EleutherAI's lm-evaluation-harness defines them (version 0.4.13; each task's name there). Rows of a
//! task's data file become questions, questions become requests for the log-likelihood of a text after another, and their
//! answers become accuracies.
//!
//! ```text
//! data file ── rows ── question ─┬─ requests ── tokens ── log-likelihoods ─┬─ scores
//!                      examples ─┘                       (loglikelihood.rs) └─ samples
//! ```

mod answers;
mod error;

mod data;
mod published;
mod question;

mod fewshot;
mod python_random;

mod encode;
mod run;
mod score;
mod task;

pub use answers::{Questions, TasksReport};
pub use data::{Row, TaskData, TaskFile, TaskFiles, task_data};
pub use encode::PairEncoder;
pub use error::TaskError;
pub use published::PublishedTask;
pub use question::Question;
pub use run::{TaskOptions, TaskOutcome, TaskRun, evaluate, prepare};
pub use score::{Sample, TaskScores};
pub use task::Task;
