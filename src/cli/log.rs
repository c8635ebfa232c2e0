//! Messages on stderr: errors with their advice, warnings and logs. In colours on a terminal, as JSON lines where progress
//! is; never into the middle of the live view.

use super::progress;
use crate::error::Error;
use crate::system::brief;
use clap::builder::styling::{AnsiColor, Style};
use std::fmt::Write as _;
use std::io::Write;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Logs go to stderr: warnings by default, more with `-v`; `RUST_LOG` overrides both.
pub(super) fn start(verbose: u8, quiet: bool) {
    let level = match (quiet, verbose) {
        (true, _) => "error",
        (_, 0) => "fista_pruner=warn,error",
        (_, 1) => "fista_pruner=info,warn",
        _ => "fista_pruner=debug,info",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    let json = progress::is_json();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Stderr)
        .with_ansi(coloured() && !json)
        .with_level(!json)
        .without_time()
        .with_target(false)
        .init();
}

/// Says what failed, why, and what can be done about it.
pub(super) fn failed(error: &Error) {
    let (mut fact, hint) = error.for_command_line();
    let mut causes = Vec::new();
    let mut said = fact.clone();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        // Many errors already spell their cause out.
        let text = match cause.downcast_ref::<Error>() {
            Some(error) => error.for_command_line().0,
            None => brief(&cause.to_string()).into_owned(),
        };
        if !said.contains(&text) {
            said.push_str(&text);
            causes.push(text);
        }
        source = cause.source();
    }
    if progress::is_json() {
        for cause in causes {
            let _ = write!(fact, ": {cause}");
        }
        progress::error(&fact, hint.as_deref());
    } else {
        let text = error_text(&fact, &causes, hint.as_deref());
        progress::around_view(|| say(&text));
    }
}

/// Says what ended the program without an error value: a fault of its own, or memory that it was not given.
pub(super) fn ended(fact: &str, hint: &str) {
    if progress::is_json() {
        progress::error(fact, Some(hint));
    } else {
        say(&error_text(fact, &[], Some(hint)));
    }
}

fn error_text(fact: &str, causes: &[String], hint: Option<&str>) -> String {
    let mut text = format!("{} {fact}\n", label("error:", AnsiColor::Red));
    for cause in causes {
        let _ = writeln!(text, "  caused by: {cause}");
    }
    if let Some(hint) = hint {
        let _ = writeln!(text, "{} {hint}", label("hint:", AnsiColor::Cyan));
    }
    text
}

/// Says that a signal ended the run.
pub(super) fn interrupted(message: &str, signal: &str) {
    if progress::is_json() {
        progress::interrupted(message, signal);
    } else {
        say(&format!("{} {message}\n", label("error:", AnsiColor::Red)));
    }
}

/// Says what is good to know while the program goes on.
pub(super) fn note(fact: &str) {
    if !progress::is_json() {
        say(&format!("{} {fact}\n", label("note:", AnsiColor::Cyan)));
    }
}

/// Nobody can be told that stderr cannot be written.
fn say(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

fn label(text: &str, colour: AnsiColor) -> String {
    let style = if coloured() {
        Style::new().bold().fg_color(Some(colour.into()))
    } else {
        Style::new()
    };
    format!("{style}{text}{style:#}")
}

/// Whether stderr takes colours: a terminal that has them, unless NO_COLOR, CLICOLOR or CLICOLOR_FORCE say otherwise.
fn coloured() -> bool {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let is = |name: &str, expected: &str| variable(name).is_some_and(|value| value == expected);
    if variable("NO_COLOR").is_some() {
        return false;
    }
    if variable("CLICOLOR_FORCE").is_some() && !is("CLICOLOR_FORCE", "0") {
        return true;
    }
    !is("CLICOLOR", "0") && !is("TERM", "dumb") && std::io::IsTerminal::is_terminal(&std::io::stderr())
}

/// Makes one [`Message`] an event.
struct Stderr;

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Message;

    fn make_writer(&'a self) -> Message {
        Message {
            level: Level::INFO,
            text: Vec::new(),
        }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Message {
        Message {
            level: *metadata.level(),
            text: Vec::new(),
        }
    }
}

/// A log message, shown whole when it is complete.
struct Message {
    level: Level,
    text: Vec<u8>,
}

impl Write for Message {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        let text = String::from_utf8_lossy(&self.text);
        if text.trim().is_empty() {
            return;
        }
        if progress::is_json() {
            progress::log(self.level.as_str(), text.trim());
        } else {
            progress::around_view(|| say(&text));
        }
    }
}
