//! What a device must compute rightly before it is trusted: failures of a GPU's driver or run-time compiler can be silent,
//! and the work would go on with garbage.
//!
//! [`Computed::on`] computes a few things on the device, [`Computed::check`] holds them against the host. Two of the products are large
//! enough for the kernels that do the work later. Entries are
//! small integers, exact in f32 and in any reduced precision that burn's product may be taken in, so that nothing but a fault
//! differs; but those of the product that must be f32 have a digit more than TF32.

use crate::gram::GramSum;
use crate::ops::{AcceleratedState, AcceleratedStep, SolverOps, SplittingStep};
use crate::selection::Selection;
use burn::tensor::{Tensor, TensorData};

// Powers of two: shares of them are exact, so that no device may choose another border for want of digits.
const ROWS: usize = 32;
const COLUMNS: usize = 64;

/// Entries that the selection cuts.
const CUT: usize = ROWS * COLUMNS / 2;

/// Side of a large product, and what it sums over.
const LARGE: usize = 512;
const LONG: usize = 1024;
/// Columns of a running sum of several strips, none of them full.
const WIDE: usize = 300;

/// What a device made of the known inputs.
#[derive(Debug, Clone)]
pub(crate) struct Computed {
    /// `A B` with `A [ROWS, COLUMNS]`, `B [COLUMNS, ROWS]`: `[ROWS, ROWS]`.
    product: Vec<f32>,
    /// `Aᵀ A`, `[COLUMNS, COLUMNS]`.
    gram: Vec<f32>,
    /// `F B` in f32, with `F [ROWS, COLUMNS]` of [`fine`]: `[ROWS, ROWS]`.
    fine: Vec<f32>,
    /// A proximal step from `A B` along itself, `[ROWS, ROWS]`.
    step: Vec<f32>,
    /// `‖A B‖²`
    norm: f64,
    /// The largest half of [`size`]'s entries, `[ROWS, COLUMNS]`; zero elsewhere.
    selected: Vec<f32>,
    /// The largest half of each row's entries.
    of_rows: Vec<f32>,
    /// The two largest of each four entries.
    of_groups: Vec<f32>,
    /// `A B` with `A [LARGE, LONG]`, `B [LONG, LARGE]`, the fast way and in f32.
    large: [Vec<f32>; 2],
    /// `Xᵀ X` of `X [ROWS, WIDE]` twice, as a running sum.
    running: Vec<f32>,
}

/// An entry of `A`, between −2 and 2.
fn a(i: usize, j: usize) -> f32 {
    ((i * 7 + j * 3) % 5) as f32 - 2.0
}

/// An entry of `B`, between −3 and 3.
fn b(i: usize, j: usize) -> f32 {
    ((i * 5 + j * 11) % 7) as f32 - 3.0
}

/// An entry of 12 bits, an odd number: what TF32 rounds.
fn fine(i: usize, j: usize) -> f32 {
    ((i * 13 + j * 29) % 1023 * 2) as f32 + 2049.0
}

/// An entry to be selected from: no two of one size, of both signs.
fn size(i: usize, j: usize) -> f32 {
    let place = i * COLUMNS + j;
    // An odd factor and a power of two: every size from 1 on comes once.
    let size = (place * 1999 % (ROWS * COLUMNS) + 1) as f32;
    if place.is_multiple_of(3) { -size } else { size }
}

fn values(rows: usize, columns: usize, entry: impl Fn(usize, usize) -> f32) -> Vec<f32> {
    (0..rows * columns)
        .map(|k| entry(k / columns, k % columns))
        .collect()
}

