//! How the kernels are put to work on matrices: buffers, numbers of cubes, which kernel suits a selection.

use super::kernels::{self, BINS, DIGITS, SIDE, UNITS};
use super::queue::Kernel;
use crate::ops::SplittingStep;
use crate::selection::Selection;
use burn::tensor::{DType, Shape};
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::{empty_device_contiguous_dtype, zeros_client};
use burn_cubecl::tensor::CubeTensor;
use cubecl::calculate_cube_count_elemwise;
use cubecl::prelude::*;

/// Entries that a unit of a whole matrix's kernel looks at, so that adding up the units' counts costs little beside.
const ENTRIES_A_UNIT: usize = 64;
/// Largest group that a single unit orders: it compares every two of its entries.
const LARGEST_GROUP: usize = 32;

/// [`SolverOps::splitting_step`](crate::SolverOps::splitting_step) on `moved`, `weight`, `shifted` and, where there is one, the
/// drift.
#[derive(Debug)]
pub(super) struct Splitting(pub(super) SplittingStep);

impl<R: CubeRuntime> Kernel<R> for Splitting {
    const NAME: &'static str = "splitting_step";
    const OUTPUTS: usize = 2;

    fn launch(&self, mut inputs: Vec<CubeTensor<R>>) -> Vec<CubeTensor<R>> {
        let drift = inputs.split_off(3).pop().map(into_contiguous);
        let [moved, weight, shifted]: [CubeTensor<R>; 3] = inputs
            .try_into()
            .unwrap_or_else(|_| unreachable!("three or four inputs"));
        let columns = moved.meta.shape()[1];
        let matrices = Matrices {
            z: own(moved),
            shifted: own(shifted),
            weight: into_contiguous(weight),
            drift,
        };
        match self.0.selection {
            Selection::AllBut(zeros) => matrices.cut_matrix(self.0, zeros),
            Selection::AllButInRow(zeros) => {
                let kept = columns - zeros.min(columns - 1);
                matrices.cut_rows(self.0, columns, kept);
            }
            Selection::InGroups { n, m } if m <= LARGEST_GROUP => matrices.cut_groups(self.0, n, m),
            Selection::InGroups { n, m } => matrices.cut_rows(self.0, m, n),
        }
        vec![matrices.z, matrices.shifted]
    }
}

/// [`SolverOps::compensated_add`](crate::SolverOps::compensated_add) on sum, compensation and term.
#[derive(Debug)]
pub(super) struct CompensatedAdd;

impl<R: CubeRuntime> Kernel<R> for CompensatedAdd {
    const NAME: &'static str = "compensated_add";
    const OUTPUTS: usize = 2;

    fn launch(&self, inputs: Vec<CubeTensor<R>>) -> Vec<CubeTensor<R>> {
        let [sum, compensation, term]: [CubeTensor<R>; 3] =
            inputs.try_into().unwrap_or_else(|_| unreachable!("three inputs"));
        let (sum, compensation, term) = (own(sum), own(compensation), into_contiguous(term));
        let entries = sum.meta.num_elements();
        let cube = CubeDim::new_1d(UNITS);
        // SAFETY: the kernel looks at no entry beyond the length of `sum`, which is that of the others.
        #[allow(unsafe_code, reason = "a kernel that checks its bounds itself")]
        unsafe {
            kernels::compensated_add::launch_unchecked::<R>(
                &sum.client,
                calculate_cube_count_elemwise(&sum.client, entries, cube),
                cube,
                sum.clone().into_array_arg(),
                compensation.clone().into_array_arg(),
                term.into_array_arg(),
                0,
            );
        }
        vec![sum, compensation]
    }
}

/// [`SolverOps::row_products`](crate::SolverOps::row_products) of two matrices.
#[derive(Debug)]
pub(super) struct RowProducts;

impl<R: CubeRuntime> Kernel<R> for RowProducts {
    const NAME: &'static str = "row_products";
    const OUTPUTS: usize = 1;

