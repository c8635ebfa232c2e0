//! Model folders as people have them: what is read, what is said, and what an output gets.

use crate::command::Workspace;
use serde_json::json;

const PRUNE: &str = "prune --model model --output out --calibration ids.safetensors --method magnitude";
const WEIGHTS: &str = "model/model.safetensors";

/// Gives every tensor another name, or none.
fn rename(workspace: &Workspace, name: impl Fn(&str) -> Option<String>) {
    workspace.edit(WEIGHTS, |weights| {
        let before = std::mem::take(&mut weights.0);
        weights.0 = before
            .into_iter()
            .filter_map(|(old, tensor)| Some((name(&old)?, tensor)))
            .collect();
    });
}

#[test]
fn one_prefix_before_all_names_is_kept() {
    const EVAL: &str = "eval --model model --data ids.safetensors";
    for model in ["mistral-style", "opt-125m-style", "smollm2-style"] {
        let expected = Workspace::with(model).json(EVAL)["perplexity"].clone();
        for prefix in ["_orig_mod.", "module.", "model.", "module._orig_mod."] {
            let workspace = Workspace::with(model);
            rename(&workspace, |name| Some(format!("{prefix}{name}")));
            assert_eq!(workspace.json(EVAL)["perplexity"], expected, "{model} {prefix}");
            workspace.succeed(PRUNE);
            let names = |folder| workspace.weights(folder).0.into_keys().collect::<Vec<_>>();
            assert_eq!(names("out"), names("model"));
        }
    }
}

#[test]
fn names_of_another_program_are_shown() {
    let workspace = Workspace::with("mistral-style");
    rename(&workspace, |name| Some(name.replace("layers.", "blocks.")));
    workspace.refuse(
        PRUNE,
        &["model.safetensors", "`mistral`", "for example `", "hint:"],
    );
}

