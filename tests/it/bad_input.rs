//! Input that cannot be used: exit code 1, a message that names what is wrong, nothing on stdout, nothing left behind.

use crate::command::{Outcome, Workspace, same_trees, tree_of};
use serde_json::json;
use std::process::Command;

/// A run on the checkpoint `model` that no good input fails.
const PRUNE: &str = "prune --model model --output out --calibration ids.safetensors --method magnitude";

/// The single weight file of a small checkpoint.
const WEIGHTS: &str = "model/model.safetensors";

/// Whoever opens a damaged checkpoint is told the same.
fn every_command_refuses(workspace: &Workspace, words: &[&str]) {
    for line in [
        PRUNE,
        "prune --model model --output out --calibration ids.safetensors --dry-run",
        "eval --model model --data ids.safetensors",
        "inspect --model model",
        "generate --model model --prompt x",
    ] {
        workspace.refuse(line, words);
    }
}

#[test]
fn a_model_folder_that_does_not_exist() {
    every_command_refuses(&Workspace::new(), &["no model folder", "`model`", "hint:"]);
}

#[test]
fn no_config() {
    let workspace = Workspace::with("smollm2-style");
    std::fs::remove_file(workspace.path("model/config.json")).unwrap();
    every_command_refuses(&workspace, &["`model`", "config.json", "hint:"]);
}

#[test]
fn a_config_that_is_no_json() {
    let workspace = Workspace::with("smollm2-style");
    workspace.write("model/config.json", b"{\"model_type\": \"llama\"");
    every_command_refuses(&workspace, &["config.json"]);
}

#[test]
fn an_unknown_architecture() {
    let workspace = Workspace::with("smollm2-style");
    workspace.set_json("model/config.json", "model_type", json!("mamba"));
    every_command_refuses(&workspace, &["model_type", "`mamba`", "opt", "llama"]);
}

#[test]
fn no_weights() {
    let workspace = Workspace::with("smollm2-style");
    std::fs::remove_file(workspace.path(WEIGHTS)).unwrap();
    every_command_refuses(
        &workspace,
        &["`model`", "no weights", "model.safetensors", "hint:"],
    );
}

#[test]
fn a_missing_shard() {
    let workspace = Workspace::with("llama1-style");
    std::fs::remove_file(workspace.path("model/model-00002-of-00004.safetensors")).unwrap();
    every_command_refuses(
        &workspace,
        &["model-00002-of-00004.safetensors", "missing", "hint:"],
    );
}

#[test]
fn a_truncated_shard() {
    let workspace = Workspace::with("llama1-style");
    let name = "model/model-00003-of-00004.safetensors";
    let bytes = workspace.read(name);
    // In its numbers, in its header, and in the length of the header.
    for length in [bytes.len() - 1, 200, 4] {
        workspace.write(name, &bytes[..length]);
        every_command_refuses(&workspace, &["model-00003-of-00004.safetensors", "hint:"]);
    }
    workspace.write(name, &bytes[..bytes.len() - 1]);
    let size = bytes.len().to_string();
    every_command_refuses(&workspace, &["truncated", &size]);
}

#[test]
fn a_git_lfs_pointer() {
    let workspace = Workspace::with("smollm2-style");
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 600000\n";
    workspace.write(WEIGHTS, pointer.as_bytes());
    every_command_refuses(&workspace, &["model.safetensors", "LFS", "hint:", "git lfs pull"]);
}

#[test]
fn an_index_that_names_a_tensor_which_is_not_there() {
    let workspace = Workspace::with("llama1-style");
    let index = "model/model.safetensors.index.json";
    let mut map = workspace.read_json(index)["weight_map"].take();
    map["model.layers.7.mlp.up_proj.weight"] = json!("model-00001-of-00004.safetensors");
    workspace.set_json(index, "weight_map", map);
    every_command_refuses(
        &workspace,
        &[
            "`model.layers.7.mlp.up_proj.weight`",
            "model-00001-of-00004.safetensors",
            "hint:",
        ],
    );
}

#[test]
fn an_index_that_leaves_the_folder() {
    let workspace = Workspace::with("llama1-style");
    let index = "model/model.safetensors.index.json";
    let mut map = workspace.read_json(index)["weight_map"].take();
    map["model.norm.weight"] = json!("../ids.safetensors");
    workspace.set_json(index, "weight_map", map);
    every_command_refuses(&workspace, &["index.json", "`../ids.safetensors`", "hint:"]);
}

