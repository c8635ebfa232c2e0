//! The part of `eval` that answers the questions of tasks.

use super::args::ZeroShotArgs;
use super::model::Chosen;
use super::progress::Bar;
use super::{data, hub, show};
use crate::atomic_file::AtomicFile;
use crate::error::{Error, Result};
use crate::eval::Work;
use crate::eval::tasks::{
    PairEncoder, Sample, Task, TaskFile, TaskFiles, TaskOptions, TaskOutcome, TaskRun, evaluate, prepare,
};
use crate::hub::Hub;
use crate::model::Model;
use fista_pruner_backends::{DeviceJob, DeviceSpec, SolverOps, dispatch_opened};
use serde::Serialize;

/// Tasks whose data is read.
pub(crate) struct Asked {
    runs: Vec<TaskRun>,
    options: TaskOptions,
    log: Option<AtomicFile>,
}

/// What `eval` says about tasks.
#[derive(Debug, Serialize)]
pub(crate) struct TasksOutcome {
    tasks: Vec<TaskOutcome>,
    /// Mean of the tasks' `acc`, each counting the same.
    mean_acc: f64,
    limit: Option<usize>,
    work: Work,
}

/// Reads the data of the tasks that are asked for, if any, after fetching what no folder is named for.
///
/// # Errors
/// When data is missing or damaged, or the samples' file cannot be created.
pub(crate) fn read(args: &ZeroShotArgs, quiet: bool) -> Result<Option<Asked>> {
    let Some(tasks) = &args.tasks else { return Ok(None) };
    let options = TaskOptions {
        num_fewshot: args.num_fewshot,
        limit: args.limit,
    };
    let mut runs = Vec::with_capacity(tasks.0.len());
    let mut hub = None;
    for &task in &tasks.0 {
        let files = match (&args.task_data, &mut hub) {
            (Some(dir), _) => TaskFiles::in_folder(task, dir)?,
            (None, Some(hub)) => fetch(task, options, hub)?,
            (None, none) => fetch(task, options, none.insert(hub::open(quiet)?))?,
        };
        runs.push(prepare(task, &files, options)?);
    }
    Ok(Some(Asked {
        runs,
        options,
        log: args.log_samples.as_deref().map(AtomicFile::create).transpose()?,
    }))
}

/// The files of a task on the hub; that of its training split only where examples are drawn from it.
fn fetch(task: Task, options: TaskOptions, hub: &mut Hub<'_>) -> Result<TaskFiles> {
    let published = task.published();
    let mut file = |name: &String| hub.file(&published.repo, name).map(TaskFile::from);
    let training = published.training.as_ref().filter(|_| options.num_fewshot > 0);
    Ok(TaskFiles {
        evaluation: file(&published.evaluation)?,
        training: training.map(file).transpose()?,
    })
}

/// Answers the questions, and writes them down where that is asked for.
///
/// # Errors
/// When the tokenizer does not fit, the model or the device fails, or the samples cannot be written.
pub(crate) fn answer(
    asked: Asked,
    chosen: &Chosen,
    device: &DeviceSpec,
    quiet: bool,
) -> Result<TasksOutcome> {
    let tokenizer = data::tokenizer(chosen)?;
    let max_length = chosen.model.decoder.config().max_positions();
    let job = Job {
        model: &chosen.model,
        encoder: PairEncoder::new(&tokenizer, &chosen.dir, max_length),
        runs: &asked.runs,
        quiet,
    };
    let (tasks, work) = dispatch_opened(device, job)??;
    if let Some(log) = asked.log {
        write_samples(log, tasks.iter().flat_map(|task| &task.samples))?;
    }
    let mean_acc = tasks.iter().map(|task| task.scores.acc).sum::<f64>() / tasks.len() as f64;
    Ok(TasksOutcome {
        tasks,
        mean_acc,
        limit: asked.options.limit,
        work,
    })
}

struct Job<'a> {
    model: &'a Model,
    encoder: PairEncoder<'a>,
    runs: &'a [TaskRun],
    quiet: bool,
}

impl DeviceJob for Job<'_> {
    type Output = Result<(Vec<TaskOutcome>, Work)>;

    fn run<B: SolverOps>(self, device: &B::Device) -> Self::Output {
        let model = (&self.model.checkpoint, &self.model.decoder);
        evaluate::<B>(model, &self.encoder, self.runs, device, &mut Bar::new(self.quiet))
    }
}

impl TasksOutcome {
    pub(crate) fn in_words(&self) -> String {
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
        let mut rows: Vec<Vec<String>> = self.tasks.iter().map(row).collect();
        if rows.len() > 1 {
            let mean = [
                String::from("mean"),
                String::new(),
                format!("{:.4}", self.mean_acc),
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
}

/// One line of JSON a sample.
fn write_samples<'a>(mut file: AtomicFile, samples: impl Iterator<Item = &'a Sample>) -> Result<()> {
    for sample in samples {
        let mut line = serde_json::to_vec(sample).map_err(|e| Error::Internal { what: e.to_string() })?;
        line.push(b'\n');
        file.write(&line)?;
    }
    file.finish()
}
