//! One tensor's bytes without its zeros. In: elements as stored. Out: which of them are kept, and those, and back to the
//! same bytes.
//!
//! A zero is an element all of whose bits are zero, so that −0 and everything else that is not +0 survives, whatever the
//! number format is. Elements are 1, 2, 4 or 8 bytes wide; work is done a part of a tensor per task.

use super::groups::{Groups, MAX_GROUP, bits_at, set_bits};
use rayon::prelude::*;

/// How the kept elements are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// A bit an element, the lowest of a byte first: set where the element is kept.
    Mask,
    /// A code for each group of m consecutive elements. Each group stores exactly n elements, zeros among them where it
    /// has more of them than others.
    Groups(Groups),
}

impl Encoding {
    /// What follows `#` in the name of the tensor that holds the bits or codes.
    pub(crate) fn tag(self) -> String {
        match self {
            Self::Mask => "mask".into(),
            Self::Groups(groups) => groups.to_string(),
        }
    }

    /// The encoding of that tag.
    pub(crate) fn from_tag(tag: &str) -> Option<Self> {
        match tag {
            "mask" => Some(Self::Mask),
            other => Groups::parse(other).map(Self::Groups),
        }
    }

    /// Bytes of the bits or codes of so many elements; `None` where that overflows or the groups do not divide them.
    pub(crate) fn code_bytes(self, elements: u64) -> Option<u64> {
        match self {
            Self::Mask => Some(elements.div_ceil(8)),
            Self::Groups(groups) => {
                let m = groups.m() as u64;
                elements
                    .is_multiple_of(m)
                    .then(|| groups.code_bytes(elements / m))?
            }
        }
    }
}

/// A tensor without its zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parts {
    /// Bits or codes.
    pub(crate) code: Vec<u8>,
    /// The kept elements, one after the other.
    pub(crate) values: Vec<u8>,
}

/// An encoding and the sizes that it gives a tensor, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) encoding: Encoding,
    pub(crate) code_bytes: u64,
    pub(crate) value_bytes: u64,
}

impl Choice {
    pub(crate) fn bytes(&self) -> u64 {
        self.code_bytes + self.value_bytes
    }
}

/// Elements of a task: a multiple of every group size's multiple of eight, so that tasks begin at whole bytes of codes
/// whatever the encoding.
const MASK_TASK: usize = 1 << 16;
/// Groups of a task, a multiple of eight for the same reason.
const GROUP_TASK: usize = 1 << 13;

/// Runs `$body` with the constant `$W` for the element's width.
macro_rules! for_width {
    ($width:expr, $W:ident, $body:expr) => {
        match $width {
            1 => {
                const $W: usize = 1;
                $body
            }
            2 => {
                const $W: usize = 2;
                $body
            }
            4 => {
                const $W: usize = 4;
                $body
            }
            _ => {
                const $W: usize = 8;
                $body
            }
        }
    };
}

/// Whether elements of so many bits can be packed.
pub(crate) fn width_of(bits: u64) -> Option<usize> {
    matches!(bits, 8 | 16 | 32 | 64).then_some(bits as usize / 8)
}

/// The encoding that takes the fewest bytes for `bytes`, elements `width` bytes wide in rows of `columns`.
pub(crate) fn choose(bytes: &[u8], width: usize, columns: usize) -> Choice {
    let elements = bytes.len() / width;
    let bits = kept_bits(bytes, width);
    let kept: u64 = bits.par_iter().map(|b| u64::from(b.count_ones())).sum();
    let mask = Choice {
        encoding: Encoding::Mask,
        code_bytes: bits.len() as u64,
        value_bytes: kept * width as u64,
    };
    let groups = (2..=MAX_GROUP)
        .filter(|m| columns.is_multiple_of(*m))
        .filter_map(|m| {
            let n = (0..elements / m)
                .into_par_iter()
                .with_min_len(GROUP_TASK)
                .map(|group| bits_at(&bits, group * m, m).count_ones() as usize)
                .max()?;
            let groups = Groups::new(n, m)?;
            let count = (elements / m) as u64;
            Some(Choice {
                encoding: Encoding::Groups(groups),
                code_bytes: groups.code_bytes(count)?,
                value_bytes: count * (n * width) as u64,
            })
        });
    // Of equally small ones the first stays: the mask, then the smallest group.
    std::iter::once(mask)
        .chain(groups)
        .min_by_key(Choice::bytes)
        .unwrap_or(mask)
}