#[test]
fn a_tensor_that_is_missing() {
    let workspace = Workspace::with("smollm2-style");
    let name = "model.layers.2.mlp.up_proj.weight";
    workspace.edit(WEIGHTS, |weights| {
        weights.0.remove(name).unwrap();
    });
    every_command_refuses(&workspace, &["`model.layers.2.mlp.up_proj.weight`", "hint:"]);
}

#[test]
fn a_wrong_shape() {
    let workspace = Workspace::with("smollm2-style");
    workspace.edit(WEIGHTS, |weights| {
        let (_, shape, _) = weights
            .0
            .get_mut("model.layers.1.self_attn.k_proj.weight")
            .unwrap();
        shape.reverse();
    });
    every_command_refuses(
        &workspace,
        &[
            "`model.layers.1.self_attn.k_proj.weight`",
            "model.safetensors",
            "[64, 32]",
            "[32, 64]",
            "hint:",
        ],
    );
}

#[test]
fn a_weight_that_is_not_a_number() {
    let workspace = Workspace::with("smollm2-style");
    let name = "model.layers.2.mlp.down_proj.weight";
    for value in [f32::NAN, f32::INFINITY] {
        workspace.edit(WEIGHTS, |weights| weights.set(name, [77], value));
        let words = ["`model.layers.2.mlp.down_proj.weight`", "finite", "77", "hint:"];
        for line in [
            PRUNE,
            "eval --model model --data ids.safetensors",
            "inspect --model model",
        ] {
            workspace.refuse(line, &words);
        }
    }
}

/// Finite weights whose activations are not: the message names the first operator that would see them.
#[test]
fn an_activation_that_overflows() {
    for method in ["fista", "sparsegpt", "wanda", "magnitude"] {
        let workspace = Workspace::with("smollm2-style");
        workspace.edit(WEIGHTS, |weights| {
            weights.fill("model.layers.1.mlp.up_proj.weight", 3e38)
        });
        let line = format!("{PRUNE} --targets down_proj").replace("magnitude", method);
        workspace.refuse(
            &line,
            &["`model.layers.1.mlp.down_proj`", "activation", "finite", "hint:"],
        );
    }
    let workspace = Workspace::with("smollm2-style");
    workspace.edit(WEIGHTS, |weights| {
        weights.fill("model.layers.1.mlp.up_proj.weight", 3e38)
    });
    workspace.refuse("eval --model model --data ids.safetensors", &["finite"]);
}

/// The same, where the operator with the large weights is itself pruned.
#[test]
fn an_operator_whose_output_overflows() {
    for method in ["fista", "sparsegpt", "wanda", "magnitude"] {
        let workspace = Workspace::with("smollm2-style");
        workspace.edit(WEIGHTS, |weights| {
            weights.fill("model.layers.1.mlp.up_proj.weight", 3e38)
        });
        let line = format!("{PRUNE} --targets layers.1.mlp.up_proj").replace("magnitude", method);
        workspace.refuse(&line, &["`model.layers.1.mlp.up_proj`", "finite"]);
    }
}

#[test]
fn a_hostile_pickle() {
    let workspace = Workspace::with("smollm2-style");
    std::fs::remove_file(workspace.path(WEIGHTS)).unwrap();
    let hostile = std::fs::read(crate::common::fixture("torch/hostile.bin")).unwrap();
    workspace.write("model/pytorch_model.bin", &hostile);
    // Were it executed, it would touch a file in the current folder, and `refuse` would see it.
    every_command_refuses(&workspace, &["pytorch_model.bin", "`posix.system`", "hint:"]);
}

#[test]
fn no_tokenizer() {
    let workspace = Workspace::with("smollm2-style");
    workspace.write("text.txt", b"Once upon a time");
    for line in [
        "prune --model model --output out --calibration text.txt",
        "prune --model model --output out --calibration demo",
        "eval --model model --data text.txt",
        "eval --model model",
        "generate --model model --prompt x",
    ] {
        workspace.refuse(line, &["`model`", "tokenizer.json", "hint:"]);
    }
}

