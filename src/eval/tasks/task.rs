//! The tasks by their names.

use std::str::FromStr;

/// A task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Task {
    /// Hard school science questions (arXiv 1803.05457).
    ArcChallenge,
    /// Easy school science questions (arXiv 1803.05457).
    ArcEasy,
    /// Yes or no questions about a passage (arXiv 1905.10044).
    Boolq,
    /// How a description goes on (arXiv 1905.07830).
    Hellaswag,
    /// Science questions that need a fact (arXiv 1809.02789).
    Openbookqa,
    /// Which of two ways reaches a goal (arXiv 1911.11641).
    Piqa,
    /// Which of two names fits a sentence (arXiv 1907.10641).
    Winogrande,
    /// Whether one sentence entails another (GLUE, arXiv 1804.07461).
    Rte,
    /// Whether a sentence answers a question (GLUE).
    Qnli,
    /// Whether a sentence follows from an ambiguous one (GLUE).
    Wnli,
    /// The last word of a passage (arXiv 1606.06031), in the form that OpenAI published.
    LambadaOpenai,
}

impl Task {
    /// Every task with its name.
    pub const ALL: [(&'static str, Self); 11] = [
        ("arc_challenge", Self::ArcChallenge),
        ("arc_easy", Self::ArcEasy),
        ("boolq", Self::Boolq),
        ("hellaswag", Self::Hellaswag),
        ("openbookqa", Self::Openbookqa),
        ("piqa", Self::Piqa),
        ("winogrande", Self::Winogrande),
        ("rte", Self::Rte),
        ("qnli", Self::Qnli),
        ("wnli", Self::Wnli),
        ("lambada_openai", Self::LambadaOpenai),
    ];

    /// The seven tasks of FISTAPruner's Table 5 (arXiv 2408.03728), in its order.
    pub const PAPER: [Self; 7] = [
        Self::ArcChallenge,
        Self::ArcEasy,
        Self::Winogrande,
        Self::Rte,
        Self::Boolq,
        Self::Qnli,
        Self::Wnli,
    ];

    /// Its name in the harness, which is also that of its data file.
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, task)| *task == self)
            .map_or("", |(name, _)| name)
    }

    /// The tasks of a list of names, in its order and each once: names of tasks, `paper`, or `all`.
    ///
    /// # Errors
    /// The name that is none of them.
    pub fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Vec<Self>, String> {
        let mut tasks = Vec::new();
        for name in names {
            let named = match name.trim() {
                "paper" => Self::PAPER.to_vec(),
                "all" => Self::ALL.map(|(_, task)| task).to_vec(),
                name => vec![name.parse()?],
            };
            for task in named {
                if !tasks.contains(&task) {
                    tasks.push(task);
                }
            }
        }
        Ok(tasks)
    }
}

impl FromStr for Task {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.to_ascii_lowercase().replace('-', "_");
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        found.map(|(_, task)| *task).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|(name, _)| *name).collect();
            format!("`{text}` is none of {}, paper, all", known.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn lists_of_tasks() {
        assert_eq!(
            Task::list(["piqa", "ARC-Easy", "piqa"]).unwrap(),
            [Task::Piqa, Task::ArcEasy]
        );
        assert_eq!(Task::list(["paper"]).unwrap(), Task::PAPER);
        assert_eq!(Task::list(["wnli", "paper"]).unwrap().len(), 7);
        assert_eq!(Task::list(["all"]).unwrap().len(), Task::ALL.len());
        assert!(Task::list(["piqa", "mmlu"]).unwrap_err().contains("`mmlu`"));
        for (name, task) in Task::ALL {
            assert_eq!((task.name(), name.parse()), (name, Ok(task)));
        }
    }
}
