//! Where a run stands, as its events tell.

use super::estimate::Estimate;
use crate::progress::Event;
use std::time::Instant;

/// A stage of a run.
#[derive(Debug)]
pub(super) struct State {
    pub(super) stage: &'static str,
    /// Steps done, and all of them.
    pub(super) step: usize,
    pub(super) steps: usize,
    /// The decoder layer at hand, from 0, and how many there are.
    pub(super) layer: Option<(usize, usize)>,
    /// What is being worked on.
    pub(super) on: Option<String>,
    pub(super) branch: usize,
    /// The operator that was done last, and its error.
    pub(super) last: Option<(String, f64)>,
    /// Sum and number of the errors of each branch.
    errors: Vec<(f64, usize)>,
    /// When the last step was done, and how long it took.
    pub(super) step_seconds: f64,
    step_began: Instant,
    began: Instant,
    estimate: Estimate,
}

impl State {
    pub(super) fn new(stage: &'static str, steps: usize) -> Self {
        let now = Instant::now();
        Self {
            stage,
            step: 0,
            steps,
            layer: None,
            on: None,
            branch: 0,
            last: None,
            errors: Vec::new(),
            step_seconds: 0.0,
            step_began: now,
            began: now,
            estimate: Estimate::new(steps),
        }
    }

    pub(super) fn apply(&mut self, event: Event<'_>, now: Instant) {
        let since = now.saturating_duration_since(self.began).as_secs_f64();
        match event {
            Event::Stage { name, steps } => *self = Self::new(name, steps),
            Event::Working { on } => self.on = Some(on.to_owned()),
            Event::Layer {
                layer,
                layers,
                operators,
            } => {
                self.layer = Some((layer, layers));
                self.on = None;
                self.estimate.announce(operators);
            }
            Event::Solving { name, branch, .. } => {
                self.on = Some(name.to_owned());
                self.branch = branch;
            }
            Event::Operator {
                name,
                branch,
                relative_error,
                ..
            } => {
                self.branch = branch;
                self.last = Some((name.to_owned(), relative_error));
                if self.errors.len() <= branch {
                    self.errors.resize(branch + 1, (0.0, 0));
                }
                self.errors[branch].0 += relative_error;
                self.errors[branch].1 += 1;
                self.estimate.part(since);
            }
            Event::Step => {
                self.step += 1;
                self.step_seconds = now.saturating_duration_since(self.step_began).as_secs_f64();
                self.step_began = now;
                self.estimate.step(since);
            }
            Event::Done => {}
        }
    }

    /// Mean error of a branch's operators so far.
    pub(super) fn mean(&self, branch: usize) -> Option<f64> {
        let (sum, count) = self.errors.get(branch)?;
        (*count > 0).then(|| sum / *count as f64)
    }

    pub(super) fn elapsed(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// Seconds to the end of the stage, once anything is known.
    pub(super) fn left(&self) -> Option<f64> {
        self.estimate.left(self.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_the_branches_own() {
        let mut state = State::new("", 0);
        let now = Instant::now();
        state.apply(
            Event::Stage {
                name: "layers",
                steps: 2,
            },
            now,
        );
        for (branch, relative_error) in [(0, 0.1), (1, 0.5), (0, 0.3)] {
            let name = "an operator";
            let layer = 0;
            state.apply(Event::Solving { name, layer, branch }, now);
            assert_eq!((state.on.as_deref(), state.branch), (Some(name), branch));
            state.apply(
                Event::Operator {
                    name,
                    layer,
                    branch,
                    relative_error,
                    sparsity: 0.5,
                    seconds: 1.0,
                },
                now,
            );
        }
        state.apply(Event::Step, now);
        assert_eq!(
            (state.mean(0), state.mean(1), state.mean(2)),
            (Some(0.2), Some(0.5), None)
        );
        assert_eq!((state.step, state.steps), (1, 2));
        state.apply(
            Event::Stage {
                name: "more",
                steps: 1,
            },
            now,
        );
        assert_eq!((state.mean(0), state.step, state.on), (None, 0, None));
    }
}