#[test]
fn a_tokenizer_of_another_model() {
    let workspace = Workspace::with("smollm2-style");
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/demo/opt-mini/tokenizer.json");
    workspace.write("model/tokenizer.json", &std::fs::read(demo).unwrap());
    for line in [
        "prune --model model --output out --calibration demo",
        "eval --model model",
        "generate --model model --prompt Once",
    ] {
        workspace.refuse(line, &["whose id is", "320 embeddings", "hint:"]);
    }
}

#[test]
fn a_tokenizer_that_is_damaged() {
    let workspace = Workspace::with("smollm2-style");
    workspace.write("model/tokenizer.json", b"{}");
    workspace.refuse("eval --model model", &["tokenizer.json", "hint:"]);
}

#[test]
fn token_ids_that_cannot_be_used() {
    let workspace = Workspace::with("smollm2-style");
    let refuse = |file: &str, words: &[&str]| {
        let prune = PRUNE.replace("ids.safetensors", file);
        workspace.refuse(&prune, words);
        workspace.refuse(&format!("eval --model model --data {file}"), words);
    };
    refuse("nothing.safetensors", &["nothing.safetensors"]);
    workspace.given_ids("large.safetensors", [2, 2], &[0, 319, 320, 1]);
    refuse("large.safetensors", &["large.safetensors", "320", "hint:"]);
    workspace.given_ids("negative.safetensors", [1, 2], &[0, -1]);
    refuse("negative.safetensors", &["negative.safetensors", "-1", "hint:"]);
    workspace.given_ids("empty.safetensors", [0, 32], &[]);
    refuse("empty.safetensors", &["empty.safetensors", "hint:"]);
    workspace.write("short.safetensors", b"\x40\0\0\0\0\0\0\0{");
    refuse("short.safetensors", &["short.safetensors"]);
    std::fs::copy(workspace.path(WEIGHTS), workspace.path("weights.safetensors")).unwrap();
    refuse(
        "weights.safetensors",
        &["weights.safetensors", "input_ids", "hint:"],
    );
    workspace.ids("one.safetensors", 4, 1);
    refuse("one.safetensors", &["1 is not between 2 and 128"]);
}

#[test]
fn text_that_cannot_be_used() {
    let workspace = Workspace::new();
    let refuse = |line: &str, words: &[&str]| {
        workspace.refuse(&format!("prune --output out --method magnitude {line}"), words);
    };
    refuse("--calibration nothing.txt", &["nothing.txt"]);
    workspace.write("empty.txt", b" \n\n");
    refuse("--calibration empty.txt", &["empty.txt", "no text"]);
    workspace.write("latin1.txt", b"caf\xe9 au lait\n");
    refuse(
        "--calibration latin1.txt",
        &["latin1.txt", "UTF-8", "line 1", "hint:"],
    );
    workspace.write("lines.jsonl", b"{\"text\": \"x\"}\n{\"body\": \"y\"}\n");
    refuse(
        "--calibration lines.jsonl",
        &["lines.jsonl", "line 2", "`text`", "hint:"],
    );
    workspace.write("damaged.txt.gz", b"\x1f\x8b\x08\0 no gzip at all");
    refuse("--calibration damaged.txt.gz", &["damaged.txt.gz"]);
    // Ten tokens or so; the message says how many there are and how many are needed.
    workspace.write(
        "short.txt",
        b"Once upon a time there was a girl.\n\nShe ran home.\n",
    );
    refuse(
        "--calibration short.txt --draw documents",
        &["short.txt", "512", "tokens", "hint:", "--seq-len"],
    );
    refuse(
        "--calibration short.txt",
        &["short.txt", "513", "tokens", "hint:", "--seq-len"],
    );
    refuse(
        "--calibration short.txt ids.safetensors",
        &["ids.safetensors", "mixed"],
    );
    workspace.refuse("eval --data short.txt", &["short.txt", "512", "tokens", "hint:"]);
    workspace.refuse("eval --data empty.txt", &["empty.txt", "no text"]);
}

#[test]
fn no_calibration_data_for_a_model_of_ones_own() {
    let workspace = Workspace::with("smollm2-style");
    workspace.refuse("prune --model model --output out", &["--calibration"]);
}

