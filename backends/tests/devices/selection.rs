//! Which entries stay, on every device as on Flex.

use crate::present::{Matrix, assert_alike};
use fista_pruner_backends::{DeviceJob, Selection, SolverOps, SplittingStep};

/// A step of ℓ0 splitting over given values.
#[derive(Debug, Clone)]
struct Step {
    moved: Matrix,
    weight: Matrix,
    dual: Matrix,
    drift: Option<Matrix>,
    step: SplittingStep,
}

impl DeviceJob for Step {
    type Output = Vec<Matrix>;

    fn run<B: SolverOps>(self, device: &B::Device) -> Vec<Matrix> {
        let on = |matrix: &Matrix| matrix.on::<B>(device);
        let drift = self.drift.as_ref().map(on);
        let (right, dual) = B::splitting_step(
            on(&self.moved),
            on(&self.weight),
            on(&self.dual),
            drift,
            self.step,
        );
        vec![Matrix::of(right), Matrix::of(dual)]
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
                dual: Matrix::mixed(rows, columns, 3),
                drift,
                step: step(selection),
            };
            assert_alike(&format!("{selection:?}"), &step, 1e-6);
        }
    }
}
