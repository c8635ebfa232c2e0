//! The command line: the only code that prints, or reads arguments and environment. One file a subcommand.
//!
//! stdout carries results, stderr logs and progress. Exit codes: 0 done, 1 the input was wrong or the job failed, 2 the
//! command line itself was wrong.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "printing is this module's work"
)]

mod args;
mod compare;
mod data;
mod device;
mod eval;
mod generate;
mod inspect;
mod model;
mod progress;
mod prune;
mod report;
mod show;
mod solve;

use crate::error::Error;
use args::{Arguments, Command};
use clap::Parser;
use std::process::ExitCode;

/// Runs the program on the process's arguments.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    start_log(arguments.global.verbose, arguments.global.quiet);
    let global = &arguments.global;
    let has_markdown = matches!(arguments.command, Command::Compare(_));
    let checked = show::check(global.format, has_markdown);
    let outcome = checked.and_then(|()| match &arguments.command {
        Command::Prune(args) => prune::run(args, global),
        Command::Report(args) => report::run(args, global),
        Command::Eval(args) => eval::run(args, global),
        Command::Inspect(args) => inspect::run(args, global),
        Command::Generate(args) => generate::run(args, global),
        Command::Compare(args) => compare::run(args, global),
        Command::Solve(args) => solve::run(args, global),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&error);
            ExitCode::FAILURE
        }
    }
}

/// The fact, then the advice.
fn tell(error: &Error) {
    eprintln!("error: {error}");
    let mut source = std::error::Error::source(error);
    let mut said = error.to_string();
    while let Some(cause) = source {
        // Many errors already spell their cause out.
        let text = cause.to_string();
        if !said.contains(&text) {
            eprintln!("  caused by: {text}");
            said.push_str(&text);
        }
        source = cause.source();
    }
    if let Some(hint) = error.hint() {
        eprintln!("hint: {hint}");
    }
}

/// Logs go to stderr: warnings by default, more with `-v`; `RUST_LOG` overrides both.
fn start_log(verbose: u8, quiet: bool) {
    let level = match (quiet, verbose) {
        (true, _) => "error",
        (_, 0) => "fista_pruner=warn,error",
        (_, 1) => "fista_pruner=info,warn",
        _ => "fista_pruner=debug,info",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    let colour =
        std::env::var_os("NO_COLOR").is_none() && std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .without_time()
        .with_target(false)
        .init();
}
