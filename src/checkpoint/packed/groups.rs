//! The codes of n:m groups. In: which of a group's m elements are kept, as m bits. Out: a number of ⌈log₂ C(m, n)⌉ bits,
//! and back.
//!
//! A code is the group's place among all m-bit numbers with n bits set, in ascending order (the combinatorial number
//! system). For 2:4 that is 0011, 0101, 0110, 1001, 1010, 1100 → 0 … 5, with the group's first element in the lowest bit.

/// The largest group with a code: C(16, 8) = 12870 patterns, so that tables of all of them stay small.
pub(crate) const MAX_GROUP: usize = 16;

/// `n` kept elements in each `m` consecutive ones. `0 < n < m <= MAX_GROUP`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Groups {
    n: usize,
    m: usize,
}

impl Groups {
    /// `None` unless `0 < n < m <= MAX_GROUP`.
    pub(crate) fn new(n: usize, m: usize) -> Option<Self> {
        (0 < n && n < m && m <= MAX_GROUP).then_some(Self { n, m })
    }

    /// As it is spelled in the names of tensors: `2:4`, without signs, blanks or leading zeros.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (n, m) = text.split_once(':')?;
        let groups = Self::new(n.parse().ok()?, m.parse().ok()?)?;
        (groups.to_string() == text).then_some(groups)
    }

    /// Elements kept in a group.
    pub(crate) fn n(self) -> usize {
        self.n
    }

    /// Elements of a group.
    pub(crate) fn m(self) -> usize {
        self.m
    }

    /// Bits of a code.
    pub(crate) fn code_bits(self) -> usize {
        self.patterns().next_power_of_two().trailing_zeros() as usize
    }

    /// C(m, n).
    fn patterns(self) -> usize {
        (0..self.n).fold(1, |product, i| product * (self.m - i) / (i + 1))
    }

    /// Bytes of the codes of so many groups; `None` where that overflows.
    pub(crate) fn code_bytes(self, groups: u64) -> Option<u64> {
        Some(groups.checked_mul(self.code_bits() as u64)?.div_ceil(8))
    }

    /// Every pattern in the order of its code.
    pub(crate) fn table(self) -> Vec<u16> {
        (0..1u32 << self.m)
            .filter(|bits| bits.count_ones() as usize == self.n)
            .map(|bits| bits as u16)
            .collect()
    }

    /// The code of each pattern of n bits, by pattern; other patterns have no meaning there.
    pub(crate) fn codes(self) -> Vec<u16> {
        let mut codes = vec![0; 1 << self.m];
        for (code, pattern) in self.table().into_iter().enumerate() {
            codes[usize::from(pattern)] = code as u16;
        }
        codes
    }

    /// `pattern` with its lowest unset bits set until there are n of them, for groups with more zeros than the rest.
    pub(crate) fn filled(self, mut pattern: u16) -> u16 {
        while (pattern.count_ones() as usize) < self.n {
            pattern |= pattern + 1;
        }
        pattern
    }
}

impl std::fmt::Display for Groups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.n, self.m)
    }
}

/// The `count <= 16` bits from bit `position` on, the lowest first; bits beyond the end are zero.
pub(crate) fn bits_at(bytes: &[u8], position: usize, count: usize) -> u16 {
    let first = position / 8;
    let mut word = [0; 4];
    let available = bytes.len().saturating_sub(first).min(3);
    word[..available].copy_from_slice(&bytes[first..first + available]);
    let word = u32::from_le_bytes(word) >> (position % 8);
    (word & ((1 << count) - 1)) as u16
}

/// Sets `count <= 16` bits from bit `position` on to those of `value`; they must be zero before.
pub(crate) fn set_bits(bytes: &mut [u8], position: usize, count: usize, value: u16) {
    let first = position / 8;
    let touched = (position % 8 + count).div_ceil(8);
    let word = (u32::from(value) << (position % 8)).to_le_bytes();
    for (byte, bits) in bytes[first..first + touched].iter_mut().zip(word) {
        *byte |= bits;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn two_of_four_takes_three_bits() {
        let groups = Groups::new(2, 4).unwrap();
        assert_eq!(groups.code_bits(), 3);
        assert_eq!(groups.table(), [0b0011, 0b0101, 0b0110, 0b1001, 0b1010, 0b1100]);
        assert_eq!(Groups::new(8, 16).unwrap().code_bits(), 14);
        assert_eq!(Groups::new(1, 2).unwrap().code_bits(), 1);
    }

    #[test]
    fn every_pattern_of_every_size_has_its_code() {
        for m in 2..=MAX_GROUP {
            for n in 1..m {
                let groups = Groups::new(n, m).unwrap();
                let (table, codes) = (groups.table(), groups.codes());
                assert_eq!(table.len(), groups.patterns());
                assert!(table.len() <= 1 << groups.code_bits());
                for (code, pattern) in table.iter().enumerate() {
                    assert_eq!(usize::from(codes[usize::from(*pattern)]), code);
                }
            }
        }
    }

    #[test]
    fn spelling_is_unique() {
        for text in ["2:4", "1:2", "15:16"] {
            assert_eq!(Groups::parse(text).unwrap().to_string(), text);
        }
        for text in ["02:4", "+2:4", "2: 4", "4:4", "0:4", "8:17", "2:4:8", "mask"] {
            assert_eq!(Groups::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn filling_adds_only(bits in any::<u16>(), n in 1usize..16) {
            let groups = Groups::new(n, 16).unwrap();
            let filled = groups.filled(bits);
            prop_assert_eq!(filled & bits, bits);
            prop_assert_eq!(filled.count_ones(), bits.count_ones().max(n as u32));
        }

        #[test]
        fn bits_come_back(values in prop::collection::vec(any::<u16>(), 1..40), count in 1usize..=16) {
            let mut bytes = vec![0; (values.len() * count).div_ceil(8)];
            for (i, value) in values.iter().enumerate() {
                set_bits(&mut bytes, i * count, count, value & (u32::MAX >> (32 - count)) as u16);
            }
            for (i, value) in values.iter().enumerate() {
                prop_assert_eq!(bits_at(&bytes, i * count, count), value & (u32::MAX >> (32 - count)) as u16);
            }
        }
    }
}
