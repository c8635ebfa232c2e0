//! Spellings of flags and values that help no longer shows: each still means what the new one means. Also names that users
//! know from other programs.

use super::command::{Arguments, program};
use clap::{Command, FromArgMatches};

/// What is typed, with the old or foreign spelling and with the one that help shows.
const SPELLINGS: [(&str, &str); 38] = [
    ("prune --output o --method l0", "prune --output o --method admm"),
    (
        "prune --output o --warm-start l0",
        "prune --output o --warm-start admm",
    ),
    ("prune --output o --l0-steps 9", "prune --output o --admm-steps 9"),
    (
        "prune --output o --l0-refresh 9",
        "prune --output o --admm-refresh 9",
    ),
    ("prune --output o --polish 9", "prune --output o --refit-steps 9"),
    (
        "prune --output o --percdamp 0.1",
        "prune --output o --damping 0.1",
    ),
    ("prune --output o --block 9", "prune --output o --block-size 9"),
    (
        "prune --output o --threshold matrix",
        "prune --output o --comparison-group layer",
    ),
    (
        "prune --output o --threshold row",
        "prune --output o --comparison-group output",
    ),
    (
        "prune --output o --comparison-group matrix",
        "prune --output o --comparison-group layer",
    ),
    (
        "prune --output o --comparison-group row",
        "prune --output o --comparison-group output",
    ),
    (
        "prune --output o --propagate refreshed",
        "prune --output o --propagate true-sequential",
    ),
    ("prune --output o --data d", "prune --output o --eval-data d"),
    (
        "prune --output o --max-windows 9",
        "prune --output o --eval-samples 9",
    ),
    ("prune --output o --nsamples 9", "prune --output o --samples 9"),
    (
        "prune --output o --dataset a b",
        "prune --output o --calibration a b",
    ),
    (
        "prune --output o --sparsity-profile owl",
        "prune --output o --allocation owl",
    ),
    (
        "prune --output o --activations device",
        "prune --output o --offload-activations none",
    ),
    (
        "prune --output o --activations host",
        "prune --output o --offload-activations cpu",
    ),
    (
        "prune --output o --activations disk",
        "prune --output o --offload-activations disk",
    ),
    (
        "prune --output o --offload-activations device",
        "prune --output o --offload-activations none",
    ),
    (
        "prune --output o --offload-activations host",
        "prune --output o --offload-activations cpu",
    ),
    ("prune --output o --offload", "prune --output o --offload-weights"),
    (
        "prune --output o --device flex,flex",
        "prune --output o --device cpu,cpu",
    ),
    (
        "solve --statistics s --operator o --polish 9",
        "solve --statistics s --operator o --refit-steps 9",
    ),
    (
        "solve --statistics s --operator o --method l0",
        "solve --statistics s --operator o --method admm",
    ),
    (
        "compare --data d --max-windows 9",
        "compare --eval-data d --eval-samples 9",
    ),
    (
        "compare --nsamples 9 --dataset d",
        "compare --samples 9 --calibration d",
    ),
    (
        "compare --propagate refreshed",
        "compare --propagate true-sequential",
    ),
    ("eval --max-windows 9", "eval --eval-samples 9"),
    ("eval --tasks rte --task-dir t", "eval --tasks rte --task-data t"),
    ("eval --device flex", "eval --device cpu"),
    (
        "recover --model m --output o --method block --calibration c --teacher d",
        "recover --model m --output o --method block --calibration c --dense d",
    ),
    (
        "recover --model m --output o --method mezo --calibration c --epsilon 0.1",
        "recover --model m --output o --method mezo --calibration c --perturbation 0.1",
    ),
    (
        "recover --model m --output o --method mezo --dataset c",
        "recover --model m --output o --method mezo --calibration c",
    ),
    (
        "recover --model m --output o --method mezo --calibration c --data d",
        "recover --model m --output o --method mezo --calibration c --eval-data d",
    ),
    (
        "recover --model m --output o --method mezo --calibration c --max-windows 9",
        "recover --model m --output o --method mezo --calibration c --eval-samples 9",
    ),
    (
        "recover --model m --output o --method mezo --calibration c --nsamples 9",
        "recover --model m --output o --method mezo --calibration c --samples 9",
    ),
];

fn parsed(line: &str) -> String {
    let words = ["fista-pruner"].into_iter().chain(line.split(' '));
    let matches = program().try_get_matches_from(words);
    let arguments = matches.and_then(|matches| Arguments::from_arg_matches(&matches));
    let arguments = arguments.unwrap_or_else(|error| panic!("{line}: {error}"));
    format!("{arguments:?}")
}

#[test]
fn old_spellings_mean_the_same() {
    for (old, new) in SPELLINGS {
        assert_eq!(parsed(old), parsed(new), "{old}");
        let without = new.rsplit_once(" --").map_or(new, |(line, _)| line);
        assert!(
            !new.starts_with("prune") || parsed(new) != parsed(without),
            "{new} changes nothing"
        );
    }
}

/// No hidden spelling is missing above, and help shows none of them.
#[test]
fn every_hidden_spelling_is_in_the_table() {
    fn check(command: &mut Command) {
        let help = command.render_long_help().to_string();
        for argument in command.get_arguments() {
            for alias in argument.get_all_aliases().unwrap_or_default() {
                let flag = format!("--{alias}");
                let listed = SPELLINGS
                    .iter()
                    .any(|(old, _)| old.split(' ').any(|word| word == flag));
                assert!(listed, "{} {flag}", command.get_name());
                let shown = help
                    .split(|c: char| !c.is_alphanumeric() && c != '-')
                    .any(|word| word == flag);
                assert!(!shown || flag == "--data", "{} shows {flag}", command.get_name());
            }
        }
        command.get_subcommands_mut().for_each(check);
    }
    check(&mut program());
}
