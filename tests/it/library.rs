//! A program that embeds the library does what the command does.

use crate::command::Workspace;
use std::collections::BTreeMap;
use std::path::Path;

#[path = "../../examples/prune_checkpoint.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "the example's own `main` is not called here"
)]
mod prune_checkpoint;

/// Every file of a folder, with the figures that differ from run to run taken out of its reports.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let mut bytes = std::fs::read(&path).unwrap();
        if name == "pruning_report.json" {
            let mut report: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            for varying in [
                "output",
                "seconds",
                "stage_seconds",
                "layer_seconds",
                "peak_host_bytes",
            ] {
                assert!(
                    report.as_object_mut().unwrap().remove(varying).is_some(),
                    "{varying}"
                );
            }
            for operator in report["operators"].as_array_mut().unwrap() {
                operator.as_object_mut().unwrap().remove("seconds").unwrap();
            }
            bytes = serde_json::to_vec(&report).unwrap();
        }
        if name == "report.html" {
            bytes = b"a page".to_vec();
        }
        files.insert(name, bytes);
    }
    files
}

#[test]
fn the_example_writes_what_the_command_writes() {
    let workspace = Workspace::with("llama3.1-style");
    workspace.ids("text.safetensors", 32, 16);
    let path = |name: &str| workspace.path(name).display().to_string();
    let (model, text) = (path("model"), path("text.safetensors"));
    let command = workspace.run(&format!(
        "prune --model {model} --calibration {text} --samples 32 --sparsity 2:4 --output by-command"
    ));
    assert_eq!(command.code, 0, "{}", command.stderr);
    prune_checkpoint::prune([model, text, path("by-library")].into_iter()).unwrap();
    let [command, library] = ["by-command", "by-library"].map(|name| files(&workspace.path(name)));
    assert!(command.keys().eq(library.keys()), "{:?}", library.keys());
    for (name, bytes) in &command {
        assert!(library[name] == *bytes, "{name} differs");
    }
    let left: Vec<_> = std::fs::read_dir(workspace.path("."))
        .unwrap()
        .flatten()
        .collect();
    assert!(
        !left
            .iter()
            .any(|entry| entry.file_name().to_string_lossy().contains("partial")),
        "{left:?}"
    );
}
