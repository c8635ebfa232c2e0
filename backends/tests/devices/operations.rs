//! The solver's operations but the selection, and the products around them.

use crate::present::{Matrix, assert_alike};
use burn::tensor::Tensor;
use fista_pruner_backends::{
    AcceleratedState, AcceleratedStep, ConjugateState, DeviceJob, GramSum, SolverOps, UpperHalf,
};

/// Rows and columns that no tile, chunk or vector of any device divides, and one of each.
const SHAPES: [(usize, usize); 4] = [(1, 1), (3, 130), (70, 33), (129, 257)];

/// f32's last digits, after sums of some hundred terms.
const TOLERANCE: f32 = 1e-5;

/// Work that is the same function for every backend.
macro_rules! job {
    ($name:ident($rows:ident, $columns:ident, $device:ident) $body:block) => {
        #[derive(Clone)]
        struct $name(usize, usize);
        impl DeviceJob for $name {
            type Output = Vec<Matrix>;
            fn run<B: SolverOps>(self, $device: &B::Device) -> Vec<Matrix> {
                let Self($rows, $columns) = self;
                let outputs: Vec<Tensor<B, 2>> = $body;
                outputs.into_iter().map(Matrix::of).collect()
            }
        }
        for (rows, columns) in SHAPES {
            let name = format!("{} {rows} x {columns}", stringify!($name));
            assert_alike(&name, &$name(rows, columns), TOLERANCE);
        }
    };
}

#[test]
fn proximal_steps_and_extrapolations() {
    job!(Steps(rows, columns, device) {
        let matrix = |seed| Matrix::mixed(rows, columns, seed).on::<B>(device);
        let step = AcceleratedStep { step: 0.7, threshold: 0.2, momentum: 0.3, restart: true };
        let state = AcceleratedState { point: matrix(1), prox: matrix(2), difference: matrix(3) };
        let (state, first) = B::accelerated_step(state, matrix(4), matrix(5), None, step);
        let outputs = [state.point.clone(), state.prox.clone(), state.difference.clone()];
        // Views that are not contiguous.
        let turned = AcceleratedState {
            point: state.point.transpose(),
            prox: state.prox.transpose(),
            difference: state.difference.transpose(),
        };
        let (image, weight) = (matrix(6).transpose(), matrix(7).transpose());
        let drift = matrix(8).transpose();
        let (state, second) = B::accelerated_step(turned, image, weight, Some(drift), step);
        let moves = vec![first.squared_move as f32, second.squared_move as f32];
        let moves = Matrix::new(1, 2, moves).on::<B>(device);
        let difference = B::difference(matrix(1), matrix(2));
        outputs.into_iter().chain([state.point, state.prox, state.difference, moves, difference]).collect()
    });
}

#[test]
fn compensated_sums() {
    job!(Sums(rows, columns, device) {
        let mut sum = Tensor::<B, 2>::zeros([rows, columns], device);
        let mut compensation = sum.clone();
        for seed in 0..20 {
            let term = Matrix::mixed(rows, columns, seed).on::<B>(device);
            (sum, compensation) = B::compensated_add(sum, compensation, term);
        }
        vec![sum]
    });
}

/// A hundred tenths of a millionth on top of one: lost without the compensation, so that a compiler that rearranges sums
/// would show.
#[test]
fn compensation_survives_the_devices_compiler() {
    job!(Compensated(rows, columns, device) {
        let mut sum = Tensor::<B, 2>::ones([rows, columns], device);
        let mut compensation = sum.zeros_like();
        for _ in 0..100 {
            let term = sum.ones_like().mul_scalar(1e-7);
            (sum, compensation) = B::compensated_add(sum, compensation, term);
        }
        vec![(sum - 1.0).mul_scalar(1e5)]
    });
}

#[test]
fn inner_products_and_distances() {
    job!(Sums(rows, columns, device) {
        let a = Matrix::mixed(rows, columns, 1).on::<B>(device);
        let b = Matrix::mixed(rows, columns, 2).on::<B>(device);
        let values = vec![
            B::inner(a.clone(), a.clone()) as f32,
            B::squared_distance(a, b) as f32,
        ];
        vec![Matrix::new(1, 2, values).on::<B>(device)]
    });
}

#[test]
fn products_and_gram_matrices() {
    job!(Products(rows, columns, device) {
        let a = Matrix::mixed(rows, columns, 1).on::<B>(device);
        let gram = B::matmul_f32(a.clone().transpose(), a.clone());
        let product = B::matmul_f32(a.clone(), gram.clone());
        let half = UpperHalf::product(gram.clone(), gram.clone()).plus(gram.clone()).full();
        let mut sum = GramSum::new(columns, device);
        for _ in 0..2 {
            sum = B::gram_update(sum, a.clone());
        }
        vec![product, gram, half, B::gram_matrix(sum), B::matmul_f32(a.clone(), a.transpose())]
    });
}

