//! The kernels, in CubeCL's dialect of Rust: compiled for the device when they are first used.
//!
//! All matrices are f32, row-major and without gaps. A size is the absolute value's bits, which are ordered as the values
//! are. Borders are found digit by digit: entries are counted by the next four bits of their size among those that agree
//! with the border in the digits before, and the counts say which digit comes next. Counts are whole numbers, so that the
//! border is the same for any order of the units and on any device.

use cubecl::prelude::*;

/// Units of a cube, and a power of two.
pub(super) const UNITS: u32 = 128;
/// Values of a digit.
pub(super) const BINS: u32 = 16;
/// Digits of a size.
pub(super) const DIGITS: u32 = 8;

/// Memory of a cube's counts.
const COUNTS: usize = (UNITS * BINS) as usize;

#[cube]
fn size(value: f32) -> u32 {
    u32::reinterpret(value) & 0x7fff_ffffu32
}

/// What an entry's cut leaves: see [`SolverOps::splitting_step`](crate::SolverOps::splitting_step).
#[cube]
#[allow(clippy::too_many_arguments, reason = "a device has no structures of buffers")]
fn finish(
    z: &mut Array<f32>,
    shifted: &mut Array<f32>,
    weight: &Array<f32>,
    drift: &Array<f32>,
    i: usize,
    stays: bool,
    rho: f32,
    dual_factor: f32,
    #[comptime] drifting: bool,
) {
    let value = z[i];
    let zero = f32::new(0.0);
    let next = weight[i] + select(stays, zero, value) * dual_factor;
    let kept = select(stays, value, zero);
    let right = rho * (kept - next);
    if drifting {
        z[i] = right - drift[i];
    } else {
        z[i] = right;
    }
    shifted[i] = next;
}

/// The `rank`-th smallest size as far as `digits` digits of it are known from `counts [DIGITS, BINS]`, and how many of the
/// entries that agree in them are still to be passed: `found[0]` and `found[1]`.
#[cube]
fn settle(counts: &Array<Atomic<u32>>, found: &mut Array<u32>, digits: u32, rank: u32) {
    found[0] = 0u32.runtime();
    found[1] = rank;
    for digit in 0..digits {
        let mut searching = true.runtime();
        for bin in 0..BINS {
            let count = counts[(digit * BINS + bin) as usize].load();
            if searching {
                if found[1] > count {
                    found[1] -= count;
                } else {
                    found[0] = found[0] * BINS + bin;
                    searching = false;
                }
            }
        }
    }
}

/// Counts the next digit of the sizes of `Z` in `counts [DIGITS, BINS]`, which begin as zeros. The first time, `z` holds
/// the moved point and takes `Z = moved + shifted`.
#[cube(launch_unchecked)]
pub(super) fn count_digit(
    z: &mut Array<f32>,
    shifted: &Array<f32>,
    counts: &Array<Atomic<u32>>,
    digit: u32,
    rank: u32,
    #[comptime] first: bool,
) {
    let mut found = Array::<u32>::new(2usize);
    settle(counts, &mut found, digit, rank);
    let shift = 4 * (DIGITS - 1 - digit);

    let mut bins = Array::<u32>::new(BINS as usize);
    #[unroll]
    for bin in 0..BINS {
        bins[bin as usize] = 0u32.runtime();
    }
    let mut i = ABSOLUTE_POS;
    while i < z.len() {
        if first {
            z[i] = z[i] + shifted[i];
        }
        let key = size(z[i]) >> shift;
        let agrees = key >> 4 == found[0];
        #[unroll]
        for bin in 0..BINS {
            bins[bin as usize] += u32::cast_from(agrees && key & (BINS - 1) == bin);
        }
        i += CUBE_COUNT * CUBE_DIM as usize;
    }

    let mut shared = SharedMemory::<u32>::new(COUNTS);
    #[unroll]
    for bin in 0..BINS {
        shared[(UNIT_POS * BINS + bin) as usize] = bins[bin as usize];
    }
    sync_cube();
    if UNIT_POS < BINS {
        let mut total = 0u32;
        for unit in 0..UNITS {
            total += shared[(unit * BINS + UNIT_POS) as usize];
        }
        counts[(digit * BINS + UNIT_POS) as usize].fetch_add(total);
    }
}

/// Finishes a step over a whole matrix: what is no larger than the `rank`-th smallest size goes, and nothing where `rank`
/// is 0.
#[cube(launch_unchecked)]
pub(super) fn finish_matrix(
    z: &mut Array<f32>,
    shifted: &mut Array<f32>,
    weight: &Array<f32>,
    drift: &Array<f32>,
    counts: &Array<Atomic<u32>>,
    rank: u32,
    rho: f32,
    dual_factor: f32,
    #[comptime] drifting: bool,
) {
    let mut found = Array::<u32>::new(2usize);
    settle(counts, &mut found, DIGITS, rank);
    let mut i = ABSOLUTE_POS;
    while i < z.len() {
        let stays = rank == 0 || size(z[i]) > found[0];
        finish(z, shifted, weight, drift, i, stays, rho, dual_factor, drifting);
        i += CUBE_COUNT * CUBE_DIM as usize;
    }
}

