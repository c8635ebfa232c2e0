//! What a command may write to, over every command and flag that writes.

use crate::command::{Outcome, Workspace, same_trees};
use std::collections::BTreeSet;
use std::path::Path;

/// How a flag writes.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// A whole folder, which takes the place of another.
    Folder,
    /// Files in a folder, beside what is there.
    Files,
    /// One file.
    File,
}

/// A command that writes to `OUT` by its last flag.
struct Writer {
    line: &'static str,
    kind: Kind,
    /// What it reads.
    inputs: &'static [&'static str],
}

const WRITERS: [Writer; 15] = [
    Writer {
        line: "prune --model model --calibration ids.safetensors --method magnitude --output OUT",
        kind: Kind::Folder,
        inputs: &["model", "ids.safetensors"],
    },
    Writer {
        line: "prune --model model --calibration ids.safetensors --eval-data more.safetensors --allocation rates.json --method \
               magnitude --output OUT",
        kind: Kind::Folder,
        inputs: &["more.safetensors", "rates.json"],
    },
    Writer {
        line: "prune --model model --calibration ids.safetensors --output new --save-statistics OUT",
        kind: Kind::Files,
        inputs: &["model", "ids.safetensors"],
    },
    Writer {
        line: "prune --model model --calibration ids.safetensors --shard 1/2 --output OUT",
        kind: Kind::Files,
        inputs: &["model", "ids.safetensors"],
    },
    Writer {
        line: "shrink --model model --calibration ids.safetensors --eval-data more.safetensors --method magnitude --output OUT",
        kind: Kind::Folder,
        inputs: &["model", "ids.safetensors", "more.safetensors"],
    },
    Writer {
        line: "merge --parts parts --model model --output OUT",
        kind: Kind::Folder,
        inputs: &["parts", "model"],
    },
    Writer {
        line: "recover --method block --model pruned --dense model --calibration ids.safetensors --output OUT",
        kind: Kind::Folder,
        inputs: &["pruned", "model", "ids.safetensors"],
    },
    Writer {
        line: "recover --method block --model pruned --dense model --calibration ids.safetensors --output new --checkpoints OUT",
        kind: Kind::Files,
        inputs: &["pruned", "model", "ids.safetensors"],
    },
    Writer {
        line: "mask export --model pruned --output OUT",
        kind: Kind::File,
        inputs: &["pruned"],
    },
    Writer {
        line: "mask apply --model model --mask mask.safetensors --output OUT",
        kind: Kind::Folder,
        inputs: &["model", "mask.safetensors"],
    },
    Writer {
        line: "pack --model pruned --output OUT",
        kind: Kind::Folder,
        inputs: &["pruned"],
    },
    Writer {
        line: "unpack --model packed --output OUT",
        kind: Kind::Folder,
        inputs: &["packed"],
    },
    Writer {
        line: "solve --statistics statistics/layer-000.safetensors --operator model.layers.0.mlp.up_proj --output OUT",
        kind: Kind::File,
        inputs: &["statistics/layer-000.safetensors"],
    },
    Writer {
        line: "report --input pruned --output OUT",
        kind: Kind::File,
        inputs: &["pruned"],
    },
    Writer {
        line: "eval --tasks rte --limit 1 --task-data tasks --log-samples OUT",
        kind: Kind::File,
        inputs: &["tasks"],
    },
];

/// All that the commands read.
fn workspace() -> Workspace {
    let workspace = Workspace::with("smollm2-style");
    workspace.ids("more.safetensors", 2, 32);
    workspace.write("rates.json", b"{\".*up_proj\": 0.25}");
    let prune = "prune --model model --calibration ids.safetensors --method magnitude --propagate none";
    workspace.succeed(&format!("{prune} --output pruned --save-statistics statistics"));
    for part in ["1/2", "2/2"] {
        workspace.succeed(&format!("{prune} --output parts --shard {part}"));
    }
    workspace.succeed("pack --model pruned --output packed");
    workspace.succeed("mask export --model pruned --output mask.safetensors");
    let tasks = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/eval/tasks");
    std::fs::create_dir(workspace.path("tasks")).unwrap();
    let rte = std::fs::read(tasks.join("rte.jsonl")).unwrap();
    workspace.write("tasks/rte.jsonl", &rte);
    workspace
}

fn to(writer: &Writer, output: &str) -> String {
    let overwrite = if writer.line.contains("--checkpoints") {
        ""
    } else {
        " --overwrite"
    };
    format!("{}{overwrite}", writer.line.replace("OUT", output))
}

#[test]
fn nothing_that_a_command_reads_is_written_over() {
    let workspace = workspace();
    for writer in &WRITERS {
        for input in writer.inputs {
            let refused = |output: &str| {
                let words = ["overlap", output, "hint:"];
                workspace.refuse(&to(writer, output), &words);
            };
            refused(input);
            if workspace.path(input).is_dir() {
                refused(&format!("{input}/new"));
                refused(&format!("./{input}/../{input}/config.json"));
            }
        }
    }
}

