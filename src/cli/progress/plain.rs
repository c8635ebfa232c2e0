//! A line a step, for logs.

use super::state::State;
use crate::progress::Event;
use crate::system::Memory;
use std::fmt::Write;

pub(super) fn show(event: Event<'_>, state: &State, branches: &[String]) {
    if matches!(event, Event::Step) {
        eprintln!("{}", line(state, branches, Memory::now()));
    }
}

fn line(state: &State, branches: &[String], memory: Option<Memory>) -> String {
    let mut text = format!(
        "{} {}/{}: {:.1} s",
        state.stage, state.step, state.steps, state.step_seconds
    );
    if branches.len() > 1 {
        for (branch, name) in branches.iter().enumerate() {
            if let Some(mean) = state.mean(branch) {
                let _ = write!(text, ", {name} {mean:.5}");
            }
        }
    } else if let Some(mean) = state.mean(0) {
        let _ = write!(text, ", mean error {mean:.5}");
    }
    let _ = write!(text, ", {:.1} s elapsed", state.elapsed());
    if let Some(left) = state.left() {
        let _ = write!(text, ", {left:.0} s left");
    }
    if let Some(memory) = memory {
        let _ = write!(text, ", {memory}");
    }
    text
}
