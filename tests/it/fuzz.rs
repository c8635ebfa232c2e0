//! Every file that the fuzz targets begin with, and every file that they once found: a value or an error, never a crash.

#[allow(
    dead_code,
    unreachable_pub,
    reason = "it is a crate of its own for cargo-fuzz"
)]
#[path = "../../fuzz/src/lib.rs"]
mod targets;

use std::path::Path;

#[test]
fn seeds_crash_nothing() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    for (target, _) in targets::TARGETS {
        let mut files: Vec<_> = std::fs::read_dir(seeds.join(target))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort_unstable();
        assert!(!files.is_empty(), "{target}");
        for file in files {
            let seed = std::fs::read(&file).unwrap();
            let outcome = std::panic::catch_unwind(|| targets::run(target, &seed));
            assert!(outcome.is_ok(), "{}", file.display());
        }
    }
}
