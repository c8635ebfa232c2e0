//! Every kernel of this crate as a shader for GPUs that wgpu finds: validated as WGSL, and translated to Metal's language and to SPIR-V, by
//! naga, which is what wgpu itself does on a Mac and on Linux.
//!
//! FISTA_PRUNER_NAGA names the program of the crate `naga-cli`. The kernels come from a run on the first adapter, whose log holds them.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
#![cfg(all(feature = "wgpu", not(feature = "vulkan"), not(feature = "metal")))]

#[path = "devices/everything.rs"]
mod everything;

use everything::OWN;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// In a process of its own, whose log is read.
#[test]
fn launches_everything_with_a_log() {
    if std::env::var_os("CUBECL_DEBUG_LOG").is_none() {
        return;
    }
    everything::launch("wgpu");
}

#[test]
#[allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "the test says what it translated, or that it did not"
)]
fn kernels_are_valid_and_translate_to_metal() {
    let Some(naga) = std::env::var_os("FISTA_PRUNER_NAGA").map(PathBuf::from) else {
        eprintln!("skipped: FISTA_PRUNER_NAGA names no program of naga-cli");
        return;
    };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("shaders");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let log = folder.join("log");
    let outcome = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "launches_everything_with_a_log", "--nocapture"])
        .env("CUBECL_DEBUG_LOG", &log)
        .output()
        .unwrap();
    assert!(
        outcome.status.success(),
        "{}",
        String::from_utf8_lossy(&outcome.stderr)
    );
    let log = fs::read_to_string(&log).unwrap();
    let mut entry_points: BTreeMap<String, usize> = BTreeMap::new();
    for (number, shader) in sources(&log).enumerate() {
        let entry = shader.split_once("@compute").unwrap().1;
        let name = entry.split_once("fn ").unwrap().1.split_once('(').unwrap().0;
        for language in ["metal", "spv"] {
            let wgsl = folder.join(format!("{number}.wgsl"));
            fs::write(&wgsl, shader).unwrap();
            let outcome = Command::new(&naga)
                .arg(&wgsl)
                .arg(folder.join(format!("{number}.{language}")))
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&outcome.stderr);
            assert!(outcome.status.success(), "{language} of {name}: {said}\n{shader}");
        }
        *entry_points.entry(name.to_owned()).or_default() += 1;
    }
    for name in OWN {
        assert!(
            entry_points.keys().any(|found| found.contains(name)),
            "no shader of `{name}` was found"
        );
    }
    for (name, count) in &entry_points {
        println!("{count:>4}  {name}");
    }
}

/// The sources in a log of CubeCL's.
fn sources(log: &str) -> impl Iterator<Item = &str> {
    log.split("```wgsl")
        .skip(1)
        .filter_map(|rest| rest.split_once("```"))
        .map(|(source, _)| source)
}
