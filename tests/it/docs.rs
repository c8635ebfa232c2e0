//! The commands in `docs/` do what they say: each is run, in order, with a hub on this machine.

use crate::command::Workspace;
use crate::hub_data::{chat_model, gzip, json_lines, parquet_file};
use crate::hub_model::{folder, online};
use crate::hub_server::{Files, HubServer, commit};
use serde_json::json;
use std::path::Path;

const STORIES: &str = include_str!("../../demo/calibration.txt");

/// Lines of the blocks of a page that are marked as `sh`.
fn commands(page: &str) -> Vec<&str> {
    let mut inside = false;
    let mut commands = Vec::new();
    for line in page.lines() {
        if line.starts_with("```") {
            inside = line == "```sh";
        } else if inside {
            commands.push(line);
        }
    }
    commands
}

#[test]
fn every_command_about_data() {
    let (workspace, server) = (Workspace::new(), HubServer::start());
    let add = |repo: &str, revision: &str, files: &[(&str, Vec<u8>)]| {
        let files: Files = files
            .iter()
            .map(|(name, bytes)| ((*name).to_owned(), bytes.clone()))
            .collect();
        server.add(repo, revision, &commit(1), files);
    };
    let demo = folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/opt-mini"));
    server.add("models/facebook/opt-125m", "main", &commit(2), demo);
    let rows: Vec<&str> = STORIES.lines().take(80).collect();
    let (parquet, jsonl) = (parquet_file("text", &rows), json_lines(&rows));
    let sentences = parquet_file("sentence", &rows);
    let long: Vec<String> = rows.chunks(8).map(|rows| rows.join(" ")).collect();
    let long: Vec<&str> = long.iter().map(String::as_str).collect();
    add(
        "datasets/Salesforce/wikitext",
        "main",
        &[("wikitext-2-raw-v1/test-00000-of-00001.parquet", parquet.clone())],
    );
    add(
        "datasets/allenai/c4",
        "main",
        &[
            ("en/c4-train.00000-of-01024.json.gz", gzip(&json_lines(&long))),
            ("en/c4-validation.00000-of-00008.json.gz", gzip(&jsonl)),
        ],
    );
    add(
        "datasets/ptb-text-only/ptb_text_only",
        "refs/convert/parquet",
        &[("penn_treebank/test/0000.parquet", sentences)],
    );
    add(
        "datasets/org/stories",
        "main",
        &[("data/test.jsonl", jsonl.clone()), ("README.md", Vec::new())],
    );
    workspace.write("wiki.test.parquet", &parquet);
    workspace.write("c4-validation.json.gz", &gzip(&jsonl));
    workspace.write("notes.txt", rows.join("\n").as_bytes());
    let bodies: Vec<String> = long
        .iter()
        .map(|row| json!({ "body": row }).to_string())
        .collect();
    workspace.write("rows.jsonl", bodies[..5].join("\n").as_bytes());
    workspace.write("more.jsonl", bodies[5..].join("\n").as_bytes());
    chat_model(&workspace, "chat-model");
    let talks: Vec<String> = long
        .iter()
        .map(|row| json!({"messages": [{"role": "user", "content": row}]}).to_string())
        .collect();
    workspace.write("chat.jsonl", talks.join("\n").as_bytes());

    let commands = commands(include_str!("../../docs/data.md"));
    assert_eq!(commands.len(), 17, "{commands:#?}");
    for command in commands {
        let line = command.strip_prefix("fista-pruner ").unwrap();
        online(&workspace, &server, line, None).success(command);
    }
}
