//! `eval --tasks` against what lm-evaluation-harness makes of the same rows (`tests/fixtures/eval/tasks/make.py`).

use crate::command::Workspace;
use crate::common::fixture;
use serde_json::{Value, json};
use std::path::PathBuf;

const EVERY_TASK: usize = 11;

/// A workspace with the tasks' data in the folder `data`.
pub(crate) fn workspace() -> Workspace {
    let workspace = Workspace::new();
    let from = fixture("eval/tasks");
    std::fs::create_dir(workspace.path("data")).unwrap();
    for name in crate::command::names(&from) {
        if name.ends_with(".jsonl") {
            workspace.write(&format!("data/{name}"), &std::fs::read(from.join(&name)).unwrap());
        }
    }
    workspace
}

fn eval(workspace: &Workspace, arguments: &str) -> Value {
    workspace.json(&format!("eval --task-data data --device flex {arguments}"))
}

pub(crate) fn samples(workspace: &Workspace, name: &str) -> Vec<Value> {
    let text = String::from_utf8(workspace.read(name)).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn floats(value: &Value) -> Vec<f64> {
    value
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_f64)
        .collect()
}

/// Runs what the harness ran and compares requests, log-likelihoods, choices and scores.
fn compare(workspace: &Workspace, model: &str, expected: PathBuf, tolerance: f64) {
    let runs: Value = serde_json::from_str(&std::fs::read_to_string(expected).unwrap()).unwrap();
    let mut zero_shot = 0;
    for run in runs.as_array().unwrap() {
        let task = run["task"].as_str().unwrap();
        let what = format!("{task}, {} examples", run["num_fewshot"]);
        zero_shot += usize::from(run["num_fewshot"] == 0);
        let found = eval(
            workspace,
            &format!(
                "{model} --tasks {task} --num-fewshot {} --log-samples s.jsonl --overwrite",
                run["num_fewshot"]
            ),
        );
        let found = &found["tasks"][0];
        let samples = samples(workspace, "s.jsonl");
        let items = run["items"].as_array().unwrap();
        assert_eq!(
            (samples.len(), &found["n"]),
            (items.len(), &json!(items.len())),
            "{what}"
        );
        for (sample, item) in samples.iter().zip(items) {
            assert_eq!(sample["requests"], item["requests"], "{what}");
            let pairs = [sample, item].map(|side| floats(&side["loglikelihood"]));
            assert_eq!(pairs[0].len(), pairs[1].len(), "{what}");
            for (found, expected) in pairs[0].iter().zip(&pairs[1]) {
                assert!((found - expected).abs() < tolerance, "{what}: {found} {expected}");
            }
            assert_eq!(sample["greedy"], item["greedy"], "{what}");
            assert_eq!(sample["acc"].as_f64(), item["acc"].as_f64(), "{what}");
            if !item["acc_norm"].is_null() {
                assert_eq!(sample["acc_norm"].as_f64(), item["acc_norm"].as_f64(), "{what}");
            }
        }
        for (name, expected) in run["scores"].as_object().unwrap() {
            // A log-likelihood that is off by the tolerance changes a perplexity by that share of it.
            let expected = expected.as_f64().unwrap();
            let found = found[name].as_f64().unwrap();
            let apart = (found - expected).abs();
            assert!(
                apart <= tolerance * (1e-9 + expected),
                "{what}: {name} {found} {expected}"
            );
        }
    }
    assert_eq!(zero_shot, EVERY_TASK);
}

/// The demo model begins every text with a special token and reads 512 tokens, fewer than some questions have.
#[test]
fn the_demo_answers_as_in_the_harness() {
    compare(
        &workspace(),
        "",
        fixture("eval/tasks/expected-opt-mini.json"),
        1e-3,
    );
}

#[test]
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
fn a_real_model_answers_as_in_the_harness() {
    let Some(model) = std::env::var_os("FISTA_PRUNER_SMOLLM2") else {
        eprintln!("skipped: FISTA_PRUNER_SMOLLM2 is not set");
        return;
    };
    let model = format!("--model {}", std::path::absolute(model).unwrap().display());
    let expected = fixture("eval/tasks/expected-SmolLM2-135M.json");
    compare(&workspace(), &model, expected, 1e-3);
}

/// Runs agree to the byte, and a question's answer depends on nothing but the question.
#[test]
fn runs_are_deterministic_and_tasks_independent() {
    let workspace = workspace();
    let first = eval(&workspace, "--tasks all --log-samples first.jsonl");
    let second = eval(&workspace, "--tasks all --log-samples second.jsonl");
    for field in ["tasks", "mean_acc", "work"] {
        assert_eq!(first[field], second[field], "{field}");
    }
    assert!(workspace.read("first.jsonl") == workspace.read("second.jsonl"));
    assert!(first["perplexity"].is_null());
    let tasks = first["tasks"].as_array().unwrap();
    assert_eq!(tasks.len(), EVERY_TASK);
    let mean = tasks.iter().filter_map(|task| task["acc"].as_f64()).sum::<f64>() / EVERY_TASK as f64;
    assert!((first["mean_acc"].as_f64().unwrap() - mean).abs() < 1e-12);
    let work = &first["work"];
    assert!(work["computed"].as_u64() < work["tokens"].as_u64(), "{work}");

    let some = eval(
        &workspace,
        "--tasks rte,arc_easy --limit 2 --log-samples some.jsonl",
    );
    assert_eq!(
        (&some["tasks"][0]["name"], &some["tasks"][1]["n"]),
        (&json!("rte"), &json!(2))
    );
    let all = samples(&workspace, "first.jsonl");
    for sample in samples(&workspace, "some.jsonl") {
        let same = |other: &&Value| other["task"] == sample["task"] && other["index"] == sample["index"];
        let other = all.iter().find(same).unwrap();
        let pairs = [&sample, other].map(|side| floats(&side["loglikelihood"]));
        for (alone, together) in pairs[0].iter().zip(&pairs[1]) {
            assert!((alone - together).abs() < 1e-4, "{sample} {other}");
        }
    }
}

