//! Which entries stay, on every device as on Flex.

use crate::present::{Matrix, assert_alike};
use fista_pruner_backends::{DeviceJob, Selection, SolverOps, SplittingStep};
use proptest::prelude::*;

/// A step of ℓ0 splitting over given values.
#[derive(Debug, Clone)]
struct Step {
    moved: Matrix,
    weight: Matrix,
    shifted: Matrix,
    drift: Option<Matrix>,
    step: SplittingStep,
}

impl DeviceJob for Step {
    type Output = Vec<Matrix>;

    fn run<B: SolverOps>(self, device: &B::Device) -> Vec<Matrix> {
        let on = |matrix: &Matrix| matrix.on::<B>(device);
        let drift = self.drift.as_ref().map(on);
        let (right, shifted) = B::splitting_step(
            on(&self.moved),
            on(&self.weight),
            on(&self.shifted),
            drift,
            self.step,
        );
        vec![Matrix::of(right), Matrix::of(shifted)]
    }
}

fn step(selection: Selection) -> SplittingStep {
    SplittingStep {
        selection,
        rho: 0.3,
        dual_factor: 0.9,
    }
}

#[test]
fn steps_of_every_selection() {
    let (rows, columns) = (70, 480);
    for selection in [
        Selection::AllBut(0),
        Selection::AllBut(1),
        Selection::AllBut(rows * columns / 2),
        Selection::AllBut(rows * columns - 1),
        Selection::AllButInRow(columns / 3),
        Selection::InGroups { n: 2, m: 4 },
        Selection::InGroups { n: 1, m: 2 },
        Selection::InGroups { n: 5, m: 16 },
        Selection::InGroups { n: 7, m: 8 },
    ] {
        for drift in [None, Some(Matrix::mixed(rows, columns, 4))] {
            let step = Step {
                moved: Matrix::mixed(rows, columns, 1),
                weight: Matrix::mixed(rows, columns, 2),
                shifted: Matrix::mixed(rows, columns, 3),
                drift,
                step: step(selection),
            };
            assert_alike(&format!("{selection:?}"), &step, 1e-6);
        }
    }
}

/// Few sizes, of both signs, so that ties are everywhere, borders included.
fn ties(rows: usize, columns: usize, sizes: u32, seed: u32) -> Matrix {
    let sizes = sizes as f32;
    Matrix::mixed(rows, columns, seed).map(|v| (v * sizes).trunc())
}

/// The selection alone on whole numbers, where nothing is rounded: right side and shifted weight are those of Flex to the last bit.
fn assert_same_entries(z: Matrix, selection: Selection) {
    let (rows, columns) = (z.rows, z.columns);
    let nothing = Matrix::new(rows, columns, vec![0.0; rows * columns]);
    let step = Step {
        moved: z,
        weight: nothing.clone(),
        shifted: nothing,
        drift: None,
        step: SplittingStep {
            selection,
            rho: 2.0,
            dual_factor: 0.5,
        },
    };
    assert_alike(&format!("{selection:?} of {rows} x {columns}"), &step, 0.0);
}

#[test]
fn ties_fall_as_on_flex_in_large_matrices() {
    let (rows, columns) = (200, 1500);
    let entries = rows * columns;
    for (selection, sizes) in [
        (Selection::AllBut(entries / 2), 3),
        (Selection::AllBut(entries / 2), 5000),
        (Selection::AllBut(entries - 1), 50),
        (Selection::AllBut(entries), 50),
        (Selection::AllButInRow(columns / 2), 3),
        (Selection::AllButInRow(columns / 2), 300),
        (Selection::AllButInRow(columns), 3),
        (Selection::InGroups { n: 2, m: 4 }, 2),
        (Selection::InGroups { n: 20, m: 30 }, 4),
        (Selection::InGroups { n: 7, m: 50 }, 4),
        (Selection::InGroups { n: 700, m: 1500 }, 4),
    ] {
        assert_same_entries(ties(rows, columns, sizes, 1), selection);
    }
}

/// Rows of more entries, and more of them, than a device counts in one direction.
#[test]
fn long_rows_and_many_rows() {
    assert_same_entries(ties(2, 70_000, 3, 2), Selection::AllButInRow(30_000));
    let m = 33;
    assert_same_entries(ties(70_000, m, 3, 3), Selection::InGroups { n: 10, m });
}

#[test]
fn zeros_and_equal_entries() {
    let (rows, columns) = (3, 48);
    for value in [0.0, -0.0, 1.0, -3.0, f32::MIN_POSITIVE, f32::MAX] {
        let all = Matrix::new(rows, columns, vec![value; rows * columns]);
        for selection in [
            Selection::AllBut(0),
            Selection::AllBut(7),
            Selection::AllButInRow(0),
            Selection::AllButInRow(11),
            Selection::InGroups { n: 2, m: 4 },
            Selection::InGroups { n: 1, m: 48 },
        ] {
            // Twice the largest number would be none.
            assert_same_entries(all.clone().map(|v| v * 0.25), selection);
        }
    }
}

fn any_selection(rows: usize, groups: usize, m: usize) -> impl Strategy<Value = Selection> {
    let columns = groups * m;
    prop_oneof![
        (0..=rows * columns).prop_map(Selection::AllBut),
        (0..=columns).prop_map(Selection::AllButInRow),
        (1..=m).prop_map(move |n| Selection::InGroups { n, m }),
    ]
}

fn any_case() -> impl Strategy<Value = (Matrix, Selection)> {
    let shape = (
        1usize..6,
        1usize..40,
        prop::sample::select(vec![1usize, 2, 4, 16, 40]),
    );
    shape.prop_flat_map(|(rows, groups, m)| {
        let values = prop::collection::vec(-3i8..=3, rows * groups * m);
        let matrix = values.prop_map(move |values| {
            let values = values.into_iter().map(f32::from).collect();
            Matrix::new(rows, groups * m, values)
        });
        (matrix, any_selection(rows, groups, m))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_selection_of_any_matrix_is_that_of_flex((matrix, selection) in any_case()) {
        assert_same_entries(matrix, selection);
    }
}
