//! Progress on stderr: a bar on a terminal, nothing elsewhere.

use crate::hub::Transfer;
use crate::progress::{Event, Observer};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Shows events as one bar.
pub(crate) struct Bar {
    bar: ProgressBar,
    visible: bool,
}

impl Bar {
    /// A bar that shows itself on a terminal only, and never when asked to be quiet.
    pub(crate) fn new(quiet: bool) -> Self {
        let bar = ProgressBar::hidden();
        Self { bar, visible: !quiet }
    }
}

impl Observer for Bar {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Stage { name, steps } => {
                let target = if self.visible {
                    ProgressDrawTarget::stderr()
                } else {
                    ProgressDrawTarget::hidden()
                };
                let template = "{elapsed_precise} [{wide_bar}] {pos}/{len} {prefix}, {eta} left: {msg}";
                self.bar = ProgressBar::with_draw_target(Some(steps as u64), target);
                if let Ok(style) = ProgressStyle::with_template(template) {
                    self.bar.set_style(style.progress_chars("=> "));
                }
                self.bar.set_prefix(name);
                self.bar.enable_steady_tick(std::time::Duration::from_millis(500));
            }
            Event::Working { on } => self.bar.set_message(on.to_owned()),
            Event::Operator {
                name,
                relative_error,
                sparsity,
                seconds,
            } => {
                let text = format!("{name}: error {relative_error:.5}");
                tracing::info!("{text}, sparsity {sparsity:.4}, {seconds:.2} s");
                self.bar.set_message(text);
            }
            Event::Step => self.bar.inc(1),
            Event::Done => self.bar.finish_and_clear(),
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
            visible: !quiet,
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