#[test]
fn windows_longer_than_the_model() {
    let workspace = Workspace::new();
    for line in ["prune --output out --seq-len 513", "eval --seq-len 513"] {
        workspace.refuse(line, &["--seq-len", "513", "512"]);
    }
    for line in ["prune --output out --seq-len 1", "eval --seq-len 1"] {
        workspace.refuse(line, &["--seq-len"]);
    }
    workspace.refuse("prune --output out --samples 0", &["--samples"]);
}

#[test]
fn no_windows_at_all() {
    let workspace = Workspace::with("smollm2-style");
    workspace.refuse("eval --max-windows 0", &["--eval-samples"]);
    workspace.refuse(
        "eval --max-windows 0 --model model --data ids.safetensors",
        &["--eval-samples"],
    );
}

#[test]
fn a_pattern_that_does_not_divide_the_inputs() {
    let workspace = Workspace::with("smollm2-style");
    // 64 inputs everywhere but in down_proj, which has 160.
    let down = [
        "`model.layers.0.mlp.down_proj`",
        "160",
        "32:64",
        "hint:",
        "--ignore",
    ];
    workspace.refuse(&format!("{PRUNE} --sparsity 32:64"), &down);
    workspace.refuse(&format!("{PRUNE} --sparsity 32:64 --dry-run"), &down);
    workspace.refuse(
        &format!("{PRUNE} --sparsity 2:5"),
        &["`model.layers.0.self_attn.q_proj`", "64", "2:5", "hint:"],
    );
    workspace.succeed(&format!("{PRUNE} --sparsity 32:64 --ignore down_proj"));
}

#[test]
fn settings_out_of_their_range() {
    let workspace = Workspace::with("smollm2-style");
    for (setting, value) in [
        ("--iterations", "0"),
        ("--patience", "0"),
        ("--xi", "1.5"),
        ("--lambda", "1e9"),
        ("--lambda", "nan"),
        ("--lambda-max", "0"),
        ("--epsilon=-1", ""),
        ("--tolerance=-1", ""),
        ("--block", "0"),
        ("--damping", "0"),
    ] {
        let name = setting.split('=').next().unwrap();
        workspace.refuse(&format!("{PRUNE} {setting} {value}"), &[name]);
    }
    workspace.refuse(
        &format!("{PRUNE} --targets nothing"),
        &["--targets", "no operator"],
    );
    workspace.refuse(&format!("{PRUNE} --ignore ."), &["--ignore", "no operator"]);
}

#[test]
fn a_device_that_was_not_compiled_in() {
    let absent = [
        ("cuda", cfg!(feature = "cuda")),
        ("rocm", cfg!(feature = "rocm")),
        ("wgpu", cfg!(feature = "wgpu")),
        ("ndarray", cfg!(feature = "ndarray")),
    ]
    .into_iter()
    .find(|(_, compiled)| !compiled);
    let Some((device, _)) = absent else {
        return skipped("every device is compiled in");
    };
    let workspace = Workspace::with("smollm2-style");
    for line in [
        PRUNE,
        "eval --model model --data ids.safetensors",
        "generate --prompt x",
    ] {
        workspace.refuse(
            &format!("{line} --device {device}"),
            &[device, "feature", "hint:", "--features"],
        );
    }
}

#[test]
fn an_output_that_exists() {
    let workspace = Workspace::with("smollm2-style");
    workspace.succeed(PRUNE);
    workspace.refuse(PRUNE, &["out", "exists", "hint:", "--overwrite"]);
    // A run that fails in its last layer, after two layers were written.
    let good = workspace.read(WEIGHTS);
    workspace.edit(WEIGHTS, |weights| {
        weights.set("model.layers.2.mlp.down_proj.weight", [0], f32::NAN)
    });
    workspace.refuse(&format!("{PRUNE} --overwrite"), &["model.layers.2.mlp.down_proj"]);
    workspace.write(WEIGHTS, &good);
    let earlier = workspace.read("out/model.safetensors");
    workspace.succeed(&format!("{PRUNE} --overwrite --sparsity 0.8"));
    assert_ne!(workspace.read("out/model.safetensors"), earlier);
    assert_eq!(
        workspace.read_json("out/pruning_report.json")["settings"]["sparsity"],
        "0.8"
    );
    assert_eq!(
        crate::command::names(&workspace.path("")),
        ["ids.safetensors", "model", "out", "tmp"]
    );
}

