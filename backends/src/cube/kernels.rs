//! The kernels, in CubeCL's dialect of Rust: compiled for the device when they are first used.
//!
//! All matrices but those of products are f32, row-major and without gaps. A size is the absolute value's bits, which are
//! ordered as the values are. Borders are found digit by digit: entries are counted by the next four bits of their size among
//! those that agree with the border in the digits before, and the counts say which digit comes next. Counts are whole numbers, so
//! that the border is the same for any order of the units and on any device.

use cubecl::prelude::*;

/// Units of a cube, and a power of two.
pub(super) const UNITS: u32 = 128;
/// Values of a digit.
pub(super) const BINS: u32 = 16;
/// Digits of a size.
pub(super) const DIGITS: u32 = 8;

/// Side of a square that a cube mirrors.
pub(super) const SIDE: u32 = 32;

/// Memory of a cube's counts.
const COUNTS: usize = (UNITS * BINS) as usize;

#[cube]
fn size(value: f32) -> u32 {
    u32::reinterpret(value) & 0x7fff_ffffu32
}

/// A unit's counts of digits, two to a number: it looks at less than 2^16 entries.
#[cube]
fn no_counts() -> Array<u32> {
    let mut bins = Array::<u32>::new((BINS / 2) as usize);
    #[unroll]
    for pair in 0..BINS / 2 {
        bins[pair as usize] = 0u32.runtime();
    }
    bins
}

/// Counts a digit, if its entry agrees.
#[cube]
fn count(bins: &mut Array<u32>, digit: u32, agrees: bool) {
    let one = select(agrees, 1u32 << (16 * (digit & 1)), 0u32);
    #[unroll]
    for pair in 0..BINS / 2 {
        bins[pair as usize] += select(digit >> 1 == pair, one, 0u32);
    }
}

/// Puts a unit's counts where the others find them, `[UNITS, BINS]`.
#[cube]
fn share(bins: &Array<u32>, shared: &mut SharedMemory<u32>) {
    #[unroll]
    for pair in 0..BINS / 2 {
        let at = UNIT_POS * BINS + 2 * pair;
        shared[at as usize] = bins[pair as usize] & 0xffffu32;
        shared[(at + 1) as usize] = bins[pair as usize] >> 16;
    }
}