/// Takes the zeros out.
pub(crate) fn encode(bytes: &[u8], width: usize, encoding: Encoding) -> Parts {
    let bits = kept_bits(bytes, width);
    match encoding {
        Encoding::Mask => {
            let values = bytes
                .par_chunks(MASK_TASK * width)
                .zip(bits.par_chunks(MASK_TASK / 8))
                .map(|(bytes, bits)| for_width!(width, W, gather::<W>(bytes, bits)))
                .collect::<Vec<_>>()
                .concat();
            Parts { code: bits, values }
        }
        Encoding::Groups(groups) => for_width!(width, W, encode_groups::<W>(bytes, &bits, groups)),
    }
}

/// Puts the zeros back: `elements` of `width` bytes.
///
/// # Errors
/// When the parts do not belong together; nothing is allocated then that they do not account for.
pub(crate) fn decode(
    parts: &Parts,
    width: usize,
    elements: usize,
    encoding: Encoding,
) -> Result<Vec<u8>, String> {
    if encoding.code_bytes(elements as u64) != Some(parts.code.len() as u64) {
        return Err(format!(
            "{} bytes of codes are not those of {elements} elements",
            parts.code.len()
        ));
    }
    let used = match encoding {
        Encoding::Mask => elements,
        Encoding::Groups(groups) => elements / groups.m() * groups.code_bits(),
    };
    if !used.is_multiple_of(8) && parts.code.last().is_some_and(|last| last >> (used % 8) != 0) {
        return Err("bits are set after the last element".into());
    }
    match encoding {
        Encoding::Mask => for_width!(width, W, decode_mask::<W>(parts, elements)),
        Encoding::Groups(groups) => for_width!(width, W, decode_groups::<W>(parts, elements, groups)),
    }
}

/// A bit an element, set where it is not zero.
fn kept_bits(bytes: &[u8], width: usize) -> Vec<u8> {
    let mut bits = vec![0; (bytes.len() / width).div_ceil(8)];
    bits.par_chunks_mut(MASK_TASK / 8)
        .zip(bytes.par_chunks(MASK_TASK * width))
        .for_each(|(bits, bytes)| for_width!(width, W, mark::<W>(bits, bytes)));
    bits
}

fn mark<const W: usize>(bits: &mut [u8], bytes: &[u8]) {
    for (byte, elements) in bits.iter_mut().zip(bytes.as_chunks::<W>().0.chunks(8)) {
        *byte = elements
            .iter()
            .enumerate()
            .fold(0, |byte, (i, element)| byte | (u8::from(*element != [0; W]) << i));
    }
}

/// The elements whose bit is set.
fn gather<const W: usize>(bytes: &[u8], bits: &[u8]) -> Vec<u8> {
    let kept: u32 = bits.iter().map(|b| b.count_ones()).sum();
    let mut values = Vec::with_capacity(kept as usize * W);
    for (&byte, elements) in bits.iter().zip(bytes.as_chunks::<W>().0.chunks(8)) {
        let mut left = byte;
        while left != 0 {
            values.extend_from_slice(&elements[left.trailing_zeros() as usize]);
            left &= left - 1;
        }
    }
    values
}

fn encode_groups<const W: usize>(bytes: &[u8], bits: &[u8], groups: Groups) -> Parts {
    let (n, m, code_bits) = (groups.n(), groups.m(), groups.code_bits());
    let (codes, elements) = (groups.codes(), bytes.as_chunks::<W>().0);
    let count = elements.len() / m;
    let mut parts = Parts {
        code: vec![0; (count * code_bits).div_ceil(8)],
        values: vec![0; count * n * W],
    };
    let tasks = parts
        .code
        .par_chunks_mut(GROUP_TASK / 8 * code_bits)
        .zip(parts.values.as_chunks_mut::<W>().0.par_chunks_mut(GROUP_TASK * n))
        .enumerate();
    tasks.for_each(|(task, (code, values))| {
        for (i, values) in values.chunks_mut(n).enumerate() {
            let group = task * GROUP_TASK + i;
            let pattern = groups.filled(bits_at(bits, group * m, m));
            set_bits(code, i * code_bits, code_bits, codes[usize::from(pattern)]);
            let mut left = pattern;
            for value in values {
                *value = elements[group * m + left.trailing_zeros() as usize];
                left &= left - 1;
            }
        }
    });
    parts
}

