//! Interruptions: the program in the middle of its work is told to stop.

use crate::command::{Workspace, names, same_trees, tree_of};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStderr, Stdio};

/// A run of the demo model with the default settings, which takes a while.
const DEMO: &str = "prune --progress jsonl";

pub(crate) fn tell(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// A command under way, and the lines of its stderr.
fn start(workspace: &Workspace, line: &str) -> (Child, Lines<BufReader<ChildStderr>>) {
    let mut command = workspace.command(line);
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    (child, lines)
}

/// Starts a command, tells it to stop once `reached` accepts a line of its progress, and gives the exit code and the rest
/// of its stderr.
pub(crate) fn interrupt(
    workspace: &Workspace,
    line: &str,
    signal: Signal,
    mut reached: impl FnMut(&serde_json::Value) -> bool,
) -> (Option<i32>, String) {
    let (mut child, mut lines) = start(workspace, line);
    loop {
        let line = lines
            .next()
            .unwrap_or_else(|| panic!("{line} ended early"))
            .unwrap();
        if reached(&serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line}: {e}"))) {
            break;
        }
    }
    tell(&child, signal);
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    (child.wait().unwrap().code(), rest.join("\n"))
}

/// Accepts the end of the second layer's first operator.
pub(crate) fn in_the_second_layer(event: &serde_json::Value) -> bool {
    event["event"] == "operator" && event["layer"] == 1
}

#[test]
fn an_interrupted_run_leaves_everything_as_it_was() {
    let workspace = Workspace::new();
    // The folder that the demo model is unpacked into stays.
    workspace.succeed("inspect");
    workspace.copy_model("opt-125m-style", "out");
    std::fs::create_dir(workspace.path("saved")).unwrap();
    workspace.write("saved/layer-000.safetensors", b"of an earlier run");
    let whole_tree = || tree_of(&workspace.path(""));
    let before = whole_tree();
    let runs = [
        (
            Signal::INT,
            130,
            "--output out --overwrite --save-statistics saved",
        ),
        (
            Signal::TERM,
            143,
            "--output new/parent/out --save-statistics new/saved",
        ),
    ];
    for (signal, code, rest) in runs {
        let line = format!("{DEMO} {rest}");
        let mut seen_partial = false;
        let reached = |event: &serde_json::Value| {
            let begun = in_the_second_layer(event);
            seen_partial |= begun && whole_tree().len() > before.len();
            begun
        };
        let (found, stderr) = interrupt(&workspace, &line, signal, reached);
        assert_eq!(found, Some(code), "{line}\n{stderr}");
        assert!(seen_partial, "{line} had made nothing yet");
        same_trees(&before, &whole_tree(), &line);
        let last: Vec<serde_json::Value> = stderr
            .lines()
            .rev()
            .take(2)
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(last[0]["event"], "end");
        assert_eq!(last[0]["exit_code"], code);
        assert_eq!(last[1]["event"], "interrupted");
    }
}

#[test]
fn a_message_says_which_signal_it_was() {
    let workspace = Workspace::new();
    let (mut child, mut lines) = start(&workspace, "prune --output out --progress plain");
    let first = lines.next().unwrap().unwrap();
    assert!(first.starts_with("layers 1/"), "{first}");
    tell(&child, Signal::INT);
    let last = lines.map(Result::unwrap).last();
    assert_eq!(last.as_deref(), Some("error: interrupted by SIGINT"));
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!workspace.path("out").exists());
}

/// The first signal's message has nowhere to go, since nobody reads stderr; the second one does not wait for that.
#[test]
#[cfg(target_os = "linux")]
fn a_second_signal_ends_the_program_at_once() {
    const PIPE: usize = 1 << 16;
    let workspace = Workspace::new();
    let entries = || names(&workspace.path("")).len();
    let before = entries();
    let (reader, mut writer) = std::io::pipe().unwrap();
    std::io::Write::write_all(&mut writer, &[b'x'; PIPE]).unwrap();
    let mut command = workspace.command("prune --output out --progress plain");
    let mut child = command.stdout(Stdio::null()).stderr(writer).spawn().unwrap();
    let wait_until = |reached: &dyn Fn() -> bool| {
        let started = std::time::Instant::now();
        while !reached() {
            assert!(started.elapsed().as_secs() < 300, "nothing happens");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    };
    wait_until(&|| entries() > before);
    tell(&child, Signal::TERM);
    wait_until(&|| entries() == before);
    assert_eq!(child.try_wait().unwrap(), None);
    tell(&child, Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    drop(reader);
}

#[test]
fn a_failed_run_leaves_no_statistics() {
    let workspace = Workspace::with("smollm2-style");
    // The first two layers are pruned before that is found.
    workspace.edit("model/model.safetensors", |weights| {
        weights.fill("model.layers.2.mlp.down_proj.weight", f32::INFINITY);
    });
    let line = "prune --model model --output out --calibration ids.safetensors --save-statistics";
    workspace.refuse(&format!("{line} new/saved"), &["model.layers.2.mlp.down_proj"]);
    std::fs::create_dir(workspace.path("saved")).unwrap();
    workspace.write("saved/layer-000.safetensors", b"of an earlier run");
    workspace.refuse(
        &format!("{line} saved"),
        &["layer-000.safetensors", "exists already"],
    );
    workspace.refuse(
        &format!("{line} saved --overwrite"),
        &["model.layers.2.mlp.down_proj"],
    );
    workspace.refuse(&format!("{line} saved/layer-000.safetensors"), &["no folder"]);
}

#[test]
fn statistics_replace_their_namesakes_only() {
    let workspace = Workspace::with("smollm2-style");
    std::fs::create_dir(workspace.path("saved")).unwrap();
    workspace.write("saved/layer-000.safetensors", b"of an earlier run");
    workspace.write("saved/notes", b"mine");
    let line = "prune --model model --calibration ids.safetensors --method magnitude";
    workspace.succeed(&format!(
        "{line} --output out --save-statistics saved --overwrite"
    ));
    workspace.succeed(&format!("{line} --output other --save-statistics fresh/saved"));
    let (mut old, fresh) = (
        tree_of(&workspace.path("saved")),
        tree_of(&workspace.path("fresh/saved")),
    );
    assert_eq!(
        old.remove(std::path::Path::new("notes")),
        Some(Some(b"mine".to_vec()))
    );
    assert_eq!(old.len(), 3);
    same_trees(&old, &fresh, "a folder that was there");
}
