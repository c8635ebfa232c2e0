//! A task from its data file to its scores.

use super::encode::EncodeError;
use super::fewshot::Examples;
use super::{
    PairEncoder, Question, Row, Sample, Task, TaskData, TaskError, TaskFiles, TaskScores, task_data,
};
use crate::checkpoint::Checkpoint;
use crate::error::{ConfigError, Error, Result};
use crate::eval::{Request, Work, loglikelihoods};
use crate::progress::Observer;
use fista_pruner_backends::SolverOps;
use fista_pruner_models::Decoder;
use rayon::prelude::*;
use serde::Serialize;
use std::path::PathBuf;

/// What is asked of every task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TaskOptions {
    /// Solved examples before each question.
    pub num_fewshot: usize,
    /// Only the first questions.
    pub limit: Option<usize>,
}

/// A task whose questions are read.
#[derive(Debug, Clone)]
pub struct TaskRun {
    task: Task,
    /// The questions in order, and the examples before each.
    questions: Vec<(Question, String)>,
    num_fewshot: usize,
    file: PathBuf,
    sha256: String,
    examples_file: Option<PathBuf>,
}

/// What became of a task.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TaskOutcome {
    /// The task's name.
    pub name: &'static str,
    /// Number of questions.
    pub n: usize,
    /// The scores.
    #[serde(flatten)]
    pub scores: TaskScores,
    /// Solved examples before each question.
    pub num_fewshot: usize,
    /// The data file; of the hub, `ORG/NAME@COMMIT:FILE`.
    pub data: PathBuf,
    /// SHA-256 in hex of its bytes.
    pub data_sha256: String,
    /// The file that examples came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fewshot_data: Option<PathBuf>,
    /// Every question.
    #[serde(skip)]
    pub samples: Vec<Sample>,
}

/// Reads a task's questions and draws their examples.
///
/// # Errors
/// [`TaskError`] and what makes a file unreadable.
pub fn prepare(task: Task, files: &TaskFiles, options: TaskOptions) -> Result<TaskRun> {
    if options.limit == Some(0) {
        return Err(Error::from(ConfigError::Setting {
            setting: "‹limit›",
            reason: "must be at least 1".into(),
        }));
    }
    let data = task_data(&files.evaluation)?;
    let mut examples = match options.num_fewshot {
        0 => None,
        count => Some(Examples::new(task, files.training.as_ref(), &data, count)?),
    };
    let limit = options.limit.unwrap_or(usize::MAX);
    let mut questions = Vec::with_capacity(data.rows.len().min(limit));
    for row in data.rows.iter().take(limit) {
        let mut before = String::new();
        if let Some(examples) = &mut examples {
            for example in examples.draw(row) {
                before += &question(task, &examples.pool, &examples.pool.rows[example])?.example();
            }
        }
        questions.push((question(task, &data, row)?, before));
    }
    let TaskData { file, sha256, .. } = data;
    Ok(TaskRun {
        task,
        questions,
        num_fewshot: options.num_fewshot,
        file,
        sha256,
        examples_file: examples.map(|examples| examples.pool.file),
    })
}

fn question(task: Task, data: &TaskData, row: &Row) -> Result<Question> {
    Question::new(task, row).map_err(|reason| {
        TaskError::Row {
            task: task.name(),
            file: data.file.clone(),
            unit: data.unit(),
            number: row.number,
            reason,
        }
        .into()
    })
}

impl TaskRun {
    /// The requests of each question, as texts.
    pub fn requests(&self) -> Vec<Vec<(String, String)>> {
        self.questions
            .iter()
            .map(|(question, examples)| question.requests(examples))
            .collect()
    }

    fn encode(
        &self,
        texts: &[Vec<(String, String)>],
        encoder: &PairEncoder<'_>,
    ) -> Result<Vec<Vec<Request>>> {
        let encoded = texts.par_iter().enumerate().map(|(item, pairs)| {
            encoder.encode(pairs).map_err(|(choice, error)| match error {
                EncodeError::Failed(error) => *error,
                error => TaskError::Request {
                    task: self.task.name(),
                    item,
                    choice,
                    reason: error.to_string(),
                }
                .into(),
            })
        });
        encoded.collect()
    }
}

/// Answers the questions of several tasks in one go, so that the model is read once.
///
/// # Errors
/// When a text cannot be tokenised or is too long, and as [`loglikelihoods`].
pub fn evaluate<B: SolverOps>(
    model: (&Checkpoint, &Decoder),
    encoder: &PairEncoder<'_>,
    runs: &[TaskRun],
    device: &B::Device,
    observer: &mut dyn Observer,
) -> Result<(Vec<TaskOutcome>, Work)> {
    let mut texts = Vec::with_capacity(runs.len());
    let mut groups = Vec::new();
    for run in runs {
        let requests = run.requests();
        groups.extend(run.encode(&requests, encoder)?);
        texts.push(requests);
    }
    let (scores, work) = loglikelihoods::<B>(model, &groups, device, observer)?;
    let mut scores = scores.iter();
    let outcomes = runs.iter().zip(texts).map(|(run, texts)| {
        let questions = run.questions.iter().zip(texts).zip(&mut scores).enumerate();
        let samples: Vec<Sample> = questions
            .map(|(index, (((question, _), requests), scores))| {
                Sample::new(run.task.name(), index, question, requests, scores)
            })
            .collect();
        TaskOutcome {
            name: run.task.name(),
            n: samples.len(),
            scores: TaskScores::new(&samples),
            num_fewshot: run.num_fewshot,
            data: run.file.clone(),
            data_sha256: run.sha256.clone(),
            fewshot_data: run.examples_file.clone(),
            samples,
        }
    });
    Ok((outcomes.collect(), work))
}
