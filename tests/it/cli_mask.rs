//! `mask export` and `mask apply`.

use crate::command::{Workspace, same_trees, tree_of};
use serde_json::json;

const EXPORT: &str = "mask export --model out --output mask.safetensors";
const APPLY: &str = "mask apply --model model --mask mask.safetensors --output masked";

fn pruned(model: &str, arguments: &str) -> Workspace {
    let workspace = Workspace::with(model);
    workspace.succeed(&format!(
        "prune --model model --output out --calibration ids.safetensors {arguments}"
    ));
    workspace
}

/// A method that only chooses leaves kept weights as they are, so that its mask alone gives its result.
#[test]
fn a_mask_alone_repeats_what_only_chose() {
    for (model, sparsity) in [
        ("llama1-style", "0.5"),
        ("qwen2-style", "2:4"),
        ("opt-350m-style", "0.7"),
    ] {
        let workspace = pruned(model, &format!("--method wanda --polish 0 --sparsity {sparsity}"));
        let exported = workspace.json(EXPORT);
        let applied = workspace.json(APPLY);
        for field in ["operators", "weights", "zeros", "sparsity", "file_bytes"] {
            assert_eq!(exported[field], applied[field], "{field}");
        }
        let report = workspace.read_json("out/pruning_report.json");
        assert_eq!(exported["sparsity"], report["sparsity"]);
        // A bit a weight, and the header.
        let weights = exported["weights"].as_f64().unwrap();
        let bytes = workspace.read("mask.safetensors").len() as f64;
        assert!(
            bytes >= weights / 8.0 && bytes < weights / 8.0 + 8192.0,
            "{bytes}"
        );
        for name in ["pruning_report.json", "report.html"] {
            std::fs::remove_file(workspace.path(&format!("out/{name}"))).unwrap();
        }
        same_trees(
            &tree_of(&workspace.path("out")),
            &tree_of(&workspace.path("masked")),
            model,
        );
    }
}

/// Weights that a method changed come from the dense model; zeros are the mask's.
#[test]
fn zeros_come_from_the_mask_and_weights_from_the_model() {
    let workspace = pruned(
        "mistral-style",
        "--method sparsegpt --sparsity 0.5 --ignore k_proj",
    );
    let exported = workspace.json(EXPORT);
    assert_eq!(exported["without_mask"], 3);
    workspace.succeed(APPLY);
    let (dense, pruned, masked) = (
        workspace.weights("model"),
        workspace.weights("out"),
        workspace.weights("masked"),
    );
    let operators = dense.operators();
    for (name, (_, _, bytes)) in &dense.0 {
        if !name
            .strip_suffix(".weight")
            .is_some_and(|n| operators.contains(n))
        {
            assert!(*bytes == masked.0[name].2, "{name}");
            continue;
        }
        assert_eq!(masked.zeros(name), pruned.zeros(name), "{name}");
        let mut pairs = dense.values(name).into_iter().zip(masked.values(name));
        assert!(
            pairs.all(|(before, after)| after == 0.0 || after == before),
            "{name}"
        );
    }
    let verified = workspace.json("verify --model masked --source model --sparsity 0");
    assert_eq!(verified["problems"], json!([]));
}

/// The report of a pruned source would describe other zeros than those of the mask.
#[test]
fn a_stale_report_is_not_copied() {
    let workspace = pruned("mistral-style", "--method magnitude --sparsity 0.7");
    workspace.succeed(EXPORT);
    workspace.succeed("mask apply --model out --mask mask.safetensors --output masked");
    assert!(workspace.path("out/report.html").exists());
    for name in ["pruning_report.json", "report.html"] {
        assert!(!workspace.path(&format!("masked/{name}")).exists(), "{name}");
    }
    assert!(workspace.weights("masked").0 == workspace.weights("out").0);
}

/// Another model with the same operators, stored in another format.
#[test]
fn a_mask_fits_any_model_of_its_shapes() {
    let workspace = pruned("mistral-style", "--method magnitude --sparsity 0.5");
    workspace.succeed(EXPORT);
    workspace.copy_model("smollm2-style", "other");
    workspace.succeed("mask apply --model other --mask mask.safetensors --output masked");
    let (pruned, masked) = (workspace.weights("out"), workspace.weights("masked"));
    for name in pruned.operators() {
        let name = format!("{name}.weight");
        assert_eq!(pruned.zeros(&name), masked.zeros(&name), "{name}");
    }
}

#[test]
fn masks_that_do_not_fit() {
    let workspace = pruned("mistral-style", "--method magnitude --sparsity 0.5");
    workspace.refuse(
        "mask export --model model --output mask.safetensors",
        &["no operator", "no mask"],
    );
    workspace.succeed(EXPORT);
    workspace.refuse(EXPORT, &["mask.safetensors", "--overwrite"]);
    workspace.succeed(&format!("{EXPORT} --overwrite"));
    for (model, word) in [("opt-125m-style", "no operator"), ("qwen3-style", "has shape")] {
        workspace.copy_model(model, model);
        let line = format!("mask apply --model {model} --mask mask.safetensors --output masked");
        workspace.refuse(&line, &["mask.safetensors", word]);
    }
    workspace.refuse(
        "mask apply --model model --mask ids.safetensors --output masked",
        &["ids.safetensors", "is not a mask"],
    );
    let good = workspace.read("mask.safetensors");
    for position in [good.len() - 10, good.len() / 2] {
        let mut bad = good.clone();
        bad[position] ^= 4;
        workspace.write("mask.safetensors", &bad);
        workspace.refuse(APPLY, &["mask.safetensors"]);
    }
    for length in [good.len() - 1, 20, 0] {
        workspace.write("mask.safetensors", &good[..length]);
        workspace.refuse(APPLY, &["mask.safetensors"]);
    }
}
