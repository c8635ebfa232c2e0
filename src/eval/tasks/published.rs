//! Where the tasks' data sets are on the hub. In: a task. Out: the files that hold its questions and its training rows; the
//! command line fetches them.

use super::Task;
use crate::hub::{Repo, RepoKind};

/// The files of a task's data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedTask {
    /// The data set, at the hub's own conversion to parquet: this has the same layout for every data set, whatever its authors
    /// uploaded.
    pub repo: Repo,
    /// The file with the questions.
    pub evaluation: String,
    /// The file with the training rows, where the harness knows such a split.
    pub training: Option<String>,
}

impl Task {
    /// The task's data set as lm-evaluation-harness 0.4.13 names it in `lm_eval/tasks/**/*.yaml`: `dataset_path`,
    /// `dataset_name` (`default` is the hub's word for none), `test_split` or else `validation_split`, and `training_split`.
    /// Each of these splits is one file.
    pub fn published(self) -> PublishedTask {
        let (repo, config, evaluation, training) = match self {
            Self::ArcChallenge => ("allenai/ai2_arc", "ARC-Challenge", "test", Some("train")),
            Self::ArcEasy => ("allenai/ai2_arc", "ARC-Easy", "test", Some("train")),
            Self::Boolq => ("aps/super_glue", "boolq", "validation", Some("train")),
            Self::Hellaswag => ("Rowan/hellaswag", "default", "validation", Some("train")),
            Self::Openbookqa => ("allenai/openbookqa", "main", "test", Some("train")),
            Self::Piqa => ("baber/piqa", "default", "validation", Some("train")),
            Self::Winogrande => ("allenai/winogrande", "winogrande_xl", "validation", Some("train")),
            Self::Rte => ("nyu-mll/glue", "rte", "validation", Some("train")),
            Self::Qnli => ("nyu-mll/glue", "qnli", "validation", Some("train")),
            Self::Wnli => ("nyu-mll/glue", "wnli", "validation", Some("train")),
            Self::LambadaOpenai => ("EleutherAI/lambada_openai", "default", "test", None),
        };
        let file = |split| format!("{config}/{split}/0000.parquet");
        PublishedTask {
            repo: Repo {
                kind: RepoKind::Dataset,
                name: repo.to_owned(),
                revision: "refs/convert/parquet".to_owned(),
            },
            evaluation: file(evaluation),
            training: training.map(file),
        }
    }
}
