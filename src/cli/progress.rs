//! Progress on stderr: a bar on a terminal, nothing elsewhere.

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