#[test]
fn an_output_that_is_not_a_checkpoint_is_never_replaced() {
    let workspace = Workspace::with("smollm2-style");
    std::fs::create_dir(workspace.path("out")).unwrap();
    workspace.write("out/thesis.tex", b"years of work");
    let line = format!("{PRUNE} --overwrite");
    workspace.refuse(&line, &["out", "no config.json of a model", "hint:"]);
    workspace.refuse(
        &line.replace("--output out", "--output model"),
        &["model", "overlap", "hint:"],
    );
    workspace.refuse(
        &line.replace("--output out", "--output model/pruned"),
        &["overlap", "hint:"],
    );
    workspace.refuse(
        &line.replace("--output out", "--output ids.safetensors"),
        &["ids.safetensors"],
    );
}

/// Were the statistics inside the output, the output would exist before it is finished.
#[test]
fn statistics_inside_the_output() {
    let workspace = Workspace::with("smollm2-style");
    for folder in ["out", "out/statistics", "./out/s"] {
        workspace.refuse(
            &format!("{PRUNE} --save-statistics {folder}"),
            &["--save-statistics", "--output"],
        );
    }
}

#[test]
fn an_output_that_cannot_be_made() {
    let workspace = Workspace::with("smollm2-style");
    let below_a_file = PRUNE.replace("--output out", "--output ids.safetensors/out");
    workspace.refuse(&below_a_file, &["ids.safetensors"]);
    // Where root may not write either.
    if cfg!(target_os = "linux") {
        workspace.refuse(&PRUNE.replace("--output out", "--output /proc/out"), &["/proc"]);
        workspace.refuse(
            &PRUNE.replace("--output out", "--output /proc/new/out"),
            &["/proc/new"],
        );
    }
}

/// Parents that the run made itself go with it.
#[test]
fn a_failing_run_removes_the_parents_that_it_made() {
    let workspace = Workspace::with("smollm2-style");
    workspace.edit(WEIGHTS, |weights| {
        weights.set("model.layers.2.mlp.down_proj.weight", [0], f32::NAN)
    });
    let line = PRUNE.replace("--output out", "--output some/where/out");
    workspace.refuse(&line, &["model.layers.2.mlp.down_proj"]);
}

/// A limit on the size of files fails a write in the middle, for root too.
#[cfg(unix)]
#[test]
fn a_write_that_fails() {
    let workspace = Workspace::with("smollm2-style");
    let before = workspace.tree();
    let mut shell = Command::new("sh");
    // In blocks of 512 or 1024 bytes: above the report, below the weights.
    let script = "trap '' XFSZ; ulimit -f 200; exec \"$0\" \"$@\"";
    shell.args(["-c", script, env!("CARGO_BIN_EXE_fista-pruner")]);
    shell.args(PRUNE.split_whitespace());
    workspace.prepare(&mut shell);
    let outcome = Outcome::of(shell);
    outcome.check_failure(
        "a limited file size",
        &["cannot write", "model.safetensors", "large"],
    );
    same_trees(&before, &workspace.tree(), "a limited file size");
}

/// A file system of 300 kB in a mount namespace of its own; where none can be made, says so.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk() {
    let workspace = Workspace::with("smollm2-style");
    std::fs::create_dir(workspace.path("disk")).unwrap();
    let in_namespace = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]);
        command.arg(env!("CARGO_BIN_EXE_fista-pruner"));
        command.args(
            PRUNE
                .replace("--output out", "--output disk/out")
                .split_whitespace(),
        );
        workspace.prepare(&mut command);
        command
    };
    let mount = "mount -t tmpfs -o size=300k none disk";
    match in_namespace(mount).output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => return skipped(String::from_utf8_lossy(&output.stderr).trim()),
        Err(error) => return skipped(&format!("unshare: {error}")),
    }
    // The last line of stderr is what is left on the full disk: nothing.
    let script = format!("{mount} && \"$0\" \"$@\"; code=$?; echo \"left: $(ls -A disk)\" >&2; exit $code");
    let outcome = Outcome::of(in_namespace(&script));
    outcome.check_failure("a full disk", &["cannot write", "model.safetensors", "space"]);
    assert!(outcome.stderr.ends_with("left: \n"), "{}", outcome.stderr);
    assert!(tree_of(&workspace.path("disk")).is_empty());
}