impl Computed {
    /// Computes on `device`.
    ///
    /// # Errors
    /// What the device reports, where it notices a failure itself.
    pub(crate) fn on<B: SolverOps>(device: &B::Device) -> Result<Self, String> {
        let matrix = |rows, columns, entry: fn(usize, usize) -> f32| {
            Tensor::<B, 2>::from_data(
                TensorData::new(values(rows, columns, entry), [rows, columns]),
                device,
            )
        };
        let left = matrix(ROWS, COLUMNS, a);
        let product = left.clone().matmul(matrix(COLUMNS, ROWS, b));
        let in_f32 = B::matmul_f32(matrix(ROWS, COLUMNS, fine), matrix(COLUMNS, ROWS, b));
        // Without momentum the point goes to the prox point.
        let state = AcceleratedState {
            point: product.clone(),
            prox: product.zeros_like(),
            difference: product.zeros_like(),
        };
        let halfway = AcceleratedStep {
            step: 0.5,
            threshold: 1.0,
            momentum: 0.0,
            restart: false,
        };
        let none = product.zeros_like();
        let (stepped, _) = B::accelerated_step(state, product.clone(), none, None, halfway);
        let norm = B::inner(product.clone(), product.clone());
        let sizes = matrix(ROWS, COLUMNS, size);
        let nothing = sizes.zeros_like();
        // With no weight and no dual yet, the right side is what stays.
        let select = |selection| {
            let step = SplittingStep {
                selection,
                rho: 1.0,
                dual_factor: 0.0,
            };
            B::splitting_step(sizes.clone(), nothing.clone(), nothing.clone(), None, step).0
        };
        let selected = select(Selection::AllBut(CUT));
        let of_rows = select(Selection::AllButInRow(COLUMNS / 2));
        let of_groups = select(Selection::InGroups { n: 2, m: 4 });
        let (left_large, right_large) = (matrix(LARGE, LONG, a), matrix(LONG, LARGE, b));
        let fast = B::matmul_fast(left_large.clone(), right_large.clone());
        let slow = B::matmul_f32(left_large, right_large);
        let wide = matrix(ROWS, WIDE, a);
        let running = B::gram_update(GramSum::new(WIDE, device), wide.clone());
        let running = B::gram_matrix(B::gram_update(running, wide));
        let read = |tensor: Tensor<B, 2>| {
            let data = tensor.try_into_data().map_err(|error| error.to_string())?;
            Ok::<_, String>(data.iter::<f32>().collect())
        };
        Ok(Self {
            gram: read(left.clone().transpose().matmul(left))?,
            product: read(product)?,
            fine: read(in_f32)?,
            step: read(stepped.point)?,
            norm,
            selected: read(selected)?,
            of_rows: read(of_rows)?,
            of_groups: read(of_groups)?,
            large: [read(fast)?, read(slow)?],
            running: read(running)?,
        })
    }

    /// Holds what was computed against the host.
    ///
    /// # Errors
    /// The first thing that differs.
    pub(crate) fn check(&self) -> Result<(), String> {
        let product = |i, j| (0..COLUMNS).map(|k| a(i, k) * b(k, j)).sum::<f32>();
        let in_f32 = |i, j| (0..COLUMNS).map(|k| fine(i, k) * b(k, j)).sum::<f32>();
        let gram = |i, j| (0..ROWS).map(|k| a(k, i) * a(k, j)).sum::<f32>();
        // Half of the product is left by the step, and one is taken off towards zero.
        let step = |i, j| {
            let half = 0.5 * product(i, j);
            half.signum() * (half.abs() - 1.0).max(0.0)
        };
        let selected = |i, j| {
            let entry = size(i, j);
            if entry.abs() > CUT as f32 { entry } else { 0.0 }
        };
        compare("a matrix product", &self.product, ROWS, product)?;
        compare("a product in f32", &self.fine, ROWS, in_f32)?;
        compare("a Gram matrix", &self.gram, COLUMNS, gram)?;
        compare("a proximal step", &self.step, ROWS, step)?;
        // How many entries of `others` are larger.
        let among = |i, j, mut others: std::ops::Range<usize>, kept| {
            let larger = others
                .by_ref()
                .filter(|other| size(i, *other).abs() > size(i, j).abs());
            if larger.count() < kept { size(i, j) } else { 0.0 }
        };
        let of_rows = |i, j| among(i, j, 0..COLUMNS, COLUMNS / 2);
        let of_groups = |i, j| among(i, j, j / 4 * 4..j / 4 * 4 + 4, 2);
        let running = |i, j| 2.0 * (0..ROWS).map(|k| a(k, i) * a(k, j)).sum::<f32>();
        compare("a selection of entries", &self.selected, COLUMNS, selected)?;
        compare("a selection in rows", &self.of_rows, COLUMNS, of_rows)?;
        compare("a selection in groups", &self.of_groups, COLUMNS, of_groups)?;
        compare("a running sum", &self.running, WIDE, running)?;
        let sums = sums_of_large();
        compare_sums("a large product", &self.large[0], &sums)?;
        compare_sums("a large product in f32", &self.large[1], &sums)?;
        let norm: f64 = values(ROWS, ROWS, product)
            .iter()
            .map(|v| f64::from(*v).powi(2))
            .sum();
        // A row's sum is an integer below 2²⁴, exact in any order.
        if self.norm != norm {
            return Err(format!("a squared norm is {} and should be {norm}", self.norm));
        }
        Ok(())
    }
}

