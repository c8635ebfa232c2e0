//! A row of a task's data in words: the text before, the choices, which of them is right. Every prompt is that of the
//! harness, to the character.

use super::{Row, Task};
use serde_json::{Map, Value};
use std::sync::LazyLock;

/// Between a context and what follows it (`target_delimiter` of the harness).
const BEFORE_ANSWER: &str = " ";

/// Between an example and what follows it (`fewshot_delimiter` of the harness).
const AFTER_EXAMPLE: &str = "\n\n";

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// One context, and choices that may follow it.
    Choices {
        /// What is before a choice.
        context: String,
        /// The choices, without the blank before them.
        choices: Vec<String>,
        /// Index of the right one.
        target: usize,
    },
    /// Several contexts, of which one fits what follows: partial evaluation (arXiv 1806.02847).
    Contexts {
        /// The contexts.
        contexts: Vec<String>,
        /// What follows each of them, without the blank before it.
        continuation: String,
        /// Index of the right one.
        target: usize,
    },
    /// A context whose next word is to be guessed.
    Word {
        /// What is before the word.
        context: String,
        /// The word, with the blank before it.
        word: String,
    },
}

impl Question {
    /// What a row asks in its task.
    ///
    /// # Errors
    /// What is missing in the row, or wrong with it.
    pub fn new(task: Task, row: &Row) -> Result<Self, String> {
        let row = Fields(&row.fields);
        match task {
            Task::ArcChallenge | Task::ArcEasy => {
                let context = format!("Question: {}\nAnswer:", row.text("question")?);
                row.lettered(context, row.text("answerKey")?)
            }
            Task::Openbookqa => row.lettered(
                row.text("question_stem")?.to_owned(),
                row.text("answerKey")?.trim_start_matches(is_space),
            ),
            Task::Boolq => {
                let (passage, question) = (row.text("passage")?, row.text("question")?);
                let context = format!("{passage}\nQuestion: {question}?\nAnswer:");
                // The data set's own release has `answer` where SuperGLUE's has `label`.
                let target = match row.0.get("answer") {
                    Some(Value::Bool(answer)) => usize::from(*answer),
                    _ => row.number("label")?,
                };
                choices(context, &["no", "yes"], target)
            }
            Task::Hellaswag => row.hellaswag(),
            Task::Piqa => choices(
                format!("Question: {}\nAnswer:", row.text("goal")?),
                &[row.text("sol1")?, row.text("sol2")?],
                row.number("label")?,
            ),
            Task::Winogrande => row.winogrande(),
            Task::Rte => row.pair(&["True", "False"]),
            Task::Wnli => row.pair(&["False", "True"]),
            Task::Qnli => {
                let (question, sentence) = (row.text("question")?, row.text("sentence")?);
                let context = format!(
                    "{question}\n{sentence}\nQuestion: Does this response answer the question?\nAnswer:"
                );
                choices(context, &["yes", "no"], row.number("label")?)
            }
            Task::LambadaOpenai => {
                let text = row.text("text")?;
                let (context, word) = text.rsplit_once(' ').unwrap_or(("", text));
                Ok(Self::Word {
                    context: context.to_owned(),
                    word: format!(" {word}"),
                })
            }
        }
    }

    /// Contexts and what is to follow them, one pair a choice, after the text of `examples`.
    pub fn requests(&self, examples: &str) -> Vec<(String, String)> {
        match self {
            Self::Choices { context, choices, .. } => choices
                .iter()
                .map(|choice| (format!("{examples}{context}"), format!("{BEFORE_ANSWER}{choice}")))
                .collect(),
            Self::Contexts {
                contexts,
                continuation,
                ..
            } => contexts
                .iter()
                .map(|context| {
                    (
                        format!("{examples}{context}"),
                        format!("{BEFORE_ANSWER}{continuation}"),
                    )
                })
                .collect(),
            Self::Word { context, word } => vec![(format!("{examples}{context}"), word.clone())],
        }
    }

    /// The question with its answer, as it stands before another one. A guessed word comes after two blanks, the
    /// delimiter's and its own.
    pub fn example(&self) -> String {
        let (context, answer) = match self {
            Self::Choices {
                context,
                choices,
                target,
            } => (context, &choices[*target]),
            Self::Contexts {
                contexts,
                continuation,
                target,
            } => (&contexts[*target], continuation),
            Self::Word { context, word } => (context, word),
        };
        if answer.is_empty() {
            return context.clone();
        }
        format!("{context}{BEFORE_ANSWER}{answer}{AFTER_EXAMPLE}")
    }

    /// Index of the right choice, where there are choices.
    pub fn target(&self) -> Option<usize> {
        match self {
            Self::Choices { target, .. } | Self::Contexts { target, .. } => Some(*target),
            Self::Word { .. } => None,
        }
    }

    /// Characters (Unicode scalar values) of each choice, by which `acc_norm` divides: of the contexts where these are
    /// the choices.
    pub fn lengths(&self) -> Vec<usize> {
        let choices = match self {
            Self::Choices { choices, .. } => choices,
            Self::Contexts { contexts, .. } => contexts,
            Self::Word { .. } => return Vec::new(),
        };
        choices.iter().map(|choice| choice.chars().count()).collect()
    }
}

