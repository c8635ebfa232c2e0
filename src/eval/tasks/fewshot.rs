//! Examples before a question, drawn as the harness draws them: for each question in turn, from the task's training rows,
//! with Python's generator and the harness's seed.

use super::python_random::PythonRandom;
use super::{Row, Task, TaskData, TaskError, TaskFile, task_data};
use crate::error::Result;

/// `DEFAULT_OTHER_SEED` of the harness, which it seeds the draws of each task with.
const SEED: u32 = 1234;

/// Where examples come from.
pub(super) struct Examples {
    /// Training rows, or the evaluated ones where there are no training rows.
    pub(super) pool: TaskData,
    /// How many stand before a question.
    count: usize,
    /// Whether one more is drawn, from which the question itself is left out.
    one_more: bool,
    random: PythonRandom,
}

impl Examples {
    /// Reads the pool of a task.
    ///
    /// # Errors
    /// When it cannot be read, or has too few rows.
    pub(super) fn new(
        task: Task,
        training: Option<&TaskFile>,
        evaluated: &TaskData,
        count: usize,
    ) -> Result<Self> {
        let (pool, same) = match training {
            Some(file) => (task_data(file)?, false),
            None => (evaluated.clone(), true),
        };
        let one_more = same || !has_test_split(task);
        let rows = pool.rows.len();
        if count + usize::from(one_more) > rows {
            return Err(TaskError::TooFewExamples {
                asked: count,
                file: pool.file,
                rows,
            }
            .into());
        }
        Ok(Self {
            pool,
            count,
            one_more,
            random: PythonRandom::new(SEED),
        })
    }

    /// The examples of the next question, as indices of the pool's rows.
    pub(super) fn draw(&mut self, question: &Row) -> Vec<usize> {
        let drawn = self
            .random
            .sample(self.pool.rows.len(), self.count + usize::from(self.one_more));
        drawn
            .into_iter()
            .filter(|index| !self.one_more || self.pool.rows[*index].fields != question.fields)
            .take(self.count)
            .collect()
    }
}

/// Whether the harness evaluates on a test split. It compares that split with the (unnamed) one of the examples to find
/// out whether a question could be among its own examples, and draws one more where both are unnamed.
fn has_test_split(task: Task) -> bool {
    matches!(
        task,
        Task::ArcChallenge | Task::ArcEasy | Task::Openbookqa | Task::LambadaOpenai
    )
}