/// A whole step in which each row keeps its `kept` largest entries, of equal ones the first; one cube a row.
///
/// The border is that of size and place together: the last `place_digits` digits are those of the places, counted from the
/// end.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments, reason = "a device has no structures of buffers")]
pub(super) fn cut_rows(
    z: &mut Array<f32>,
    shifted: &mut Array<f32>,
    weight: &Array<f32>,
    drift: &Array<f32>,
    rows: u32,
    columns: u32,
    kept: u32,
    place_digits: u32,
    rho: f32,
    dual_factor: f32,
    #[comptime] drifting: bool,
) {
    let row = CUBE_POS;
    // There can be more cubes than rows; they have nothing to do, but meet the others at each barrier.
    let end = select(row < rows as usize, columns, 0u32);
    let first = row * columns as usize;
    let last_place = (1u32 << (4 * place_digits)) - 1;

    let mut place = UNIT_POS;
    while place < end {
        let i = first + place as usize;
        z[i] = z[i] + shifted[i];
        place += UNITS;
    }

    let mut shared = SharedMemory::<u32>::new(COUNTS);
    let mut totals = SharedMemory::<u32>::new(BINS as usize);
    let mut border = 0u32.runtime();
    let mut border_place = 0u32.runtime();
    let mut left = kept;
    for digit in 0..DIGITS + place_digits {
        let of_size = digit < DIGITS;
        let shift = select(
            of_size,
            4 * (DIGITS - 1) - 4 * digit,
            4 * (DIGITS + place_digits - 1) - 4 * digit,
        ) & 31u32;
        let mut bins = Array::<u32>::new(BINS as usize);
        #[unroll]
        for bin in 0..BINS {
            bins[bin as usize] = 0u32.runtime();
        }
        let mut place = UNIT_POS;
        while place < end {
            let key = size(z[first + place as usize]);
            let by_size = key >> shift;
            let by_place = (last_place - place) >> shift;
            let found = select(of_size, by_size, by_place);
            let agrees = select(
                of_size,
                by_size >> 4 == border,
                key == border && by_place >> 4 == border_place,
            );
            #[unroll]
            for bin in 0..BINS {
                bins[bin as usize] += u32::cast_from(agrees && found & (BINS - 1) == bin);
            }
            place += UNITS;
        }
        #[unroll]
        for bin in 0..BINS {
            shared[(UNIT_POS * BINS + bin) as usize] = bins[bin as usize];
        }
        sync_cube();
        if UNIT_POS < BINS {
            let mut total = 0u32;
            for unit in 0..UNITS {
                total += shared[(unit * BINS + UNIT_POS) as usize];
            }
            totals[UNIT_POS as usize] = total;
        }
        sync_cube();
        // The largest come first.
        let mut next = 0u32.runtime();
        let mut searching = true.runtime();
        for step in 0..BINS {
            let bin = BINS - 1 - step;
            let count = totals[bin as usize];
            if searching {
                if left > count {
                    left -= count;
                } else {
                    next = bin;
                    searching = false;
                }
            }
        }
        if of_size {
            border = border * BINS + next;
        } else {
            border_place = border_place * BINS + next;
        }
        sync_cube();
    }

    let mut place = UNIT_POS;
    while place < end {
        let i = first + place as usize;
        let key = size(z[i]);
        let stays = key > border || (key == border && last_place - place >= border_place);
        finish(z, shifted, weight, drift, i, stays, rho, dual_factor, drifting);
        place += UNITS;
    }
}

/// A whole step in which each `group` consecutive entries keep their `kept` largest, of equal ones the first; one unit a
/// group.
#[cube(launch_unchecked)]
pub(super) fn cut_groups(
    z: &mut Array<f32>,
    shifted: &mut Array<f32>,
    weight: &Array<f32>,
    drift: &Array<f32>,
    kept: u32,
    rho: f32,
    dual_factor: f32,
    #[comptime] group: u32,
    #[comptime] drifting: bool,
) {
    let first = ABSOLUTE_POS * group as usize;
    if first >= z.len() {
        terminate!();
    }
    let mut sizes = Array::<u32>::new(group as usize);
    #[unroll(group <= 8)]
    for j in 0..group {
        let i = first + j as usize;
        z[i] = z[i] + shifted[i];
        sizes[j as usize] = size(z[i]);
    }
    #[unroll(group <= 8)]
    for j in 0..group {
        let mine = sizes[j as usize];
        let mut ahead = 0u32.runtime();
        #[unroll(group <= 8)]
        for k in 0..group {
            let other = sizes[k as usize];
            ahead += u32::cast_from(other > mine || (other == mine && k < j));
        }
        finish(
            z,
            shifted,
            weight,
            drift,
            first + j as usize,
            ahead < kept,
            rho,
            dual_factor,
            drifting,
        );
    }
}

/// One step of compensated summation, entry by entry: `sum` and `compensation` take the new ones.
///
/// Compilers of shaders may rearrange sums, and then there is nothing left of the compensation: on the way through whole
/// numbers, with a `zero` that is not known to them, they cannot.
#[cube(launch_unchecked)]
pub(super) fn compensated_add(
    sum: &mut Array<f32>,
    compensation: &mut Array<f32>,
    term: &Array<f32>,
    zero: u32,
) {
    let i = ABSOLUTE_POS;
    if i >= sum.len() {
        terminate!();
    }
    let before = sum[i];
    let corrected = f32::reinterpret(u32::reinterpret(term[i] - compensation[i]) ^ zero);
    let total = f32::reinterpret(u32::reinterpret(before + corrected) ^ zero);
    let gained = f32::reinterpret(u32::reinterpret(total - before) ^ zero);
    sum[i] = total;
    compensation[i] = gained - corrected;
}