fn decode_mask<const W: usize>(parts: &Parts, elements: usize) -> Result<Vec<u8>, String> {
    let kept = |bits: &[u8]| bits.iter().map(|b| b.count_ones() as usize).sum::<usize>();
    let counts: Vec<usize> = parts.code.par_chunks(MASK_TASK / 8).map(kept).collect();
    let (values, rest) = parts.values.as_chunks::<W>();
    if !rest.is_empty() || counts.iter().sum::<usize>() != values.len() {
        return Err(format!(
            "{} bits are set for {} bytes of values",
            counts.iter().sum::<usize>(),
            parts.values.len()
        ));
    }
    let starts = counts.iter().scan(0, |next, count| {
        let start = *next;
        *next += count;
        Some(start)
    });
    let starts: Vec<usize> = starts.collect();
    let mut bytes = vec![0; elements * W];
    bytes
        .par_chunks_mut(MASK_TASK * W)
        .zip(parts.code.par_chunks(MASK_TASK / 8))
        .zip(starts)
        .for_each(|((bytes, bits), start)| {
            let mut values = values[start..].iter();
            for (elements, &byte) in bytes.as_chunks_mut::<W>().0.chunks_mut(8).zip(bits) {
                let mut left = byte;
                while left != 0 {
                    if let (Some(element), Some(value)) =
                        (elements.get_mut(left.trailing_zeros() as usize), values.next())
                    {
                        *element = *value;
                    }
                    left &= left - 1;
                }
            }
        });
    Ok(bytes)
}

