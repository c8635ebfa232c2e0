//! A run in parts, and what is made of them.

use crate::command::{Workspace, names, same_trees, tree_of};
use serde_json::{Value, json};

const PRUNE: &str = "prune --model model --calibration ids.safetensors --sparsity 2:4";

/// All parts of `count`, in an order that nobody counts on.
fn parts(workspace: &Workspace, count: usize, extra: &str) {
    for number in (1..=count).rev() {
        workspace.succeed(&format!(
            "{PRUNE} --output parts --shard {number}/{count} {extra}"
        ));
    }
}

#[test]
fn parts_make_the_checkpoint_of_one_machine() {
    // Three layers each; one with weights in several files, one in half precision.
    for model in ["llama3.1-style", "opt-125m-style"] {
        let workspace = Workspace::with(model);
        for propagate in ["intra", "none"] {
            let extra = format!("--propagate {propagate}");
            workspace.succeed(&format!("{PRUNE} --output whole --overwrite {extra}"));
            for count in 1..=3 {
                parts(&workspace, count, &extra);
                let merged = workspace.json("merge --parts parts --output merged --overwrite");
                let what = format!("{model} {propagate} {count}");
                let weights = |folder: &str| {
                    let mut tree = tree_of(&workspace.path(folder));
                    tree.retain(|path, _| {
                        !path.starts_with("pruning_report.json") && !path.starts_with("report.html")
                    });
                    tree
                };
                same_trees(&weights("whole"), &weights("merged"), &what);
                let whole = workspace.read_json("whole/pruning_report.json");
                for key in ["settings", "calibration", "model", "sparsity"] {
                    assert_eq!(whole[key], merged[key], "{what} {key}");
                }
                let errors = |report: &Value| -> Vec<Value> {
                    let operators = report["operators"].as_array().unwrap().iter();
                    operators.map(|o| json!([o["name"], o["zeros"]])).collect()
                };
                assert_eq!(errors(&whole), errors(&merged), "{what}");
                workspace.succeed("verify --model merged --source model");
                std::fs::remove_dir_all(workspace.path("parts")).unwrap();
            }
        }
    }
}

#[test]
fn parts_that_make_no_whole_are_named() {
    let workspace = Workspace::with("smollm2-style");
    parts(&workspace, 3, "");
    let merge = "merge --parts parts --output merged";
    let refuse = |words: &[&str]| {
        let mut all = vec!["cannot be merged"];
        all.extend(words);
        workspace.refuse(merge, &all);
    };
    let at = |name: &str| workspace.path(&format!("parts/{name}"));
    let rename = |from: &str, to: &str| std::fs::rename(at(from), at(to)).unwrap();

    rename("part-002-of-003", "../aside");
    refuse(&["part 2/3 is missing"]);
    rename("../aside", "part-002-of-003");

    workspace.succeed(&format!("{PRUNE} --output parts --shard 2/2"));
    refuse(&["part-002-of-002", "one of 2", "one of 3"]);
    std::fs::remove_dir_all(at("part-002-of-002")).unwrap();

    std::fs::create_dir(at("copy")).unwrap();
    for name in names(&at("part-001-of-003")) {
        std::fs::copy(at("part-001-of-003").join(&name), at("copy").join(&name)).unwrap();
    }
    refuse(&["1/3 is there twice", "`copy`", "`part-001-of-003`"]);
    std::fs::remove_dir_all(at("copy")).unwrap();

    workspace.succeed(&format!(
        "{PRUNE} --seed 3 --output parts --shard 3/3 --overwrite"
    ));
    refuse(&["`part-003-of-003` is from another run", "settings.seed"]);
    workspace.succeed(&format!("{PRUNE} --output parts --shard 3/3 --overwrite"));

    let file = "parts/part-003-of-003/layer-0002.safetensors";
    let bytes = workspace.read(file);
    workspace.write(file, &bytes[..bytes.len() / 2]);
    refuse(&["part-003-of-003/layer-0002.safetensors", "damaged"]);
    std::fs::remove_file(workspace.path(file)).unwrap();
    refuse(&["part-003-of-003/layer-0002.safetensors", "cannot be read"]);
    workspace.write(
        file,
        &workspace.read("parts/part-002-of-003/layer-0001.safetensors"),
    );
    refuse(&[
        "part-003-of-003/layer-0002.safetensors",
        "does not hold the operators",
    ]);
    workspace.write(file, &bytes);

    workspace.copy_model("smollm2-style", "trained");
    workspace.edit("trained/model.safetensors", |weights| {
        weights.fill("model.layers.2.mlp.down_proj.weight", 0.25);
    });
    workspace.refuse(&format!("{merge} --model trained"), &["another model"]);
    workspace.write("parts/part-001-of-003/part.json", b"{}");
    refuse(&["`part-001-of-003` is no part"]);
    workspace.refuse("merge --parts model --output merged", &["there are none"]);
}

#[test]
fn what_cannot_be_a_part_is_refused() {
    let workspace = Workspace::with("smollm2-style");
    let shard = format!("{PRUNE} --output parts --shard");
    for propagate in ["full", "sequential", "refreshed", "partial"] {
        workspace.refuse(
            &format!("{shard} 1/2 --propagate {propagate}"),
            &["--shard", "input=dense"],
        );
    }
    workspace.refuse(
        &format!("{shard} 1/4"),
        &["--shard", "more than the model's 3 layers"],
    );
    workspace.refuse(
        &format!("{shard} 1/2 --eval-data ids.safetensors"),
        &["--eval-data", "merge"],
    );
    workspace.refuse(
        &format!("{PRUNE} --output model --shard 1/2"),
        &["which this command reads"],
    );
    workspace.copy_model("smollm2-style", "other");
    workspace.refuse(
        &format!("{PRUNE} --output other --shard 1/2"),
        &["no folder of parts"],
    );
    for wrong in ["0/2", "3/2", "2", "a/b"] {
        assert_eq!(workspace.run(&format!("{shard} {wrong}")).code, 2, "{wrong}");
    }
    workspace.succeed(&format!("{shard} 1/2"));
    workspace.refuse(&format!("{shard} 1/2"), &["part-001-of-002", "--overwrite"]);
}

/// A part is resumed like a whole run, and beside others.
#[test]
#[cfg(unix)]
fn a_killed_part_goes_on() {
    use crate::signals::interrupt;
    let workspace = Workspace::new();
    let run = "prune --samples 6 --seq-len 128 --preset fast --progress jsonl --output parts";
    workspace.succeed(&format!("{run} --shard 1/2"));
    workspace.succeed(&format!("{run} --shard 2/2"));
    let whole = tree_of(&workspace.path("parts/part-002-of-002"));
    std::fs::remove_dir_all(workspace.path("parts/part-002-of-002")).unwrap();
    let (code, _) = interrupt(
        &workspace,
        &format!("{run} --shard 2/2"),
        rustix::process::Signal::KILL,
        |event| event["event"] == "operator" && event["layer"] == 4,
    );
    assert_eq!(code, None);
    let report = workspace.json(&format!("{run} --shard 2/2 --resume"));
    assert_eq!(report["resumed_layers"], 1);
    let mut resumed = tree_of(&workspace.path("parts/part-002-of-002"));
    let description = std::path::Path::new("part.json");
    let mut whole = whole;
    whole.remove(description);
    resumed.remove(description);
    same_trees(&whole, &resumed, "the part");
    workspace.succeed("merge --parts parts --output merged");
}
