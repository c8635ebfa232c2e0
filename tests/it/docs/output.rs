//! What a page shows of an output, against what was printed. Numbers may differ, since a test does less work than a reader: they
//! are masked, as are hashes and units of bytes. A line `...` of the page stands for any lines; empty lines do not count.

use crate::command::Outcome;
use regex::Regex;
use std::path::Path;
use std::sync::LazyLock;

static NUMBER: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\b[0-9a-f]{7,}\b|[0-9]+(\.[0-9]+)?(e-?[0-9]+)?").unwrap());
static BYTES: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"# (B|kB|MB|GB|TB)\b").unwrap());

/// # Panics
/// Where neither stdout nor stderr is what the page shows.
pub(super) fn check(place: &str, shown: &str, printed: &Outcome) {
    let streams = [&printed.stdout, &printed.stderr];
    assert!(
        streams
            .iter()
            .any(|stream| matches(&masked(shown), &masked(stream))),
        "{place}: what follows is not what the commands print. The page:\n{}\nprinted:\n{}\non stderr:\n{}",
        masked(shown).join("\n"),
        masked(&printed.stdout).join("\n"),
        masked(&printed.stderr).join("\n"),
    );
}

/// Lines without what may differ.
fn masked(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let line = words.join(" ");
            let line = NUMBER.replace_all(&line, "#");
            BYTES.replace_all(&line, "# bytes").into_owned()
        })
        .collect()
}

fn matches(shown: &[String], printed: &[String]) -> bool {
    match shown.split_first() {
        None => printed.is_empty(),
        Some((line, rest)) if line == "..." => {
            (0..=printed.len()).any(|skipped| matches(rest, &printed[skipped..]))
        }
        Some((line, rest)) => printed.first() == Some(line) && matches(rest, &printed[1..]),
    }
}

/// The text of all sources in a folder, with strings that go over several lines on one.
pub(super) fn strings_of(folder: &Path) -> String {
    let continued = Regex::new(r"\\\n\s*").unwrap();
    let mut all = String::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all += &strings_of(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all += &continued.replace_all(&std::fs::read_to_string(&path).unwrap(), "");
        }
    }
    all
}

#[test]
fn other_words_and_missing_lines_are_noticed() {
    let lines = |text: &str| masked(text);
    let printed = lines(
        "layer   0  q_proj 0.0119  fc1 1e-5\n\nlayer   1  q_proj 0.2\nwrote out, 798.15 MB, of 8f5f45d1\n",
    );
    let good = [
        "layer 5 q_proj 0.3 fc1 2\n...\nwrote out, 1.2 GB, of 00000000",
        "...\nwrote out, 3 B, of abcdef12",
        "layer 0 q_proj 1 fc1 0\nlayer 1 q_proj 0.5\nwrote out, 3 B, of abcdef12\n...",
    ];
    for shown in good {
        assert!(matches(&lines(shown), &printed), "{shown}");
    }
    let wrong = [
        "layer 0 q_proj 1 fc1 0\nwrote out, 3 B, of abcdef12",
        "layer 0 k_proj 1 fc1 0\n...",
        "...\nwrote out in 5 s, 3 B, of abcdef12",
        "...\nlayer 1 q_proj 0.2",
    ];
    for shown in wrong {
        assert!(!matches(&lines(shown), &printed), "{shown}");
    }
}
