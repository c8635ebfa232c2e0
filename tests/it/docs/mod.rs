//! The commands in `README.md` and `docs/*.md` do what they say.
//!
//! A real shell runs a page's blocks of commands with stand-ins for this program and the few others that pages name, which only
//! write down what they were asked ([`shell`]). What they wrote down the real program then does, in order ([`replay`]), in a
//! folder with the files that the pages take for granted and a hub on this machine ([`surroundings`]), with samples, windows
//! and operators few enough for a test. So loops, variables, comments and continued lines mean what they mean to a reader.
#![cfg(unix)]

mod defaults;
mod replay;
mod shell;
mod surroundings;

use crate::command::{Workspace, names};
use replay::replay;
use shell::{Block, Call, blocks};
use std::collections::BTreeSet;
use std::path::Path;
use surroundings::Surroundings;

/// A page of this repository.
fn read(page: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{page}: {e}"))
}

/// Runs every command of a page, of those in a loop that differ in names alone the first; there are
/// `least` of them or more, so that a page whose commands are no longer found is noticed.
fn runs(page: &str, least: usize) {
    let text = read(page);
    let blocks = blocks(page, &text);
    let surroundings = Surroundings::new();
    let calls = shell::record(&surroundings.workspace, &blocks);
    surroundings.serve_models(&calls);
    let mut done = BTreeSet::new();
    let new = |call: &&Call| done.insert(call.shape());
    let run = calls
        .iter()
        .filter(new)
        .filter(|call| replay(&surroundings, call))
        .count();
    assert!(
        run >= least,
        "only {run} commands of {page} were found; there were {least}"
    );
}

macro_rules! pages {
    ($($test:ident: $page:literal has $count:literal,)*) => {
        $(
            #[test]
            fn $test() {
                runs($page, $count);
            }
        )*

        const PAGES: &[&str] = &[$($page),*];
    };
}

pages! {
    readme: "README.md" has 18,
    command_line: "docs/cli.md" has 4,
    data: "docs/data.md" has 8,
    hub: "docs/prune-from-the-hub.md" has 10,
    own_data: "docs/calibrate-on-your-data.md" has 9,
    result: "docs/use-the-result.md" has 12,
    mac_and_amd: "docs/mac-and-amd.md" has 6,
    cluster: "docs/cluster.md" has 9,
    recover: "docs/recover.md" has 8,
    algorithm: "docs/algorithm.md" has 2,
    reproduce: "docs/reproduce.md" has 42,
    zero_shot: "docs/zero-shot.md" has 4,
}

/// Pages with commands are run, and the others have none.
#[test]
fn no_page_is_left_out() {
    let mut pages: Vec<String> = names(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs"))
        .into_iter()
        .filter(|name| name.ends_with(".md"))
        .map(|name| format!("docs/{name}"))
        .collect();
    pages.extend(["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"].map(str::to_owned));
    for page in &pages {
        if !PAGES.contains(&page.as_str()) {
            let found: Vec<Block> = blocks(page, &read(page));
            assert!(found.is_empty(), "{page} has commands that no test runs");
        }
    }
    for page in PAGES {
        assert!(pages.iter().any(|known| known == page), "there is no {page}");
    }
}

/// Flags of other programs that pages name.
const FOREIGN: [&str; 9] = [
    "--release",
    "--features",
    "--path",
    "--example",
    "--model_args",
    "--outfile",
    "--outtype",
    "--help",
    "--version",
];

/// Every subcommand.
const COMMANDS: [&str; 16] = [
    "prune",
    "eval",
    "inspect",
    "generate",
    "compare",
    "solve",
    "pack",
    "unpack",
    "mask export",
    "mask apply",
    "verify",
    "report",
    "merge",
    "recover",
    "completions",
    "man",
];

/// The README and every page of `docs/`.
fn pages() -> Vec<String> {
    let mut pages = names(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs"));
    pages.retain(|name| name.ends_with(".md"));
    let mut pages: Vec<String> = pages.iter().map(|name| format!("docs/{name}")).collect();
    pages.push("README.md".into());
    pages
}

/// Every flag that a page names in the middle of a sentence is one of this program: in a help, or an older spelling.
#[test]
fn flags_in_sentences_exist() {
    let workspace = Workspace::new();
    let mut known: BTreeSet<String> = FOREIGN.iter().map(|flag| (*flag).to_owned()).collect();
    for command in COMMANDS {
        let help = workspace.succeed(&format!("{command} --help")).stdout;
        known.extend(flags(&help));
    }
    assert!(known.contains("--propagate"));
    assert!(is_older_spelling(&workspace, "--polish") && !is_older_spelling(&workspace, "--polished"));
    for page in pages() {
        for flag in shell::sentences(&read(&page)).flat_map(flags) {
            assert!(
                known.contains(&flag) || is_older_spelling(&workspace, &flag),
                "{page} names {flag}, which no command has"
            );
        }
    }
}

/// Whether a command takes a flag that its help does not show.
fn is_older_spelling(workspace: &Workspace, flag: &str) -> bool {
    COMMANDS.iter().any(|command| {
        let outcome = workspace.run(&format!("{command} {flag}"));
        !outcome.stderr.contains("unexpected argument")
    })
}

/// Words that are flags.
fn flags(text: &str) -> Vec<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    text.split(|c: char| !is_part(c))
        .filter(|word| {
            word.starts_with("--")
                && word
                    .trim_matches('-')
                    .starts_with(|c: char| c.is_ascii_lowercase())
        })
        .map(str::to_owned)
        .collect()
}
