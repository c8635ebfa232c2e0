//! The part of `eval` that answers the questions of tasks.

use super::args::ZeroShotArgs;
use super::model::Chosen;
use super::progress::Bar;
use super::{data, show};
use crate::atomic_file::AtomicFile;
use crate::error::{Error, Result};
use crate::eval::Work;
use crate::eval::tasks::{PairEncoder, Sample, TaskOptions, TaskOutcome, TaskRun, evaluate, prepare};
use crate::model::Model;
use fista_pruner_backends::{DeviceJob, DeviceSpec, SolverOps, dispatch};
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

/// Reads the data of the tasks that are asked for, if any.
///
/// # Errors
/// When data is missing or damaged, or the samples' file cannot be created.
pub(crate) fn read(args: &ZeroShotArgs) -> Result<Option<Asked>> {
    let Some(tasks) = &args.tasks else { return Ok(None) };
    let Some(dir) = &args.task_data else {
        return Err(Error::Setting {
            setting: "--tasks",
            reason: "tasks need their data: name the folder that holds it with --task-data".into(),
        });
    };
    let options = TaskOptions {
        num_fewshot: args.num_fewshot,
        limit: args.limit,
    };
    let runs = tasks.0.iter().map(|task| prepare(*task, dir, options));
    Ok(Some(Asked {
        runs: runs.collect::<Result<_>>()?,
        options,
        log: args.log_samples.as_deref().map(AtomicFile::create).transpose()?,
    }))
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
    let (tasks, work) = dispatch(device, job)??;
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