fn decode_groups<const W: usize>(parts: &Parts, elements: usize, groups: Groups) -> Result<Vec<u8>, String> {
    let (n, m, code_bits) = (groups.n(), groups.m(), groups.code_bits());
    let (values, rest) = parts.values.as_chunks::<W>();
    if !rest.is_empty() || values.len() != elements / m * n {
        return Err(format!(
            "{} bytes of values are not those of {} groups of {groups}",
            parts.values.len(),
            elements / m
        ));
    }
    let table = groups.table();
    let mut bytes = vec![0; elements * W];
    bytes
        .as_chunks_mut::<W>()
        .0
        .par_chunks_mut(GROUP_TASK * m)
        .zip(values.par_chunks(GROUP_TASK * n))
        .enumerate()
        .try_for_each(|(task, (elements, values))| {
            for (i, (elements, values)) in elements.chunks_mut(m).zip(values.chunks(n)).enumerate() {
                let group = task * GROUP_TASK + i;
                let code = bits_at(&parts.code, group * code_bits, code_bits);
                let Some(mut left) = table.get(usize::from(code)).copied() else {
                    return Err(format!(
                        "group {group} has the code {code}, and {groups} has {}",
                        table.len()
                    ));
                };
                for value in values {
                    elements[left.trailing_zeros() as usize] = *value;
                    left &= left - 1;
                }
            }
            Ok(())
        })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Elements of which about `share` of 8 are not zero; a few are −0, whose highest bit alone is set.
    fn elements(width: usize, count: usize, share: u8, seeds: &[u32]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for i in 0..count {
            let seed = seeds[i % seeds.len()]
                .wrapping_mul(i as u32 + 1)
                .wrapping_mul(2_654_435_761);
            let value = match (seed >> 29, seed % 16) {
                (draw, _) if draw >= u32::from(share) => 0,
                (_, 0) => 1 << (8 * width - 1),
                _ => (u64::from(seed) << 32 | u64::from(!seed)) >> (64 - 8 * width),
            };
            bytes.extend_from_slice(&value.to_le_bytes()[..width]);
        }
        bytes
    }

    fn round_trip(bytes: &[u8], width: usize, encoding: Encoding) {
        let parts = encode(bytes, width, encoding);
        let elements = bytes.len() / width;
        assert_eq!(
            encoding.code_bytes(elements as u64),
            Some(parts.code.len() as u64)
        );
        assert!(
            decode(&parts, width, elements, encoding).unwrap() == bytes,
            "{encoding:?}"
        );
    }

    proptest! {
        #[test]
        fn the_same_bytes_come_back(
            width in prop::sample::select(vec![1usize, 2, 4, 8]),
            count in prop_oneof![0usize..300, Just(MASK_TASK), MASK_TASK - 9..MASK_TASK + 9],
            share in 0u8..=8,
            seeds in prop::collection::vec(any::<u32>(), 1..50),
        ) {
            let bytes = elements(width, count, share, &seeds);
            round_trip(&bytes, width, Encoding::Mask);
            for columns in [count.max(1), 1] {
                let choice = choose(&bytes, width, columns);
                round_trip(&bytes, width, choice.encoding);
                let parts = encode(&bytes, width, choice.encoding);
                prop_assert_eq!(choice.bytes(), (parts.code.len() + parts.values.len()) as u64);
            }
        }

        #[test]
        fn groups_take_their_own_form_where_it_is_smaller(
            m in 2usize..=MAX_GROUP,
            n_seed in 0usize..100,
            groups in prop_oneof![4usize..60, GROUP_TASK - 1..GROUP_TASK + 2],
            seeds in prop::collection::vec(any::<u32>(), 1..50),
        ) {
            let n = 1 + n_seed % (m - 1);
            // Everything kept, then all but n of each group cut at places that the seeds choose.
            let mut bytes = elements(2, groups * m, 8, &seeds);
            for (g, group) in bytes.chunks_mut(2 * m).enumerate() {
                group.iter_mut().for_each(|b| *b |= 1);
                for cut in 0..m - n {
                    let at = (cut + seeds[g % seeds.len()] as usize % m) % m;
                    group[2 * at..2 * at + 2].fill(0);
                }
            }
            let pattern = Groups::new(n, m).unwrap();
            round_trip(&bytes, 2, Encoding::Groups(pattern));
            let choice = choose(&bytes, 2, m);
            let own = pattern.code_bytes(groups as u64).unwrap();
            prop_assert!(choice.code_bytes <= own.min((groups * m).div_ceil(8) as u64));
            prop_assert_eq!(choice.value_bytes, (groups * n * 2) as u64);
        }

        #[test]
        fn damaged_parts_give_errors_and_no_panic(
            code in prop::collection::vec(any::<u8>(), 0..40),
            values in prop::collection::vec(any::<u8>(), 0..200),
            elements in 0usize..200,
            width in prop::sample::select(vec![1usize, 2, 4, 8]),
            m in 2usize..=MAX_GROUP,
            n in 1usize..16,
        ) {
            let parts = Parts { code, values };
            let groups = Groups::new(n, m).map(Encoding::Groups);
            for encoding in [Some(Encoding::Mask), groups].into_iter().flatten() {
                if let Ok(bytes) = decode(&parts, width, elements, encoding) {
                    prop_assert_eq!(bytes.len(), width * elements);
                }
            }
        }
    }

    #[test]
    fn a_code_that_no_group_has_is_refused() {
        let groups = Encoding::Groups(Groups::new(2, 4).unwrap());
        let parts = |code| Parts {
            code,
            values: vec![1; 8],
        };
        assert!(decode(&parts(vec![0b101_100]), 2, 8, groups).is_ok());
        assert!(
            decode(&parts(vec![0b110_000]), 2, 8, groups)
                .unwrap_err()
                .contains("code 6")
        );
        assert!(
            decode(&parts(vec![0b1_000_000]), 2, 8, groups)
                .unwrap_err()
                .contains("after the last")
        );
    }

    #[test]
    fn sizes_are_those_promised() {
        let seeds: Vec<u32> = (1..100).collect();
        for (tenths, bound) in [(5, 0.57), (6, 0.47), (7, 0.37)] {
            let mut bytes = elements(2, 100_000, 8, &seeds);
            for (i, element) in bytes.chunks_mut(2).enumerate() {
                element[0] |= 1;
                if (i as u32).wrapping_mul(2_654_435_761) >> 16 < 65536 / 10 * tenths {
                    element.fill(0);
                }
            }
            let share = choose(&bytes, 2, 500).bytes() as f64 / bytes.len() as f64;
            assert!(share < bound, "{tenths}: {share}");
        }
    }
}
