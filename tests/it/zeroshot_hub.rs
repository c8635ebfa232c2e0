//! `eval --tasks` with data sets of a hub: files as the hub converts them (`tests/fixtures/eval/tasks/make_parquet.py`) against the
//! same rows in local JSON.

use crate::command::{Workspace, tree_of};
use crate::common::fixture;
use crate::hub_model::online;
use crate::hub_server::{Files, HubServer, commit};
use crate::zeroshot::{samples, workspace};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

const CONVERTED: &str = "refs/convert/parquet";

/// Serves every data set of the tasks.
pub(crate) fn serve_tasks(server: &HubServer) {
    let mut repos: BTreeMap<String, Files> = BTreeMap::new();
    for (path, bytes) in tree_of(&fixture("eval/tasks/parquet")) {
        let Some(bytes) = bytes else { continue };
        let parts: Vec<&str> = path.iter().map(|part| part.to_str().unwrap()).collect();
        let (repo, file) = (parts[..2].join("/"), parts[2..].join("/"));
        repos.entry(repo).or_default().insert(file, bytes);
    }
    assert_eq!(repos.len(), 8);
    for (repo, files) in repos {
        server.add(&format!("datasets/{repo}"), CONVERTED, &commit(9), files);
    }
}

fn fetched(workspace: &Workspace, server: &HubServer, arguments: &str) -> Value {
    let line = format!("eval --device flex --format json {arguments}");
    online(workspace, server, &line, None).success(&line).json()
}

/// Everything that is said of a task but where its data came from.
fn scores(found: &Value) -> Value {
    let mut tasks = found["tasks"].clone();
    for task in tasks.as_array_mut().unwrap() {
        for field in ["data", "data_sha256", "fewshot_data"] {
            task.as_object_mut().unwrap().remove(field);
        }
    }
    tasks
}

#[test]
#[cfg_attr(not(feature = "hub"), ignore = "needs the feature hub")]
fn every_task_is_the_same_from_the_hub() {
    let (workspace, server) = (workspace(), HubServer::start());
    serve_tasks(&server);
    let line = "--tasks all --log-samples";
    let local = workspace.json(&format!("eval --device flex --task-data data {line} local.jsonl"));
    let found = fetched(&workspace, &server, &format!("{line} hub.jsonl"));
    assert_eq!(scores(&found), scores(&local));
    assert_eq!(found["tasks"].as_array().unwrap().len(), 11);
    assert_eq!(found["mean_acc"], local["mean_acc"]);
    assert_eq!(
        samples(&workspace, "hub.jsonl"),
        samples(&workspace, "local.jsonl")
    );
    let hellaswag = &found["tasks"][3];
    let file = "default/validation/0000.parquet";
    assert_eq!(hellaswag["data"], format!("Rowan/hellaswag@{}:{file}", commit(9)));
    let bytes = std::fs::read(fixture("eval/tasks/parquet/Rowan/hellaswag").join(file)).unwrap();
    assert_eq!(hellaswag["data_sha256"], format!("{:x}", Sha256::digest(bytes)));
    // Training rows are fetched only where they are needed.
    let asked = server.take_log();
    assert!(
        asked
            .iter()
            .any(|request| request.path.contains("winogrande_xl/validation"))
    );
    assert!(!asked.iter().any(|request| request.path.contains("/train/")));

    // What was fetched is in the cache.
    drop(server);
    let cached = workspace.json(&format!("eval --device flex {line} cached.jsonl"));
    assert_eq!(cached["tasks"], found["tasks"]);
    assert_eq!(
        samples(&workspace, "cached.jsonl"),
        samples(&workspace, "local.jsonl")
    );
}

#[test]
#[cfg_attr(not(feature = "hub"), ignore = "needs the feature hub")]
fn examples_come_from_the_training_split() {
    let (workspace, server) = (workspace(), HubServer::start());
    serve_tasks(&server);
    let line = "--tasks arc_easy,winogrande --num-fewshot 2 --log-samples";
    let local = workspace.json(&format!("eval --device flex --task-data data {line} local.jsonl"));
    let found = fetched(&workspace, &server, &format!("{line} hub.jsonl"));
    assert_eq!(scores(&found), scores(&local));
    assert_eq!(
        samples(&workspace, "hub.jsonl"),
        samples(&workspace, "local.jsonl")
    );
    let expected = format!(
        "allenai/winogrande@{}:winogrande_xl/train/0000.parquet",
        commit(9)
    );
    assert_eq!(found["tasks"][1]["fewshot_data"], expected);
    // LAMBADA has no training split, and the hub's is not asked for.
    let line = "--tasks lambada_openai --num-fewshot 1";
    let local = workspace.json(&format!("eval --device flex --task-data data {line}"));
    assert_eq!(scores(&fetched(&workspace, &server, line)), scores(&local));
}

/// Files as they are on the hub may lie in a folder too.
#[test]
fn parquet_files_of_a_folder() {
    let workspace = workspace();
    std::fs::create_dir(workspace.path("tables")).unwrap();
    let tables = fixture("eval/tasks/parquet");
    for (task, file) in [
        ("arc_challenge", "allenai/ai2_arc/ARC-Challenge/test"),
        ("rte", "nyu-mll/glue/rte/validation"),
    ] {
        let bytes = std::fs::read(tables.join(file).join("0000.parquet")).unwrap();
        workspace.write(&format!("tables/{task}.parquet"), &bytes);
    }
    let eval = "eval --device flex --tasks arc_challenge,rte --task-data";
    let found = workspace.json(&format!("{eval} tables"));
    assert_eq!(scores(&found), scores(&workspace.json(&format!("{eval} data"))));
    assert_eq!(found["tasks"][1]["data"], "tables/rte.parquet");

    // Rows of another task, and half a file.
    let rte = workspace.read("tables/rte.parquet");
    workspace.write("tables/qnli.parquet", &rte);
    workspace.write("tables/wnli.parquet", &rte[..rte.len() / 2]);
    for (task, words) in [
        ("qnli", &["qnli.parquet", "row 1", "`question`", "hint:"][..]),
        ("wnli", &["wnli.parquet", "cannot be read", "hint:"]),
        ("boolq", &["boolq.parquet", "boolq.jsonl", "hint:"]),
    ] {
        workspace.refuse(&format!("eval --tasks {task} --task-data tables"), words);
    }
}

#[test]
#[cfg_attr(not(feature = "hub"), ignore = "needs the feature hub")]
fn what_the_hub_does_not_have() {
    let (workspace, server) = (workspace(), HubServer::start());
    let line = "eval --tasks piqa";
    online(&workspace, &server, line, None)
        .check_failure(line, &["baber/piqa", "default/validation", "hint:"]);
}