#[test]
#[cfg(unix)]
fn links_are_followed() {
    use std::os::unix::fs::symlink;
    let workspace = workspace();
    let before = workspace.tree();
    // Where nobody reads every file.
    let elsewhere = tempfile::tempdir().unwrap();
    let link = elsewhere.path().join("link");
    let name = link.display().to_string();
    for writer in &WRITERS {
        let input = workspace.path(writer.inputs[0]);
        let mut targets = vec![input.clone()];
        if input.is_dir() {
            targets.push(input.join("new"));
        }
        for target in targets {
            symlink(target, &link).unwrap();
            let outcome = workspace.run(&to(writer, &name));
            outcome.check_failure(writer.line, &["overlap"]);
            assert!(link.is_symlink());
            std::fs::remove_file(&link).unwrap();
        }
    }
    same_trees(&before, &workspace.tree(), "links");
    symlink("real.safetensors", &link).unwrap();
    workspace.succeed(&format!("mask export --model pruned --output {name}"));
    assert!(link.is_symlink());
    let real = std::fs::read(elsewhere.path().join("real.safetensors")).unwrap();
    assert_eq!(real, workspace.read("mask.safetensors"));
}

#[test]
fn what_is_there_stays_unless_it_is_to_be_replaced() {
    let workspace = workspace();
    workspace.write("notes.txt", b"years of work");
    std::fs::create_dir_all(workspace.path("project/src")).unwrap();
    workspace.write("project/src/main.rs", b"fn main() {}");
    // What many programs have.
    let config = std::fs::read(workspace.path("model/config.json")).unwrap();
    workspace.write("project/config.json", &config);
    let weights = workspace.weights("model");
    weights.save(&workspace.path("project/model.safetensors"));
    for writer in &WRITERS {
        let plain = writer.line.replace("OUT", "notes.txt");
        match writer.kind {
            Kind::File => {
                workspace.refuse(&plain, &["notes.txt", "exists already", "--overwrite"]);
                workspace.refuse(&to(writer, "project"), &["project", "a folder"]);
            }
            Kind::Folder => {
                workspace.refuse(&plain, &["notes.txt", "no folder"]);
                workspace.refuse(&to(writer, "notes.txt"), &["notes.txt", "no folder"]);
                workspace.refuse(&to(writer, "project"), &["project", "src", "no checkpoint has"]);
                let current = workspace.refuse(&to(writer, "."), &[]);
                assert!(current.stderr.contains("hint:"), "{}", current.stderr);
            }
            Kind::Files => {
                workspace.refuse(&to(writer, "notes.txt"), &["notes.txt", "no folder"]);
            }
        }
    }
    let statistics = "prune --model model --calibration ids.safetensors --method magnitude --output new --save-statistics statistics";
    workspace.refuse(
        statistics,
        &["statistics/layer-000.safetensors", "exists already"],
    );
    workspace.succeed("man --output pages");
    workspace.refuse("man --output pages", &["fista-pruner.1", "exists already"]);
    workspace.succeed("man --output pages --overwrite");
}

/// The list above has them all: a flag for a path to write is called one of these.
#[test]
fn every_flag_that_writes_is_tested() {
    let workspace = Workspace::new();
    let known = ["--output", "--save-statistics", "--checkpoints", "--log-samples"];
    let mut found = BTreeSet::new();
    let help = workspace.succeed("--help").stdout;
    let commands = help.lines().filter_map(|line| {
        let name = line.strip_prefix("  ")?.split_whitespace().next()?;
        line.chars().nth(2).filter(char::is_ascii_lowercase)?;
        Some(name.to_owned())
    });
    let mut commands: BTreeSet<String> = commands.collect();
    assert!(
        commands.contains("prune") && commands.contains("eval"),
        "{commands:?}"
    );
    commands.remove("mask");
    commands.extend(["mask export".to_owned(), "mask apply".to_owned()]);
    for command in &commands {
        let outcome = Outcome::of(workspace.command(&format!("{command} --help")));
        for flag in known {
            if outcome.stdout.contains(&format!("{flag} <")) {
                found.insert((command.clone(), flag));
            }
        }
    }
    let mut tested: BTreeSet<(String, &str)> = WRITERS
        .iter()
        .map(|writer| {
            let words: Vec<&str> = writer.line.split_whitespace().collect();
            let flag = words[words.len() - 2];
            let command = match words[0] {
                "mask" => words[..2].join(" "),
                other => other.to_owned(),
            };
            (command, known.into_iter().find(|known| *known == flag).unwrap())
        })
        .collect();
    // Their own tests.
    tested.insert(("man".into(), "--output"));
    assert_eq!(found, tested);
}