#[test]
fn a_model_without_a_head_is_pruned_and_not_measured() {
    let workspace = Workspace::with("mistral-style");
    rename(&workspace, |name| name.strip_prefix("model.").map(str::to_owned));
    workspace.succeed("inspect --model model");
    workspace.succeed(PRUNE);
    workspace.succeed("verify --model out --source model");
    let outcome = workspace.run("eval --model model --data ids.safetensors");
    assert_eq!(outcome.code, 1);
    assert!(
        outcome.stderr.contains("no `lm_head.weight`"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn adapters_are_named() {
    let workspace = Workspace::with("smollm2-style");
    workspace.write(
        "model/adapter_config.json",
        br#"{"peft_type": "LORA", "base_model_name_or_path": "org/base"}"#,
    );
    let weights = workspace.read(WEIGHTS);
    workspace.write("model/adapter_model.safetensors", &weights);
    let outcome = workspace.succeed(PRUNE);
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        assert!(outcome.stderr.contains(name), "{}", outcome.stderr);
        assert!(!workspace.path("out").join(name).exists());
    }
    for name in ["model.safetensors", "config.json"] {
        std::fs::remove_file(workspace.path("model").join(name)).unwrap();
        workspace.refuse(
            "inspect --model model",
            &["LoRA adapter for `org/base`", "merge it"],
        );
    }
}

#[test]
fn small_folders_beside_the_weights_are_copied() {
    let workspace = Workspace::with("smollm2-style");
    for folder in ["1_Pooling", "2_Dense", ".git", "checkpoint-10"] {
        std::fs::create_dir(workspace.path("model").join(folder)).unwrap();
        workspace.write(&format!("model/{folder}/config.json"), b"{}");
    }
    workspace.write("model/2_Dense/model.safetensors", b"");
    workspace.write("model/.journal.jsonl", b"{}\n");
    workspace.succeed(PRUNE);
    let left_out = workspace.read_json("out/pruning_report.json")["left_out"].clone();
    assert_eq!(
        left_out,
        json!([".git/", ".journal.jsonl", "2_Dense/", "checkpoint-10/"])
    );
    assert_eq!(workspace.read("out/1_Pooling/config.json"), b"{}");
    let verified = workspace.json("verify --model out --source model");
    assert!(
        verified["notes"].to_string().contains("`2_Dense/` of the source"),
        "{verified}"
    );
    std::fs::remove_file(workspace.path("out/1_Pooling/config.json")).unwrap();
    let outcome = workspace.run("verify --model out --source model");
    assert!(
        outcome.stdout.contains("WRONG      1_Pooling/config.json"),
        "{}",
        outcome.stdout
    );
    workspace.succeed(&format!("{PRUNE} --overwrite"));
}

#[test]
fn what_the_source_has_as_well_is_a_note() {
    let workspace = Workspace::with("smollm2-style");
    workspace.edit(WEIGHTS, |weights| {
        let norm = weights.0["model.norm.weight"].clone();
        weights.0.insert("v_head.weight".into(), norm);
        weights.set("v_head.weight", [1], f32::NAN);
    });
    workspace.succeed(PRUNE);
    let verified = workspace.json("verify --model out --source model");
    assert!(
        verified["notes"].to_string().contains("v_head.weight"),
        "{verified}"
    );
    assert_eq!(workspace.run("verify --model out").code, 1);
}

#[test]
fn layers_beyond_the_configuration_are_said() {
    let workspace = Workspace::with("smollm2-style");
    workspace.set_json("model/config.json", "num_hidden_layers", json!(2));
    for line in ["inspect --model model", PRUNE] {
        let outcome = workspace.succeed(line);
        assert!(
            outcome.stderr.contains("`num_hidden_layers` is 2"),
            "{}",
            outcome.stderr
        );
    }
}

#[test]
fn rotary_positions_have_no_end() {
    let line = "eval --model model --data long.safetensors";
    for model in ["smollm2-style", "llama3.1-style"] {
        let workspace = Workspace::with(model);
        workspace.set_json("model/config.json", "max_position_embeddings", json!(64));
        workspace.ids("long.safetensors", 2, 100);
        let outcome = workspace.succeed(line);
        assert!(
            outcome.stderr.contains("`max_position_embeddings` 64"),
            "{}",
            outcome.stderr
        );
    }
    let learned = Workspace::with("opt-125m-style");
    learned.ids("long.safetensors", 1, 129);
    learned.refuse(line, &["129", "128"]);
}

#[test]
fn configurations_as_python_and_editors_write_them() {
    let workspace = Workspace::with("smollm2-style");
    let config = workspace.read_json("model/config.json");
    let inspect = "inspect --model model";
    let text = config.to_string();
    let odd = format!(
        "\u{feff}{}",
        text.replacen('{', r#"{"unused": [NaN, -Infinity], "#, 1)
    );
    workspace.write("model/config.json", odd.as_bytes());
    workspace.succeed(inspect);
    workspace.succeed(PRUNE);
    workspace.write("model/config.json", text.as_bytes());
    let hidden = config["hidden_size"].as_f64().unwrap();
    workspace.set_json("model/config.json", "hidden_size", json!(hidden));
    workspace.succeed(inspect);
    for (field, value) in [
        ("hidden_size", json!("64")),
        ("hidden_size", json!(64.5)),
        ("num_hidden_layers", json!(1_000_000_000_u64)),
        ("num_hidden_layers", json!(-1)),
        ("vocab_size", json!(1e300)),
        ("num_attention_heads", json!(u64::MAX)),
    ] {
        workspace.write("model/config.json", text.as_bytes());
        workspace.set_json("model/config.json", field, value);
        workspace.refuse(inspect, &["`model/config.json`: ", field]);
    }
    let utf16: Vec<u8> = std::iter::once(0xFEFF)
        .chain(text.encode_utf16())
        .flat_map(u16::to_le_bytes)
        .collect();
    for (bytes, words) in [
        (&utf16[..], &["model/config.json", "UTF-16"][..]),
        (b"{\"a\": \"\xff\"}", &["model/config.json", "not UTF-8"]),
        (b"", &["model/config.json"]),
        (b"[]", &["model/config.json"]),
    ] {
        workspace.write("model/config.json", bytes);
        workspace.refuse(inspect, words);
    }
    std::fs::remove_file(workspace.path("model/config.json")).unwrap();
    std::fs::create_dir(workspace.path("model/config.json")).unwrap();
    workspace.refuse(inspect, &["cannot read `model/config.json`"]);
}
