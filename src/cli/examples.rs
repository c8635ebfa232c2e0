//! The examples at the end of each subcommand's help.

use clap::Command;

/// Subcommands with their examples; those of a subcommand's subcommand after a blank.
const EXAMPLES: [(&str, &str); 17] = [
    (
        "prune",
        "  # A first try: the model and the text inside this program
  fista-pruner prune --output pruned
  # Half of a model's weights, with perplexity before and after
  fista-pruner prune --model facebook/opt-125m --calibration c4 --eval-data wikitext2 --output pruned
  # 2:4, with at most 24 GB of GPU memory
  fista-pruner prune --model path/to/model --calibration c4 --sparsity 2:4 --memory-budget 24GB --output pruned",
    ),
    (
        "shrink",
        "  # A first try: the model and the text inside this program
  fista-pruner shrink --output smaller
  # 30 % less, with perplexity before and after
  fista-pruner shrink --model facebook/opt-125m --remove 0.3 --calibration c4 --eval-data wikitext2 --output smaller
  # Half of the weights; the program finds out how many layers and channels
  fista-pruner shrink --model path/to/model --remove 0.5 --units mlp,layers --shape auto --calibration c4 --output smaller",
    ),
    (
        "eval",
        "  # Perplexity on the text that most papers use
  fista-pruner eval --model pruned --data wikitext2
  # Accuracy on two tasks, 200 questions of each
  fista-pruner eval --model pruned --tasks hellaswag,arc_easy --limit 200",
    ),
    (
        "inspect",
        "  # The linear layers of a model that is not pruned yet
  fista-pruner inspect --model facebook/opt-125m
  # The zeros of a pruned model, for a program
  fista-pruner inspect --model pruned --format json",
    ),
    (
        "generate",
        "  # The most likely continuation
  fista-pruner generate --model pruned --prompt \"Once upon a time\"
  # Another one for each seed
  fista-pruner generate --model pruned --prompt \"Once upon a time\" --temperature 0.8 --seed 1",
    ),
    (
        "compare",
        "  # Three methods at two sparsities, with the model inside this program
  fista-pruner compare --methods wanda,fast,best --sparsity 0.5,2:4
  # SparseGPT as published, and with the refit
  fista-pruner compare --model path/to/model --calibration c4 --methods sparsegpt/sequential,sparsegpt+refit",
    ),
    (
        "report",
        "  # Write report.html again
  fista-pruner report --input pruned
  # Write the page to another place
  fista-pruner report --input pruned/pruning_report.json --output page.html",
    ),
    (
        "solve",
        "  # Write the calibration statistics of two layers
  fista-pruner prune --output pruned --targets 'layers\\.0\\.fc' --save-statistics statistics
  # Try a method on one of them
  fista-pruner solve --statistics statistics/layer-000.safetensors --operator model.decoder.layers.0.fc1 --preset fast",
    ),
    (
        "merge",
        "  # One of two parts; the other runs on another machine
  fista-pruner prune --model path/to/model --calibration c4 --output parts --shard 1/2
  # When both are finished
  fista-pruner merge --parts parts --output pruned",
    ),
    (
        "pack",
        "  # A smaller copy
  fista-pruner pack --model pruned --output packed
  # The same result as with the plain model
  fista-pruner eval --model packed --data wikitext2",
    ),
    (
        "unpack",
        "  # For programs that do not read packed models
  fista-pruner unpack --model packed --output plain
  # Check it against the dense model
  fista-pruner verify --model plain --source path/to/model",
    ),
    (
        "mask export",
        "  # Which weights are kept, with one bit per weight
  fista-pruner mask export --model pruned --output mask.safetensors
  # Replace an earlier file
  fista-pruner mask export --model pruned --output mask.safetensors --overwrite",
    ),
    (
        "mask apply",
        "  # The same zeros in another model of the same shape
  fista-pruner mask apply --model path/to/model --mask mask.safetensors --output pruned
  # Check the result
  fista-pruner verify --model pruned --source path/to/model",
    ),
    (
        "recover",
        "  # Distillation from the dense model, one layer after the other
  fista-pruner recover --model pruned --method block --dense path/to/model --calibration c4 --output recovered
  # Without gradients, with perplexity before and after
  fista-pruner recover --model pruned --method mezo --calibration c4 --eval-data wikitext2 --output recovered",
    ),
    (
        "verify",
        "  # The pattern, the formats, and that every weight is a number
  fista-pruner verify --model pruned
  # Also that nothing else has changed
  fista-pruner verify --model pruned --source path/to/model --sparsity 2:4",
    ),
    (
        "completions",
        "  # For bash
  fista-pruner completions bash > ~/.local/share/bash-completion/completions/fista-pruner
  # For zsh, in a folder of $fpath
  fista-pruner completions zsh > ~/.zfunc/_fista-pruner",
    ),
    (
        "man",
        "  # Read one page
  fista-pruner man prune | man -l -
  # Install all pages
  fista-pruner man --output ~/.local/share/man/man1",
    ),
];

/// Puts the examples below the help of each subcommand.
pub(crate) fn with_examples(program: Command) -> Command {
    EXAMPLES.iter().fold(program, |program, (path, examples)| {
        let show = |command: Command| command.after_help(format!("Examples:\n{examples}"));
        match path.split_once(' ') {
            Some((group, name)) => program.mut_subcommand(group, |group| group.mut_subcommand(name, show)),
            None => program.mut_subcommand(path, show),
        }
    })
}

#[cfg(test)]
mod tests {
    use crate::cli::command::{Arguments, program};
    use clap::{Command, FromArgMatches};

    /// The words of a line, as a shell makes them of the quotes that examples have, up to a redirection or a pipe.
    fn words(line: &str) -> Vec<String> {
        let mut words = Vec::new();
        let mut parts = line.split(['"', '\'']);
        while let Some(plain) = parts.next() {
            words.extend(plain.split_whitespace().map(str::to_owned));
            words.extend(parts.next().map(str::to_owned));
        }
        let end = words.iter().position(|word| matches!(word.as_str(), ">" | "|"));
        words.truncate(end.unwrap_or(words.len()));
        words
    }

    fn check(command: &Command, path: &str) -> usize {
        if command.has_subcommands() {
            let inside = command.get_subcommands();
            return inside
                .map(|inner| check(inner, &format!("{path} {}", inner.get_name())))
                .sum();
        }
        let help = command
            .get_after_help()
            .unwrap_or_else(|| panic!("{path} has no examples"))
            .to_string();
        let lines: Vec<&str> = help
            .lines()
            .map(str::trim)
            .filter(|line| line.starts_with("fista-pruner "))
            .collect();
        assert!(lines.len() >= 2, "{path}: {help}");
        assert!(lines.iter().any(|line| line.starts_with(path)), "{path}: {help}");
        for line in &lines {
            let parsed = program().try_get_matches_from(words(line));
            let arguments = parsed.and_then(|matches| Arguments::from_arg_matches(&matches));
            assert!(arguments.is_ok(), "{line}: {}", arguments.unwrap_err());
        }
        lines.len()
    }

    #[test]
    fn every_example_parses() {
        assert!(check(&program(), "fista-pruner") >= 2 * super::EXAMPLES.len());
    }
}
