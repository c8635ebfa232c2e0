//! The commands in `README.md` and `docs/*.md` do what they say.
//!
//! A real shell runs a page's blocks of commands with stand-ins for this program and the few others that pages name, which only
//! write down what they were asked ([`shell`]). What they wrote down the real program then does, in order ([`replay`]), in a
//! folder with the files that the pages take for granted and a hub on this machine ([`surroundings`]), with samples, sequences
//! and linear layers few enough for a test. So loops, variables, comments and continued lines mean what they mean to a reader.
//! A block `text` right after such a block must be what was printed, but for its numbers ([`output`]).
#![cfg(unix)]

mod defaults;
mod output;
mod replay;
mod shell;
mod surroundings;

use crate::command::{Outcome, Workspace, names};
use replay::replay;
use shell::{Block, Call, blocks};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use surroundings::Surroundings;

/// A page of this repository.
fn read(page: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{page}: {e}"))
}

/// Runs every command of a page, of those in a loop that differ in names alone the first, and compares what they print with what
/// the page shows. There are `least` commands or more, so that a page whose commands are no longer found is noticed.
fn runs(page: &str, least: usize) {
    let text = read(page);
    let blocks = blocks(page, &text);
    let surroundings = Surroundings::new();
    let calls = shell::record(&surroundings.workspace, &blocks);
    surroundings.serve_models(&calls);
    let shown = |call: &Call| blocks.iter().any(|b| b.place == call.place && b.output.is_some());
    let mut done = BTreeSet::new();
    let mut printed: BTreeMap<&str, Outcome> = BTreeMap::new();
    let mut run = 0;
    for call in calls.iter().filter(|call| done.insert(call.shape())) {
        let Some(outcome) = replay(&surroundings, call, shown(call)) else {
            continue;
        };
        run += 1;
        match printed.get_mut(call.place.as_str()) {
            None => drop(printed.insert(&call.place, outcome)),
            Some(before) => {
                before.stdout += &outcome.stdout;
                before.stderr += &outcome.stderr;
            }
        }
    }
    assert!(
        run >= least,
        "only {run} commands of {page} were found; there were {least}"
    );
    for block in &blocks {
        let Some(output) = &block.output else { continue };
        let printed = printed.get(block.place.as_str()).unwrap_or_else(|| {
            panic!(
                "{}: an output, and none of the commands before it is run",
                block.place
            )
        });
        output::check(&block.place, output, printed);
    }
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
    readme: "README.md" has 10,
    getting_started: "docs/getting-started.md" has 8,
    choose_options: "docs/choose-options.md" has 15,
    time_and_memory: "docs/time-and-memory.md" has 4,
    results: "docs/results.md" has 6,
    devices: "docs/devices.md" has 6,
    troubleshooting: "docs/troubleshooting.md" has 3,
    data: "docs/data.md" has 16,
    hub: "docs/prune-from-the-hub.md" has 10,
    cluster: "docs/cluster.md" has 9,
    recover: "docs/recover.md" has 8,
    smaller: "docs/make-a-model-smaller.md" has 7,
    result: "docs/use-the-result.md" has 12,
    zero_shot: "docs/zero-shot.md" has 4,
    reproduce: "docs/reproduce.md" has 42,
    command_line: "docs/cli.md" has 4,
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
const FOREIGN: [&str; 10] = [
    "--release",
    "--features",
    "--path",
    "--example",
    "--model_args",
    "--outfile",
    "--outtype",
    "--open",
    "--help",
    "--version",
];

/// Every subcommand.
const COMMANDS: [&str; 17] = [
    "prune",
    "shrink",
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

/// Every message in the first column of `docs/troubleshooting.md` is one that the program has.
#[test]
fn messages_to_look_up_exist() {
    let page = read("docs/troubleshooting.md");
    let rows = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    let messages: Vec<&str> = rows.map(|(message, _)| message).collect();
    assert!(
        messages.len() >= 15,
        "only {} messages were found",
        messages.len()
    );
    let mut sources = String::new();
    for folder in ["src", "backends/src", "models/src"] {
        sources += &output::strings_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder));
    }
    for message in messages {
        for part in message.split('…').map(str::trim).filter(|part| part.len() > 3) {
            assert!(sources.contains(part), "no message has `{part}`, of `{message}`");
        }
    }
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
