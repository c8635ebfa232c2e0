//! What help texts take from the code: the headings with their order, and the defaults, which are told nowhere else. In: the
//! settings' own defaults. Out: sentences for `#[arg(help = …)]`, and subcommands whose flags are in order.

use crate::checkpoint::Model;
use crate::config::{FistaConfig, Method, SolverConfig};
use crate::text::CalibrationData;
use clap::{Arg, Command, Id, ValueEnum};
use fista_pruner_models::Family;

pub(crate) const MODEL: &str = "Model and output";
pub(crate) const METHOD: &str = "Sparsity and method";
pub(crate) const TRAINING: &str = "Training";
pub(crate) const PROMPT: &str = "Prompt and sampling";
pub(crate) const CALIBRATION: &str = "Calibration";
pub(crate) const EVALUATION: &str = "Evaluation";
pub(crate) const TASKS: &str = "Zero-shot tasks";
pub(crate) const MEMORY: &str = "Memory and devices";
pub(crate) const LONG_RUNS: &str = "Long runs";
pub(crate) const OUTPUT: &str = "Output of the program";
pub(crate) const EXPERT: &str = "Expert solver settings";

/// The order in which `--help` shows them.
pub(super) const HEADINGS: [&str; 11] = [
    MODEL,
    METHOD,
    TRAINING,
    PROMPT,
    CALIBRATION,
    EVALUATION,
    TASKS,
    MEMORY,
    LONG_RUNS,
    OUTPUT,
    EXPERT,
];

/// The program with every subcommand's flags, the global ones too, sorted by heading. clap shows headings in the order in which
/// it meets them, and adds global flags at the end.
pub(crate) fn in_order(mut program: Command) -> Command {
    let globals: Vec<Arg> = program
        .get_arguments()
        .filter(|argument| argument.is_global_set())
        .cloned()
        .collect();
    program = program.mut_subcommands(|subcommand| sorted(subcommand, &globals));
    program
}

fn sorted(mut command: Command, globals: &[Arg]) -> Command {
    command = command.args(globals.iter().cloned());
    let place = |argument: &Arg| {
        let heading = argument.get_help_heading();
        HEADINGS.iter().position(|known| Some(*known) == heading)
    };
    let mut arguments: Vec<(Option<usize>, Id)> = command
        .get_arguments()
        .map(|argument| (place(argument), argument.get_id().clone()))
        .collect();
    arguments.sort_by_key(|(place, _)| *place);
    for (number, (_, id)) in arguments.into_iter().enumerate() {
        // An argument that is changed becomes the last one.
        command = command.mut_arg(id, |argument| argument.display_order(number));
    }
    command.mut_subcommands(|subcommand| sorted(subcommand, globals))
}

/// `what`, and what each preset has: `best` is the default.
pub(crate) fn by_preset<T: ToString>(what: &str, value: impl Fn(&SolverConfig) -> T) -> String {
    let [best, fast, paper] = [SolverConfig::best, SolverConfig::fast, SolverConfig::paper]
        .map(|preset| value(&preset(None)).to_string());
    let mut text = format!("{what} Default: {best}");
    for (name, other) in [("fast", fast), ("paper", paper)] {
        if other != best {
            text += &format!(", or {other} with `--preset {name}`");
        }
    }
    text + "."
}

/// `what`, and what `--method fista` has without a preset and with one.
pub(crate) fn of_fista<T: ToString>(what: &str, value: impl Fn(&FistaConfig) -> T) -> String {
    let [own, opt, other] = [
        SolverConfig::with_refit(Method::Fista, None),
        SolverConfig::paper(Some(Family::Opt)),
        SolverConfig::paper(Some(Family::Llama)),
    ]
    .map(|config| value(&config.fista).to_string());
    if opt != other {
        return format!(
            "{what} Default: {own}; with `--preset paper` {opt} for OPT and {other} for other models, as in the paper."
        );
    }
    match own == opt {
        true => format!("{what} Default: {own}, as in the paper."),
        false => format!("{what} Default: {own}; with `--preset paper` {opt}, as in the paper."),
    }
}

/// `what`, and the warm starts of the paper.
pub(crate) fn warm_start(what: &str) -> String {
    let [opt, other] =
        [Family::Opt, Family::Llama].map(|family| named(SolverConfig::paper(Some(family)).warm_start));
    format!("{what} Default: {opt} for OPT and {other} for other models, as in the paper.")
}

/// `what`, and how many calibration sequences there are.
pub(crate) fn samples(what: &str) -> String {
    let samples = CalibrationData::SAMPLES;
    format!("{what} Default: {samples}, or all sequences of a file of token ids.")
}

/// `what`, and how long a sequence is.
pub(crate) fn seq_len(what: &str) -> String {
    let most = Model::DEFAULT_SEQ_LEN;
    format!(
        "{what} Default: the longest that the model allows, at most {most}. A file of token ids has its own length."
    )
}

/// A value's name on the command line.
pub(crate) fn named(value: impl ValueEnum) -> String {
    let value = value.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

/// A number as people write it: `0.03`, `1e-6`.
pub(crate) fn number(value: f64) -> String {
    if value == 0.0 || (1e-2..1e4).contains(&value.abs()) {
        value.to_string()
    } else {
        format!("{value:e}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::command::program;
    use std::collections::BTreeSet;

    /// Every flag of every subcommand is under a heading, and the headings are in order.
    #[test]
    fn flags_are_under_headings_in_order() {
        fn check(command: &Command) {
            let headings: Vec<&str> = command
                .get_opts()
                .map(|flag| {
                    let heading = flag.get_help_heading();
                    heading.unwrap_or_else(|| panic!("{} --{}", command.get_name(), flag.get_id()))
                })
                .collect();
            let places: Vec<usize> = headings
                .iter()
                .map(|heading| HEADINGS.iter().position(|known| known == heading).unwrap())
                .collect();
            assert!(places.is_sorted(), "{}: {headings:?}", command.get_name());
            command.get_subcommands().for_each(check);
        }
        let program = program();
        program.get_subcommands().for_each(check);
        let prune = program.find_subcommand("prune").unwrap();
        let found: BTreeSet<&str> = prune.get_arguments().filter_map(Arg::get_help_heading).collect();
        assert_eq!(found.len(), 8, "{found:?}");
    }

    #[test]
    fn defaults_are_those_of_the_presets() {
        let [best, fast] = [SolverConfig::best(None), SolverConfig::fast(None)];
        assert_eq!(
            by_preset("Steps.", |c| c.l0.refresh),
            format!(
                "Steps. Default: {}, or {} with `--preset fast`.",
                best.l0.refresh, fast.l0.refresh
            )
        );
        let help = program()
            .find_subcommand_mut("prune")
            .unwrap()
            .render_help()
            .to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for told in [
            by_preset("", |c| c.polish),
            by_preset("", |c| number(c.l0.rho)),
            of_fista("", |f| number(f.epsilon)),
            samples(""),
        ] {
            assert!(help.contains(told.trim()), "no `{told}` in {help}");
        }
        assert_eq!(
            [number(1e-6), number(0.03), number(1e6), number(0.0)],
            ["1e-6", "0.03", "1e6", "0"]
        );
    }
}
