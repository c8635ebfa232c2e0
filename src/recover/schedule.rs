//! The order of windows, and how the rate goes.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::f64::consts::PI;

/// The windows of each step: every epoch takes all of them, in another order. `stream` sets orders of one seed apart.
pub(super) fn batches(
    windows: usize,
    batch: usize,
    epochs: usize,
    seed: u64,
    stream: u64,
) -> Vec<Vec<usize>> {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    generator.set_stream(stream);
    let mut order: Vec<usize> = (0..windows).collect();
    let mut steps = Vec::new();
    for _ in 0..epochs {
        order.shuffle(&mut generator);
        steps.extend(order.chunks(batch.max(1)).map(<[usize]>::to_vec));
    }
    steps
}

/// The rate of step `step` of `total`, as a share of the highest: a linear rise in the first tenth, and a cosine.
pub(super) fn warm_cosine(step: usize, total: usize) -> f64 {
    let warm = (total / 10).max(1);
    let rise = (step + 1) as f64 / warm as f64;
    let fall = 0.5 * (1.0 + (PI * step as f64 / total.max(1) as f64).cos());
    rise.min(1.0) * fall
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_takes_every_window_once() {
        let steps = batches(10, 4, 3, 5, 1);
        assert_eq!(steps.len(), 9);
        for epoch in steps.chunks(3) {
            let mut all: Vec<usize> = epoch.concat();
            all.sort_unstable();
            assert_eq!(all, (0..10).collect::<Vec<_>>());
        }
        assert_eq!(steps, batches(10, 4, 3, 5, 1));
        assert_ne!(steps, batches(10, 4, 3, 5, 2));
        assert_ne!(steps[..3], steps[3..6]);
    }

    #[test]
    fn the_rate_rises_and_falls() {
        let rates: Vec<f64> = (0..40).map(|step| warm_cosine(step, 40)).collect();
        assert!(rates[..4].is_sorted() && rates[4..].is_sorted_by(|a, b| a > b));
        assert!(rates.iter().all(|r| *r > 0.0 && *r <= 1.0) && rates[39] < 0.01 && rates[4] > 0.95);
    }
}
