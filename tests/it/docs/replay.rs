//! A recorded call, done by the real program at a size that a test can afford.

use super::shell::Call;
use super::surroundings::Surroundings;
use crate::command::Outcome;
use crate::hub_model::online;

/// Runs a call, unless it is another program's. Where the page shows its output, every linear layer is pruned.
///
/// # Panics
/// Where it does not end with success, or names a feature or a device that there is none of.
pub(super) fn replay(surroundings: &Surroundings, call: &Call, shown: bool) -> Option<Outcome> {
    let arguments = match call.program.as_str() {
        "fista-pruner" => Some(call.arguments.clone()),
        "cargo" => cargo(call),
        _ => None,
    };
    let arguments = small(without_device(surroundings, call, arguments?), call, shown);
    let mut command = surroundings.workspace.command("");
    command
        .args(&arguments)
        .env("HF_ENDPOINT", surroundings.server.endpoint())
        .env("HF_HUB_OFFLINE", "0");
    for variable in &call.variables {
        let (name, value) = variable.split_once('=').unwrap();
        // A folder of the reader's machine becomes one of the test's.
        let inside = surroundings.workspace.path(&format!("tmp/root{value}"));
        match name {
            "HF_HOME" | "HF_HUB_CACHE" => command.env(name, inside),
            _ => command.env(name, value),
        };
    }
    Some(Outcome::of(command).success(&format!("{}\n{call:?}\nas {arguments:?}", call.place)))
}

/// The program's arguments in a call of cargo that runs it.
fn cargo(call: &Call) -> Option<Vec<String>> {
    let mut words = call.arguments.split(|word| word == "--");
    let own = words.next().unwrap_or_default();
    let rest = words.next().map(<[String]>::to_vec);
    let mut own = own.iter().map(String::as_str);
    let subcommand = own.next().unwrap_or_default();
    let mut example = false;
    while let Some(word) = own.next() {
        match word {
            "--release" | "--no-default-features" => {}
            "--path" => assert_eq!(own.next(), Some("."), "{call:?}"),
            "--example" => example = own.next().is_some(),
            "--features" => {
                for feature in own.next().unwrap_or_default().split(',') {
                    assert!(
                        features().contains(&feature),
                        "there is no feature {feature}: {call:?}"
                    );
                }
            }
            _ => panic!("cargo has no {word} that a page needs: {call:?}"),
        }
    }
    match subcommand {
        "run" if !example => Some(rest.unwrap_or_else(|| panic!("nothing to run: {call:?}"))),
        "run" | "build" | "install" | "test" => None,
        _ => panic!("what is that? {call:?}"),
    }
}

/// The cargo features there are.
fn features() -> Vec<&'static str> {
    let manifest = include_str!("../../../Cargo.toml");
    let (_, section) = manifest.split_once("\n[features]\n").unwrap();
    let lines = section.lines().take_while(|line| !line.starts_with('['));
    lines
        .filter_map(|line| Some(line.split_once(" = [")?.0))
        .collect()
}

/// Takes a device out that this machine may not have, once its name was understood.
fn without_device(surroundings: &Surroundings, call: &Call, mut arguments: Vec<String>) -> Vec<String> {
    if let Some(at) = arguments.iter().position(|word| word == "--device") {
        let device: Vec<String> = arguments.drain(at..at + 2).collect();
        let line = format!("eval --eval-samples 1 --seq-len 8 {}", device.join(" "));
        let outcome = online(&surroundings.workspace, &surroundings.server, &line, None);
        assert_ne!(outcome.code, 2, "{call:?}\n{}", outcome.stderr);
    }
    arguments
}

/// The same call with less work.
fn small(mut arguments: Vec<String>, call: &Call, shown: bool) -> Vec<String> {
    // An abbreviation of a sentence: what follows does not matter.
    if arguments.last().is_some_and(|last| last == "…") {
        arguments.pop();
        if arguments == ["prune"] {
            arguments.extend(["--output", "abbreviated"].map(str::to_owned));
        }
    }
    // Older spellings of flags that are set below.
    for word in &mut arguments {
        if word == "--max-windows" {
            *word = "--eval-samples".into();
        }
    }
    let has = |arguments: &[String], flag: &str| arguments.iter().any(|word| word == flag);
    let evaluates = ["--eval-data", "--data"]
        .iter()
        .any(|flag| has(&call.arguments, flag));
    let given_ids = arguments.iter().any(|word| word.ends_with(".safetensors"));
    let mut set = |flag: &str, value: &str| set(&mut arguments, flag, value, call);
    let command = call_name(&call.arguments);
    match command {
        "prune" | "compare" | "shrink" => {
            if !given_ids {
                set("--samples", "2");
                set("--seq-len", "24");
            }
            if command != "shrink" {
                set("--max-rounds", "1");
            }
            if command == "compare" || evaluates {
                set("--eval-seq-len", "24");
                set("--eval-samples", "1");
            }
            if command != "compare" && !has(&arguments, "--overwrite") {
                arguments.push("--overwrite".into());
            }
            let whole_units = command == "shrink" || has(&arguments, "--remove");
            if !shown && !whole_units && !has(&arguments, "--targets") && !has(&arguments, "--ignore") {
                arguments.extend(["--targets", "layers.0.(fc1|mlp.gate_proj)"].map(str::to_owned));
            }
        }
        "eval" => {
            let tasks = has(&arguments, "--tasks");
            if has(&arguments, "--num-fewshot") {
                self::set(&mut arguments, "--num-fewshot", "2", call);
            }
            if tasks {
                self::set(&mut arguments, "--limit", "2", call);
            }
            if (!tasks || has(&arguments, "--data")) && !given_ids {
                self::set(&mut arguments, "--seq-len", "32", call);
                self::set(&mut arguments, "--eval-samples", "1", call);
            }
        }
        "recover" => {
            set("--samples", "2");
            set("--seq-len", "24");
            for flag in ["--epochs", "--steps"] {
                if has(&call.arguments, flag) {
                    set(flag, "1");
                }
            }
            if evaluates {
                set("--eval-seq-len", "24");
                set("--eval-samples", "1");
            }
        }
        "generate" => set("--max-new-tokens", "2"),
        _ => {}
    }
    arguments
}

/// The subcommand; cargo's own words stand before it.
fn call_name(arguments: &[String]) -> &str {
    let after = arguments
        .iter()
        .position(|word| word == "--")
        .map_or(0, |at| at + 1);
    arguments.get(after).map_or("", String::as_str)
}

/// Gives a flag that takes a number another one.
fn set(arguments: &mut Vec<String>, flag: &str, value: &str, call: &Call) {
    match arguments.iter().position(|word| word == flag) {
        Some(at) => {
            let given = arguments.get(at + 1).map(|given| given.parse::<usize>());
            assert!(matches!(given, Some(Ok(_))), "{flag} takes a number: {call:?}");
            arguments[at + 1] = value.to_owned();
        }
        None => arguments.extend([flag.to_owned(), value.to_owned()]),
    }
}