    fn shape(&self, inputs: &[Shape]) -> Shape {
        Shape::new([inputs[0][0], 1])
    }

    fn launch(&self, inputs: Vec<CubeTensor<R>>) -> Vec<CubeTensor<R>> {
        let [a, b]: [CubeTensor<R>; 2] = inputs.try_into().unwrap_or_else(|_| unreachable!("two inputs"));
        let (a, b) = (into_contiguous(a), into_contiguous(b));
        let (rows, columns) = (a.meta.shape()[0], a.meta.shape()[1]);
        let sums = contiguous(&a, [rows, 1]);
        // SAFETY: a cube beyond the last row looks at nothing, and the others at their row.
        #[allow(unsafe_code, reason = "a kernel that checks its bounds itself")]
        unsafe {
            kernels::row_products::launch_unchecked::<R>(
                &a.client,
                calculate_cube_count_elemwise(&a.client, rows, CubeDim::new_1d(1)),
                CubeDim::new_1d(UNITS),
                a.clone().into_array_arg(),
                b.into_array_arg(),
                sums.clone().into_array_arg(),
                rows as u32,
                columns as u32,
            );
        }
        vec![sums]
    }
}

/// [`SolverOps::mirrored`](crate::SolverOps::mirrored) of the strips that begin in these rows of a matrix of `columns` columns.
#[derive(Debug)]
pub(super) struct Mirrored {
    pub(super) columns: usize,
    pub(super) starts: Vec<usize>,
}

impl<R: CubeRuntime> Kernel<R> for Mirrored {
    const NAME: &'static str = "mirrored";
    const OUTPUTS: usize = 1;

    fn shape(&self, _inputs: &[Shape]) -> Shape {
        Shape::new([self.columns, self.columns])
    }

    fn launch(&self, inputs: Vec<CubeTensor<R>>) -> Vec<CubeTensor<R>> {
        let full = contiguous(&inputs[0], [self.columns, self.columns]);
        for (start, strip) in self.starts.iter().zip(inputs) {
            let strip = into_contiguous(strip);
            let height = strip.meta.shape()[0];
            let squares = height.div_ceil(SIDE as usize) * (self.columns - start).div_ceil(SIDE as usize);
            // SAFETY: the kernel looks at no entry beyond the strip's height and width, and writes where they lie in `full`.
            #[allow(unsafe_code, reason = "a kernel that checks its bounds itself")]
            unsafe {
                kernels::mirror_strip::launch_unchecked::<R>(
                    &full.client,
                    calculate_cube_count_elemwise(&full.client, squares, CubeDim::new_1d(1)),
                    CubeDim::new_1d(UNITS),
                    strip.into_array_arg(),
                    full.clone().into_array_arg(),
                    *start as u32,
                    height as u32,
                    self.columns as u32,
                );
            }
        }
        vec![full]
    }
}

/// A matrix beside `other`, without gaps and with nothing in it.
fn contiguous<R: CubeRuntime>(other: &CubeTensor<R>, shape: [usize; 2]) -> CubeTensor<R> {
    let (client, device) = (other.client.clone(), other.device.clone());
    empty_device_contiguous_dtype(client, device, Shape::new(shape), DType::F32)
}

/// A tensor without gaps that may be written to: the given one where nobody else holds it.
fn own<R: CubeRuntime>(tensor: CubeTensor<R>) -> CubeTensor<R> {
    let tensor = into_contiguous(tensor);
    if tensor.can_mut() {
        tensor
    } else {
        into_contiguous(tensor.copy())
    }
}

/// What a splitting step works on, all of one shape: `z` comes as the moved point and goes as the right side, `shifted` as
/// one weight with dual and goes as the next.
struct Matrices<R: CubeRuntime> {
    z: CubeTensor<R>,
    shifted: CubeTensor<R>,
    weight: CubeTensor<R>,
    drift: Option<CubeTensor<R>>,
}

