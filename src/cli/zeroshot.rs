//! The part of `eval` that answers the questions of tasks.

use super::help::TASKS;
use super::progress::Bar;
use super::{inputs, show};
use crate::checkpoint::Model;
use crate::error::Result;
use crate::eval::tasks::{Questions, Task, TaskOptions, TaskOutcome, TasksReport};
use crate::system::{AtomicFile, Destination};
use clap::Args;
use fista_pruner_backends::DeviceSpec;
use std::path::PathBuf;

/// What `eval` measures by tasks.
#[derive(Debug, Args)]
#[command(next_help_heading = TASKS)]
pub(crate) struct ZeroShotArgs {
    /// Measure accuracy on tasks, as lm-evaluation-harness does. Names with commas between them: arc_challenge, arc_easy, boolq,
    /// hellaswag, openbookqa, piqa, winogrande, rte, qnli, wnli, lambada_openai. `paper`: the seven of FISTAPruner's Table 5. `all`:
    /// all.
    #[arg(long, value_name = "NAMES", value_parser = parse_tasks)]
    pub(crate) tasks: Option<TaskList>,
    /// A folder with the data of the tasks: TASK.jsonl (also .gz or .zst) or TASK.parquet, and for solved examples
    /// TASK.train.jsonl. Default: the data sets that lm-evaluation-harness uses, from the Hugging Face Hub, downloaded once.
    #[arg(long, value_name = "DIR", alias = "task-dir", requires = "tasks")]
    task_data: Option<PathBuf>,
    /// Number of solved examples before each question.
    #[arg(long, default_value_t = 0, value_name = "N", requires = "tasks")]
    num_fewshot: usize,
    /// Answer only the first questions of each task.
    #[arg(long, value_name = "N", requires = "tasks")]
    limit: Option<usize>,
    /// Write every question with its log-likelihoods to this file, one JSON object per line.
    #[arg(long, value_name = "FILE", requires = "tasks")]
    log_samples: Option<PathBuf>,
    /// Replace the file of --log-samples if it exists.
    #[arg(long, requires = "log_samples")]
    overwrite: bool,
}

/// Tasks in the order they were named.
#[derive(Debug, Clone)]
pub(crate) struct TaskList(Vec<Task>);

fn parse_tasks(text: &str) -> Result<TaskList, String> {
    Task::list(text.split(',')).map(TaskList)
}

/// Tasks whose data is read, and the file for every answer.
pub(crate) struct Asked {
    questions: Questions,
    log: Option<AtomicFile>,
}

impl ZeroShotArgs {
    /// Reads the data of the tasks that are asked for, if any. `text` is what else the command reads.
    ///
    /// # Errors
    /// When data is missing or damaged, or the samples' file cannot be created.
    pub(crate) fn read(&self, model: &Model, text: &[PathBuf], quiet: bool) -> Result<Option<Asked>> {
        let Some(TaskList(tasks)) = &self.tasks else {
            return Ok(None);
        };
        let options = TaskOptions {
            num_fewshot: self.num_fewshot,
            limit: self.limit,
        };
        let folder = self.task_data.as_deref();
        // Before anything is fetched.
        let log = match &self.log_samples {
            None => None,
            Some(log) => {
                let destination = Destination::new(log, self.overwrite).apart_from(model.dir());
                let destination = destination.apart_from_all(text).apart_from_all(folder);
                Some(AtomicFile::open(&destination.file_or_stream()?)?)
            }
        };
        let questions = Questions::read(tasks, folder, options, &mut inputs::hub(quiet))?;
        Ok(Some(Asked { questions, log }))
    }
}

impl Asked {
    /// Answers the questions, and writes them down where that is asked for.
    ///
    /// # Errors
    /// As [`Questions::answer`]; when the samples cannot be written.
    pub(crate) fn answer(self, model: &Model, device: &DeviceSpec, quiet: bool) -> Result<TasksReport> {
        let report = self.questions.answer(model, device, &mut Bar::new(quiet))?;
        if let Some(log) = self.log {
            report.write_samples(log)?;
        }
        Ok(report)
    }
}

/// The scores as a table.
pub(crate) fn in_words(report: &TasksReport) -> String {
    let with_error = |value: Option<f64>, error: Option<f64>| match (value, error) {
        (Some(value), Some(error)) => format!("{value:.4} ± {error:.4}"),
        (Some(value), None) => format!("{value:.4}"),
        (None, _) => String::new(),
    };
    let row = |task: &TaskOutcome| {
        let scores = &task.scores;
        vec![
            task.name.to_owned(),
            task.n.to_string(),
            with_error(Some(scores.acc), scores.acc_stderr),
            with_error(scores.acc_norm, scores.acc_norm_stderr),
            with_error(scores.perplexity, scores.perplexity_stderr),
        ]
    };
    let mut rows: Vec<Vec<String>> = report.tasks.iter().map(row).collect();
    if rows.len() > 1 {
        let mean = [
            String::from("mean"),
            String::new(),
            format!("{:.4}", report.mean_acc),
        ];
        rows.push([mean.to_vec(), vec![String::new(); 2]].concat());
    }
    let header = ["task", "n", "acc", "acc_norm", "perplexity"];
    // A column that no task has is left out.
    let used: Vec<usize> = (0..header.len())
        .filter(|column| rows.iter().any(|row| !row[*column].is_empty()))
        .collect();
    let pick = |row: &Vec<String>| used.iter().map(|column| row[*column].clone()).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(pick).collect();
    let header: Vec<&str> = used.iter().map(|column| header[*column]).collect();
    show::table(&header, &rows)
}
