//! `verify`: good outputs have no problem, and every fault that is put into one is listed.

use crate::command::{Workspace, names};
use safetensors::Dtype;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const VERIFY: &str = "verify --model out --source model";

fn pruned(model: &str, arguments: &str) -> Workspace {
    let workspace = Workspace::with(model);
    workspace.write("model/tokenizer_config.json", b"{}");
    workspace.succeed(&format!(
        "prune --model model --output out --calibration ids.safetensors --method magnitude {arguments}"
    ));
    workspace
}

/// Kinds and subjects of the problems that are found; the exit code says whether there are any.
fn problems(workspace: &Workspace, line: &str) -> BTreeSet<(String, String)> {
    let outcome = workspace.run(&format!("{line} --format json"));
    let found = outcome.json();
    let list = found["problems"].as_array().unwrap();
    assert_eq!(outcome.code, i32::from(!list.is_empty()), "{outcome:#?}");
    assert_eq!(found["ok"], list.is_empty());
    if !list.is_empty() {
        let count = format!("{} problem", list.len());
        assert!(outcome.stderr.contains(&count), "{}", outcome.stderr);
    }
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let pairs: BTreeSet<_> = list
        .iter()
        .map(|p| (text(&p["kind"]), text(&p["subject"])))
        .collect();
    assert_eq!(pairs.len(), list.len(), "{found:#}");
    // The text for people names each of them.
    let said = workspace.run(line).stdout;
    for (_, subject) in &pairs {
        assert!(said.contains(&format!("WRONG      {subject}: ")), "{said}");
    }
    pairs
}

fn expect(workspace: &Workspace, line: &str, expected: &[(&str, &str)]) {
    let expected: BTreeSet<_> = expected
        .iter()
        .map(|(kind, subject)| ((*kind).to_owned(), (*subject).to_owned()))
        .collect();
    assert_eq!(problems(workspace, line), expected, "{line}");
}

#[test]
fn good_outputs_have_no_problem() {
    for (model, arguments) in [
        ("llama1-style", "--sparsity 0.5"),
        ("opt-350m-style", "--sparsity 2:4"),
        ("qwen3-style", "--sparsity 4:8 --ignore k_proj"),
    ] {
        let workspace = pruned(model, arguments);
        let found = workspace.json(VERIFY);
        let report = workspace.read_json("out/pruning_report.json");
        assert_eq!(found["problems"], json!([]), "{model}");
        assert_eq!(found["operators"], report["operators"].as_array().unwrap().len());
        assert_eq!(found["pattern"], report["settings"]["sparsity"]);
        assert_eq!(found["sparsity"], report["sparsity"]);
        assert_eq!(found["tensors"], found["tensors_compared"]);
        assert_eq!(found["tensors"], workspace.weights("out").0.len());
        assert_eq!(found["notes"], json!([]));
        assert!(found["files_compared"].as_u64().unwrap() >= 2);
        workspace.succeed("pack --model out --output packed");
        let packed = workspace.json("verify --model packed --source model");
        assert_eq!((&packed["problems"], &packed["notes"]), (&json!([]), &json!([])));
    }
}

#[test]
fn the_pattern_of_the_flag_comes_first() {
    let workspace = pruned("mistral-style", "--sparsity 2:4");
    expect(&workspace, "verify --model out --sparsity 0.5", &[]);
    let operators = workspace.weights("out").operators();
    for pattern in ["0.51", "1:4"] {
        let found = problems(&workspace, &format!("verify --model out --sparsity {pattern}"));
        let expected = operators
            .iter()
            .map(|name| ("pattern".to_owned(), format!("{name}.weight")));
        assert_eq!(found, expected.collect());
    }
    std::fs::remove_file(workspace.path("out/pruning_report.json")).unwrap();
    expect(&workspace, "verify --model out --sparsity 2:4", &[]);
    let notes = workspace.json("verify --model out")["notes"].to_string();
    assert!(notes.contains("no pattern was checked"), "{notes}");
}

