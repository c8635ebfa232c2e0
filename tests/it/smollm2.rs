//! A real model of 135 million parameters, against transformers. Runs where `FISTA_PRUNER_SMOLLM2` names the folder that
//! `scripts/get-smollm2.sh` made.

use crate::common::fixture;
use std::path::{Path, PathBuf};
use std::process::Command;

#[allow(clippy::print_stderr, reason = "a skipped test says so")]
fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("FISTA_PRUNER_SMOLLM2").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("skipped: FISTA_PRUNER_SMOLLM2 is not set");
    }
    folder
}

fn json(arguments: &[&str]) -> serde_json::Value {
    let output = Command::new(env!("CARGO_BIN_EXE_fista-pruner"))
        .args(arguments)
        .args(["--format", "json", "--device", "flex"])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

fn eval(model: &Path) -> serde_json::Value {
    let ids = fixture("eval/smollm2-wikitext2-4x512.safetensors");
    json(&[
        "eval",
        "--model",
        model.to_str().unwrap(),
        "--data",
        ids.to_str().unwrap(),
    ])
}

/// transformers' likelihood of the first windows of WikiText-2's test split, in f32.
#[test]
fn perplexity_is_that_of_transformers() {
    let Some(model) = folder() else { return };
    let text = std::fs::read_to_string(fixture("eval/perplexity-SmolLM2-135M.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_str(&text).unwrap();
    let expected = expected["runs"][0]["window_nll"].as_array().unwrap().clone();
    let found = eval(&model)["window_nll"].as_array().unwrap().clone();
    assert_eq!(found.len(), 4);
    for (found, expected) in found.iter().zip(&expected) {
        let (found, expected) = (found.as_f64().unwrap(), expected.as_f64().unwrap());
        assert!((found - expected).abs() < 1e-4, "{found} {expected}");
    }
}

/// Packed, the operators take at most 57 % of their bytes, and nothing changes.
fn check_packed(pruned: &Path, evaluated: &serde_json::Value) {
    let parent = pruned.parent().unwrap();
    let (packed, unpacked) = (parent.join("packed"), parent.join("unpacked"));
    let [model, packed_name, unpacked_name] = [pruned, &packed, &unpacked].map(|path| path.to_str().unwrap());
    let summary = json(&["pack", "--model", model, "--output", packed_name, "--overwrite"]);
    let sizes = &summary["packed_tensors"];
    assert_eq!(sizes["count"], 30 * 7);
    let share = sizes["packed_bytes"].as_f64().unwrap() / sizes["plain_bytes"].as_f64().unwrap();
    assert!(share <= 0.57, "{sizes}");
    assert_eq!(eval(&packed)["window_nll"], evaluated["window_nll"]);
    json(&[
        "unpack",
        "--model",
        packed_name,
        "--output",
        unpacked_name,
        "--overwrite",
    ]);
    for name in ["model.safetensors", "config.json", "pruning_report.json"] {
        let [before, after] = [pruned, &unpacked].map(|folder| std::fs::read(folder.join(name)).unwrap());
        assert!(before == after, "{name}");
    }
}

/// Few tokens, so that it is quick; still every operator has its pattern, and `fast` beats what it could have copied.
#[test]
fn a_real_model_is_pruned_to_its_pattern() {
    let Some(model) = folder() else { return };
    let parent = tempfile::tempdir().unwrap();
    let ids = fixture("eval/smollm2-wikitext2-4x512.safetensors");
    let mut perplexities = Vec::new();
    for preset in [["--method", "wanda"], ["--preset", "fast"]] {
        let output = parent.path().join(preset[1]);
        let mut arguments = vec![
            "prune",
            "--model",
            model.to_str().unwrap(),
            "--output",
            output.to_str().unwrap(),
        ];
        arguments.extend(["--calibration", ids.to_str().unwrap(), "--sparsity", "2:4"]);
        arguments.extend(preset);
        let report = json(&arguments);
        assert_eq!(report["operators"].as_array().unwrap().len(), 30 * 7);
        let inspected = json(&["inspect", "--model", output.to_str().unwrap()]);
        for operator in inspected["operators"].as_array().unwrap() {
            assert_eq!(operator["n_of_m"], "2:4", "{operator}");
        }
        let evaluated = eval(&output);
        perplexities.push(evaluated["perplexity"].as_f64().unwrap());
        check_packed(&output, &evaluated);
    }
    assert!(perplexities[1] < perplexities[0], "{perplexities:?}");
}