#[test]
fn tasks_beside_a_text_and_in_words() {
    let workspace = workspace();
    let both = eval(&workspace, "--tasks paper --data demo --max-windows 1");
    assert!(both["perplexity"].as_f64().unwrap() > 1.0);
    let names: Vec<&str> = both["tasks"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|task| task["name"].as_str())
        .collect();
    let table5 = [
        "arc_challenge",
        "arc_easy",
        "winogrande",
        "rte",
        "boolq",
        "qnli",
        "wnli",
    ];
    assert_eq!(names, table5);
    let text = workspace
        .succeed("eval --task-dir data --tasks rte,lambada_openai --device flex --quiet")
        .stdout;
    let table: Vec<&str> = text
        .lines()
        .skip_while(|line| !line.starts_with("task"))
        .collect();
    assert_eq!(table.len(), 4, "{text}");
    for word in ["acc_norm", "perplexity"] {
        assert!(table[0].contains(word), "{text}");
    }
    assert!(table[1].starts_with("rte") && table[1].contains(" ± "), "{text}");
    assert!(table[3].starts_with("mean"), "{text}");
}

/// A word with nothing before it follows the token that begins texts; the tokenizer's own special token stands there.
#[test]
fn a_word_without_context() {
    let workspace = workspace();
    workspace.write(
        "data/lambada_openai.jsonl",
        b"{\"text\": \"Once\"}\n{\"text\": \"a Once\"}",
    );
    let found = eval(&workspace, "--tasks lambada_openai --log-samples s.jsonl");
    assert_eq!(
        samples(&workspace, "s.jsonl")[0]["requests"],
        json!([["", " Once"]])
    );
    // `</s>` is read before either, `a` before one, and the word's last token is only predicted.
    let [tokens, targets] = ["tokens", "targets"].map(|field| found["work"][field].as_u64().unwrap());
    assert_eq!(tokens + 2, 2 + 1 + targets, "{found}");
    assert_eq!(found["tasks"][0]["acc_norm"], Value::Null);
}

#[test]
fn what_cannot_be_answered() {
    let workspace = workspace();
    workspace.write("data/piqa.jsonl", b"{\"goal\": \"g\"}\n");
    workspace.write("data/qnli.jsonl", b"\n");
    workspace.write("data/wnli.jsonl.gz", b"no gzip");
    std::fs::remove_file(workspace.path("data/wnli.jsonl")).unwrap();
    std::fs::remove_file(workspace.path("data/hellaswag.jsonl")).unwrap();
    let long = json!({"goal": "g", "sol1": "word ".repeat(600), "sol2": "s", "label": 0});
    std::fs::create_dir(workspace.path("long")).unwrap();
    workspace.write("long/piqa.jsonl", long.to_string().as_bytes());
    for (arguments, words) in [
        (
            "--tasks rte",
            &["nyu-mll/glue", "rte/validation", "HF_HUB_OFFLINE", "--task-data"][..],
        ),
        (
            "--tasks rte,hellaswag --task-data data",
            &["hellaswag.jsonl", "hint:", "--task-data"],
        ),
        ("--tasks piqa --task-data data", &["piqa.jsonl", "line 1", "sol1"]),
        ("--tasks qnli --task-data data", &["qnli.jsonl", "no rows"]),
        ("--tasks wnli --task-data data", &["cannot read", "wnli.jsonl.gz"]),
        ("--tasks rte --task-data nowhere", &["nowhere", "rte.jsonl"]),
        ("--tasks rte --task-data data --limit 0", &["--limit"]),
        (
            "--tasks rte --task-data data --num-fewshot 3",
            &["rte.jsonl", "--num-fewshot"],
        ),
        (
            "--tasks rte --task-data data --seq-len 8",
            &["--seq-len", "--data"],
        ),
        (
            "--tasks rte --task-data data --log-samples no/s.jsonl",
            &["create a file"],
        ),
        (
            "--tasks piqa --task-data long",
            &["piqa, item 0, choice 0", "512"],
        ),
    ] {
        workspace.refuse(&format!("eval {arguments}"), words);
    }
    for arguments in ["--tasks mmlu --task-data data", "--limit 3", "--num-fewshot 1"] {
        assert_eq!(workspace.run(&format!("eval {arguments}")).code, 2, "{arguments}");
    }
}