/// Compares matrices of `columns` columns; what is not a number differs from everything.
fn compare(
    what: &str,
    found: &[f32],
    columns: usize,
    expected: impl Fn(usize, usize) -> f32,
) -> Result<(), String> {
    let wrong = |(k, found): (usize, &f32)| {
        let (i, j) = (k / columns, k % columns);
        (*found != expected(i, j)).then(|| (i, j, *found, expected(i, j)))
    };
    let wrong: Vec<_> = found.iter().enumerate().filter_map(wrong).collect();
    match wrong.first() {
        None => Ok(()),
        Some((i, j, found_there, expected)) => Err(format!(
            "{} of {} entries of {what} are wrong: row {i}, column {j} is {found_there} and should be {expected}",
            wrong.len(),
            found.len()
        )),
    }
}

fn sum(values: impl Iterator<Item = f32>) -> f64 {
    values.map(f64::from).sum()
}

/// What the rows and the columns of the large product sum to, which takes the host far less than the product.
fn sums_of_large() -> [Vec<f64>; 2] {
    let of_b: Vec<f64> = (0..LONG).map(|k| sum((0..LARGE).map(|j| b(k, j)))).collect();
    let of_a: Vec<f64> = (0..LONG).map(|k| sum((0..LARGE).map(|i| a(i, k)))).collect();
    let row = |i| (0..LONG).map(|k| f64::from(a(i, k)) * of_b[k]).sum();
    let column = |j| (0..LONG).map(|k| of_a[k] * f64::from(b(k, j))).sum();
    [(0..LARGE).map(row).collect(), (0..LARGE).map(column).collect()]
}

/// Compares the sums of the rows and of the columns of the large product.
fn compare_sums(what: &str, found: &[f32], [rows, columns]: &[Vec<f64>; 2]) -> Result<(), String> {
    for at in 0..LARGE {
        let row = sum(found[at * LARGE..(at + 1) * LARGE].iter().copied());
        let column = sum(found.iter().skip(at).step_by(LARGE).copied());
        for (line, found, expected) in [("row", row, rows[at]), ("column", column, columns[at])] {
            // All sums are whole numbers below 2⁵³.
            if found != expected {
                return Err(format!(
                    "{line} {at} of {what} sums to {found} and should be {expected}"
                ));
            }
        }
    }
    Ok(())
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn right() -> Computed {
        let computed = Computed::on::<burn::backend::Flex>(&Default::default()).unwrap();
        assert_eq!(computed.check(), Ok(()));
        computed
    }

    /// What a driver that fails silently gives: zeros, one wrong entry, values that are not numbers.
    #[test]
    fn wrong_values_are_noticed_wherever_they_are() {
        type Part = (&'static str, fn(&mut Computed) -> &mut Vec<f32>);
        let parts: [Part; 10] = [
            ("matrix product", |c| &mut c.product),
            ("product in f32", |c| &mut c.fine),
            ("Gram matrix", |c| &mut c.gram),
            ("proximal step", |c| &mut c.step),
            ("selection of entries", |c| &mut c.selected),
            ("selection in rows", |c| &mut c.of_rows),
            ("selection in groups", |c| &mut c.of_groups),
            ("running sum", |c| &mut c.running),
            ("large product", |c| &mut c.large[0]),
            ("large product in f32", |c| &mut c.large[1]),
        ];
        for (name, part) in parts {
            let faults: [fn(&mut Vec<f32>); 4] = [
                |values| values.fill(0.0),
                |values| *values.last_mut().unwrap() += 1.0,
                |values| values[17] = f32::NAN,
                |values| values.rotate_left(1),
            ];
            for fault in faults {
                let mut computed = right();
                fault(part(&mut computed));
                let reason = computed.check().unwrap_err();
                assert!(reason.contains(name), "{reason}");
                assert!(reason.contains("should be"), "{reason}");
            }
        }
        let mut computed = right();
        computed.norm = f64::NAN;
        assert!(computed.check().unwrap_err().contains("norm"));
    }

    /// A product whose factors were rounded to TF32.
    #[test]
    fn lost_digits_are_noticed() {
        let rounded = |v: f32| f32::from_bits((v.to_bits() + 0x1000) & !0x1fff);
        assert_eq!(rounded(2048.0), 2048.0);
        let mut computed = right();
        for i in 0..ROWS {
            for j in 0..ROWS {
                computed.fine[i * ROWS + j] = (0..COLUMNS).map(|k| rounded(fine(i, k)) * b(k, j)).sum();
            }
        }
        assert!(computed.check().unwrap_err().contains("a product in f32"));
    }

    /// A selection that is one entry off, as a wrong comparison at the border would make it.
    #[test]
    fn a_selection_that_is_one_off_is_noticed() {
        let mut computed = right();
        let smallest_kept = computed
            .selected
            .iter_mut()
            .find(|v| v.abs() == CUT as f32 + 1.0)
            .unwrap();
        *smallest_kept = 0.0;
        assert!(computed.check().unwrap_err().contains("1 of 2048 entries"));
    }
}
