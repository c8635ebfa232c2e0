//! Where the border between small and large entries lies: one counting pass over the upper bits of all sizes finds the narrow
//! range that holds it, so that only that range's entries are ever ordered.

use rayon::prelude::*;
use std::ops::Range;

/// Upper bits of an absolute value that make its bin: the exponent and five bits of the mantissa. A task's counts stay in
/// the first-level cache.
const BITS: u32 = 13;
/// Bins of sizes, and one for the caller's own use.
const BINS: usize = 1 + (1 << BITS);
/// Fewest entries that a task looks at.
const CHUNK: usize = 1 << 14;

/// The bin of an entry's absolute value, below 8192; bins are ordered as sizes are. What is not a number is in the highest.
pub fn size_bin(value: f32) -> u32 {
    value.abs().to_bits() >> (31 - BITS)
}

/// The absolute values, as bits, of a bin of [`size_bin`].
pub(crate) fn bits_of_bin(bin: u32) -> Range<u32> {
    bin << (31 - BITS)..(bin + 1) << (31 - BITS)
}

/// The bin in which the `rank`-th smallest entry lies, counted from 1, and how many entries are in bins below it. With no
/// more than `rank` entries that is the highest bin that has any. `bin` is [`size_bin`], or what orders entries by it and
/// stays at or below 8192.
pub fn border_bin(values: &[f32], rank: usize, bin: impl Fn(f32) -> u32 + Sync) -> (u32, usize) {
    let count = |values: &[f32]| {
        let mut counts = Counts::new();
        counts.add(values, &bin);
        counts
    };
    let counts = values.par_chunks(task(values.len())).map(count);
    counts.reduce(Counts::new, Counts::with).border(rank)
}

/// Entries of `len` that a task counts.
pub(crate) fn task(len: usize) -> usize {
    len.div_ceil(4 * rayon::current_num_threads()).max(CHUNK)
}

/// How many entries each bin has.
pub(crate) struct Counts(Vec<u32>);

impl Counts {
    pub(crate) fn new() -> Self {
        Self(vec![0; BINS])
    }

    pub(crate) fn add(&mut self, values: &[f32], bin: impl Fn(f32) -> u32) {
        for value in values {
            self.0[bin(*value) as usize] += 1;
        }
    }

    pub(crate) fn with(mut self, other: Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(a, b)| *a += b);
        self
    }

    /// As [`border_bin`].
    pub(crate) fn border(self, rank: usize) -> (u32, usize) {
        let (mut border, mut below, mut so_far) = (0, 0, 0);
        for (bin, count) in (0..).zip(self.0) {
            if count > 0 && so_far < rank {
                (border, below) = (bin, so_far);
            }
            so_far += count as usize;
        }
        (border, below)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_are_ordered_as_sizes_are() {
        let values = [0.0, -1e-40, 1e-20, -0.5, 1.0, -1.1, 3e30, f32::INFINITY, f32::NAN];
        assert!(values.map(size_bin).is_sorted());
        assert!(
            values
                .iter()
                .all(|v| size_bin(*v) == size_bin(-*v) && size_bin(*v) < 8192)
        );
    }

    #[test]
    fn a_bin_has_the_bits_it_is_made_of() {
        for value in [0.0f32, -1e-40, 0.75, -1.1, 3e30, f32::NAN] {
            let bits = bits_of_bin(size_bin(value));
            assert!(bits.contains(&value.abs().to_bits()), "{value}");
            assert_eq!(size_bin(f32::from_bits(bits.start)), size_bin(value));
            assert_eq!(size_bin(f32::from_bits(bits.end - 1)), size_bin(value));
        }
    }

    #[test]
    fn the_border_is_where_the_rank_falls() {
        let values = [4.0, -1.0, 2.0, -8.0, 2.0, 0.0];
        for (rank, value, below) in [
            (1, 0.0, 0),
            (2, 1.0, 1),
            (3, 2.0, 2),
            (4, 2.0, 2),
            (5, 4.0, 4),
            (6, 8.0, 5),
        ] {
            assert_eq!(
                border_bin(&values, rank, size_bin),
                (size_bin(value), below),
                "{rank}"
            );
        }
        assert_eq!(border_bin(&values, 9, size_bin), (size_bin(8.0), 5));
    }
}
