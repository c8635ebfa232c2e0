//! How long a stage will still take. In: when its steps, and the parts of a step, were done. Out: seconds.
//!
//! The parts of a decoder layer, its operators, take very different times, but the layers resemble each other. So from the
//! second layer on, the one before tells how far into a layer an operator is.

/// Times of a stage, in seconds since it began.
#[derive(Debug, Default)]
pub(super) struct Estimate {
    steps: usize,
    done: usize,
    /// Parts that the step at hand will have, as announced.
    expected: usize,
    /// When the step at hand began.
    began: f64,
    /// Ends of the parts of the step at hand, since it began.
    parts: Vec<f64>,
    /// The same of the step before, and its whole time.
    before: Option<(Vec<f64>, f64)>,
    /// The last thing that happened.
    last: f64,
}

impl Estimate {
    pub(super) fn new(steps: usize) -> Self {
        Self {
            steps,
            ..Self::default()
        }
    }

    /// The step at hand will have that many parts.
    pub(super) fn announce(&mut self, parts: usize) {
        self.expected = parts;
    }

    pub(super) fn part(&mut self, now: f64) {
        self.parts.push(now - self.began);
        self.last = now;
    }

    pub(super) fn step(&mut self, now: f64) {
        self.before = Some((std::mem::take(&mut self.parts), now - self.began));
        self.began = now;
        self.done += 1;
        self.expected = 0;
        self.last = now;
    }

    /// Seconds from `now` to the end; `None` before anything is done.
    pub(super) fn left(&self, now: f64) -> Option<f64> {
        let share = (self.done as f64 + self.within()) / self.steps.max(1) as f64;
        if share <= 0.0 {
            return None;
        }
        let whole = self.last / share.min(1.0);
        Some((whole - now).max(0.0))
    }

    /// How far the step at hand is, from 0 to 1.
    fn within(&self) -> f64 {
        let Some(last) = self.parts.len().checked_sub(1) else {
            return 0.0;
        };
        match &self.before {
            Some((ends, whole)) if last < ends.len() && *whole > 0.0 => ends[last] / whole,
            // Something is left to do after the last part.
            _ => self.parts.len() as f64 / self.expected.max(self.parts.len()).saturating_add(1) as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_steps() {
        let mut estimate = Estimate::new(4);
        assert_eq!(estimate.left(0.5), None);
        estimate.step(2.0);
        assert_eq!(estimate.left(2.0), Some(6.0));
        assert_eq!(estimate.left(3.0), Some(5.0));
        estimate.step(4.0);
        assert_eq!(estimate.left(4.0), Some(4.0));
        assert_eq!(estimate.left(100.0), Some(0.0));
    }

    #[test]
    fn a_layer_is_as_the_one_before() {
        let mut estimate = Estimate::new(3);
        estimate.announce(2);
        estimate.part(1.0);
        // Nothing is known of the layer but that two of three ends are to come.
        assert_eq!(estimate.left(1.0), Some(8.0));
        estimate.part(9.0);
        estimate.step(10.0);
        assert_eq!(estimate.left(10.0), Some(20.0));
        estimate.announce(2);
        estimate.part(11.0);
        let left = estimate.left(11.0).unwrap();
        assert!((left - 19.0).abs() < 1e-9, "{left}");
        estimate.part(19.0);
        let left = estimate.left(19.0).unwrap();
        assert!((left - 11.0).abs() < 1e-9, "{left}");
    }
}
