//! From log-likelihoods to accuracies, with the harness's definitions (`process_results`) and standard errors.

use super::Question;
use super::python_random::PythonRandom;
use crate::eval::LoglikelihoodScore;
use rayon::prelude::*;
use serde::Serialize;

/// One question with what the model made of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sample {
    /// The task's name.
    pub task: &'static str,
    /// Place among the questions, counted from 0.
    pub index: usize,
    /// Index of the right choice; none where a word is guessed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<usize>,
    /// One a choice, in nats.
    pub loglikelihood: Vec<f64>,
    /// Whether each choice is what greedy decoding gives.
    pub greedy: Vec<bool>,
    /// 1 or 0: whether the likeliest choice is the right one; for a word, whether it is the greedy one.
    pub acc: f64,
    /// As `acc`, with log-likelihoods divided by the choices' lengths in characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acc_norm: Option<f64>,
    /// Context and continuation of each choice.
    pub requests: Vec<(String, String)>,
}

impl Sample {
    /// Judges a question by the scores of its requests.
    pub(super) fn new(
        task: &'static str,
        index: usize,
        question: &Question,
        requests: Vec<(String, String)>,
        scores: &[LoglikelihoodScore],
    ) -> Self {
        let loglikelihood: Vec<f64> = scores.iter().map(|score| score.loglikelihood).collect();
        let greedy: Vec<bool> = scores.iter().map(|score| score.greedy).collect();
        let target = question.target();
        let (acc, acc_norm) = match target {
            None => (greedy.iter().all(|greedy| *greedy), None),
            Some(target) => {
                let lengths = question.lengths();
                let by_length: Vec<f64> = loglikelihood
                    .iter()
                    .zip(&lengths)
                    .map(|(value, length)| value / *length as f64)
                    .collect();
                (
                    first_largest(&loglikelihood) == target,
                    Some(first_largest(&by_length) == target),
                )
            }
        };
        let number = |right: bool| f64::from(u8::from(right));
        Self {
            task,
            index,
            target,
            loglikelihood,
            greedy,
            acc: number(acc),
            acc_norm: acc_norm.map(number),
            requests,
        }
    }
}

/// Index of the largest value; of several, the first (`numpy.argmax`).
fn first_largest(values: &[f64]) -> usize {
    let mut best = 0;
    for (index, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = index;
        }
    }
    best
}

/// The scores of a task. Standard errors are those of the mean, none for a single question.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TaskScores {
    /// Share of questions that were answered right.
    pub acc: f64,
    /// Its standard error.
    pub acc_stderr: Option<f64>,
    /// The same with log-likelihoods by length; none where a word is guessed.
    pub acc_norm: Option<f64>,
    /// Its standard error.
    pub acc_norm_stderr: Option<f64>,
    /// `exp` of the mean negative log-likelihood of a guessed word; none where there are choices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub perplexity: Option<f64>,
    /// Its standard error, by bootstrap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub perplexity_stderr: Option<f64>,
}

impl TaskScores {
    /// The scores of at least one sample.
    pub(super) fn new(samples: &[Sample]) -> Self {
        let acc: Vec<f64> = samples.iter().map(|sample| sample.acc).collect();
        let acc_norm: Option<Vec<f64>> = samples.iter().map(|sample| sample.acc_norm).collect();
        let words: Option<Vec<f64>> = samples
            .iter()
            .map(|sample| sample.target.is_none().then(|| sample.loglikelihood[0]))
            .collect();
        Self {
            acc: mean(&acc),
            acc_stderr: mean_stderr(&acc),
            acc_norm: acc_norm.as_deref().map(mean),
            acc_norm_stderr: acc_norm.as_deref().and_then(mean_stderr),
            perplexity: words.as_deref().map(|values| (-mean(values)).exp()),
            perplexity_stderr: words.as_deref().and_then(perplexity_stderr),
        }
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Standard deviation of a sample, with `n - 1`.
fn deviation(values: &[f64]) -> Option<f64> {
    let centre = mean(values);
    let squares: f64 = values.iter().map(|value| (value - centre).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (values.len() - 1) as f64).sqrt())
}

fn mean_stderr(values: &[f64]) -> Option<f64> {
    Some(deviation(values)? / (values.len() as f64).sqrt())
}

/// Deviation over 100 000 samples drawn with replacement, the harness's number, in hundred chunks each with its own
/// seed (`bootstrap_stderr`).
fn perplexity_stderr(values: &[f64]) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let chunk = |seed: u32| {
        let mut random = PythonRandom::new(seed);
        let n = values.len() as f64;
        let drawn = |random: &mut PythonRandom| values[(random.unit() * n) as usize];
        (0..1000)
            .map(|_| {
                let sum: f64 = (0..values.len()).map(|_| drawn(&mut random)).sum();
                (-sum / n).exp()
            })
            .collect::<Vec<f64>>()
    };
    let drawn: Vec<Vec<f64>> = (0..100).into_par_iter().map(chunk).collect();
    deviation(&drawn.concat())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn question(choices: &[&str], target: usize) -> Question {
        Question::Choices {
            context: String::new(),
            choices: choices.iter().map(|choice| (*choice).to_owned()).collect(),
            target,
        }
    }

    fn judged(choices: &[&str], values: &[f64], target: usize) -> (f64, Option<f64>) {
        let scores: Vec<LoglikelihoodScore> = values
            .iter()
            .map(|value| LoglikelihoodScore {
                loglikelihood: *value,
                greedy: false,
            })
            .collect();
        let sample = Sample::new("piqa", 0, &question(choices, target), Vec::new(), &scores);
        (sample.acc, sample.acc_norm)
    }

    #[test]
    fn lengths_are_characters_and_the_first_of_equal_ones_wins() {
        assert_eq!(judged(&["ab", "abcd"], &[-2.0, -3.0], 0), (1.0, Some(0.0)));
        assert_eq!(judged(&["ab", "abcd"], &[-2.0, -4.0], 0), (1.0, Some(1.0)));
        assert_eq!(judged(&["ab", "ab"], &[-2.0, -2.0], 1), (0.0, Some(0.0)));
        // Four characters, eight bytes: by bytes the first would win.
        assert_eq!(judged(&["abcdef", "éééé"], &[-9.0, -7.0], 0), (0.0, Some(1.0)));
        assert_eq!(judged(&["abcdef", "éééé"], &[-9.0, -5.9], 1), (1.0, Some(1.0)));
    }

    #[test]
    fn errors_of_means() {
        let values = [1.0, 0.0, 0.0, 1.0, 1.0];
        // numpy.std(values, ddof=1) / numpy.sqrt(5)
        assert!((mean_stderr(&values).unwrap() - 0.244_948_974_278_317_8).abs() < 1e-15);
        assert_eq!(mean_stderr(&[1.0]), None);
        assert_eq!(perplexity_stderr(&[-1.0]), None);
    }
}
