//! Runs that were killed, and what goes on with them.

use crate::command::{Tree, Workspace, names, same_trees, tree_of};
use crate::signals::{in_the_second_layer, interrupt, tell};
use rustix::process::Signal;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

/// A run of the demo model that takes some seconds.
const RUN: &str = "prune --samples 6 --seq-len 128 --preset fast --max-windows 2 --progress jsonl";

/// What lies in a folder, without what tells of times and paths.
fn weights_in(workspace: &Workspace, folder: &str) -> Tree {
    let mut tree = tree_of(&workspace.path(folder));
    tree.retain(|path, _| {
        path.to_string_lossy() != "pruning_report.json" && path.to_string_lossy() != "report.html"
    });
    tree
}

/// Folders under construction of the output `name`.
fn unfinished(workspace: &Workspace, name: &str) -> Vec<String> {
    let prefix = format!("{name}.partial-");
    let mut found = names(&workspace.path(""));
    found.retain(|entry| entry.starts_with(&prefix));
    found
}

fn kill(workspace: &Workspace, line: &str) {
    let (code, rest) = interrupt(workspace, line, Signal::KILL, in_the_second_layer);
    assert_eq!(code, None, "{line}\n{rest}");
}

/// A report without what depends on the clock.
fn timeless(mut report: Value) -> Value {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for key in [
                    "seconds",
                    "stage_seconds",
                    "layer_seconds",
                    "peak_host_bytes",
                    "output",
                    "resumed_layers",
                ] {
                    fields.remove(key);
                }
                fields.values_mut().for_each(strip);
            }
            Value::Array(values) => values.iter_mut().for_each(strip),
            _ => {}
        }
    }
    strip(&mut report);
    report
}

#[test]
fn a_killed_run_ends_in_the_same_bytes() {
    let workspace = Workspace::new();
    for (propagate, statistics) in [("intra", true), ("full", false), ("sequential", false)] {
        let line = |name: &str| {
            let saved = if statistics {
                format!("--save-statistics {name}-saved")
            } else {
                String::new()
            };
            format!("{RUN} --propagate {propagate} --output {name} {saved}")
        };
        workspace.succeed(&line("whole"));
        // Killed twice: the run that goes on can be gone on with.
        kill(&workspace, &line("killed"));
        assert_eq!(unfinished(&workspace, "killed").len(), 1);
        let (code, rest) = interrupt(
            &workspace,
            &format!("{} --resume", line("killed")),
            Signal::KILL,
            |event| event["event"] == "operator" && event["layer"] == 3,
        );
        assert_eq!(code, None, "{rest}");
        assert!(!workspace.path("killed").exists());
        let report = workspace.json(&format!("{} --resume", line("killed")));
        assert!(report["resumed_layers"].as_u64().unwrap() >= 2, "{propagate}");
        assert_eq!(report["operators"].as_array().unwrap().len(), 36, "{propagate}");
        same_trees(
            &weights_in(&workspace, "whole"),
            &weights_in(&workspace, "killed"),
            propagate,
        );
        let whole = workspace.read_json("whole/pruning_report.json");
        let killed = workspace.read_json("killed/pruning_report.json");
        assert_eq!(timeless(whole), timeless(killed), "{propagate}");
        if statistics {
            let saved = |name: &str| tree_of(&workspace.path(&format!("{name}-saved")));
            same_trees(&saved("whole"), &saved("killed"), propagate);
        }
        assert!(unfinished(&workspace, "killed").is_empty());
        for folder in ["whole", "killed", "whole-saved", "killed-saved"] {
            let _ = std::fs::remove_dir_all(workspace.path(folder));
        }
    }
}

#[test]
fn zeros_that_were_spread_by_measured_errors_stay_where_they_are() {
    let workspace = Workspace::new();
    for rule in ["owl", "kl"] {
        let line = |name: &str| format!("{RUN} --allocation {rule} --output {rule}-{name}");
        workspace.succeed(&line("whole"));
        // Passes that measure come before the one that is kept.
        let (mut stages, mut layers) = (0, 0);
        let (code, _) = interrupt(&workspace, &line("killed"), Signal::KILL, |event| {
            stages += usize::from(event["event"] == "stage");
            let last = stages == if rule == "kl" { 3 } else { 2 };
            layers += usize::from(last && event["event"] == "operator" && event["layer"] == 1);
            layers > 0
        });
        assert_eq!(code, None);
        workspace.succeed(&format!("{} --resume", line("killed")));
        same_trees(
            &weights_in(&workspace, &format!("{rule}-whole")),
            &weights_in(&workspace, &format!("{rule}-killed")),
            rule,
        );
        let tried = |name: &str| {
            workspace.read_json(&format!("{rule}-{name}/pruning_report.json"))["tried_allocations"].clone()
        };
        assert_eq!(tried("whole"), tried("killed"), "{rule}");
        assert_eq!(tried("whole").is_array(), rule == "kl");
    }
}