/// A question with `choices` that are given, once its target is one of them.
fn choices(context: String, choices: &[&str], target: usize) -> Result<Question, String> {
    if target >= choices.len() {
        return Err(format!(
            "the right choice is number {target}, counted from 0, of {}",
            choices.len()
        ));
    }
    Ok(Question::Choices {
        context,
        choices: choices.iter().map(|choice| (*choice).to_owned()).collect(),
        target,
    })
}

/// The fields of a row.
struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    fn field(&self, name: &str) -> Result<&'a Value, String> {
        self.0
            .get(name)
            .ok_or_else(|| format!("it has no field `{name}`"))
    }

    fn text(&self, name: &str) -> Result<&'a str, String> {
        self.field(name)?
            .as_str()
            .ok_or_else(|| format!("its field `{name}` is no text"))
    }

    /// A number from 0, or the digits of one.
    fn number(&self, name: &str) -> Result<usize, String> {
        let value = self.field(name)?;
        let number = match value {
            Value::String(digits) => digits.parse().ok(),
            value => value.as_u64().and_then(|number| usize::try_from(number).ok()),
        };
        // Test splits whose answers are not published have -1 or nothing there.
        number.ok_or_else(|| format!("its field `{name}` is {value}, which is the number of no choice"))
    }

    fn texts(&self, name: &str) -> Result<Vec<&'a str>, String> {
        let value = self.field(name)?;
        let list: Option<Vec<&str>> = value
            .as_array()
            .and_then(|list| list.iter().map(Value::as_str).collect());
        match list {
            Some(list) if !list.is_empty() => Ok(list),
            _ => Err(format!("its field `{name}` is no list of texts")),
        }
    }

    /// ARC and OpenBookQA: `choices` has the texts and their labels, and the answer is a label.
    fn lettered(&self, context: String, answer: &str) -> Result<Question, String> {
        let Value::Object(inner) = self.field("choices")? else {
            return Err("its field `choices` is no object with `text` and `label`".into());
        };
        let inner = Fields(inner);
        let labels = inner.texts("label")?;
        let target = labels
            .iter()
            .position(|label| *label == answer)
            .ok_or_else(|| format!("its answer `{answer}` is none of {}", labels.join(", ")))?;
        choices(context, &inner.texts("text")?, target)
    }

    /// RTE and WNLI.
    fn pair(&self, answers: &[&str]) -> Result<Question, String> {
        let (first, second) = (self.text("sentence1")?, self.text("sentence2")?);
        let context = format!("{first}\nQuestion: {second} True or False?\nAnswer:");
        choices(context, answers, self.number("label")?)
    }

    /// The data set's fields, or those that the harness makes of them: `query`, `choices` and `gold`.
    fn hellaswag(&self) -> Result<Question, String> {
        if self.0.contains_key("query") {
            let target = self.number(if self.0.contains_key("gold") {
                "gold"
            } else {
                "label"
            })?;
            let query = self.text("query")?.to_owned();
            return choices(query, &self.texts("choices")?, target);
        }
        let (first, second) = (self.text("ctx_a")?, capitalised(self.text("ctx_b")?));
        let query = format!("{}: {first} {second}", self.text("activity_label")?);
        let endings: Vec<String> = self.texts("endings")?.into_iter().map(without_markup).collect();
        let endings: Vec<&str> = endings.iter().map(String::as_str).collect();
        choices(without_markup(&query), &endings, self.number("label")?)
    }

    fn winogrande(&self) -> Result<Question, String> {
        let (before, after) = self
            .text("sentence")?
            .split_once('_')
            .ok_or("its sentence has no `_`")?;
        let target = match self.text("answer")? {
            "1" => 0,
            "2" => 1,
            other => return Err(format!("its answer is `{other}`, neither 1 nor 2")),
        };
        let contexts = ["option1", "option2"].map(|name| Ok(format!("{before}{}", self.text(name)?)));
        Ok(Question::Contexts {
            contexts: contexts.into_iter().collect::<Result<_, String>>()?,
            continuation: after.trim_matches(is_space).to_owned(),
            target,
        })
    }
}

/// What Python calls whitespace: Unicode's, and four separators of ASCII.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Python's `str.capitalize`: the first character in upper case, all others in lower case.
fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    let Some(first) = characters.next() else {
        return String::new();
    };
    // Title case: where one character becomes two, only the first of them is large.
    let mut upper = first.to_uppercase();
    let mut capitalised = String::with_capacity(text.len());
    capitalised.extend(upper.next());
    capitalised.extend(upper.flat_map(char::to_lowercase));
    capitalised += &characters.as_str().to_lowercase();
    capitalised
}

/// HellaSwag's texts from WikiHow carry marks in brackets: a title's becomes a full stop, the others go.
fn without_markup(text: &str) -> String {
    static BRACKETS: LazyLock<regex::Regex> =
        LazyLock::new(|| regex::Regex::new(r"\[.*?\]").expect("a constant expression"));
    let text = text.trim_matches(is_space).replace(" [title]", ". ");
    BRACKETS.replace_all(&text, "").replace("  ", " ")
}

#[cfg(test)]
#[path = "question_tests.rs"]
mod tests;
