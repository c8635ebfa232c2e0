//! Tasks as the command `eval --tasks` does them: names in, their data read or fetched, every question answered, scores out.

use super::{PairEncoder, Task, TaskFile, TaskFiles, TaskOptions, TaskOutcome, TaskRun, evaluate, prepare};
use crate::checkpoint::Model;
use crate::error::{Error, Result};
use crate::eval::Work;
use crate::hub::{Hub, OpenHub};
use crate::progress::Observer;
use crate::system::AtomicFile;
use fista_pruner_backends::{DeviceJob, DeviceSpec, SolverOps, dispatch_opened};
use serde::Serialize;
use std::path::Path;

/// Tasks whose data is read.
#[derive(Debug)]
pub struct Questions {
    runs: Vec<TaskRun>,
    options: TaskOptions,
}

/// What came of them.
#[derive(Debug, Clone, Serialize)]
pub struct TasksReport {
    /// Every task, in the order they were asked for.
    pub tasks: Vec<TaskOutcome>,
    /// Mean of the tasks' `acc`, each counting the same.
    pub mean_acc: f64,
    /// Most questions of a task, where they were limited.
    pub limit: Option<usize>,
    /// How much was computed.
    pub work: Work,
}

impl Questions {
    /// Reads the data of `tasks` from `folder`, or, where none is named, fetches what lm-evaluation-harness uses.
    ///
    /// # Errors
    /// When data is missing or damaged.
    pub fn read(
        tasks: &[Task],
        folder: Option<&Path>,
        options: TaskOptions,
        hub: &mut OpenHub<'_>,
    ) -> Result<Self> {
        let mut opened = None;
        let mut runs = Vec::with_capacity(tasks.len());
        for &task in tasks {
            let files = match (folder, &mut opened) {
                (Some(dir), _) => TaskFiles::in_folder(task, dir)?,
                (None, Some(hub)) => fetch(task, options, hub)?,
                (None, none) => fetch(task, options, none.insert(hub()?))?,
            };
            runs.push(prepare(task, &files, options)?);
        }
        Ok(Self { runs, options })
    }

    /// Answers the questions on a device that is open.
    ///
    /// # Errors
    /// When the tokenizer does not fit, or the model or the device fails.
    pub fn answer(
        &self,
        model: &Model,
        device: &DeviceSpec,
        observer: &mut dyn Observer,
    ) -> Result<TasksReport> {
        let tokenizer = model.tokenizer()?;
        let max_length = model.decoder.config().max_positions();
        let answering = Answering {
            model,
            encoder: PairEncoder::new(&tokenizer, model.dir(), max_length),
            runs: &self.runs,
            observer,
        };
        let (tasks, work) = dispatch_opened(device, answering)??;
        Ok(TasksReport {
            mean_acc: tasks.iter().map(|task| task.scores.acc).sum::<f64>() / tasks.len() as f64,
            tasks,
            limit: self.options.limit,
            work,
        })
    }
}

impl TasksReport {
    /// Writes every question with its log-likelihoods, one JSON object a line.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write_samples(&self, mut file: AtomicFile) -> Result<()> {
        for sample in self.tasks.iter().flat_map(|task| &task.samples) {
            let mut line = serde_json::to_vec(sample).map_err(|e| Error::internal(e.to_string()))?;
            line.push(b'\n');
            file.write(&line)?;
        }
        file.finish()
    }
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

/// What runs on the device.
struct Answering<'a> {
    model: &'a Model,
    encoder: PairEncoder<'a>,
    runs: &'a [TaskRun],
    observer: &'a mut dyn Observer,
}

impl DeviceJob for Answering<'_> {
    type Output = Result<(Vec<TaskOutcome>, Work)>;

    fn run<B: SolverOps>(self, device: &B::Device) -> Self::Output {
        let model = (&self.model.checkpoint, &self.model.decoder);
        evaluate::<B>(model, &self.encoder, self.runs, device, self.observer)
    }
}
