//! Statistics of operators' inputs, against sums over tokens in f64.

use crate::common::Device;
use burn::tensor::{Tensor, TensorData};
use fista_pruner::prune::Accumulator;
use rand::{Rng, SeedableRng};

type Matrix = Tensor<Device, 2>;

fn random(rows: usize, columns: usize, seed: u64) -> Matrix {
    let mut draw = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let values: Vec<f32> = (0..rows * columns)
        .map(|_| draw.random_range(-1.0..1.0))
        .collect();
    Tensor::from_data(TensorData::new(values, [rows, columns]), &Default::default())
}

fn values(matrix: Matrix) -> Vec<f64> {
    matrix.into_data().iter::<f64>().collect()
}

/// `‖W D‖²_F / p` and `‖W X‖²_F / p`, `d` and `x` `[tokens, n]`.
fn energies(weight: &Matrix, d: &Matrix, x: &Matrix) -> (f64, f64) {
    let [tokens, inputs] = d.dims();
    let weight = values(weight.clone());
    let energy = |x: &Matrix| {
        let x = values(x.clone());
        let outputs = x.chunks(inputs).flat_map(|token| {
            weight
                .chunks(inputs)
                .map(move |row| row.iter().zip(token).map(|(w, x)| w * x).sum::<f64>())
        });
        outputs.map(|y| y * y).sum::<f64>() / tokens as f64
    };
    (energy(d), energy(x))
}

#[test]
fn a_drift_is_the_same_on_outputs_and_by_matrices_of_inputs() {
    let inputs = 40;
    // Two operators of 7 and 13 outputs together are less work than the matrices; 14 more are not.
    let names = ["a", "b", "c"];
    let weights = [random(7, inputs, 1), random(13, inputs, 2), random(14, inputs, 3)];
    let dense = [random(50, inputs, 4), random(30, inputs, 5)];
    let real: Vec<Matrix> = (dense.iter().zip(6..))
        .map(|(x, seed)| x.clone() + random(x.dims()[0], inputs, seed).mul_scalar(0.1))
        .collect();
    let all = |x: &[Matrix]| Tensor::cat(x.to_vec(), 0);
    let (x, difference) = (all(&dense), all(&real) - all(&dense));
    let operators = |count: usize| -> Vec<(String, Matrix)> {
        (names.iter().map(|name| (*name).to_owned()))
            .zip(weights.iter().cloned())
            .take(count)
            .collect()
    };
    for (count, cross) in [(2, false), (2, true), (3, false), (3, true), (0, false)] {
        let mut accumulator = Accumulator::for_operators(operators(count), cross);
        for (dense, real) in dense.iter().zip(&real) {
            accumulator.add_pair(dense.clone(), real.clone());
        }
        let statistics = accumulator.finish("a").unwrap();
        let on_outputs = count == 2;
        assert_eq!(statistics.on_outputs.len(), if on_outputs { 2 } else { 0 });
        assert_eq!(statistics.drift.is_some(), cross || !on_outputs);
        assert_eq!(statistics.drift_gram.is_some(), cross || !on_outputs);
        assert_eq!(statistics.cross().is_some(), cross || !on_outputs);
        for (name, weight) in operators(count) {
            let problem = statistics.problem(&name, weight.clone());
            // P = W (X* − X) X*ᵀ / p in f64.
            let (w, d, r) = (
                values(weight.clone()),
                values(difference.clone()),
                values(all(&real)),
            );
            let tokens = d.len() / inputs;
            let found = values(problem.drift.clone().unwrap());
            for (i, row) in w.chunks(inputs).enumerate() {
                for j in 0..inputs {
                    let of_token = |t: usize| {
                        let output: f64 = (0..inputs).map(|k| row[k] * d[t * inputs + k]).sum();
                        output * r[t * inputs + j]
                    };
                    let expected = (0..tokens).map(of_token).sum::<f64>() / tokens as f64;
                    assert!((found[i * inputs + j] - expected).abs() < 1e-6, "{name} {i} {j}");
                }
            }
            let (drift, target) = energies(&weight, &difference, &x);
            let close = |found: f64, expected: f64| (found / expected - 1.0).abs() < 1e-5;
            assert!(
                close(problem.drift_energy, drift),
                "{} {drift}",
                problem.drift_energy
            );
            assert!(
                close(problem.target_energy, target),
                "{} {target}",
                problem.target_energy
            );
        }
    }
}

/// A share of the drift is the drift from activations that lie that far between the operator's own and the dense model's.
#[test]
fn a_part_of_the_drift_is_that_from_a_target_on_the_way() {
    let (inputs, share) = (24, 0.25);
    let (dense, real, more) = (random(60, inputs, 1), random(60, inputs, 2), random(60, 9, 3));
    let between = dense.clone() * share + real.clone() * (1.0 - share);
    // On outputs, by matrices of the inputs, and on outputs with more in the target.
    for (outputs, columns) in [(9, false), (30, false), (9, true)] {
        let weight = random(outputs, inputs, 4);
        let problem = |share: f64, dense: &Matrix| {
            let operators = vec![("a".to_owned(), weight.clone())];
            let mut accumulator = match columns {
                true => Accumulator::for_columns(operators),
                false => Accumulator::for_operators(operators, false),
            }
            .towards(share);
            accumulator.add_towards(dense.clone(), real.clone(), columns.then(|| more.clone()));
            accumulator.finish("a").unwrap().problem("a", weight.clone())
        };
        let (found, expected) = (problem(share, &dense), problem(1.0, &between));
        let close = |a: f64, b: f64| (a / b - 1.0).abs() < 1e-5;
        assert!(close(found.drift_energy, expected.drift_energy));
        assert!(close(found.target_energy, expected.target_energy));
        let far = (found.drift.unwrap() - expected.drift.unwrap()).abs().max();
        assert!(far.into_scalar() < 1e-5);
        assert!(!close(problem(1.0, &dense).drift_energy, expected.drift_energy));
    }
}

#[test]
fn an_operator_whose_drift_was_not_gathered_is_refused() {
    let inputs = 40;
    let mut accumulator = Accumulator::for_operators(vec![("known".into(), random(4, inputs, 1))], false);
    accumulator.add_pair(random(50, inputs, 2), random(50, inputs, 3));
    let problem = accumulator
        .finish("known")
        .unwrap()
        .problem("other", random(4, inputs, 4));
    let pattern = fista_pruner::config::Pattern::unstructured(0.5).unwrap();
    let config = fista_pruner::config::SolverConfig::fast(None);
    let error = fista_pruner::solver::solve(&problem, pattern, &config).unwrap_err();
    assert!(error.to_string().contains("other"), "{error}");
}
