//! Exact selection by size: which entries of a score matrix survive, with ties that depend on the scores alone.
//!
//! Weights that were quantised once lie on a grid and tie often, so the order of ties shows in a layer's error. Within a
//! group of an n:m pattern ties fall as in `torch.topk` on a CPU, which is what published n:m masks were made with;
//! elsewhere an exact number is wanted, which the published codes do not give, and the order is this project's.

use fista_pruner_backends::{border_bin, size_bin};
use rayon::prelude::*;

/// The absolute value that ranks an entry; what is not a number ranks below everything.
fn size(score: f32) -> f32 {
    if score.is_nan() { -1.0 } else { score.abs() }
}

/// `false` for the `zeros` entries of smallest absolute value. Of equal ones, positive entries fall before negative
/// ones, and later ones before earlier ones.
///
/// One counting pass over the upper bits of all entries finds the narrow range of sizes in which the border lies; only
/// entries of that range are ordered.
pub(crate) fn keep_all_but(scores: &[f32], zeros: usize) -> Vec<bool> {
    if zeros == 0 {
        return vec![true; scores.len()];
    }
    if zeros >= scores.len() {
        return vec![false; scores.len()];
    }
    let (border, below) = border_bin(scores, zeros, bin);
    let mut keep: Vec<bool> = scores
        .par_iter()
        .with_min_len(CHUNK)
        .map(|s| bin(*s) > border)
        .collect();
    let mut candidates: Vec<u32> = (0..scores.len() as u32)
        .into_par_iter()
        .with_min_len(CHUNK)
        .filter(|i| bin(scores[*i as usize]) == border)
        .collect();
    let cut = zeros - below;
    if cut < candidates.len() {
        candidates.select_nth_unstable_by(cut, |a, b| {
            let (x, y) = (scores[*a as usize], scores[*b as usize]);
            size(x).total_cmp(&size(y)).then(y.total_cmp(&x)).then(b.cmp(a))
        });
    }
    for i in &candidates[cut..] {
        keep[*i as usize] = true;
    }
    keep
}

/// Entries a task looks at.
const CHUNK: usize = 1 << 14;
/// The bin of an entry's size; what is not a number is in the lowest.
fn bin(score: f32) -> u32 {
    if score.is_nan() { 0 } else { 1 + size_bin(score) }
}

/// `true` for the `n` entries of largest absolute value in each group of `m`.
pub(crate) fn keep_in_groups(scores: &[f32], n: usize, m: usize) -> Vec<bool> {
    let mut keep = vec![false; scores.len()];
    keep.par_chunks_mut(m)
        .zip(scores.par_chunks(m))
        .with_min_len(1024)
        .for_each_init(Vec::new, |group, (keep, scores)| {
            group.clear();
            group.extend(scores.iter().map(|s| size(*s)).zip(0..));
            if n < group.len() {
                largest_first(group, n - 1);
            }
            for (_, i) in group.iter().take(n) {
                keep[*i] = true;
            }
        });
    keep
}

/// Moves the largest entries before position `nth`, as `std::nth_element` of the C++ library that torch is built with
/// does: narrowing by median-of-three partitions down to three entries, then insertion. A plain stable sort would be as
/// right, but would keep other ones of equal entries.
fn largest_first(entries: &mut [(f32, usize)], nth: usize) {
    let before = |a: &(f32, usize), b: &(f32, usize)| a.0 > b.0;
    let (mut first, mut last) = (0, entries.len());
    let mut narrowings = 2 * entries.len().ilog2();
    while last - first > 3 && narrowings > 0 {
        narrowings -= 1;
        let cut = partition(entries, first, last, before);
        if cut <= nth {
            first = cut;
        } else {
            last = cut;
        }
    }
    // Stable, as an insertion sort is.
    entries[first..last].sort_by(|a, b| b.0.total_cmp(&a.0));
}

/// Partitions `entries[first..last]` around the median of its second, middle and last entry; returns the border.
fn partition<T: Copy>(
    entries: &mut [T],
    first: usize,
    last: usize,
    before: impl Fn(&T, &T) -> bool,
) -> usize {
    let (a, b, c) = (first + 1, first + (last - first) / 2, last - 1);
    let less = |i: usize, j: usize| before(&entries[i], &entries[j]);
    let median = match (less(a, b), less(b, c), less(a, c)) {
        (true, true, _) => b,
        (true, false, true) => c,
        (true, false, false) => a,
        (false, _, true) => a,
        (false, true, false) => c,
        (false, false, false) => b,
    };
    entries.swap(first, median);
    let pivot = entries[first];
    let (mut low, mut high) = (first + 1, last);
    loop {
        while before(&entries[low], &pivot) {
            low += 1;
        }
        high -= 1;
        while before(&pivot, &entries[high]) {
            high -= 1;
        }
        if low >= high {
            return low;
        }
        entries.swap(low, high);
        low += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `torch.topk(x, 2)` keeps (torch 2.15, CPU) for every group of four zeros and ones.
    #[test]
    fn ties_in_groups_fall_as_in_torch() {
        const KEPT: [[usize; 2]; 16] = [
            [2, 3],
            [2, 3],
            [2, 3],
            [2, 3],
            [1, 3],
            [1, 3],
            [1, 2],
            [2, 3],
            [0, 2],
            [0, 3],
            [0, 2],
            [2, 3],
            [0, 1],
            [1, 3],
            [1, 2],
            [2, 3],
        ];
        for (bits, kept) in KEPT.iter().enumerate() {
            let group: Vec<f32> = (0..4)
                .map(|i| f32::from(u8::from(bits >> (3 - i) & 1 == 1)))
                .collect();
            let keep = keep_in_groups(&group, 2, 4);
            let expected: Vec<bool> = (0..4).map(|i| kept.contains(&i)).collect();
            assert_eq!(keep, expected, "{group:?}");
        }
    }

    #[test]
    fn the_border_is_where_a_full_sort_puts_it() {
        let scores: Vec<f32> = (0..50_000u32)
            .map(|k| (k.wrapping_mul(2_654_435_761) >> 8) as f32 / 1e7 - 0.8)
            .collect();
        let mut sorted: Vec<f32> = scores.iter().map(|s| s.abs()).collect();
        sorted.sort_by(f32::total_cmp);
        for zeros in [1, 2, 777, 25_000, 49_999] {
            let keep = keep_all_but(&scores, zeros);
            assert_eq!(keep.iter().filter(|k| !**k).count(), zeros);
            let largest_cut = scores
                .iter()
                .zip(&keep)
                .filter(|(_, k)| !**k)
                .map(|(s, _)| s.abs())
                .fold(0.0, f32::max);
            assert_eq!(largest_cut, sorted[zeros - 1]);
        }
    }

    #[test]
    fn equal_sizes_fall_positive_first_then_later_first() {
        assert_eq!(
            keep_all_but(&[1.0, -1.0, 1.0, -1.0], 1),
            [true, true, false, true]
        );
        assert_eq!(
            keep_all_but(&[1.0, -1.0, 1.0, -1.0], 3),
            [false, true, false, false]
        );
        assert_eq!(keep_all_but(&[f32::NAN, 0.0], 1), [false, true]);
    }
}
