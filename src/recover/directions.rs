//! The directions of zeroth-order steps, from seeds alone: nothing of them is stored, and a run can draw them again at any
//! time. In: seed, step, operator. Out: one number a weight, with unit variance where the weight survives and zero elsewhere.

use super::operators::Operator;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

/// Where directions lie.
#[derive(Debug, Clone, Copy)]
pub(super) enum Space {
    /// Everywhere: independent normal numbers (arXiv 2305.17333, Algorithm 1).
    Full,
    /// `U Z Vᵀ` with normal `Z [rank, rank]` and orthonormal `U [out, rank]`, `V [in, rank]` that are drawn anew every
    /// `refresh` steps (arXiv 2410.08989, Algorithms 2 and 3).
    Subspace {
        /// `r`
        rank: usize,
        /// `T₀`
        refresh: usize,
    },
}

/// What is drawn from a key of its own.
#[derive(Debug, Clone, Copy)]
enum Draw {
    Weights,
    Left,
    Right,
    Middle,
    Rounding,
}

fn generator(seed: u64, step: u64, operator: &Operator, draw: Draw) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (bytes, word) in key
        .chunks_exact_mut(8)
        .zip([seed, step, operator.index as u64, draw as u64])
    {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// The direction of step `step` for an operator whose weights `[out, in]` are `weights`: zero where they are.
pub(super) fn direction(
    space: Space,
    seed: u64,
    step: usize,
    operator: &Operator,
    weights: &[f32],
) -> Vec<f32> {
    let [_, columns] = operator.shape;
    let mut direction = vec![0.0; weights.len()];
    let rows = direction
        .par_chunks_mut(columns.max(1))
        .zip(weights.par_chunks(columns.max(1)))
        .enumerate();
    match space {
        Space::Full => {
            let generator = generator(seed, step as u64, operator, Draw::Weights);
            rows.for_each(|(row, (direction, weights))| {
                let mut generator = generator.clone();
                generator.set_stream(row as u64);
                for (d, w) in direction.iter_mut().zip(weights) {
                    if *w != 0.0 {
                        *d = StandardNormal.sample(&mut generator);
                    }
                }
            });
        }
        Space::Subspace { rank, refresh } => {
            let (left, right) = subspace(seed, step, operator, rank, refresh);
            let rank = right.len();
            rows.for_each(|(row, (direction, weights))| {
                for (scale, right) in left[row * rank..].iter().zip(&right) {
                    for (d, v) in direction.iter_mut().zip(right) {
                        *d += scale * v;
                    }
                }
                for (d, w) in direction.iter_mut().zip(weights) {
                    if *w == 0.0 {
                        *d = 0.0;
                    }
                }
            });
        }
    }
    direction
}

/// `√(out · in) / r · U Z`, `[out, r]` row-major, and the rows of `Vᵀ [r, in]`. The factor, which the official code has too,
/// gives entries unit variance, so that ε and rate mean what they mean without a subspace.
fn subspace(
    seed: u64,
    step: usize,
    operator: &Operator,
    rank: usize,
    refresh: usize,
) -> (Vec<f32>, Vec<Vec<f32>>) {
    let [rows, columns] = operator.shape;
    let rank = rank.min(rows).min(columns);
    let period = (step / refresh.max(1)) as u64;
    let basis =
        |length: usize, draw: Draw| orthonormal(generator(seed, period, operator, draw), length, rank);
    let (left, right) = (basis(rows, Draw::Left), basis(columns, Draw::Right));
    let scale = ((rows * columns) as f64).sqrt() / rank.max(1) as f64;
    let middle: Vec<f64> = StandardNormal
        .sample_iter(generator(seed, step as u64, operator, Draw::Middle))
        .take(rank * rank)
        .collect();
    let mut product = vec![0.0; rows * rank];
    for (row, product) in product.chunks_exact_mut(rank.max(1)).enumerate() {
        for (k, entry) in product.iter_mut().enumerate() {
            let sum: f64 = (0..rank).map(|j| left[j][row] * middle[j * rank + k]).sum();
            *entry = (scale * sum) as f32;
        }
    }
    let narrow = |v: Vec<f64>| v.into_iter().map(|x| x as f32).collect();
    (product, right.into_iter().map(narrow).collect())
}

/// `rank` random vectors of unit length at right angles to each other, by Gram–Schmidt, twice each. A library's factorisation
/// keeps a hundred times the memory of these few vectors.
fn orthonormal(mut generator: ChaCha8Rng, length: usize, rank: usize) -> Vec<Vec<f64>> {
    let mut basis: Vec<Vec<f64>> = Vec::with_capacity(rank);
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    for _ in 0..rank {
        let mut vector: Vec<f64> = StandardNormal.sample_iter(&mut generator).take(length).collect();
        for earlier in basis.iter().chain(&basis) {
            let along = dot(&vector, earlier);
            vector.iter_mut().zip(earlier).for_each(|(v, e)| *v -= along * e);
        }
        let norm = dot(&vector, &vector).sqrt();
        vector.iter_mut().for_each(|v| *v /= norm);
        basis.push(vector);
    }
    basis
}

/// Weights rounded up or down to what is stored, by chance, such that the mean is the weight: a thousand small steps are
/// not lost by each being less than half of the last bit.
pub(super) fn dithered(seed: u64, operator: &Operator, mut weights: Vec<f32>) -> Vec<f32> {
    use crate::checkpoint::StoredDtype;
    use rand::Rng;
    let (digits, least) = match operator.dtype {
        StoredDtype::BF16 => (7, -126),
        StoredDtype::F16 => (10, -14),
        _ => return operator.stored(weights),
    };
    let generator = generator(seed, 0, operator, Draw::Rounding);
    weights
        .par_chunks_mut(operator.shape[1].max(1))
        .enumerate()
        .for_each(|(row, weights)| {
            let mut generator = generator.clone();
            generator.set_stream(row as u64);
            for w in weights.iter_mut().filter(|w| **w != 0.0) {
                let exponent = (w.abs().log2().floor() as i32).max(least);
                let last_bit = (f64::from(exponent - digits)).exp2();
                *w = (f64::from(*w) + (generator.random::<f64>() - 0.5) * last_bit) as f32;
            }
        });
    operator.stored(weights)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::StoredDtype;
    use faer::Mat;

    fn operator(shape: [usize; 2], dtype: StoredDtype) -> (Operator, Vec<f32>) {
        let weights: Vec<f32> = (0..shape[0] * shape[1])
            .map(|i| {
                if i % 4 < 2 {
                    0.0
                } else {
                    0.02 + 1e-4 * (i % 97) as f32
                }
            })
            .collect();
        let operator = Operator {
            name: "fc1",
            index: 3,
            group: 0,
            tensor: "fc1.weight".into(),
            shape,
            dtype,
            keep: weights.iter().map(|w| *w != 0.0).collect(),
            values: Vec::new(),
        };
        (operator, weights)
    }

    const SPACES: [Space; 2] = [Space::Full, Space::Subspace { rank: 8, refresh: 5 }];

    #[test]
    fn directions_have_unit_variance_on_survivors_alone() {
        let (operator, weights) = operator([96, 64], StoredDtype::F32);
        for space in SPACES {
            let all: Vec<Vec<f32>> = (0..40)
                .map(|step| direction(space, 7, step, &operator, &weights))
                .collect();
            let mut square = 0.0;
            for d in &all {
                assert!(d.iter().zip(&weights).all(|(d, w)| (*d == 0.0) == (*w == 0.0)));
                square += d.iter().map(|d| f64::from(*d).powi(2)).sum::<f64>();
            }
            let survivors = weights.iter().filter(|w| **w != 0.0).count();
            let variance = square / (40 * survivors) as f64;
            assert!((variance - 1.0).abs() < 0.1, "{space:?}: {variance}");
        }
    }

    #[test]
    fn directions_come_from_seed_step_and_operator() {
        let (operator, weights) = operator([32, 16], StoredDtype::F32);
        for space in SPACES {
            let d = |seed, step| direction(space, seed, step, &operator, &weights);
            assert_eq!(d(1, 2), d(1, 2));
            assert!(d(1, 2) != d(1, 3) && d(1, 2) != d(2, 2));
            let mut other = operator.clone();
            other.index = 4;
            assert!(direction(space, 1, 2, &other, &weights) != d(1, 2));
        }
    }

    /// Steps of one period lie in one subspace of rank r on each side; those of another do not.
    #[test]
    fn a_period_has_one_subspace() {
        let (operator, _) = operator([40, 24], StoredDtype::F32);
        let dense = vec![1.0; 40 * 24];
        let space = Space::Subspace { rank: 3, refresh: 5 };
        let at = |step| -> Mat<f64> {
            let d = direction(space, 9, step, &operator, &dense);
            Mat::from_fn(40, 24, |i, j| f64::from(d[i * 24 + j]))
        };
        let rank = |m: &Mat<f64>| {
            let values = m.singular_values().unwrap();
            values.iter().filter(|s| **s > 1e-4 * values[0]).count()
        };
        let beside = |a: &Mat<f64>, b: &Mat<f64>| {
            Mat::from_fn(40, 48, |i, j| if j < 24 { a[(i, j)] } else { b[(i, j - 24)] })
        };
        assert_eq!(rank(&at(0)), 3);
        assert_eq!(rank(&beside(&at(0), &at(4))), 3);
        assert_eq!(rank(&beside(&at(4), &at(5))), 6);
    }

    #[test]
    fn dithering_keeps_the_mean_and_the_zeros() {
        for dtype in [StoredDtype::BF16, StoredDtype::F16] {
            let (operator, weights) = operator([64, 32], dtype);
            let rounds = 400;
            let mut sums = vec![0.0f64; weights.len()];
            for seed in 0..rounds {
                let rounded = dithered(seed, &operator, weights.clone());
                assert_eq!(rounded, operator.stored(rounded.clone()));
                for (sum, w) in sums.iter_mut().zip(&rounded) {
                    *sum += f64::from(*w);
                }
            }
            let off: f64 = sums
                .iter()
                .zip(&weights)
                .map(|(sum, w)| (sum / rounds as f64 - f64::from(*w)).abs() / f64::from(w.max(1e-9)))
                .fold(0.0, f64::max);
            assert!(off < 1e-3, "{off}");
            let nearest = operator.stored(weights.clone());
            let biased = nearest
                .iter()
                .zip(&weights)
                .map(|(a, b)| (a - b).abs() / b.max(1e-9));
            assert!(operator.dtype != StoredDtype::BF16 || biased.fold(0.0, f32::max) > 1.5e-3);
            assert!(
                dithered(1, &operator, weights.clone())
                    .iter()
                    .zip(&weights)
                    .all(|(a, b)| (*a == 0.0) == (*b == 0.0))
            );
        }
    }
}
