//! The random numbers of Python's `random.Random`, which the harness draws examples and bootstrap samples with: the
//! Mersenne Twister MT19937 (Matsumoto and Nishimura 1998, doi 10.1145/272991.272995), seeded by an integer.

use rand_mt::Mt;

/// A generator.
#[derive(Clone)]
pub(crate) struct PythonRandom(Mt);

impl PythonRandom {
    /// As `random.Random(seed)`.
    pub(crate) fn new(seed: u32) -> Self {
        Self(Mt::new_with_key([seed]))
    }

    fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// `random()`: 53 random bits as a number in `[0, 1)`.
    pub(crate) fn unit(&mut self) -> f64 {
        let (high, low) = (self.next_u32() >> 5, self.next_u32() >> 6);
        (f64::from(high) * 67_108_864.0 + f64::from(low)) / 9_007_199_254_740_992.0
    }

    /// A number below `end`, which is at least 1 and below 2³² (`_randbelow_with_getrandbits`).
    fn below(&mut self, end: usize) -> usize {
        let bits = usize::BITS - end.leading_zeros();
        loop {
            let drawn = (self.next_u32() >> (32 - bits)) as usize;
            if drawn < end {
                return drawn;
            }
        }
    }

    /// `sample(range(population), count)`: different numbers in the order in which they are drawn.
    ///
    /// # Panics
    /// When there are fewer than `count`.
    pub(crate) fn sample(&mut self, population: usize, count: usize) -> Vec<usize> {
        assert!(count <= population, "{count} of {population}");
        // Up to this size Python keeps a list of what is left, beyond it a set of what was drawn.
        let mut set_size = 21;
        if count > 5 {
            set_size += 4usize.pow((count as f64 * 3.0).log(4.0).ceil() as u32);
        }
        let mut drawn = Vec::with_capacity(count);
        if population <= set_size {
            let mut left: Vec<usize> = (0..population).collect();
            for end in (population - count + 1..=population).rev() {
                let chosen = self.below(end);
                drawn.push(left[chosen]);
                left[chosen] = left[end - 1];
            }
        } else {
            while drawn.len() < count {
                let chosen = self.below(population);
                if !drawn.contains(&chosen) {
                    drawn.push(chosen);
                }
            }
        }
        drawn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Printed by CPython 3.11.
    #[test]
    fn numbers_are_pythons() {
        let mut random = PythonRandom::new(1234);
        assert_eq!(
            [0; 4].map(|_| random.next_u32()),
            [4_150_886_329, 3_342_196_574, 1_892_932_127, 501_869_158]
        );
        assert_eq!(
            [0; 2].map(|_| random.unit()),
            [0.007_491_470_058_587_191, 0.910_975_962_449_124_2]
        );
        let mut random = PythonRandom::new(0);
        let first: Vec<Vec<usize>> = [(400, 3), (400, 6), (20, 5)]
            .map(|(population, count)| random.sample(population, count))
            .to_vec();
        let expected: [&[usize]; 3] = [
            &[197, 388, 215],
            &[20, 132, 261, 248, 207, 155],
            &[15, 11, 6, 16, 4],
        ];
        assert_eq!(first, expected);
        assert_eq!(random.sample(10, 10), [4, 2, 1, 9, 8, 6, 7, 3, 0, 5]);
        random.sample(1000, 40);
        // Either side of where Python changes its way of drawing.
        for (population, expected) in [
            (101, [42, 31, 93, 41, 90, 8]),
            (85, [24, 72, 28, 30, 18, 69]),
            (86, [57, 11, 10, 40, 65, 62]),
        ] {
            assert_eq!(random.sample(population, 6), expected);
        }
    }
}