/// Of a search for structures no step is done twice, and what it finds is what an undisturbed one finds.
#[test]
fn a_killed_search_goes_on_from_its_last_step() {
    let workspace = Workspace::new();
    let search = "shrink --method policy-gradient --steps 6 --samples 6 --seq-len 128 --progress jsonl";
    let line = |name: &str| format!("{search} --output {name}");
    workspace.succeed(&line("whole"));
    let (mut searching, mut steps) = (false, 0);
    let (code, rest) = interrupt(&workspace, &line("killed"), Signal::KILL, |event| {
        searching |= event["stage"] == "steps of the search";
        steps += usize::from(searching && event["event"] == "step");
        steps == 3
    });
    assert_eq!(code, None, "{rest}");
    let resume = format!("{} --resume", line("killed"));
    let (code, rest) = interrupt(&workspace, &resume, Signal::KILL, in_the_second_layer);
    assert_eq!(code, None, "{rest}");
    let [folder] = &unfinished(&workspace, "killed")[..] else {
        panic!("one folder is left");
    };
    let journal = std::fs::read_to_string(workspace.path(folder).join(".journal.jsonl")).unwrap();
    let measured = journal
        .lines()
        .filter(|line| line.starts_with("{\"losses\":"))
        .count();
    assert_eq!(measured, 6, "{journal}");
    workspace.succeed(&resume);
    same_trees(
        &weights_in(&workspace, "whole"),
        &weights_in(&workspace, "killed"),
        "a search",
    );
}

#[test]
fn another_run_is_not_gone_on_with() {
    let workspace = Workspace::with("smollm2-style");
    workspace.ids("other.safetensors", 3, 32);
    let run = "prune --model model --calibration ids.safetensors --output out --progress jsonl";
    kill(&workspace, run);
    let resume = format!("{} --resume", run.replace("--progress jsonl", ""));
    let cases = [
        ("--sparsity 2:4", "settings.sparsity"),
        ("--seed 7", "settings.seed: 0 there, 7 here"),
        ("--propagate none", "settings.propagat"),
        (
            "--save-statistics saved",
            "save_statistics: false there, true here",
        ),
        ("--ridge 0.2", "settings.solver.ridge"),
    ];
    for (flag, words) in cases {
        workspace.refuse(
            &format!("{resume} {flag}"),
            &["cannot be continued", words, "hint:"],
        );
    }
    let other = resume.replace("ids.", "other.");
    workspace.refuse(&other, &["cannot be continued", "calibration.windows"]);
    // The same layout with another number in it.
    workspace.copy_model("smollm2-style", "trained");
    workspace.edit("trained/model.safetensors", |weights| {
        weights.fill("model.layers.2.mlp.down_proj.weight", 0.25);
    });
    let other = resume.replace("--model model", "--model trained");
    workspace.refuse(&other, &["cannot be continued", "model.weights"]);
    workspace.succeed(&resume);
    workspace.succeed("verify --model out --source model");
}

#[test]
fn a_living_run_is_left_alone() {
    let workspace = Workspace::new();
    let line = format!("{RUN} --output out");
    let mut child = workspace
        .command(&line)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let event = |line: String| serde_json::from_str::<Value>(&line).unwrap();
    assert!(lines.any(|line| in_the_second_layer(&event(line.unwrap()))));
    // Stopped, so that it cannot end before the other one has looked.
    tell(&child, Signal::STOP);
    let outcome = workspace.run(&format!("{line} --resume"));
    tell(&child, Signal::KILL);
    child.wait().unwrap();
    assert_eq!(outcome.code, 1);
    assert!(
        outcome.stderr.contains("another process is writing"),
        "{}",
        outcome.stderr
    );
}

/// Without the flag an interrupted run leaves nothing, with it what is finished; and where there is nothing, it begins.
#[test]
fn a_run_that_may_be_resumed_stays_when_it_is_interrupted() {
    let workspace = Workspace::new();
    let line = format!("{RUN} --output out --resume");
    let (code, _) = interrupt(&workspace, &line, Signal::INT, in_the_second_layer);
    assert_eq!(code, Some(130));
    assert_eq!(unfinished(&workspace, "out").len(), 1);
    let report = workspace.json(&line);
    assert!(report["resumed_layers"].as_u64().unwrap() >= 1);
    assert!(unfinished(&workspace, "out").is_empty());
    assert!(
        !names(&workspace.path("out"))
            .iter()
            .any(|name| name.starts_with('.'))
    );
    workspace.refuse(&line.replace("--progress jsonl", ""), &["exists"]);
}

/// What a process that was killed while it copied the checkpoint has left is no run.
#[test]
fn what_never_began_is_cleared_away() {
    let workspace = Workspace::with("smollm2-style");
    std::fs::create_dir(workspace.path("out.partial-abcdef")).unwrap();
    workspace.write("out.partial-abcdef/.journal.jsonl", b"");
    workspace.write("out.partial-abcdef/model.safetensors", b"half a copy");
    let run = "prune --model model --calibration ids.safetensors --output out --method magnitude";
    let report = workspace.json(&format!("{run} --resume"));
    assert_eq!(report["resumed_layers"], 0);
    assert!(unfinished(&workspace, "out").is_empty());
}
