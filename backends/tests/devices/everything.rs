//! Every kernel of this crate, launched in each type and selection that the solver has; for tests of what they are compiled to.

use burn::tensor::Tensor;
use fista_pruner_backends::{
    DeviceJob, GramSum, Selection, SolverOps, SplittingStep, UpperHalf, device_failure, dispatch_opened,
};

/// Kernels of `cube/kernels.rs`, each of which must be launched.
pub(crate) const OWN: [&str; 9] = [
    "count_digit",
    "settle_digit",
    "finish_matrix",
    "cut_rows",
    "cut_groups",
    "compensated_add",
    "row_products",
    "mirror_strip",
    "product_f32",
];

/// What the solver launches, over shapes that each kernel of a product's list takes. Nothing runs, and nothing is read.
struct Everything;

impl DeviceJob for Everything {
    type Output = ();

    fn run<B: SolverOps>(self, device: &B::Device) {
        let zeros = |rows: usize, columns: usize| Tensor::<B, 2>::zeros([rows, columns], device);
        let done = |tensor: Tensor<B, 2>| {
            // Whatever is queued is launched.
            B::sync(device).unwrap();
            drop(tensor);
        };
        for (rows, columns) in [(512, 1024), (33, 130)] {
            for selection in [
                Selection::AllBut(rows * columns / 2),
                Selection::AllButInRow(columns / 2),
                Selection::InGroups { n: 2, m: 4 },
                Selection::InGroups { n: 4, m: 8 },
                Selection::InGroups { n: 8, m: 16 },
                Selection::InGroups { n: 20, m: 65 },
            ] {
                let columns = match selection {
                    Selection::InGroups { m, .. } => columns / m * m,
                    _ => columns,
                };
                for drift in [None, Some(zeros(rows, columns))] {
                    let step = SplittingStep {
                        selection,
                        rho: 0.3,
                        dual_factor: 0.9,
                    };
                    let [moved, weight, shifted] = [(); 3].map(|()| zeros(rows, columns));
                    done(B::splitting_step(moved, weight, shifted, drift, step).0);
                }
            }
            done(B::row_products(zeros(rows, columns), zeros(rows, columns)));
            done(B::compensated_add(zeros(rows, columns), zeros(rows, columns), zeros(rows, columns)).0);
            let sum = B::gram_update(GramSum::new(columns, device), zeros(rows, columns));
            done(B::gram_matrix(sum));
            done(UpperHalf::product(zeros(columns, rows), zeros(rows, columns)).full());
        }
        // Products: large, with sizes that no tile divides, a single row, and turned factors.
        for (m, k, n) in [
            (1024, 1024, 1024),
            (515, 130, 257),
            (1, 1024, 512),
            (64, 64, 64),
            (512, 4096, 128),
        ] {
            for (left, right) in [(false, false), (true, false), (false, true), (true, true)] {
                let factor = |turned: bool, rows, columns| match turned {
                    true => zeros(columns, rows).transpose(),
                    false => zeros(rows, columns),
                };
                let factors = || (factor(left, m, k), factor(right, k, n));
                let (a, b) = factors();
                done(B::matmul_f32(a, b));
                let (a, b) = factors();
                done(B::matmul_fast(a, b));
            }
        }
        // As attention has them.
        let heads = |rows: usize| zeros(4 * rows, 64).reshape([1, 4, rows, 64]);
        let scores = B::matmul_fast(heads(256), heads(256).swap_dims(2, 3));
        done(B::matmul_fast(scores, heads(256)).reshape([1024, 64]));
    }
}

/// Launches everything on a device, which is not checked first: it may be one that computes nothing.
pub(crate) fn launch(device: &str) {
    dispatch_opened(&device.parse().unwrap(), Everything).unwrap();
    assert_eq!(device_failure(), None);
}