#[test]
fn every_fault_is_listed() {
    let workspace = pruned("mistral-style", "--sparsity 2:4");
    let operator = "model.layers.0.mlp.up_proj.weight";
    workspace.edit("out/model.safetensors", |weights| {
        // Four non-zeros in the first group: a pattern broken, and another number of zeros.
        weights.set(operator, 0..4, 1.0);
        weights.set("model.norm.weight", [5], f32::NAN);
        weights.set("model.embed_tokens.weight", [0], 3.0);
        weights.0.remove("model.layers.1.input_layernorm.weight");
        let extra = (Dtype::F32, vec![1], vec![0; 4]);
        weights.0.insert("extra".into(), extra);
        let (_, shape, _) = weights.0.get_mut("model.layers.2.mlp.down_proj.weight").unwrap();
        shape.reverse();
    });
    workspace.write("out/tokenizer_config.json", b"{ }");
    workspace.write("out/pytorch_model.bin", b"dense");
    workspace.write("out/notes.txt", b"fine");
    let inside = [
        ("pattern", operator),
        ("report", operator),
        ("not-finite", "model.norm.weight"),
        ("tensors", "model.layers.1.input_layernorm.weight"),
        ("shape", "model.layers.2.mlp.down_proj.weight"),
        ("report", "pruning_report.json"),
    ];
    expect(&workspace, "verify --model out", &inside);
    let mut all = inside.to_vec();
    all.extend([
        ("content", "model.embed_tokens.weight"),
        ("content", "model.norm.weight"),
        ("tensors", "extra"),
        ("tensors", "model.safetensors"),
        ("side-file", "tokenizer_config.json"),
        ("side-file", "pytorch_model.bin"),
    ]);
    expect(&workspace, VERIFY, &all);
}

#[test]
fn a_report_that_does_not_belong_to_the_weights() {
    let workspace = pruned("mistral-style", "--sparsity 0.5");
    let report = "out/pruning_report.json";
    let good = workspace.read_json(report);
    let first = good["operators"][0]["name"].as_str().unwrap().to_owned();
    let first_weight = format!("{first}.weight");
    let mut changed = good.clone();
    changed["operators"][0]["zeros"] = json!(7);
    changed["operators"][0]["dtype"] = json!("F64");
    changed["sparsity"] = json!(0.25);
    workspace.write(report, changed.to_string().as_bytes());
    let expected = [
        ("report", &*first_weight),
        ("dtype", &first_weight),
        ("report", "pruning_report.json"),
    ];
    expect(&workspace, "verify --model out", &expected);
    // An operator that the report does not name was not to be touched.
    let mut changed = good.clone();
    changed["operators"].as_array_mut().unwrap().remove(0);
    workspace.write(report, changed.to_string().as_bytes());
    expect(&workspace, VERIFY, &[("content", &first_weight)]);
    for text in ["{", "[]", "{\"report_version\": 1}"] {
        workspace.write(report, text.as_bytes());
        expect(
            &workspace,
            "verify --model out",
            &[("report", "pruning_report.json")],
        );
    }
    let mut changed = good;
    changed["report_version"] = json!(99);
    workspace.write(report, changed.to_string().as_bytes());
    expect(
        &workspace,
        "verify --model out",
        &[("report", "pruning_report.json")],
    );
}

#[test]
fn folders_that_are_no_checkpoint() {
    let workspace = pruned("llama1-style", "--sparsity 0.5");
    let shard = "out/model-00002-of-00004.safetensors";
    let bytes = workspace.read(shard);
    workspace.write(shard, &bytes[..bytes.len() - 1]);
    expect(&workspace, "verify --model out", &[("unreadable", "out")]);
    workspace.write(shard, &bytes);
    workspace.set_json("out/config.json", "model_type", json!("mamba"));
    expect(&workspace, "verify --model out", &[("config", "config.json")]);
    expect(
        &workspace,
        VERIFY,
        &[("config", "config.json"), ("side-file", "config.json")],
    );
    workspace.refuse("verify --model nowhere", &["no model folder", "hint:"]);
    workspace.refuse(
        "verify --model out --source nowhere",
        &["no model folder", "hint:"],
    );
    assert!(names(&workspace.path("")).contains(&"out".to_owned()));
}
