//! The program: parse, run, map an error to the exit code. Everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    fista_pruner::cli::main()
}
