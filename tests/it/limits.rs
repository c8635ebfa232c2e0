//! Limits that the system sets a process: a sentence, and nothing left behind.

use crate::command::{Workspace, names};
use std::process::Command;

/// A command under a limit of the shell: exit code and stderr.
fn limited(workspace: &Workspace, limit: &str, line: &str) -> (Option<i32>, String) {
    let command = workspace.command(line);
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit {limit} && exec \"$0\" \"$@\"")]);
    shell.arg(command.get_program()).args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        shell.current_dir(folder);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let output = shell.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), text)
}

const PRUNE: &str = "prune --samples 4 --seq-len 32 --preset fast --output out";

#[test]
fn too_little_address_space() {
    let workspace = Workspace::new();
    workspace.succeed("inspect");
    let before = names(&workspace.path("."));
    let mut refused = 0;
    // In kilobytes. What the program itself needs differs between machines, so some of these end well on some of them.
    for limit in [40_000, 60_000, 100_000, 150_000, 250_000, 500_000, 1_000_000] {
        let (code, stderr) = limited(&workspace, &format!("-v {limit}"), PRUNE);
        if code == Some(0) {
            std::fs::remove_dir_all(workspace.path("out")).unwrap();
            continue;
        }
        // The system cannot even load the program.
        if code == Some(127) {
            continue;
        }
        assert_eq!(code, Some(1), "{limit}: {stderr}");
        assert!(stderr.contains("error: "), "{limit}: {stderr}");
        assert!(!stderr.contains("panicked"), "{limit}: {stderr}");
        assert_eq!(names(&workspace.path(".")), before, "{limit}: {stderr}");
        refused += usize::from(stderr.contains("error: not enough memory: the system refused "));
    }
    assert!(refused > 0);
}

#[test]
fn too_large_a_file() {
    let workspace = Workspace::new();
    workspace.succeed("inspect");
    let before = names(&workspace.path("."));
    let (code, stderr) = limited(&workspace, "-f 100", PRUNE);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains("error: cannot write `") && stderr.contains("File too large"),
        "{stderr}"
    );
    assert_eq!(names(&workspace.path(".")), before);
}

#[test]
fn too_many_seconds_of_a_processor() {
    let workspace = Workspace::new();
    workspace.succeed("inspect");
    let before = names(&workspace.path("."));
    let long = "prune --method fista --preset best --output out";
    let (code, stderr) = limited(&workspace, "-S -t 1", long);
    assert_eq!(code, Some(152), "{stderr}");
    assert!(stderr.contains("error: interrupted by SIGXCPU"), "{stderr}");
    assert_eq!(names(&workspace.path(".")), before);
}

#[test]
fn too_few_open_files() {
    let workspace = Workspace::new();
    workspace.succeed("inspect");
    let before = names(&workspace.path("."));
    for limit in 4..10 {
        let (code, stderr) = limited(&workspace, &format!("-n {limit}"), PRUNE);
        if code == Some(0) {
            std::fs::remove_dir_all(workspace.path("out")).unwrap();
            continue;
        }
        assert!(
            stderr.contains("Too many open files") || code == Some(127),
            "{limit}: {stderr}"
        );
        assert_eq!(names(&workspace.path(".")), before, "{limit}: {stderr}");
    }
}
