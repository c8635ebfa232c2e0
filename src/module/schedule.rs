//! How many zeros a weight has at each step of a training that prunes gradually.

use crate::config::Pattern;
use crate::error::{ConfigError, Error, Result};

/// The cubic schedule of Zhu & Gupta (arXiv 1710.01878, Eq. 1): many zeros early, while there is redundancy, few late.
///
/// ```text
/// s(t) = s_f + (s_i − s_f) (1 − (t − t₀) / (n Δt))³      for t in { t₀, t₀ + Δt, …, t₀ + n Δt }
/// ```
///
/// An n:m pattern is reached in whole zeros a group: `⌊m · s(t)⌋` of each `m`.
///
/// ```
/// use fista_pruner::module::Gradual;
/// use fista_pruner::config::Pattern;
///
/// let schedule = Gradual::new(Pattern::unstructured(0.8)?, 100, 10, 4)?;
/// assert_eq!(schedule.rate(99), 0.0);
/// assert_eq!(schedule.rate(120), 0.8 * (1.0 - 0.5f64.powi(3)));
/// assert_eq!(schedule.rate(129), schedule.rate(120));
/// assert_eq!(schedule.rate(140), 0.8);
/// assert_eq!(schedule.last_step(), 140);
/// # Ok::<(), fista_pruner::error::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gradual {
    /// The zeros at the end; `s_f` is their share.
    target: Pattern,
    /// `s_i`.
    initial: f64,
    /// `t₀`.
    first_step: usize,
    /// `Δt`.
    every: usize,
    /// `n`.
    updates: usize,
}

impl Gradual {
    /// From no zeros to those of `target`: masks change after optimizer step `first_step`, and then `updates` times, every
    /// `every` steps. Steps are counted from 1.
    ///
    /// # Errors
    /// When `every` or `updates` is zero.
    pub fn new(target: Pattern, first_step: usize, every: usize, updates: usize) -> Result<Self> {
        for (setting, value) in [("every", every), ("updates", updates)] {
            if value == 0 {
                return Err(Error::from(ConfigError::Setting {
                    setting,
                    reason: "must be at least 1".into(),
                }));
            }
        }
        Ok(Self {
            target,
            initial: 0.0,
            first_step,
            every,
            updates,
        })
    }

    /// Starts at a share `initial` of zeros instead of none.
    ///
    /// # Errors
    /// When it is negative or above the target's.
    pub fn starting_at(self, initial: f64) -> Result<Self> {
        if !(0.0..=self.target.rate()).contains(&initial) {
            return Err(Error::from(ConfigError::Setting {
                setting: "initial",
                reason: format!(
                    "must lie between 0 and the target's share of zeros, {}",
                    self.target.rate()
                ),
            }));
        }
        Ok(Self { initial, ..self })
    }

    /// The zeros at the end.
    pub fn target(&self) -> Pattern {
        self.target
    }

    /// The step after which the masks stay as they are.
    pub fn last_step(&self) -> usize {
        self.first_step
            .saturating_add(self.every.saturating_mul(self.updates))
    }

    /// Whether masks change after this step.
    pub fn is_due(&self, step: usize) -> bool {
        (self.first_step..=self.last_step()).contains(&step)
            && (step - self.first_step).is_multiple_of(self.every)
    }

    /// The share of zeros after this step.
    pub fn rate(&self, step: usize) -> f64 {
        if step < self.first_step {
            return 0.0;
        }
        let done = ((step - self.first_step) / self.every).min(self.updates);
        if done == self.updates {
            return self.target.rate();
        }
        let left = 1.0 - done as f64 / self.updates as f64;
        self.target.rate() + (self.initial - self.target.rate()) * left.powi(3)
    }

    /// The zeros after this step; `None` before there are any.
    pub fn pattern(&self, step: usize) -> Option<Pattern> {
        let rate = self.rate(step);
        match self.target {
            Pattern::Unstructured(_) => (rate > 0.0).then_some(Pattern::Unstructured(rate)),
            Pattern::NOfM { m, .. } => {
                let zeros = (m as f64 * rate + 1e-9).floor() as usize;
                (zeros > 0).then(|| Pattern::NOfM { n: m - zeros, m })
            }
            Pattern::Columns { of, .. } => {
                let zeros = (of as f64 * rate + 1e-9).floor() as usize;
                (zeros > 0).then(|| Pattern::Columns { kept: of - zeros, of })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn two_of_four_goes_over_three_of_four() {
        let schedule = Gradual::new(Pattern::NOfM { n: 2, m: 4 }, 1, 1, 10).unwrap();
        let patterns: Vec<Option<Pattern>> = (0..=11).map(|step| schedule.pattern(step)).collect();
        let three = Some(Pattern::NOfM { n: 3, m: 4 });
        let two = Some(Pattern::NOfM { n: 2, m: 4 });
        assert_eq!(patterns[..4], [None, None, None, None]);
        assert_eq!(patterns[4], three);
        assert_eq!(patterns[10], three);
        assert_eq!(patterns[11], two);
        assert_eq!(schedule.pattern(1000), two);
    }

    proptest! {
        #[test]
        fn rates_rise_to_the_target(
            target in 0.05f64..0.99,
            share in 0.0f64..1.0,
            first in 0usize..20,
            every in 1usize..7,
            updates in 1usize..9,
        ) {
            let schedule = Gradual::new(Pattern::Unstructured(target), first, every, updates).unwrap();
            let schedule = schedule.starting_at(share * target).unwrap();
            let last = schedule.last_step();
            let mut due = 0;
            for step in 0..last + 10 {
                due += usize::from(schedule.is_due(step));
                prop_assert!(schedule.rate(step + 1) >= schedule.rate(step));
                if step > 0 && !schedule.is_due(step) {
                    prop_assert_eq!(schedule.rate(step), schedule.rate(step - 1));
                }
            }
            prop_assert_eq!(due, updates + 1);
            prop_assert_eq!(schedule.rate(last), target);
            prop_assert!((schedule.rate(first) - share * target).abs() < 1e-12);
        }
    }

    #[test]
    fn wrong_settings_are_errors() {
        let half = Pattern::Unstructured(0.5);
        assert!(Gradual::new(half, 0, 0, 1).is_err());
        assert!(Gradual::new(half, 0, 1, 0).is_err());
        let schedule = Gradual::new(half, 0, 1, 1).unwrap();
        assert!(schedule.starting_at(0.6).is_err() && schedule.starting_at(-0.1).is_err());
        assert!(schedule.starting_at(f64::NAN).is_err());
    }
}