/// A test that could not be done is not one that passed in silence.
fn skipped(why: &str) {
    use std::io::Write;
    // Past the capture of the test harness, so that it is seen.
    let _ = writeln!(std::io::stderr().lock(), "SKIPPED: {why}");
}

/// The wording, where it matters most: what everybody meets first.
#[test]
fn the_wording_of_common_mistakes() {
    let workspace = Workspace::with("llama1-style");
    insta::assert_snapshot!(workspace.transcript("prune --model modle --output out"), @r"
    exit code 1
    ----- stdout
    ----- stderr
    error: there is no model folder `modle`
    hint: give the path of a folder in Hugging Face layout (config.json and weights), or a model of the hub as ORG/NAME
    ");
    insta::assert_snapshot!(workspace.transcript(&format!("{PRUNE} --sparsity 32:64")), @r"
    exit code 1
    ----- stdout
    ----- stderr
    error: `model.layers.0.mlp.down_proj` has 160 inputs, which 32:64 does not divide
    hint: leave the operator out with --ignore, or choose an m that divides its inputs
    ");
    insta::assert_snapshot!(workspace.transcript("prune --model model --output out --calibration demo"), @r"
    exit code 1
    ----- stdout
    ----- stderr
    error: `model` has no tokenizer.json; it has no tokenizer file at all
    hint: copy tokenizer.json from where the model came from
    ");
    insta::assert_snapshot!(workspace.transcript("prune --model model --output model --calibration ids.safetensors"), @r"
    exit code 1
    ----- stdout
    ----- stderr
    error: the output `model` overlaps with `[ROOT]/model`, which this command reads
    hint: choose a path outside of everything that the command reads
    ");
    std::fs::remove_file(workspace.path("model/model-00002-of-00004.safetensors")).unwrap();
    insta::assert_snapshot!(workspace.transcript(PRUNE), @r"
    exit code 1
    ----- stdout
    ----- stderr
    error: the shard `model/model-00002-of-00004.safetensors` is missing; `model.layers.0.input_layernorm.weight` should be in it
    hint: the download or copy is incomplete; fetch the file again
    ");
}

/// What clap refuses is exit code 2, on stderr.
#[test]
fn usage_errors() {
    let workspace = Workspace::new();
    for (line, word) in [
        ("", "Usage"),
        ("polish", "polish"),
        ("prune", "--output"),
        ("prune --output out --sparsity 2:2", "2:2"),
        ("prune --output out --sparsity 1", "--sparsity"),
        ("prune --output out --sparsity half", "half"),
        ("prune --output out --method obs", "obs"),
        ("prune --output out --warm-start cold", "cold"),
        ("prune --output out --propagate input=sparse", "input=sparse"),
        ("prune --output out --targets (", "--targets"),
        ("prune --output out --samples many", "--samples"),
        ("prune --output out --device gpu", "gpu"),
        ("prune --output out --format xml", "xml"),
        ("prune --output out --no-such-flag", "--no-such-flag"),
        ("solve --statistics x", "--operator"),
        ("generate", "--prompt"),
    ] {
        let outcome = workspace.run(line);
        assert_eq!((outcome.code, &*outcome.stdout), (2, ""), "{line}\n{outcome:#?}");
        assert!(outcome.stderr.contains(word), "{line}\n{}", outcome.stderr);
    }
    assert_eq!(workspace.run("--help").code, 0);
    let version = format!("fista-pruner {}", env!("CARGO_PKG_VERSION"));
    assert_eq!(workspace.succeed("-V").stdout, format!("{version}\n"));
    let long = workspace.succeed("--version").stdout;
    assert!(long.starts_with(&format!("{version} (")), "{long}");
    assert_eq!(long.contains("x86-v4"), cfg!(feature = "x86-v4"), "{long}");
    assert_eq!(long.lines().count(), 1, "{long}");
    for command in ["prune", "eval", "inspect", "generate", "solve"] {
        assert!(
            workspace
                .succeed(&format!("{command} --help"))
                .stdout
                .contains("--device")
        );
    }
}
