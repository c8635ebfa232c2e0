//! Prompts against those that the harness made of the same rows, and rows that are none.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::eval::tasks::{TaskFiles, TaskOptions, prepare};
use serde_json::json;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/eval/tasks")
}

#[test]
fn requests_are_the_harness_requests() {
    let text = std::fs::read_to_string(folder().join("expected-opt-mini.json")).unwrap();
    let runs: Value = serde_json::from_str(&text).unwrap();
    let mut tasks = Vec::new();
    for run in runs.as_array().unwrap() {
        let task: Task = run["task"].as_str().unwrap().parse().unwrap();
        let options = TaskOptions {
            num_fewshot: run["num_fewshot"].as_u64().unwrap() as usize,
            limit: None,
        };
        let files = TaskFiles::in_folder(task, &folder()).unwrap();
        let found = prepare(task, &files, options).unwrap().requests();
        let items = run["items"].as_array().unwrap();
        assert_eq!(found.len(), items.len());
        for (found, item) in found.iter().zip(items) {
            assert_eq!(json!(found), item["requests"], "{task:?} {options:?}");
        }
        tasks.push(task);
    }
    tasks.sort();
    tasks.dedup();
    assert_eq!(tasks.len(), Task::ALL.len());
}

fn ask(task: Task, row: Value) -> Result<Question, String> {
    let Value::Object(fields) = row else { panic!() };
    Question::new(task, &Row { fields, number: 1 })
}

#[test]
fn other_layouts_of_the_same_data() {
    let question = ask(
        Task::Boolq,
        json!({"question": "q", "passage": "p", "answer": true}),
    );
    assert_eq!(question.unwrap().target(), Some(1));
    let question = ask(
        Task::Hellaswag,
        json!({"query": "a  b [x]", "choices": ["c", "d"], "gold": 1}),
    )
    .unwrap();
    let requests = [("a  b [x]", " c"), ("a  b [x]", " d")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    assert_eq!(
        (question.requests(""), question.target()),
        (requests.to_vec(), Some(1))
    );
    let word = ask(Task::LambadaOpenai, json!({"text": "one"})).unwrap();
    assert_eq!(word.requests(""), [(String::new(), " one".to_owned())]);
}

#[test]
fn rows_that_are_no_questions() {
    for (task, row, reason) in [
        (Task::Piqa, json!({"goal": "g"}), "no field `sol1`"),
        (
            Task::Piqa,
            json!({"goal": "g", "sol1": "a", "sol2": "b", "label": -1}),
            "-1",
        ),
        (
            Task::Piqa,
            json!({"goal": "g", "sol1": "a", "sol2": "b", "label": 2}),
            "number 2",
        ),
        (
            Task::Piqa,
            json!({"goal": 1, "sol1": "a", "sol2": "b", "label": 1}),
            "`goal` is no text",
        ),
        (
            Task::ArcEasy,
            json!({"question": "q", "choices": {"text": ["a"], "label": ["A"]}, "answerKey": "B"}),
            "`B` is none of A",
        ),
        (
            Task::ArcEasy,
            json!({"question": "q", "choices": ["a"], "answerKey": "B"}),
            "`choices` is no object",
        ),
        (
            Task::ArcEasy,
            json!({"question": "q", "choices": {"text": [], "label": ["A"]}, "answerKey": "A"}),
            "no list of texts",
        ),
        (
            Task::Winogrande,
            json!({"sentence": "s", "option1": "a", "option2": "b", "answer": "1"}),
            "no `_`",
        ),
        (
            Task::Winogrande,
            json!({"sentence": "s _", "option1": "a", "option2": "b", "answer": ""}),
            "neither 1 nor 2",
        ),
    ] {
        let error = ask(task, row.clone()).unwrap_err();
        assert!(error.contains(reason), "{row}: {error}");
    }
}

#[test]
fn pythons_capitals() {
    for (text, expected) in [
        ("the DOG", "The dog"),
        ("", ""),
        ("éCOLE", "École"),
        ("ßA", "Ssa"),
        ("ﬁX", "Fix"),
        ("σ ΑΣ", "Σ ας"),
        ("1A", "1a"),
    ] {
        assert_eq!(capitalised(text), expected);
    }
}
