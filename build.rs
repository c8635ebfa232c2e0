//! Tells the program what `--version` says: the commit, where this folder is a checkout of git, and the features.
#![allow(clippy::print_stdout, reason = "cargo reads a build script's stdout")]

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let mut features: Vec<String> = std::env::vars()
        .filter_map(|(name, _)| {
            Some(
                name.strip_prefix("CARGO_FEATURE_")?
                    .to_lowercase()
                    .replace('_', "-"),
            )
        })
        .filter(|feature| feature != "default")
        .collect();
    features.sort();
    let mut build = format!("features {}", features.join(" "));
    // A package that lies somewhere in another project's checkout has no commit.
    if Path::new(".git").exists() {
        if let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) {
            build = format!("commit {commit}, {build}");
        }
        watch_commit();
    }
    println!("cargo::rustc-env=FISTA_PRUNER_BUILD={build}");
}

/// Runs this script again when the commit changes. HEAD changes when another branch is taken, its log with every commit.
fn watch_commit() {
    for name in ["HEAD", "logs/HEAD"] {
        // A file that is missing would run this script every time.
        if let Some(path) = git(&["rev-parse", "--git-path", name]).filter(|path| Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
}

/// What git answers, if there is a git and it has an answer.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let answer = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !answer.is_empty()).then_some(answer)
}
