//! The live view: three lines at the bottom of the terminal.
//!
//! ```text
//! layers 5/12 [================>                      ] 00:01:10 elapsed, 00:01:38 left
//!   layer 6 of 12: model.layers.5.mlp.down_proj
//!   last up_proj 0.01234, mean 0.01821  memory 1.20 GB (peak 1.31 GB)
//! ```

use super::state::State;
use crate::progress::Event;
use crate::system::Memory;
use indicatif::{FormattedDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The view on the terminal, while there is one.
static VIEW: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// What follows the stage's name. The message is what is at hand, the prefix how it went so far.
const TEMPLATE: &str =
    " {pos}/{len} [{wide_bar}] {elapsed_precise} elapsed{left}\n  {wide_msg}\n  {prefix}{memory}";
/// How often times and memory are renewed while nothing happens.
const TICK: Duration = Duration::from_millis(500);

/// Takes the view off the terminal.
pub(in crate::cli) fn clear() {
    if let Some(view) = lock(&VIEW).take() {
        view.finish_and_clear();
    }
}

/// Does what writes to stderr while the view is out of the way.
pub(in crate::cli) fn around_view(write: impl FnOnce()) {
    let view = lock(&VIEW).clone();
    match view {
        Some(view) => view.suspend(write),
        None => write(),
    }
}

/// A panic elsewhere is no reason to stop showing things.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn show(event: Event<'_>, state: &Arc<Mutex<State>>, branches: &[String]) {
    match event {
        Event::Stage { name, steps } => {
            let bar = open(name, steps, Arc::clone(state));
            *lock(&VIEW) = Some(bar);
        }
        Event::Done => clear(),
        event => {
            let (at_hand, so_far) = texts(&lock(state), branches);
            // An interruption has it taken away.
            let Some(bar) = lock(&VIEW).clone() else {
                return;
            };
            bar.set_prefix(so_far);
            bar.set_message(at_hand);
            if matches!(event, Event::Step) {
                bar.inc(1);
            }
        }
    }
}

fn open(name: &'static str, steps: usize, state: Arc<Mutex<State>>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(steps as u64), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template(&format!("{name}{TEMPLATE}")) {
        let left = move |_: &ProgressState, out: &mut dyn Write| {
            // Drawing must wait for nobody: who changes the state may be waiting for the view.
            if let Some(left) = state.try_lock().ok().and_then(|state| state.left()) {
                let _ = write!(out, ", {} left", clock(left));
            }
        };
        let memory = |_: &ProgressState, out: &mut dyn Write| {
            if let Some(memory) = Memory::now() {
                let _ = write!(out, "{memory}");
            }
        };
        let style = style.with_key("left", left).with_key("memory", memory);
        bar.set_style(style.progress_chars("=> "));
    }
    bar.enable_steady_tick(TICK);
    bar
}

/// What is at hand, and how it went so far.
fn texts(state: &State, branches: &[String]) -> (String, String) {
    let mut text = String::new();
    if let Some((layer, layers)) = state.layer {
        let _ = write!(text, "layer {} of {layers}", layer + 1);
    }
    if let Some(on) = &state.on {
        let _ = write!(text, "{}{on}", if text.is_empty() { "" } else { ": " });
    }
    if let (Some(branch), Some(_)) = (branches.get(state.branch), &state.on) {
        let _ = write!(text, ", {branch}");
    }
    let mut so_far = String::new();
    if let Some((name, error)) = &state.last {
        let short = name.rsplit('.').next().unwrap_or(name);
        let _ = write!(so_far, "last {short} {error:.5}");
        if let Some(mean) = state.mean(state.branch) {
            let _ = write!(so_far, ", mean {mean:.5}");
        }
        so_far.push_str("  ");
    }
    (text, so_far)
}

/// Seconds as hours, minutes and seconds.
fn clock(seconds: f64) -> FormattedDuration {
    FormattedDuration(Duration::from_secs(seconds.round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn the_second_and_the_third_line() {
        let branches = ["best 0.5".to_owned(), "wanda 0.5".to_owned()];
        let mut state = State::new("layers", 12);
        assert_eq!(texts(&state, &branches), (String::new(), String::new()));
        let name = "model.layers.5.mlp.up_proj";
        let events = [
            Event::Layer {
                layer: 5,
                layers: 12,
                operators: 14,
            },
            Event::Operator {
                name: "model.layers.5.self_attn.k_proj",
                layer: 5,
                branch: 1,
                relative_error: 0.0125,
                sparsity: 0.5,
                seconds: 1.0,
            },
            Event::Solving {
                name,
                layer: 5,
                branch: 1,
            },
        ];
        for event in events {
            state.apply(event, Instant::now());
        }
        let (at_hand, so_far) = texts(&state, &branches);
        assert_eq!(at_hand, "layer 6 of 12: model.layers.5.mlp.up_proj, wanda 0.5");
        assert_eq!(so_far, "last k_proj 0.01250, mean 0.01250  ");
        assert_eq!(
            [0.4, 59.6, 36_061.0].map(|seconds| clock(seconds).to_string()),
            ["00:00:00", "00:01:00", "10:01:01"]
        );
    }
}
