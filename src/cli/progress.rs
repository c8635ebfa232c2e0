//! Progress on stderr: a live view on a terminal, plain lines for logs, JSON lines for programs, or nothing. `docs/progress.md`
//! describes all of them.
//!
//! A process has one stderr. So what was asked for and the view that is shown are the process's too: messages go around the
//! view, and an interruption takes it away.

mod estimate;
mod json;
mod plain;
mod state;
mod view;

pub(super) use view::{around_view, clear};

use super::args::ProgressChoice;
use crate::hub::Transfer;
use crate::progress::{Event, Observer};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use json::Line;
use state::State;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;
use view::lock;

/// What the command line asked for, and since when the program runs.
static ASKED: OnceLock<(ProgressChoice, Instant)> = OnceLock::new();
/// How events are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    View,
    Plain,
    Json,
    Off,
}

/// Notes what the command line asks for, before anything is shown.
pub(super) fn start(choice: ProgressChoice, command: &str) {
    let _ = ASKED.set((choice, Instant::now()));
    if is_json() {
        json::write(&Line {
            program: Some(concat!("fista-pruner ", env!("CARGO_PKG_VERSION"))),
            command: Some(command),
            ..Line::new("start")
        });
    }
}

/// Whether stderr carries JSON lines and nothing else.
pub(super) fn is_json() -> bool {
    asked() == ProgressChoice::Jsonl
}

/// An error, as a JSON line.
pub(super) fn error(message: &str, hint: Option<&str>) {
    json::write(&Line {
        message: Some(message),
        hint,
        ..Line::new("error")
    });
}

/// An interruption, as a JSON line.
pub(super) fn interrupted(message: &str, signal: &str) {
    json::write(&Line {
        message: Some(message),
        signal: Some(signal),
        ..Line::new("interrupted")
    });
}

/// A log message, as a JSON line.
pub(super) fn log(level: &str, message: &str) {
    json::write(&Line {
        level: Some(level),
        message: Some(message),
        ..Line::new("log")
    });
}

/// The last JSON line, where there are any.
pub(super) fn end(exit_code: i32) {
    if is_json() {
        let seconds = ASKED
            .get()
            .map(|(_, started)| json::rounded(started.elapsed().as_secs_f64()));
        json::write(&Line {
            exit_code: Some(exit_code),
            seconds,
            ..Line::new("end")
        });
    }
}

fn asked() -> ProgressChoice {
    ASKED.get().map_or(ProgressChoice::Auto, |(choice, _)| *choice)
}

impl Style {
    fn choose(choice: ProgressChoice, quiet: bool, terminal: bool) -> Self {
        match choice {
            ProgressChoice::Plain => Self::Plain,
            ProgressChoice::Jsonl => Self::Json,
            ProgressChoice::None => Self::Off,
            ProgressChoice::Auto | ProgressChoice::Bar if quiet => Self::Off,
            ProgressChoice::Auto | ProgressChoice::Bar if terminal => Self::View,
            ProgressChoice::Auto => Self::Off,
            ProgressChoice::Bar => Self::Plain,
        }
    }
}

/// Whether stderr is a terminal whose lines can be written anew.
fn has_terminal() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Shows a run's events in the way that the command line asks for.
pub(crate) struct Bar {
    style: Style,
    /// Names of what is pruned side by side; empty where there is one.
    branches: Vec<String>,
    state: Arc<Mutex<State>>,
}

impl Bar {
    /// Shows what the command line asks for; a quiet command has no live view.
    pub(crate) fn new(quiet: bool) -> Self {
        Self {
            style: Style::choose(asked(), quiet, has_terminal()),
            branches: Vec::new(),
            state: Arc::new(Mutex::new(State::new("", 0))),
        }
    }

    /// Names the branches that are pruned side by side, in their order.
    pub(crate) fn with_branches(mut self, names: Vec<String>) -> Self {
        self.branches = names;
        self
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        // A run that failed has had no last event.
        if self.style == Style::View {
            clear();
        }
    }
}

impl Observer for Bar {
    fn event(&mut self, event: Event<'_>) {
        lock(&self.state).apply(event, Instant::now());
        match self.style {
            Style::View => view::show(event, &self.state, &self.branches),
            Style::Plain => plain::show(event, &lock(&self.state), &self.branches),
            Style::Json => json::show(event, &lock(&self.state), &self.branches),
            Style::Off => {}
        }
        if let Event::Operator {
            name,
            relative_error,
            sparsity,
            seconds,
            ..
        } = event
        {
            tracing::info!("{name}: error {relative_error:.5}, sparsity {sparsity:.4}, {seconds:.2} s");
        }
    }
}

/// Shows downloads, one bar a file.
pub(crate) struct DownloadBar {
    bar: ProgressBar,
    file: String,
    visible: bool,
}

impl DownloadBar {
    /// As [`Bar::new`].
    pub(crate) fn new(quiet: bool) -> Self {
        Self {
            bar: ProgressBar::hidden(),
            file: String::new(),
            visible: Style::choose(asked(), quiet, has_terminal()) == Style::View,
        }
    }

    pub(crate) fn show(&mut self, transfer: &Transfer<'_>) {
        if self.file != transfer.file {
            self.bar.finish_and_clear();
            let target = match self.visible {
                true => ProgressDrawTarget::stderr(),
                false => ProgressDrawTarget::hidden(),
            };
            self.bar = ProgressBar::with_draw_target(transfer.total, target);
            let template = "{prefix} [{wide_bar}] {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left";
            if let Ok(style) = ProgressStyle::with_template(template) {
                self.bar.set_style(style.progress_chars("=> "));
            }
            self.bar.set_prefix(transfer.file.to_owned());
            transfer.file.clone_into(&mut self.file);
        }
        self.bar.set_position(transfer.done);
        if transfer.total == Some(transfer.done) {
            self.bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_and_what_is_possible() {
        use ProgressChoice::{Auto, Bar, Jsonl, None, Plain};
        let on_terminal = |choice, quiet| Style::choose(choice, quiet, true);
        let elsewhere = |choice, quiet| Style::choose(choice, quiet, false);
        assert_eq!([Auto, Bar].map(|c| on_terminal(c, false)), [Style::View; 2]);
        assert_eq!(
            [Auto, Bar].map(|c| elsewhere(c, false)),
            [Style::Off, Style::Plain]
        );
        for quiet in [false, true] {
            for show in [on_terminal, elsewhere] {
                assert_eq!(
                    [Plain, Jsonl, None].map(|choice| show(choice, quiet)),
                    [Style::Plain, Style::Json, Style::Off]
                );
            }
        }
        for choice in [Auto, Bar] {
            assert_eq!(on_terminal(choice, true), Style::Off);
            assert_eq!(elsewhere(choice, true), Style::Off);
        }
    }
}
