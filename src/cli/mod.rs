//! The command line: the only code that prints, or reads arguments and environment. One file per subcommand.
//!
//! stdout carries results, stderr messages and progress. Exit codes: 0 done, 1 the input was wrong or the job failed, 2 the
//! command line itself was wrong, 130 and 143 interrupted; see `docs/cli.md`.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "printing is this module's work"
)]

mod advice;
mod args;
mod command;
mod compare;
mod documents;
mod eval;
mod examples;
mod generate;
mod help;
mod inputs;
mod inspect;
mod log;
mod mask;
mod merge;
#[cfg(test)]
mod old_names;
mod pack;
mod progress;
mod prune;
mod recover;
mod report;
mod show;
mod signals;
mod solve;
mod solver_args;
mod text;
mod values;
mod verify;
mod zeroshot;

use clap::FromArgMatches;
use command::{Arguments, Command, program};
use std::process::ExitCode;

/// Runs the program on the process's arguments.
pub fn main() -> ExitCode {
    let matches = program().get_matches();
    let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let global = &arguments.global;
    progress::start(global.progress, matches.subcommand_name().unwrap_or_default());
    log::start(global.verbose, global.quiet);
    if let Err(error) = signals::watch() {
        tracing::warn!("an interruption will leave temporary folders behind: {error}");
    }
    let has_markdown = matches!(arguments.command, Command::Compare(_));
    let checked = show::check(global.format, has_markdown);
    let outcome = checked.and_then(|()| arguments.run());
    // If the run failed because an interruption took its folder away, that is still at work and ends the process.
    std::mem::forget(crate::system::cleanup::hold());
    let code = match outcome {
        Ok(()) => 0,
        Err(error) => {
            progress::clear();
            log::failed(&error);
            1
        }
    };
    progress::end(code);
    if code == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