/// What is no file is written to, and stays what it is.
#[test]
#[cfg(unix)]
fn pipes_and_devices() {
    use std::os::unix::fs::FileTypeExt;
    let workspace = workspace();
    // Where nobody reads every file.
    let elsewhere = tempfile::tempdir().unwrap();
    let pipe = elsewhere.path().join("pipe");
    let is_pipe = || std::fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo();
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let name = pipe.display();
    let log = "eval --tasks rte --limit 1 --task-data tasks --log-samples";
    for line in [log, "report --input pruned --output"] {
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || std::fs::read(pipe).unwrap()
        });
        workspace.succeed(&format!("{line} {name}"));
        assert!(reader.join().unwrap().len() > 100, "{line}");
        assert!(is_pipe());
        workspace.succeed(&format!("{line} /dev/null"));
    }
    let before = workspace.tree();
    for line in [
        "mask export --model pruned --output",
        "pack --model pruned --output",
    ] {
        let outcome = workspace.run(&format!("{line} {name} --overwrite"));
        outcome.check_failure(line, &["pipe", "hint:"]);
        assert!(is_pipe());
    }
    same_trees(&before, &workspace.tree(), "pipes");
    let stdout = workspace
        .succeed(&format!("{log} /dev/stdout --format json"))
        .stdout;
    assert!(stdout.starts_with('{') && stdout.contains("\"task\""), "{stdout}");
}

/// A folder that a killed run has left is spoken of, one of a living run is not.
#[test]
fn what_an_earlier_run_has_left_is_mentioned() {
    let workspace = workspace();
    std::fs::create_dir(workspace.path("out.partial-abcdef")).unwrap();
    let outcome = workspace.succeed("pack --model pruned --output out");
    assert!(
        outcome.stderr.contains("out.partial-abcdef") && outcome.stderr.contains("--resume"),
        "{}",
        outcome.stderr
    );
    assert!(workspace.path("out.partial-abcdef").is_dir());
}

/// Magnitudes need no text.
#[test]
fn magnitude_pruning_without_text() {
    let workspace = Workspace::with("smollm2-style");
    let line = "prune --model model --method magnitude --refit-steps 0";
    let report = workspace.json(&format!("{line} --output out"));
    assert_eq!(report["calibration"]["windows"], 0);
    workspace.succeed(&format!(
        "{line} --calibration ids.safetensors --propagate none --output with"
    ));
    let (out, with) = (workspace.weights("out"), workspace.weights("with"));
    assert!(out.0 == with.0);
    for operator in report["operators"].as_array().unwrap() {
        let error = operator["relative_error"].as_f64().unwrap();
        assert!(error > 0.0 && error < 1.0, "{operator}");
    }
    workspace.json(&format!("{line} --output planned --dry-run"));
    workspace.succeed("verify --model out --source model");
    workspace.refuse("prune --model model --output x", &["--calibration"]);
    workspace.refuse(&format!("{line} --allocation owl --output x"), &["--calibration"]);
    workspace.refuse(
        &format!("{line} --output x --save-statistics y"),
        &["--calibration"],
    );
}

/// Rates stay legal to the end of the scale.
#[test]
fn allocations_at_every_sparsity() {
    let workspace = Workspace::with("smollm2-style");
    for (allocation, sparsity) in [
        ("owl", 0.0),
        ("owl", 0.92),
        ("owl", 0.95),
        ("owl", 0.9999),
        ("error", 0.0),
        ("error", 0.95),
        ("error", 0.999),
        ("kl", 0.0),
        ("kl", 0.95),
        ("kl", 0.9999),
        ("uniform", 0.9999999),
    ] {
        let line = format!(
            "prune --model model --calibration ids.safetensors --method magnitude --allocation {allocation} --sparsity \
             {sparsity} --overwrite"
        );
        let report = workspace.json(&format!("{line} --output out"));
        let operators = report["operators"].as_array().unwrap();
        let number = |operator: &serde_json::Value, key: &str| operator[key].as_u64().unwrap();
        let zeros: u64 = operators.iter().map(|o| number(o, "zeros")).sum();
        let (mut wanted, mut meant) = (0, 0);
        for operator in operators {
            let size = operator["shape"][0].as_u64().unwrap() * operator["shape"][1].as_u64().unwrap();
            wanted += (((sparsity * size as f64) + 1e-6).floor() as u64).min(size - 1);
            let rate: f64 = operator["pattern"].as_str().unwrap().parse().unwrap();
            assert!((0.0..1.0).contains(&rate), "{operator}");
            meant += (((rate * size as f64) + 1e-6).floor() as u64).min(size - 1);
        }
        assert!(
            zeros >= wanted && meant == wanted,
            "{allocation} {sparsity}: {zeros} {meant} {wanted}"
        );
        for part in ["1/2", "2/2"] {
            workspace.succeed(&format!("{line} --output parts --shard {part}"));
        }
        let merged = workspace.json("merge --parts parts --output merged --overwrite");
        let patterns = |report: &serde_json::Value| -> Vec<serde_json::Value> {
            let operators = report["operators"].as_array().unwrap().iter();
            operators.map(|o| o["pattern"].clone()).collect()
        };
        assert_eq!(patterns(&merged), patterns(&report));
        assert!(workspace.weights("out").0 == workspace.weights("merged").0);
        std::fs::remove_dir_all(workspace.path("parts")).unwrap();
    }
    workspace.refuse(
        "prune --model model --calibration ids.safetensors --allocation owl --sparsity 2:4 --output x",
        &["--allocation", "2:4"],
    );
}
