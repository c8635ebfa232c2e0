//! What pages take for granted: checkpoints, data files, and a hub with the models and data sets that they name.

use super::shell::Call;
use crate::command::{Workspace, names};
use crate::common::fixture;
use crate::hub_data::{chat_model, gzip, json_lines, parquet_file};
use crate::hub_model::folder;
use crate::hub_server::{Files, HubServer, commit};
use crate::zeroshot_hub::serve_tasks;
use fista_pruner::hub::Repo;
use serde_json::json;
use std::path::Path;

const STORIES: &str = include_str!("../../../demo/calibration.txt");

pub(super) struct Surroundings {
    pub(super) workspace: Workspace,
    pub(super) server: HubServer,
}

fn demo() -> Files {
    folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/opt-mini"))
}

impl Surroundings {
    pub(super) fn new() -> Self {
        let surroundings = Self {
            workspace: Workspace::new(),
            server: HubServer::start(),
        };
        let rows: Vec<&str> = STORIES.lines().take(80).collect();
        let long: Vec<String> = rows.chunks(8).map(|rows| rows.join(" ")).collect();
        let long: Vec<&str> = long.iter().map(String::as_str).collect();
        serve_tasks(&surroundings.server);
        surroundings.data_sets(&rows, &long);
        surroundings.files(&rows, &long);
        surroundings
    }

    fn data_sets(&self, rows: &[&str], long: &[&str]) {
        let add = |repo: &str, revision: &str, files: &[(&str, Vec<u8>)]| {
            let files = files
                .iter()
                .map(|(name, bytes)| ((*name).to_owned(), bytes.clone()));
            self.server
                .add(&format!("datasets/{repo}"), revision, &commit(1), files.collect());
        };
        let (texts, sentences) = (parquet_file("text", rows), parquet_file("sentence", rows));
        add(
            "Salesforce/wikitext",
            "main",
            &["test", "train"].map(|split| {
                let name = match split {
                    "test" => "wikitext-2-raw-v1/test-00000-of-00001.parquet",
                    _ => "wikitext-2-raw-v1/train-00000-of-00001.parquet",
                };
                (name, texts.clone())
            }),
        );
        add(
            "allenai/c4",
            "main",
            &[
                ("en/c4-train.00000-of-01024.json.gz", gzip(&json_lines(long))),
                ("en/c4-validation.00000-of-00008.json.gz", gzip(&json_lines(rows))),
            ],
        );
        add(
            "ptb-text-only/ptb_text_only",
            "refs/convert/parquet",
            &[
                ("penn_treebank/test/0000.parquet", sentences.clone()),
                ("penn_treebank/train/0000.parquet", sentences),
            ],
        );
        let (jsonl, train) = (json_lines(rows), json_lines(long));
        add(
            "org/stories",
            "main",
            &[
                ("data/test.jsonl", jsonl),
                ("data/train.jsonl", train),
                ("README.md", Vec::new()),
            ],
        );
    }

    fn files(&self, rows: &[&str], long: &[&str]) {
        let workspace = &self.workspace;
        for path in ["path/to/checkpoint", "tasks"] {
            std::fs::create_dir_all(workspace.path(path)).unwrap();
        }
        for (name, bytes) in demo() {
            workspace.write(&format!("path/to/checkpoint/{name}"), &bytes);
        }
        let tasks = fixture("eval/tasks");
        for name in names(&tasks).iter().filter(|name| name.ends_with(".jsonl")) {
            workspace.write(
                &format!("tasks/{name}"),
                &std::fs::read(tasks.join(name)).unwrap(),
            );
        }
        let texts = parquet_file("text", rows);
        workspace.write("wiki.test.parquet", &texts);
        workspace.write("c4-validation.json.gz", &gzip(&json_lines(rows)));
        workspace.write("wikitext2-test.txt", rows.join("\n\n").as_bytes());
        workspace.write("c4.txt", long.join("\n").as_bytes());
        workspace.write("notes.txt", rows.join("\n").as_bytes());
        workspace.write("letters.txt.gz", &gzip(rows.join("\n").as_bytes()));
        workspace.write("articles.parquet", &parquet_file("body", long));
        let bodies: Vec<String> = long
            .iter()
            .map(|row| json!({ "body": row }).to_string())
            .collect();
        workspace.write("rows.jsonl", bodies[..5].join("\n").as_bytes());
        workspace.write("more.jsonl", bodies[5..].join("\n").as_bytes());
        chat_model(workspace, "chat-model");
        let talks: Vec<String> = long
            .iter()
            .map(|row| json!({"messages": [{"role": "user", "content": row}]}).to_string())
            .collect();
        workspace.write("chat.jsonl", talks.join("\n").as_bytes());
    }

    /// A small model of the LLaMA family that can read text: its embeddings over and over, with the built-in model's tokenizer.
    fn llama(&self) -> Files {
        let (workspace, name) = (&self.workspace, "tmp/llama");
        if workspace.path(name).exists() {
            return folder(&workspace.path(name));
        }
        workspace.copy_model("smollm2-style", name);
        let demo = demo();
        for file in ["tokenizer.json", "tokenizer_config.json"] {
            workspace.write(&format!("{name}/{file}"), &demo[file]);
        }
        let rows = 4096;
        workspace.set_json(&format!("{name}/config.json"), "vocab_size", json!(rows));
        workspace.edit(&format!("{name}/model.safetensors"), |weights| {
            let (_, shape, bytes) = weights.0.get_mut("model.embed_tokens.weight").unwrap();
            let row = bytes.len() / shape[0];
            let (known, all) = (bytes.clone(), rows * row);
            *bytes = known.into_iter().cycle().take(all).collect();
            shape[0] = rows;
        });
        folder(&workspace.path(name))
    }

    /// Every model of the hub that the calls name is the built-in one, but for those of the SmolLM family, whose names of linear
    /// layers pages show.
    pub(super) fn serve_models(&self, calls: &[Call]) {
        for call in calls {
            let value = |flag: &str| {
                let at = call.arguments.iter().position(|word| word == flag)?;
                call.arguments.get(at + 1).map(String::as_str)
            };
            for name in ["--model", "--source", "--dense"].into_iter().filter_map(value) {
                let Some(repo) = Repo::model(name) else { continue };
                let revision = value("--revision").unwrap_or(&repo.revision);
                let is_commit = revision.len() == 40 && revision.bytes().all(|b| b.is_ascii_hexdigit());
                let commit = match is_commit {
                    true => revision.to_owned(),
                    false => commit(2),
                };
                let repo = format!("models/{}", repo.name);
                let files = if repo.contains("SmolLM") {
                    self.llama()
                } else {
                    demo()
                };
                self.server.add(&repo, revision, &commit, files);
            }
        }
    }
}
