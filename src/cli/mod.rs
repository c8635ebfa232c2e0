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
mod shrink;
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

pub use signals::out_of_memory;

/// Has a panic said as an error is, unless it becomes one. Rust's own words and its trace follow where they are asked for.
fn say_faults() {
    let own = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if crate::system::is_guarded() {
            return;
        }
        progress::clear();
        let what = crate::system::brief(panic.payload_as_str().unwrap_or("something broke off"));
        let place = panic
            .location()
            .map_or(String::new(), |place| format!(" ({place})"));
        log::ended(
            &format!("a fault of this program: {what}{place}"),
            "please report it, with the whole command; the environment variable RUST_BACKTRACE=1 adds where it came from",
        );
        if std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0") {
            own(panic);
        }
    }));
}

/// Runs the program on the process's arguments.
pub fn main() -> ExitCode {
    let matches = program().get_matches();
    let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let global = &arguments.global;
    progress::start(global.progress, matches.subcommand_name().unwrap_or_default());
    log::start(global.verbose, global.quiet);
    say_faults();
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
