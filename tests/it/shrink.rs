//! Structured pruning from the command line: what comes out is smaller, loads, and is what its report says.

use crate::command::{Workspace, names, same_trees, tree_of};
use crate::signals::interrupt;
use rustix::process::Signal;
use serde_json::{Value, json};

const SHRINK: &str = "shrink --model model --calibration ids.safetensors --remove 0.3";

/// What lies in a folder, without what tells of times and paths.
fn weights(workspace: &Workspace, folder: &str) -> crate::command::Tree {
    let mut tree = tree_of(&workspace.path(folder));
    tree.retain(|path, _| !path.starts_with("pruning_report.json") && !path.starts_with("report.html"));
    tree
}

fn perplexity(workspace: &Workspace, folder: &str) -> f64 {
    let report = workspace.json(&format!("eval --model {folder} --data ids.safetensors"));
    report["perplexity"].as_f64().unwrap()
}

#[test]
fn every_family_gets_smaller_in_every_way_that_it_allows() {
    let cases = [
        ("opt-125m-style", &["mlp", "layers"][..]),
        ("opt-350m-style", &["mlp", "layers"]),
        ("llama1-style", &["mlp", "heads", "layers", "mlp,heads"]),
        ("llama3.1-style", &["mlp", "heads", "layers", "mlp,heads"]),
        ("mistral-style", &["mlp", "heads", "layers"]),
        ("qwen2-style", &["mlp", "heads", "layers"]),
        ("qwen3-style", &["mlp", "heads", "layers"]),
    ];
    for (model, ways) in cases {
        let workspace = Workspace::with(model);
        for units in ways {
            // Three layers and two or four heads: what can go is a third or a half of them.
            let remove = if *units == "heads" { "0.15" } else { "0.3" };
            let line = format!(
                "shrink --model model --calibration ids.safetensors --eval-data ids.safetensors --units {units} --remove {remove} \
                 --output small --overwrite"
            );
            let plan = workspace.json(&format!("{line} --dry-run"));
            let report = workspace.json(&line);
            let what = format!("{model} {units}");
            for key in ["parameters_before", "parameters_after", "removed"] {
                assert_eq!(plan[key], report[key], "{what} {key}");
            }
            let stored = workspace.weights("small");
            // A tied head that is stored all the same counts once.
            let copy = model == "opt-350m-style";
            let counted = stored
                .0
                .iter()
                .filter(|(name, _)| !copy || *name != "lm_head.weight");
            let parameters: usize = counted
                .map(|(_, (_, shape, _))| shape.iter().product::<usize>())
                .sum();
            assert_eq!(
                report["parameters_after"].as_u64().unwrap() as usize,
                parameters,
                "{what}"
            );
            let removed = report["removed"].as_f64().unwrap();
            assert!(
                (removed - remove.parse::<f64>().unwrap()).abs() < 0.1,
                "{what}: {removed}"
            );
            let config = workspace.read_json("small/config.json");
            let shape = &report["shape"];
            assert_eq!(config["num_hidden_layers"], shape["layers"], "{what}");
            if model.starts_with("opt") {
                assert_eq!(config["ffn_dim"], shape["mlp"], "{what}");
            } else {
                assert_eq!(config["intermediate_size"], shape["mlp"], "{what}");
                assert_eq!(config["num_attention_heads"], shape["heads"], "{what}");
                assert_eq!(config["num_key_value_heads"], shape["kv_heads"], "{what}");
                assert!(config["head_dim"].is_u64(), "{what}");
            }
            if let Some(types) = config["layer_types"].as_array() {
                assert_eq!(types.len() as u64, shape["layers"].as_u64().unwrap(), "{what}");
            }
            workspace.succeed("verify --model small --source model");
            // What was measured along the way is what the smaller model gives.
            let measured = report["evaluation"]["pruned"]["perplexity"].as_f64().unwrap();
            let found = perplexity(&workspace, "small");
            assert!(
                (measured / found - 1.0).abs() < 1e-4,
                "{what}: {measured} {found}"
            );
        }
    }
}

#[test]
fn the_others_go_on_from_a_smaller_model() {
    let workspace = Workspace::with("smollm2-style");
    workspace.succeed(&format!(
        "{SHRINK} --units mlp,layers --shape auto --output small"
    ));
    let before = perplexity(&workspace, "small");
    workspace.succeed(
        "prune --model small --calibration ids.safetensors --sparsity 2:4 --preset fast --output sparse",
    );
    workspace.succeed("verify --model sparse --source small");
    workspace.succeed("pack --model small --output packed");
    assert_eq!(perplexity(&workspace, "packed"), before);
    let recovered = workspace.json(
        "recover --model small --method block --dense model --calibration ids.safetensors --epochs 2 --output recovered",
    );
    let curves = recovered["curves"].as_array().unwrap();
    assert!(
        curves
            .iter()
            .all(|curve| curve["after"].as_f64() <= curve["before"].as_f64())
    );
    assert!(
        curves
            .iter()
            .any(|curve| curve["after"].as_f64() < curve["before"].as_f64())
    );
    workspace.succeed("verify --model recovered --source model");
    let compared = workspace.json("compare --model small --methods wanda --calibration ids.safetensors");
    assert_eq!(compared["rows"].as_array().unwrap().len(), 1);
}