/// Factors of 12 and 4 bits, and sums below 2^24: exact in f32 in any order, and not in TF32.
#[test]
fn products_in_f32_lose_no_digit() {
    #[derive(Clone)]
    struct Exact(usize, usize, usize);
    impl DeviceJob for Exact {
        type Output = Vec<Matrix>;
        fn run<B: SolverOps>(self, device: &B::Device) -> Vec<Matrix> {
            let Self(m, k, n) = self;
            let matrix = |rows: usize, columns: usize, entry: &dyn Fn(usize, usize) -> f32| {
                let values = (0..rows * columns)
                    .map(|at| entry(at / columns, at % columns))
                    .collect();
                Matrix::new(rows, columns, values).on::<B>(device)
            };
            let a = |i: usize, j: usize| ((i * 37 + j * 11) % 1021) as f32 + 2049.0;
            let b = |i: usize, j: usize| ((i * 5 + j * 3) % 15) as f32 - 7.0;
            // As they lie in memory, and views that are not contiguous.
            let lefts = [matrix(m, k, &a), matrix(k, m, &|i, j| a(j, i)).transpose()];
            let rights = [matrix(k, n, &b), matrix(n, k, &|i, j| b(j, i)).transpose()];
            let products = lefts.iter().flat_map(|left| {
                rights
                    .iter()
                    .map(|right| B::matmul_f32(left.clone(), right.clone()))
            });
            products.map(Matrix::of).collect()
        }
    }
    for (m, k, n) in [
        (1, 1, 1),
        (3, 70, 130),
        (129, 64, 33),
        (256, 300, 260),
        (1, 200, 64),
    ] {
        assert_alike(&format!("exact {m} {k} {n}"), &Exact(m, k, n), 0.0);
    }
}

/// The fast product may round factors to TF32; whole numbers of few bits it multiplies exactly, in any number of dimensions.
#[test]
fn fast_products() {
    job!(Fast(rows, columns, device) {
        let whole = |rows, columns, seed| Matrix::mixed(rows, columns, seed).map(|v| (v * 8.0).trunc()).on::<B>(device);
        let (a, b) = (whole(rows, columns, 1), whole(columns, 65, 2));
        let plain = B::matmul_fast(a.clone(), b.clone());
        let turned = B::matmul_fast(b.clone().transpose(), a.clone().transpose());
        // One matrix on the left for each of three on the right, and the other way round.
        let batch = whole(3 * columns, 65, 3).reshape([3, columns, 65]);
        let single = a.clone().reshape([1, rows, columns]);
        let left = B::matmul_fast(single, batch.clone()).reshape([3 * rows, 65]);
        let right = whole(65, 2, 4).reshape([1, 65, 2]);
        let right = B::matmul_fast(batch, right).reshape([3 * columns, 2]);
        // As attention has them: views of heads, and keys turned round.
        let heads = whole(2 * rows, 2 * columns, 5).reshape([2, rows, 2, columns]).swap_dims(1, 2);
        let keys = whole(2 * rows, 2 * columns, 6).reshape([2, rows, 2, columns]).swap_dims(1, 2);
        let scores = B::matmul_fast(heads, keys.swap_dims(2, 3)).reshape([4 * rows, rows]);
        vec![plain, turned, left, right, scores]
    });
}

#[test]
fn sums_of_rows() {
    job!(Rows(rows, columns, device) {
        let (a, b) = (Matrix::mixed(rows, columns, 1), Matrix::mixed(rows, columns, 2));
        let (a, b) = (a.on::<B>(device), b.on::<B>(device));
        let turned = B::row_products(a.clone().transpose(), b.clone().transpose());
        vec![B::row_products(a, b), turned]
    });
}

#[test]
fn conjugate_steps() {
    job!(Conjugate(rows, columns, device) {
        let matrix = |seed| Matrix::mixed(rows, columns, seed);
        let mask = matrix(5).map(|v| f32::from(u8::from(v > 0.0))).on::<B>(device);
        let direction = matrix(3).on::<B>(device) * mask.clone();
        let mut state = ConjugateState {
            point: matrix(1).on::<B>(device),
            residual: matrix(2).on::<B>(device) * mask.clone(),
            energy: (direction.clone() * direction.clone()).sum_dim(1),
            direction,
        };
        let begun = B::conjugate_start(
            matrix(1).on::<B>(device),
            matrix(7).on::<B>(device),
            mask.clone(),
            matrix(8).map(f32::abs).on::<B>(device).slice([0..1, 0..columns]),
        );
        // A curvature that is positive but in the first row, which is done.
        let ramp = Matrix::new(rows, 1, (0..rows).map(|row| row as f32).collect()).on::<B>(device);
        let scale = Matrix::mixed(1, columns, 6).map(f32::abs).on::<B>(device);
        for _ in 0..2 {
            let image = state.direction.clone() * ramp.clone();
            state = B::conjugate_step(state, image, mask.clone(), scale.clone());
        }
        let gain = B::conjugate_gain(begun.point.clone(), begun.residual.clone(), &state);
        let gain = Matrix::new(1, 1, vec![gain as f32]).on::<B>(device);
        vec![
            state.point, state.residual, state.direction, state.energy,
            begun.residual, begun.direction, begun.energy, gain,
        ]
    });
}
