//! Running sums against sums in f64, as a device makes them and as every device can. Above `gram`, which knows no operations.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use crate::gram::*;
use crate::ops::{SolverOps, generic};
use crate::testing::{Matrix, matrix};
use burn::backend::Flex;
use burn::tensor::Tensor;

type Update = fn(GramSum<Flex>, Matrix) -> GramSum<Flex>;

const UPDATES: [(&str, Update); 2] = [("own", Flex::gram_update), ("generic", generic::gram_update)];

fn values(matrix: Matrix) -> Vec<f32> {
    matrix.into_data().into_vec().unwrap()
}

fn sum(update: Update, batches: &[Matrix]) -> GramSum<Flex> {
    let empty = GramSum::new(batches[0].dims()[1], &Default::default());
    batches.iter().fold(empty, |sum, x| update(sum, x.clone()))
}

#[test]
fn a_sum_is_the_product_in_f64_and_symmetric_to_the_last_bit() {
    // One strip; several; a last one of a single row; fewer columns than a block, and one.
    for columns in [1, 7, 96, 2 * MIN_ROWS + 1, 700] {
        let batches = [
            matrix(33, columns, 1),
            matrix(1, columns, 2),
            matrix(0, columns, 3),
            matrix(70, columns, 4),
        ];
        let tokens: Vec<Vec<f32>> = batches
            .iter()
            .flat_map(|x| {
                let x = values(x.clone());
                x.chunks(columns).map(<[f32]>::to_vec).collect::<Vec<_>>()
            })
            .collect();
        for (name, update) in UPDATES {
            let gram = sum(update, &batches);
            let generic = values(generic::gram_matrix(gram.clone()));
            let gram = values(Flex::gram_matrix(gram));
            assert_eq!(gram, generic, "{name} {columns}");
            for i in (0..columns).step_by(5) {
                for j in 0..columns {
                    let (found, mirrored) = (gram[i * columns + j], gram[j * columns + i]);
                    assert_eq!(found.to_bits(), mirrored.to_bits(), "{name} {columns} ({i}, {j})");
                    let expected: f64 = (tokens.iter().map(|x| f64::from(x[i]) * f64::from(x[j]))).sum();
                    // Some hundred additions of products below one.
                    assert!(
                        (f64::from(found) - expected).abs() < 5e-5,
                        "{name} {columns} ({i}, {j}): {found} {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn what_a_sum_of_many_batches_rounds_away_is_kept() {
    // Each small square is below half a step of f32 at the large one, so that a plain sum stays where it is.
    let constant = |value: f32| Tensor::full([1, 3], value, &Default::default());
    let mut batches = vec![constant(100.0)];
    batches.extend(std::iter::repeat_n(constant(0.02), 4000));
    let expected = 1e4 + 4000.0 * f64::from(0.02f32).powi(2);
    for (name, update) in UPDATES {
        for found in values(Flex::gram_matrix(sum(update, &batches))) {
            assert!((f64::from(found) - expected).abs() < 2e-3, "{name}: {found}");
        }
    }
}

#[test]
fn a_sum_does_not_depend_on_threads_or_on_the_view_of_its_batch() {
    let columns = 600;
    let wide = matrix(530, columns + 9, 1);
    let view = wide.slice_dim(1, 4..columns + 4);
    let copy = Tensor::from_data(view.clone().into_data(), &Default::default());
    let with = |threads: usize, x: Matrix| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| values(Flex::gram_matrix(sum(Flex::gram_update, &[x]))))
    };
    let one = with(1, copy);
    assert_eq!(one, with(2, view.clone()));
    assert_eq!(one, with(5, view));
}

#[test]
fn strips_cover_all_rows_and_no_strip_is_larger_than_a_device_binds() {
    for columns in [0, 1, 255, 768, 4096, 14_336, 57_344] {
        let mut next = 0;
        for rows in strip_rows(columns) {
            assert_eq!(rows.start, next);
            assert!(rows.len() * (columns - rows.start) <= MAX_ELEMENTS);
            next = rows.end;
        }
        assert_eq!(next, columns);
    }
}