/// The counts of all units for one digit, that of the unit's number.
#[cube]
fn gathered(shared: &SharedMemory<u32>) -> u32 {
    let mut total = 0u32;
    for unit in 0..UNITS {
        total += shared[(unit * BINS + UNIT_POS) as usize];
    }
    total
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

/// Counts the next digit of the sizes of `Z` in `counts [BINS]`, which begin as zeros, among the entries that agree with the
/// border's digits so far, `found[0]`. The first time, `z` holds the moved point and takes `Z = moved + shifted`.
#[cube(launch_unchecked)]
pub(super) fn count_digit(
    z: &mut Array<f32>,
    shifted: &Array<f32>,
    counts: &Array<Atomic<u32>>,
    found: &Array<u32>,
    digit: u32,
    #[comptime] first: bool,
) {
    let border = found[0];
    let shift = 4 * (DIGITS - 1 - digit);

    let mut bins = no_counts();
    let mut i = ABSOLUTE_POS;
    while i < z.len() {
        if first {
            z[i] = z[i] + shifted[i];
        }
        let key = size(z[i]) >> shift;
        count(&mut bins, key & (BINS - 1), key >> 4 == border);
        i += CUBE_COUNT * CUBE_DIM as usize;
    }

    let mut shared = SharedMemory::<u32>::new(COUNTS);
    share(&bins, &mut shared);
    sync_cube();
    if UNIT_POS < BINS {
        counts[UNIT_POS as usize].fetch_add(gathered(&shared));
    }
}

/// What the counts of a digit say, by one unit: `found[0]` takes the border's next digit, and `found[1]` how many of the entries
/// that agree in all digits so far are still to be passed, at first `rank`. The counts are zeros again.
#[cube(launch_unchecked)]
pub(super) fn settle_digit(
    counts: &mut Array<u32>,
    found: &mut Array<u32>,
    rank: u32,
    #[comptime] first: bool,
) {
    if ABSOLUTE_POS == 0usize {
        let mut left = rank;
        if !first {
            left = found[1];
        }
        let mut next = 0u32.runtime();
        let mut searching = true.runtime();
        for bin in 0..BINS {
            let count = counts[bin as usize];
            counts[bin as usize] = 0u32;
            if searching {
                if left > count {
                    left -= count;
                } else {
                    next = bin;
                    searching = false;
                }
            }
        }
        found[0] = found[0] * BINS + next;
        found[1] = left;
    }
}

/// Finishes a step over a whole matrix: what is no larger than the border `found[0]` goes, and nothing where `rank` is 0.
#[cube(launch_unchecked)]
pub(super) fn finish_matrix(
    z: &mut Array<f32>,
    shifted: &mut Array<f32>,
    weight: &Array<f32>,
    drift: &Array<f32>,
    found: &Array<u32>,
    rank: u32,
    rho: f32,
    dual_factor: f32,
    #[comptime] drifting: bool,
) {
    let border = found[0];
    let mut i = ABSOLUTE_POS;
    while i < z.len() {
        let stays = rank == 0 || size(z[i]) > border;
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
        let mut bins = no_counts();
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
            count(&mut bins, found & (BINS - 1), agrees);
            place += UNITS;
        }
        share(&bins, &mut shared);
        sync_cube();
        if UNIT_POS < BINS {
            totals[UNIT_POS as usize] = gathered(&shared);
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

/// `Σ a ⊙ b` of each row of matrices `[rows, columns]`; one cube a row. Units add up every `UNITS`-th product, and then by halves.
#[cube(launch_unchecked)]
pub(super) fn row_products(a: &Array<f32>, b: &Array<f32>, sums: &mut Array<f32>, rows: u32, columns: u32) {
    let row = CUBE_POS;
    // As in `cut_rows`.
    let end = select(row < rows as usize, columns, 0u32);
    let first = row * columns as usize;
    let mut sum = f32::new(0.0);
    let mut place = UNIT_POS;
    while place < end {
        let i = first + place as usize;
        sum += a[i] * b[i];
        place += UNITS;
    }
    let mut shared = SharedMemory::<f32>::new(UNITS as usize);
    shared[UNIT_POS as usize] = sum;
    sync_cube();
    let mut half = (UNITS / 2).runtime();
    while half > 0 {
        if UNIT_POS < half {
            shared[UNIT_POS as usize] = shared[UNIT_POS as usize] + shared[(UNIT_POS + half) as usize];
        }
        sync_cube();
        half /= 2;
    }
    if UNIT_POS == 0 && row < rows as usize {
        sums[row] = shared[0usize];
    }
}

/// Writes rows from `start` on of a symmetric matrix `full [columns, columns]`, and their mirror image, from a `strip [height,
/// columns − start]` whose first column is on the diagonal: one cube a square of [`SIDE`] entries.
#[cube(launch_unchecked)]
#[allow(clippy::manual_div_ceil, reason = "the dialect does not know it")]
pub(super) fn mirror_strip(strip: &Array<f32>, full: &mut Array<f32>, start: u32, height: u32, columns: u32) {
    let width = columns - start;
    let across = (width + SIDE - 1) / SIDE;
    let square = CUBE_POS as u32;
    let (top, left) = (square / across * SIDE, square % across * SIDE);
    let (line, lane) = (UNIT_POS / SIDE, UNIT_POS % SIDE);

    // A column more, so that a column's entries lie in different banks.
    let mut shared = SharedMemory::<f32>::new((SIDE * (SIDE + 1)) as usize);
    #[unroll]
    for step in 0..SIDE / (UNITS / SIDE) {
        let at = step * (UNITS / SIDE) + line;
        let (row, column) = (top + at, left + lane);
        if row < height && column < width {
            let value = strip[(row * width + column) as usize];
            shared[(at * (SIDE + 1) + lane) as usize] = value;
            if column >= row {
                full[((start + row) * columns + start + column) as usize] = value;
            }
        }
    }
    sync_cube();
    #[unroll]
    for step in 0..SIDE / (UNITS / SIDE) {
        let at = step * (UNITS / SIDE) + line;
        let (row, column) = (top + lane, left + at);
        if row < height && column < width && column > row {
            full[((start + column) * columns + start + row) as usize] =
                shared[(lane * (SIDE + 1) + at) as usize];
        }
    }
}

/// Side of the part of a product that a cube computes, and how much of the sums it takes at a time.
pub(super) const TILE: u32 = 128;
pub(super) const DEPTH: u32 = 16;
/// Units of such a cube, each with [`SUMS`]² entries.
pub(super) const PRODUCT_UNITS: u32 = 256;
const SUMS: u32 = 8;
/// Entries of a factor's part that a unit fetches.
const FETCHED: u32 = TILE * DEPTH / PRODUCT_UNITS;
/// From one step of the sums to the next in shared memory: a column more than needed, so that its entries lie in different banks.
const PITCH: u32 = TILE + 4;

/// Where the `step`-th entry that a unit fetches lies in a factor's part: along its side and along the sums. Neighbours in memory are
/// fetched by neighbouring units.
#[cube]
fn fetched(step: u32, #[comptime] along_sums: bool) -> (u32, u32) {
    if along_sums {
        (
            UNIT_POS / DEPTH + step * (PRODUCT_UNITS / DEPTH),
            UNIT_POS % DEPTH,
        )
    } else {
        (UNIT_POS % TILE, UNIT_POS / TILE + step * (PRODUCT_UNITS / TILE))
    }
}

/// How a factor lies in memory: its side and the sums' direction, each with a length and a stride.
#[derive(CubeType)]
struct Layout {
    side: usize,
    depth: usize,
    side_stride: usize,
    depth_stride: usize,
}

/// Fetches what a unit has of a factor's part, which begins at `side` and `depth`; zeros beyond its end.
#[cube]
fn fetch(
    factor: &Tensor<f32>,
    layout: &Layout,
    values: &mut Array<f32>,
    side: u32,
    depth: u32,
    #[comptime] along_sums: bool,
    #[comptime] whole: bool,
) {
    #[unroll]
    for step in 0..FETCHED {
        let (at, deep) = fetched(step, along_sums);
        let (at, deep) = ((side + at) as usize, (depth + deep) as usize);
        let place = at * layout.side_stride + deep * layout.depth_stride;
        if whole {
            values[step as usize] = factor[place];
        } else {
            values[step as usize] = f32::new(0.0);
            if at < layout.side && deep < layout.depth {
                values[step as usize] = factor[place];
            }
        }
    }
}

/// Puts what a unit fetched where the others find it, `[DEPTH, PITCH]`.
#[cube]
fn lay_down(values: &Array<f32>, shared: &mut SharedMemory<f32>, #[comptime] along_sums: bool) {
    #[unroll]
    for step in 0..FETCHED {
        let (at, deep) = fetched(step, along_sums);
        shared[(deep * PITCH + at) as usize] = values[step as usize];
    }
}

/// The `index`-th of a unit's rows or columns in its cube's part: two runs of four, half a part apart.
#[cube]
fn own_line(unit: u32, index: u32) -> u32 {
    index / 4 * (TILE / 2) + unit * 4 + index % 4
}

/// `out = a · b` of `[m, k]` and `[k, n]`, every factor and every sum in f32; a cube a square of [`TILE`] entries. Each sum is taken in
/// the order of `k`. `a_along_sums` and `b_along_sums` say in which direction a factor's entries are neighbours in memory; `whole` that all
/// sizes are multiples of the parts'.
#[cube(launch_unchecked)]
#[allow(
    clippy::collapsible_else_if,
    reason = "the outer choice is made when the kernel is compiled"
)]
pub(super) fn product_f32(
    a: &Tensor<f32>,
    b: &Tensor<f32>,
    out: &mut Tensor<f32>,
    #[comptime] a_along_sums: bool,
    #[comptime] b_along_sums: bool,
    #[comptime] whole: bool,
) {
    let (top, left) = (CUBE_POS_Y * TILE, CUBE_POS_X * TILE);
    let (row_unit, column_unit) = (UNIT_POS / 16, UNIT_POS % 16);
    let mut a_part = SharedMemory::<f32>::new((DEPTH * PITCH) as usize);
    let mut b_part = SharedMemory::<f32>::new((DEPTH * PITCH) as usize);
    let mut a_next = Array::<f32>::new(FETCHED as usize);
    let mut b_next = Array::<f32>::new(FETCHED as usize);
    let mut sums = Array::<f32>::new((SUMS * SUMS) as usize);
    #[unroll]
    for entry in 0..SUMS * SUMS {
        sums[entry as usize] = f32::new(0.0);
    }

    let a_layout = Layout {
        side: a.shape(0),
        depth: a.shape(1),
        side_stride: a.stride(0),
        depth_stride: a.stride(1),
    };
    let b_layout = Layout {
        side: b.shape(1),
        depth: b.shape(0),
        side_stride: b.stride(1),
        depth_stride: b.stride(0),
    };
    let length = a_layout.depth as u32;
    fetch(a, &a_layout, &mut a_next, top, 0u32, a_along_sums, whole);
    fetch(b, &b_layout, &mut b_next, left, 0u32, b_along_sums, whole);
    let mut depth = 0u32.runtime();
    while depth < length {
        sync_cube();
        lay_down(&a_next, &mut a_part, a_along_sums);
        lay_down(&b_next, &mut b_part, b_along_sums);
        sync_cube();
        depth += DEPTH;
        // The next part is on its way while this one is multiplied.
        if depth < length {
            fetch(a, &a_layout, &mut a_next, top, depth, a_along_sums, whole);
            fetch(b, &b_layout, &mut b_next, left, depth, b_along_sums, whole);
        }
        for deep in 0..DEPTH {
            let mut rows = Array::<f32>::new(SUMS as usize);
            let mut columns = Array::<f32>::new(SUMS as usize);
            #[unroll]
            for index in 0..SUMS {
                rows[index as usize] = a_part[(deep * PITCH + own_line(row_unit, index)) as usize];
                columns[index as usize] = b_part[(deep * PITCH + own_line(column_unit, index)) as usize];
            }
            #[unroll]
            for i in 0..SUMS {
                #[unroll]
                for j in 0..SUMS {
                    sums[(i * SUMS + j) as usize] += rows[i as usize] * columns[j as usize];
                }
            }
        }
    }

    #[unroll]
    for i in 0..SUMS {
        let row = (top + own_line(row_unit, i)) as usize;
        #[unroll]
        for j in 0..SUMS {
            let column = (left + own_line(column_unit, j)) as usize;
            if whole {
                out[row * out.stride(0) + column] = sums[(i * SUMS + j) as usize];
            } else {
                if row < out.shape(0) && column < out.shape(1) {
                    out[row * out.stride(0) + column] = sums[(i * SUMS + j) as usize];
                }
            }
        }
    }
}