#[test]
fn methods_differ_and_a_refit_does_not_raise_errors() {
    let workspace = Workspace::with("llama3.1-style");
    let mut seen: Vec<Vec<Value>> = Vec::new();
    for method in [
        "obs",
        "greedy",
        "policy-gradient --steps 3",
        "flap",
        "wanda-sp",
        "magnitude",
        "leverage",
    ] {
        let line = |refit: &str| {
            format!("{SHRINK} --method {method} --refit {refit} --propagate none --output x --overwrite")
        };
        let (with, without) = (workspace.json(&line("yes")), workspace.json(&line("no")));
        let errors = |report: &Value| -> Vec<f64> {
            let operators = report["operators"].as_array().unwrap().iter();
            let last = operators.filter(|o| o["name"].as_str().unwrap().ends_with("down_proj"));
            last.map(|o| o["relative_error"].as_f64().unwrap()).collect()
        };
        for (with, without) in errors(&with).iter().zip(errors(&without)) {
            assert!(*with <= without * 1.000_001, "{method}: {with} {without}");
        }
        let kept = with["kept"].as_array().unwrap().clone();
        assert!(!seen.contains(&kept), "{method} chose what another one did");
        seen.push(kept);
        if method.starts_with("policy") {
            assert_eq!(with["decision"]["curve"].as_array().unwrap().len(), 3);
        }
    }
}

#[test]
fn greedy_knows_heads_that_are_alike() {
    let workspace = Workspace::with("llama1-style");
    let report = workspace.json(&format!(
        "{SHRINK} --method greedy --units heads,mlp --similarity 0.9 --refit --output x"
    ));
    // Below that threshold all are alike, and the first stands for the three others.
    assert_eq!(report["shape"]["kv_heads"], 1);
    let line = format!(
        "{SHRINK} --method greedy --units heads,mlp --similarity 1e-9 --refit --output x --overwrite"
    );
    assert_eq!(workspace.json(&line)["shape"]["kv_heads"], 4);
}

#[test]
fn the_same_bytes_twice_killed_or_in_parts() {
    let workspace = Workspace::new();
    let run = "shrink --samples 6 --seq-len 128 --remove 0.3 --max-windows 2 --progress jsonl";
    for extra in ["--units mlp", "--units layers"] {
        let line = |name: &str| format!("{run} {extra} --output {name}");
        workspace.succeed(&line("whole"));
        let mut operators = 0;
        let (code, rest) = interrupt(&workspace, &line("killed"), Signal::KILL, |event| {
            operators += usize::from(event["event"] == "operator");
            operators == if extra == "--units mlp" { 2 } else { 1 }
        });
        assert_eq!(code, None, "{rest}");
        let report = workspace.json(&format!("{} --resume", line("killed")));
        assert!(
            report["resumed_layers"].as_u64().unwrap() >= 1 || extra == "--units layers",
            "{extra}"
        );
        same_trees(
            &weights(&workspace, "whole"),
            &weights(&workspace, "killed"),
            extra,
        );
        assert!(
            !names(&workspace.path(""))
                .iter()
                .any(|name| name.contains(".partial-")),
            "{extra}"
        );
        for folder in ["whole", "killed"] {
            std::fs::remove_dir_all(workspace.path(folder)).unwrap();
        }
    }

    let workspace = Workspace::with("llama3.1-style");
    let line = format!("{SHRINK} --propagate intra");
    workspace.succeed(&format!("{line} --output whole"));
    for part in ["1/2", "2/2"] {
        workspace.succeed(&format!("{line} --output parts --shard {part}"));
    }
    let merged = workspace.json("merge --parts parts --output merged");
    same_trees(
        &weights(&workspace, "whole"),
        &weights(&workspace, "merged"),
        "parts",
    );
    let whole = workspace.read_json("whole/pruning_report.json");
    for key in ["shape", "kept", "parameters_after", "sparsity"] {
        assert_eq!(whole[key], merged[key], "{key}");
    }
    workspace.succeed("verify --model merged --source model");
}

#[test]
fn what_a_family_does_not_allow_is_said() {
    let opt = Workspace::with("opt-125m-style");
    opt.refuse(
        &format!("{SHRINK} --units heads --output x"),
        &["--units", "OPT's attention is square", "mlp or layers"],
    );
    let llama = Workspace::with("smollm2-style");
    llama.refuse(
        "shrink --model model --calibration ids.safetensors --remove 0.9 --output x",
        &["--remove", "90 %", "at most"],
    );
    llama.refuse(
        "shrink --model model --calibration ids.safetensors --remove 0.3 --output x --shard 1/2",
        &["--shard", "intra"],
    );
    llama.refuse(
        &format!("{SHRINK} --units mlp,layers --output x"),
        &["--units", "--shape"],
    );
    llama.refuse(
        "shrink --model model --calibration ids.safetensors --remove 1.5 --output x",
        &["--remove", "between 0 and 1"],
    );
    assert!(!llama.path("x").exists());
}

#[test]
fn a_damaged_result_is_found() {
    let workspace = Workspace::with("smollm2-style");
    workspace.succeed(&format!("{SHRINK} --output small"));
    workspace.edit("small/model.safetensors", |weights| {
        weights.fill("model.layers.1.mlp.up_proj.weight", 0.5)
    });
    let found = workspace
        .run("verify --model small --source model --format json")
        .json();
    assert_eq!(found["ok"], json!(false));
    let problems = found["problems"].as_array().unwrap();
    assert!(problems.iter().any(|p| {
        p["where"]
            .as_str()
            .is_some_and(|w| w.contains("layers.1.mlp.up_proj"))
            || p.to_string().contains("layers.1.mlp.up_proj")
    }));
}
