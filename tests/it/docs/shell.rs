//! Blocks of commands, what they ask of this program, and what the page says that it prints. In: a page. Out: [`Block`]s, and
//! [`Call`]s, as a shell makes them.

use crate::command::Workspace;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// Commands between fences.
#[derive(Debug)]
pub(super) struct Block {
    /// The page and the line that the block begins on.
    pub(super) place: String,
    text: String,
    /// What the page shows as their output: the block `text` that follows with nothing between.
    pub(super) output: Option<String>,
}

/// One start of a program.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) place: String,
    in_loop: bool,
    pub(super) program: String,
    /// Variables of [`VARIABLES`] that are set, as `NAME=VALUE`.
    pub(super) variables: Vec<String>,
    pub(super) arguments: Vec<String>,
}

/// Programs that a page may name. A shell finds no other.
const PROGRAMS: [&str; 5] = ["fista-pruner", "cargo", "pip", "man", "cp"];

/// Variables that change what the program does.
const VARIABLES: [&str; 4] = ["HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN"];

/// Folders of the home that pages write to, and the one where the shell works.
const HOME: [&str; 5] = [
    "here",
    ".local/share/bash-completion/completions",
    ".local/share/man/man1",
    ".config/fish/completions",
    ".zfunc",
];

/// Ends a call in the record; no page has it as an argument.
const END: &str = "\u{1e}";

impl Block {
    fn has_loop(&self) -> bool {
        self.text
            .lines()
            .any(|line| line.trim_start().starts_with("for "))
    }
}

fn has_commands(text: &str) -> bool {
    text.lines()
        .any(|line| line.contains("fista-pruner ") || line.contains("cargo run"))
}

/// The blocks of a page that hold commands: those marked `sh`, and those that are not marked and name the program.
///
/// # Panics
/// Where commands stand in a block of another kind, or in none.
pub(super) fn blocks(page: &str, text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, String, Vec<&str>)> = None;
    // Whether what comes next would be the last block's output.
    let mut follows = false;
    for (number, line) in (1..).zip(text.lines()) {
        let place = format!("{page}:{number}");
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(kind)) => open = Some((place, kind.trim().to_owned(), Vec::new())),
            (None, None) => {
                follows &= line.trim().is_empty();
                let is_block = line.starts_with("    ") && has_commands(line);
                assert!(!is_block, "{place}: commands stand between fences");
            }
            (Some((.., lines)), None) => lines.push(line),
            (Some(_), Some(_)) => {
                let (place, kind, lines) = open.take().unwrap();
                let text = lines.join("\n");
                let commands = kind == "sh" || (kind.is_empty() && has_commands(&text));
                match kind.as_str() {
                    _ if commands => {
                        let output = None;
                        blocks.push(Block { place, text, output });
                    }
                    "text" if follows => blocks.last_mut().unwrap().output = Some(text),
                    // What it prints may name the program.
                    "text" | "jsonl" => {}
                    _ => assert!(!has_commands(&text), "{place}: commands belong into a block `sh`"),
                }
                follows = commands;
            }
        }
    }
    assert!(open.is_none(), "{page}: a block has no end");
    blocks
}

/// Lines outside of blocks.
pub(super) fn sentences(text: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    text.lines().filter(move |line| {
        let fence = line.starts_with("```");
        inside ^= fence;
        !inside && !fence
    })
}

/// What the blocks of a page ask for, in order, when one shell is given all of them.
///
/// # Panics
/// Where the shell does not understand a block, or it names another program.
pub(super) fn record(workspace: &Workspace, blocks: &[Block]) -> Vec<Call> {
    let (bin, home, file) = (
        workspace.path("tmp/bin"),
        workspace.path("tmp/home"),
        workspace.path("tmp/calls"),
    );
    std::fs::create_dir_all(&bin).unwrap();
    for folder in HOME {
        std::fs::create_dir_all(home.join(folder)).unwrap();
    }
    let variables: Vec<String> = VARIABLES
        .iter()
        .map(|name| format!("\"${{{name}+{name}=${name}}}\""))
        .collect();
    let stand_in = format!(
        "#!/bin/sh\nprintf '%s\\0' \"$PLACE\" \"${{0##*/}}\" {} \"$@\" '{END}' >> '{}'\n",
        variables.join(" "),
        file.display()
    );
    for program in PROGRAMS {
        let path = bin.join(program);
        std::fs::write(&path, &stand_in).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    std::fs::write(&file, "").unwrap();
    let script: Vec<String> = blocks
        .iter()
        .map(|block| format!("export PLACE={}\n{}\n", block.place, block.text))
        .collect();
    let mut shell = Command::new("/bin/sh");
    shell.args(["-e", "-u", "-c", &script.concat()]);
    workspace.prepare(&mut shell);
    for name in VARIABLES {
        shell.env_remove(name);
    }
    shell
        .current_dir(home.join("here"))
        .env("PATH", &bin)
        .env("HOME", &home);
    let outcome = crate::command::Outcome::of(shell);
    assert_eq!(outcome.code, 0, "{}\n{}", outcome.stderr, script.concat());
    let record = std::fs::read_to_string(&file).unwrap();
    let words: Vec<&str> = record.split_terminator('\0').collect();
    let calls = words.split(|word| *word == END).filter(|words| !words.is_empty());
    calls.map(|words| Call::new(words, blocks)).collect()
}

impl Call {
    /// Of the words that a stand-in wrote down.
    fn new(words: &[&str], blocks: &[Block]) -> Self {
        let own = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let (variables, arguments) = words[2..].split_at(VARIABLES.len());
        let mut variables = own(variables);
        variables.retain(|variable| !variable.is_empty());
        Self {
            place: words[0].to_owned(),
            in_loop: blocks
                .iter()
                .any(|block| block.place == words[0] && block.has_loop()),
            program: words[1].to_owned(),
            variables,
            arguments: own(arguments),
        }
    }

    /// What tells a call from the others of its loop, which differ in nothing but names of models and folders, the seed and the
    /// windows' length.
    pub(super) fn shape(&self) -> String {
        let mut arguments = self.arguments.clone();
        let varying = if self.in_loop { 1..arguments.len() } else { 0..0 };
        for at in varying {
            let of_path = ["--model", "--output", "--source"].contains(&arguments[at - 1].as_str());
            let numbered = ["--seed", "--seq-len"].contains(&arguments[at - 1].as_str());
            let of_number = numbered && arguments[at].parse::<u64>().is_ok();
            if of_path || of_number {
                arguments[at] = String::new();
            }
        }
        format!(
            "{} {} {:?} {arguments:?}",
            self.place, self.program, self.variables
        )
    }
}