#[allow(
    unsafe_code,
    reason = "kernels that check their bounds themselves: no entry beyond the length of `z`, which is that of all"
)]
impl<R: CubeRuntime> Matrices<R> {
    fn entries(&self) -> usize {
        self.z.meta.num_elements()
    }

    /// The drift, or what stands in its place where it is not looked at.
    fn drift(&self) -> CubeTensor<R> {
        self.drift.as_ref().unwrap_or(&self.weight).clone()
    }

    fn cut_matrix(&self, step: SplittingStep, zeros: usize) {
        let client = &self.z.client;
        let cube = CubeDim::new_1d(UNITS);
        let units = self.entries().div_ceil(ENTRIES_A_UNIT);
        let cubes = || calculate_cube_count_elemwise(client, units, cube);
        let rank = zeros.min(self.entries()) as u32;
        let zeros = |length: u32| {
            let shape = Shape::new([length as usize]);
            zeros_client::<R>(client.clone(), self.z.device.clone(), shape, DType::U32)
        };
        let (counts, found) = (zeros(BINS), zeros(2));
        for digit in 0..DIGITS {
            // SAFETY: see above.
            unsafe {
                kernels::count_digit::launch_unchecked::<R>(
                    client,
                    cubes(),
                    cube,
                    self.z.clone().into_array_arg(),
                    self.shifted.clone().into_array_arg(),
                    counts.clone().into_array_arg(),
                    found.clone().into_array_arg(),
                    digit,
                    digit == 0,
                );
                kernels::settle_digit::launch_unchecked::<R>(
                    client,
                    CubeCount::new_single(),
                    CubeDim::new_single(),
                    counts.clone().into_array_arg(),
                    found.clone().into_array_arg(),
                    rank,
                    digit == 0,
                );
            }
        }
        // SAFETY: see above.
        unsafe {
            kernels::finish_matrix::launch_unchecked::<R>(
                client,
                cubes(),
                cube,
                self.z.clone().into_array_arg(),
                self.shifted.clone().into_array_arg(),
                self.weight.clone().into_array_arg(),
                self.drift().into_array_arg(),
                found.into_array_arg(),
                rank,
                step.rho,
                step.dual_factor,
                self.drift.is_some(),
            );
        }
    }

    /// Rows of `columns` consecutive entries, which may be groups.
    fn cut_rows(&self, step: SplittingStep, columns: usize, kept: usize) {
        let client = &self.z.client;
        let rows = self.entries() / columns;
        // Digits of the last place.
        let place_digits = (usize::BITS - (columns - 1).leading_zeros()).div_ceil(4);
        // SAFETY: see above; a cube beyond the last row looks at nothing.
        unsafe {
            kernels::cut_rows::launch_unchecked::<R>(
                client,
                calculate_cube_count_elemwise(client, rows, CubeDim::new_1d(1)),
                CubeDim::new_1d(UNITS),
                self.z.clone().into_array_arg(),
                self.shifted.clone().into_array_arg(),
                self.weight.clone().into_array_arg(),
                self.drift().into_array_arg(),
                rows as u32,
                columns as u32,
                kept as u32,
                place_digits,
                step.rho,
                step.dual_factor,
                self.drift.is_some(),
            );
        }
    }

    fn cut_groups(&self, step: SplittingStep, n: usize, m: usize) {
        let client = &self.z.client;
        let cube = CubeDim::new_1d(UNITS);
        // SAFETY: see above.
        unsafe {
            kernels::cut_groups::launch_unchecked::<R>(
                client,
                calculate_cube_count_elemwise(client, self.entries() / m, cube),
                cube,
                self.z.clone().into_array_arg(),
                self.shifted.clone().into_array_arg(),
                self.weight.clone().into_array_arg(),
                self.drift().into_array_arg(),
                n as u32,
                step.rho,
                step.dual_factor,
                m as u32,
                self.drift.is_some(),
            );
        }
    }
}
