//! The random numbers of Python's `random.Random`, which the harness draws examples and bootstrap samples with: the
//! Mersenne Twister MT19937 (Matsumoto and Nishimura 1998, doi 10.1145/272991.272995), seeded by an integer.

const SIZE: usize = 624;
const MIDDLE: usize = 397;

/// A generator.
#[derive(Clone)]
pub(crate) struct PythonRandom {
    state: [u32; SIZE],
    next: usize,
}

impl PythonRandom {
    /// As `random.Random(seed)`.
    pub(crate) fn new(seed: u32) -> Self {
        // `init_by_array` of the published code, with the seed as the array's only word.
        let mut state = [0u32; SIZE];
        state[0] = 19_650_218;
        for i in 1..SIZE {
            state[i] = mixed(state[i - 1])
                .wrapping_mul(1_812_433_253)
                .wrapping_add(i as u32);
        }
        let mut i = 1;
        for _ in 0..SIZE {
            state[i] = (state[i] ^ mixed(state[i - 1]).wrapping_mul(1_664_525)).wrapping_add(seed);
            i = following(&mut state, i);
        }
        for _ in 0..SIZE - 1 {
            state[i] = (state[i] ^ mixed(state[i - 1]).wrapping_mul(1_566_083_941)).wrapping_sub(i as u32);
            i = following(&mut state, i);
        }
        state[0] = 1 << 31;
        Self { state, next: SIZE }
    }

    fn next_u32(&mut self) -> u32 {
        if self.next == SIZE {
            self.renew();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    fn renew(&mut self) {
        for i in 0..SIZE {
            let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % SIZE] & 0x7fff_ffff);
            let twisted = (y >> 1) ^ if y & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + MIDDLE) % SIZE] ^ twisted;
        }
        self.next = 0;
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

fn mixed(word: u32) -> u32 {
    word ^ (word >> 30)
}

fn following(state: &mut [u32; SIZE], i: usize) -> usize {
    if i + 1 < SIZE {
        return i + 1;
    }
    state[0] = state[SIZE - 1];
    1
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
