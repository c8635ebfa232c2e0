//! Whole columns at once: structured pruning of an operator whose inputs are channels or heads. In: a problem, how many blocks of
//! columns stay, how they are chosen. Out: the weight with the other columns zero, and the bias that goes with it.
//!
//! Legend as in [`crate::solver`], in f64 on the host. With `R` the removed and `K` the kept columns,
//!
//! ```text
//! V_K = W_K + (W_R G_RK − P_K) G_KK⁻¹                                  the best weight on K (least squares)
//! cost(g) = ½ tr(W_g (G⁻¹_gg)⁻¹ W_gᵀ)                                  what removing the block g adds to half the error
//! W ← W − W_g (G⁻¹_gg)⁻¹ G⁻¹_g:,  G⁻¹ ← G⁻¹ − G⁻¹_:g (G⁻¹_gg)⁻¹ G⁻¹_g:   the same problem without g
//! ```
//!
//! (optimal brain surgeon, Hassibi & Stork 1993; by blocks in ZipLM, arXiv 2302.04089, and OSSCAR, arXiv 2403.12983).

use super::ridge::with_ridge;
use super::{LayerProblem, Solution, SolveInfo, SolverError, download, wanda};
use crate::config::{ColumnConfig, Criterion, Pattern, Ridge};
use crate::error::{Error, Result};
use faer::linalg::matmul::matmul;
use faer::linalg::solvers::{DenseSolveCore, Llt, Solve};
use faer::{Accum, Mat, Par, Side};
use fista_pruner_backends::SolverOps;

/// Blocks are removed in so many turns at least; within a turn they are chosen as if each were the only one.
const TURNS: usize = 256;

/// Pull of the leverage scores towards equal ones, relative to the mean diagonal of the Gram matrix.
const LEVERAGE: f64 = 0.01;

/// Chooses the columns and their weights.
///
/// # Errors
/// When no damping makes the Gram matrix positive definite, scores are missing, or the device fails.
pub(crate) fn prune<B: SolverOps>(
    problem: &LayerProblem<B>,
    pattern: Pattern,
    config: &ColumnConfig,
    ridge: Ridge,
) -> Result<Solution> {
    let (m, n) = problem.shape();
    let Pattern::Columns { kept, of } = pattern else {
        return Err(Error::internal("columns are chosen by a pattern of columns"));
    };
    let mut info = SolveInfo::direct();
    let mut pulled = [problem.clone()];
    with_ridge(&mut pulled, ridge)?;
    let system = if config.refit || config.fit_first || config.criterion == Criterion::Obs {
        let [pulled] = &pulled;
        let (system, damping) = System::new(pulled)?;
        info.damping = (damping > 0.0).then_some(damping);
        info.damping_raised = damping > 0.0;
        Some(system)
    } else {
        None
    };
    let kept_blocks = match (config.criterion, &system) {
        _ if kept == of => vec![true; of],
        (Criterion::Obs, Some(system)) => system.eliminate(of, kept)?,
        (criterion, _) => largest(&scores(problem, criterion, of)?, kept),
    };
    let keeps: Vec<bool> = (0..n).map(|j| kept_blocks[j * of / n]).collect();
    let keep: Vec<bool> = (0..m).flat_map(|_| keeps.iter().copied()).collect();
    let cut = Solution::masked(download(problem.weight.clone())?, keep.clone(), info.clone());
    let before = problem.squared_error(problem.upload(cut.values.clone()));
    info.warm_start_error = Some(problem.relative(before));
    let values = match system {
        Some(system) if config.refit || kept == of => system.refit(&keeps)?,
        Some(system) if config.fit_first => system.refit(&vec![true; n])?,
        _ => cut.values,
    };
    let mut solution = Solution::masked(values, keep, info);
    if problem.centred {
        solution.bias = Some(bias(problem, &solution.values, config.refit)?);
    }
    Ok(solution)
}

/// What is added to the operator's bias: the mean that its output has lost.
fn bias<B: SolverOps>(problem: &LayerProblem<B>, values: &[f32], refit: bool) -> Result<Vec<f32>> {
    let Some(means) = &problem.means else {
        return Err(Error::internal("a centred problem without means"));
    };
    let (_, n) = problem.shape();
    let weight = download(problem.weight.clone())?;
    let rows = values.chunks(n).zip(weight.chunks(n)).zip(&means.drift);
    Ok(rows
        .map(|((new, old), drift)| {
            let lost = old.iter().zip(new).zip(&means.input);
            let lost: f64 = lost
                .map(|((old, new), mean)| f64::from(old - new) * f64::from(*mean))
                .sum();
            (lost - if refit { f64::from(*drift) } else { 0.0 }) as f32
        })
        .collect())
}

/// One number a block of the dense operator's columns, as the criterion judges them when all others are there.
///
/// # Errors
/// As [`prune`].
pub(crate) fn unit_scores<B: SolverOps>(
    problem: &LayerProblem<B>,
    criterion: Criterion,
    of: usize,
    ridge: Ridge,
) -> Result<Vec<f64>> {
    if criterion != Criterion::Obs {
        return scores(problem, criterion, of);
    }
    let mut pulled = [problem.clone()];
    with_ridge(&mut pulled, ridge)?;
    let [pulled] = &pulled;
    let (system, _) = System::new(pulled)?;
    let inverse = system.factor.inverse();
    let width = inverse.nrows() / of;
    let cost = |block: usize| system.cost(&system.weight, &inverse, block * width, width);
    // Costs spread over decades; their logarithms are what deviates evenly.
    (0..of)
        .map(|block| Ok(cost(block)?.max(f64::MIN_POSITIVE).ln()))
        .collect()
}

/// One number a block: the larger, the less it may go.
fn scores<B: SolverOps>(problem: &LayerProblem<B>, criterion: Criterion, of: usize) -> Result<Vec<f64>> {
    let (_, n) = problem.shape();
    if criterion == Criterion::Given {
        return match &problem.scores {
            Some(scores) if scores.len() == of => Ok(scores.iter().map(|s| f64::from(*s)).collect()),
            _ => Err(Error::internal(format!("`{}` has no scores", problem.name))),
        };
    }
    let weight = download(problem.weight.clone())?;
    let diagonal = wanda::diagonal(problem)?;
    let energy = |j: usize| f64::from(diagonal[j]).max(0.0);
    let norms = |power: fn(f64) -> f64| -> Vec<f64> {
        let mut sums = vec![0.0; n];
        for row in weight.chunks(n) {
            for (sum, w) in sums.iter_mut().zip(row) {
                *sum += power(f64::from(*w));
            }
        }
        sums
    };
    let columns: Vec<f64> = match criterion {
        Criterion::Magnitude => norms(|w| w * w),
        Criterion::WandaSp => {
            let sums = norms(f64::abs);
            (0..n).map(|j| sums[j] * energy(j).sqrt()).collect()
        }
        Criterion::Flap => {
            let squares = norms(|w| w * w);
            let mean = |j: usize| match (&problem.means, problem.centred) {
                (Some(means), false) => f64::from(means.input[j]),
                _ => 0.0,
            };
            let variance = |j: usize| (energy(j) - mean(j).powi(2)).max(0.0);
            (0..n).map(|j| squares[j] * variance(j)).collect()
        }
        Criterion::Leverage => {
            let shift = LEVERAGE * (0..n).map(energy).sum::<f64>() / n.max(1) as f64;
            let gram = download(problem.gram.clone())?;
            let gram = Mat::from_fn(n, n, |i, j| f64::from(gram[i * n + j]));
            let (factor, shift) = factorise(&problem.name, &gram, shift)?;
            let inverse = factor.inverse();
            (0..n).map(|j| 1.0 - shift * inverse[(j, j)]).collect()
        }
        Criterion::Obs | Criterion::Given => Vec::new(),
    };
    let width = n / of;
    Ok(columns.chunks(width).map(|block| block.iter().sum()).collect())
}

/// The `kept` largest; of equal ones the first.
fn largest(scores: &[f64], kept: usize) -> Vec<bool> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let mut keep = vec![false; scores.len()];
    order.iter().take(kept).for_each(|i| keep[*i] = true);
    keep
}

/// A Cholesky factor of `gram + shift I`, and the shift: ten times more each time the matrix is not positive definite.
fn factorise(name: &str, gram: &Mat<f64>, shift: f64) -> Result<(Llt<f64>, f64)> {
    let n = gram.nrows();
    let mean = (0..n).map(|j| gram[(j, j)]).sum::<f64>() / n.max(1) as f64;
    let mut shift = shift;
    loop {
        let shifted = Mat::from_fn(n, n, |i, j| gram[(i, j)] + if i == j { shift } else { 0.0 });
        match shifted.llt(Side::Lower) {
            Ok(factor) => return Ok((factor, shift)),
            Err(_) if shift < mean && mean.is_finite() => shift = (10.0 * shift).max(1e-8 * mean),
            Err(_) => {
                return Err(Error::from(SolverError::Factorisation {
                    operator: name.to_owned(),
                    damping: shift / mean,
                }));
            }
        }
    }
}

/// A problem on the host.
struct System {
    name: String,
    /// `W [m, n]`.
    weight: Mat<f64>,
    /// `G [n, n]`, with the pull.
    gram: Mat<f64>,
    /// The Cholesky factor of that.
    factor: Llt<f64>,
    /// `P [m, n]`.
    drift: Option<Mat<f64>>,
}

impl System {
    /// With the damping that makes `G` positive definite, relative to its mean diagonal.
    fn new<B: SolverOps>(problem: &LayerProblem<B>) -> Result<(Self, f64)> {
        let (m, n) = problem.shape();
        let matrix =
            |values: Vec<f32>, rows: usize| Mat::from_fn(rows, n, |i, j| f64::from(values[i * n + j]));
        let mut gram = matrix(download(problem.gram.clone())?, n);
        let (factor, shift) = factorise(&problem.name, &gram, 0.0)?;
        let mean = (0..n).map(|j| gram[(j, j)]).sum::<f64>() / n.max(1) as f64;
        (0..n).for_each(|j| gram[(j, j)] += shift);
        let drift = problem.drift.clone().map(|drift| download(drift)).transpose()?;
        let system = Self {
            name: problem.name.clone(),
            weight: matrix(download(problem.weight.clone())?, m),
            gram,
            factor,
            drift: drift.map(|drift| matrix(drift, m)),
        };
        Ok((system, if shift > 0.0 { shift / mean } else { 0.0 }))
    }

    /// The blocks that backward elimination leaves, `kept` of `of`.
    fn eliminate(&self, of: usize, kept: usize) -> Result<Vec<bool>> {
        let n = self.gram.nrows();
        let width = n / of;
        let mut inverse = self.factor.inverse();
        let mut weight = self.weight.clone();
        if let Some(drift) = &self.drift {
            weight -= drift * &inverse;
        }
        let mut alive = vec![true; of];
        let mut left = of;
        while left > kept {
            let turn = (of / TURNS).clamp(1, left - kept);
            let mut costs = Vec::with_capacity(left);
            for block in (0..of).filter(|block| alive[*block]) {
                costs.push((self.cost(&weight, &inverse, block * width, width)?, block));
            }
            costs.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            let gone: Vec<usize> = costs[..turn].iter().map(|(_, block)| *block).collect();
            gone.iter().for_each(|block| alive[*block] = false);
            left -= turn;
            let columns: Vec<usize> = gone.iter().flat_map(|b| b * width..(b + 1) * width).collect();
            self.remove(&mut weight, &mut inverse, &columns)?;
        }
        Ok(alive)
    }

    /// Half of what the error grows by without the columns from `first` on.
    fn cost(&self, weight: &Mat<f64>, inverse: &Mat<f64>, first: usize, width: usize) -> Result<f64> {
        let m = weight.nrows();
        if width == 1 {
            let squares: f64 = weight.col(first).iter().map(|w| w * w).sum();
            return Ok(0.5 * squares / inverse[(first, first)]);
        }
        let block = Mat::from_fn(width, width, |i, j| inverse[(first + i, first + j)]);
        let (factor, _) = factorise(&self.name, &block, 0.0)?;
        let columns = Mat::from_fn(width, m, |i, j| weight[(j, first + i)]);
        let solved = factor.solve(&columns);
        let trace: f64 = (0..m)
            .map(|j| (0..width).map(|i| columns[(i, j)] * solved[(i, j)]).sum::<f64>())
            .sum();
        Ok(0.5 * trace)
    }

    /// Takes columns out of the problem; those already out are zero in `weight` and `inverse`.
    fn remove(&self, weight: &mut Mat<f64>, inverse: &mut Mat<f64>, columns: &[usize]) -> Result<()> {
        let (m, n, count) = (weight.nrows(), weight.ncols(), columns.len());
        let block = Mat::from_fn(count, count, |i, j| inverse[(columns[i], columns[j])]);
        let rows = Mat::from_fn(count, n, |i, j| inverse[(columns[i], j)]);
        let (factor, _) = factorise(&self.name, &block, 0.0)?;
        let solved = factor.solve(&rows);
        let gone = Mat::from_fn(m, count, |i, j| weight[(i, columns[j])]);
        matmul(weight.as_mut(), Accum::Add, &gone, &solved, -1.0, Par::rayon(0));
        matmul(
            inverse.as_mut(),
            Accum::Add,
            rows.transpose(),
            &solved,
            -1.0,
            Par::rayon(0),
        );
        for column in columns {
            (0..m).for_each(|i| weight[(i, *column)] = 0.0);
            for i in 0..n {
                inverse[(i, *column)] = 0.0;
                inverse[(*column, i)] = 0.0;
            }
        }
        Ok(())
    }

    /// The best weight `[m, n]` row-major that is zero outside the columns that stay.
    fn refit(&self, keep: &[bool]) -> Result<Vec<f32>> {
        let (m, n) = (self.weight.nrows(), self.weight.ncols());
        let (kept, gone): (Vec<usize>, Vec<usize>) = (0..n).partition(|j| keep[*j]);
        let (k, r) = (kept.len(), gone.len());
        // (W_R G_RK − P_K)ᵀ, as the solver takes it.
        let removed = Mat::from_fn(r, m, |i, j| self.weight[(j, gone[i])]);
        let cross = Mat::from_fn(k, r, |i, j| self.gram[(kept[i], gone[j])]);
        let mut wanted = match &self.drift {
            Some(drift) => Mat::from_fn(k, m, |i, j| -drift[(j, kept[i])]),
            None => Mat::zeros(k, m),
        };
        matmul(wanted.as_mut(), Accum::Add, &cross, &removed, 1.0, Par::rayon(0));
        let block = Mat::from_fn(k, k, |i, j| self.gram[(kept[i], kept[j])]);
        let (factor, _) = factorise(&self.name, &block, 0.0)?;
        let change = factor.solve(&wanted);
        let mut values = vec![0.0; m * n];
        for (i, column) in kept.iter().enumerate() {
            for row in 0..m {
                values[row * n + column] = (self.weight[(row, *column)] + change[(i, row)]) as f32;
            }
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::solver::Means;
    use burn::backend::Flex;
    use burn::tensor::{Tensor, TensorData};
    use proptest::prelude::*;

    type B = Flex;

    /// A problem as numbers, with errors and least squares of its own, in f64.
    struct Numbers {
        m: usize,
        n: usize,
        weight: Vec<f64>,
        gram: Vec<f64>,
        drift: Vec<f64>,
    }

    impl Numbers {
        /// From a stream of numbers: more tokens than inputs, so that no subset is singular.
        fn new(m: usize, n: usize, seed: &[i8]) -> Self {
            let tokens = 3 * n;
            let mut stream = seed
                .iter()
                .cycle()
                .enumerate()
                .map(|(i, v)| f64::from(*v) / 7.0 + ((i * i + 3 * i) % 11) as f64 / 9.0 - 0.5);
            let mut take = |count: usize| -> Vec<f64> { stream.by_ref().take(count).collect() };
            let (x, noise, weight) = (take(n * tokens), take(n * tokens), take(m * n));
            let real: Vec<f64> = x.iter().zip(&noise).map(|(x, e)| x + 0.2 * e).collect();
            let product = |a: &[f64], b: &[f64], rows: usize| -> Vec<f64> {
                let of = |i: usize, j: usize| {
                    (0..tokens)
                        .map(|t| a[i * tokens + t] * b[j * tokens + t])
                        .sum::<f64>()
                        / tokens as f64
                };
                (0..rows)
                    .flat_map(|i| (0..n).map(move |j| (i, j)))
                    .map(|(i, j)| of(i, j))
                    .collect()
            };
            let mut gram = product(&real, &real, n);
            (0..n).for_each(|j| gram[j * n + j] += 0.05);
            let out: Vec<f64> = (0..m)
                .flat_map(|i| (0..tokens).map(move |t| (i, t)))
                .map(|(i, t)| {
                    (0..n)
                        .map(|j| weight[i * n + j] * 0.2 * noise[j * tokens + t])
                        .sum()
                })
                .collect();
            let drift = product(&out, &real, m);
            Self {
                m,
                n,
                weight,
                gram,
                drift,
            }
        }

        fn problem(&self) -> LayerProblem<B> {
            let device = Default::default();
            let tensor = |values: &[f64], rows: usize| {
                let values: Vec<f32> = values.iter().map(|v| *v as f32).collect();
                Tensor::<B, 2>::from_data(TensorData::new(values, [rows, self.n]), &device)
            };
            let mut problem =
                LayerProblem::new("w", tensor(&self.weight, self.m), tensor(&self.gram, self.n));
            problem.drift = Some(tensor(&self.drift, self.m));
            problem
        }

        /// The error above `R`, which is the same for all: `tr((V−W) G (V−W)ᵀ) + 2 tr((V−W) Pᵀ)`.
        fn error(&self, v: &[f64]) -> f64 {
            let d: Vec<f64> = v.iter().zip(&self.weight).map(|(v, w)| v - w).collect();
            let row = |d: &[f64], p: &[f64]| -> f64 {
                let quadratic: f64 = (0..self.n)
                    .map(|i| {
                        (0..self.n)
                            .map(|j| d[i] * self.gram[i * self.n + j] * d[j])
                            .sum::<f64>()
                    })
                    .sum();
                quadratic + 2.0 * d.iter().zip(p).map(|(d, p)| d * p).sum::<f64>()
            };
            d.chunks(self.n)
                .zip(self.drift.chunks(self.n))
                .map(|(d, p)| row(d, p))
                .sum()
        }

        /// The best weight on the columns in `keep`, by elimination with pivots.
        fn best(&self, keep: &[bool]) -> Vec<f64> {
            let kept: Vec<usize> = (0..self.n).filter(|j| keep[*j]).collect();
            let mut best = vec![0.0; self.m * self.n];
            for i in 0..self.m {
                // V_K G_KK = (W G − P)_K
                let target = |j: usize| {
                    let product: f64 = (0..self.n)
                        .map(|l| self.weight[i * self.n + l] * self.gram[l * self.n + j])
                        .sum();
                    product - self.drift[i * self.n + j]
                };
                let mut rows: Vec<Vec<f64>> = kept
                    .iter()
                    .map(|a| {
                        kept.iter()
                            .map(|b| self.gram[a * self.n + b])
                            .chain([target(*a)])
                            .collect()
                    })
                    .collect();
                let k = kept.len();
                for column in 0..k {
                    let pivot = (column..k)
                        .max_by(|a, b| rows[*a][column].abs().total_cmp(&rows[*b][column].abs()))
                        .unwrap();
                    rows.swap(column, pivot);
                    let lead = rows[column].clone();
                    for (other, row) in rows.iter_mut().enumerate().filter(|(other, _)| *other != column) {
                        let _ = other;
                        let factor = row[column] / lead[column];
                        row.iter_mut().zip(&lead).for_each(|(v, l)| *v -= factor * l);
                    }
                }
                for (at, j) in kept.iter().enumerate() {
                    best[i * self.n + j] = rows[at][k] / rows[at][at];
                }
            }
            best
        }

        fn subsets(&self, kept: usize) -> impl Iterator<Item = Vec<bool>> {
            let n = self.n;
            (0u32..1 << n)
                .filter(move |bits| bits.count_ones() as usize == kept)
                .map(move |bits| (0..n).map(|j| bits >> j & 1 == 1).collect())
        }
    }

    fn solve(
        problem: &LayerProblem<B>,
        kept: usize,
        of: usize,
        criterion: Criterion,
        refit: bool,
    ) -> Solution {
        let config = ColumnConfig {
            criterion,
            refit,
            fit_first: false,
        };
        prune(
            problem,
            Pattern::Columns { kept, of },
            &config,
            Ridge::Relative(0.0),
        )
        .unwrap()
    }

    fn columns(solution: &Solution, n: usize) -> Vec<bool> {
        solution.keep[..n].to_vec()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn elimination_and_refit_against_all_subsets(
            m in 1usize..5,
            n in 3usize..11,
            seed in prop::collection::vec(-20i8..20, 37..90),
        ) {
            let numbers = Numbers::new(m, n, &seed);
            let problem = numbers.problem();
            let mut larger = vec![true; n];
            for kept in (1..=n).rev() {
                let solution = solve(&problem, kept, n, Criterion::Obs, true);
                let keep = columns(&solution, n);
                prop_assert_eq!(keep.iter().filter(|k| **k).count(), kept);
                // The values are the best on their columns.
                let best = numbers.best(&keep);
                for (value, best) in solution.values.iter().zip(&best) {
                    prop_assert!((f64::from(*value) - best).abs() < 2e-3 * (1.0 + best.abs()), "{} {}", value, best);
                }
                // The column that went is the cheapest of those there were, all others being fitted again.
                let error = numbers.error(&best);
                for gone in (0..n).filter(|j| larger[*j]) {
                    let mut other = larger.clone();
                    other[gone] = false;
                    if kept < n {
                        prop_assert!(error <= numbers.error(&numbers.best(&other)) + 1e-3 * (1.0 + error.abs()));
                    }
                }
                // Widths are nested.
                prop_assert!(keep.iter().zip(&larger).all(|(keep, larger)| !keep || *larger));
                // One step is the best of all subsets; more steps are never better than that.
                let least = numbers.subsets(kept).map(|keep| numbers.error(&numbers.best(&keep))).fold(f64::INFINITY, f64::min);
                prop_assert!(error >= least - 1e-3 * (1.0 + least.abs()));
                if kept + 1 == n {
                    prop_assert!(error <= least + 1e-3 * (1.0 + least.abs()));
                }
                larger = keep;
            }
        }

        #[test]
        fn blocks_go_as_a_whole_and_a_refit_never_raises_the_error(
            m in 1usize..4,
            groups in 2usize..5,
            width in 2usize..4,
            seed in prop::collection::vec(-20i8..20, 37..90),
        ) {
            let n = groups * width;
            let numbers = Numbers::new(m, n, &seed);
            let problem = numbers.problem();
            for criterion in [Criterion::Obs, Criterion::WandaSp, Criterion::Magnitude, Criterion::Leverage, Criterion::Flap] {
                for kept in 1..groups {
                    let with = solve(&problem, kept, groups, criterion, true);
                    let without = solve(&problem, kept, groups, criterion, false);
                    let keep = columns(&with, n);
                    prop_assert_eq!(&keep, &columns(&without, n));
                    for block in keep.chunks(width) {
                        prop_assert!(block.iter().all(|k| *k == block[0]));
                    }
                    let error = |s: &Solution| numbers.error(&s.values.iter().map(|v| f64::from(*v)).collect::<Vec<_>>());
                    prop_assert!(error(&with) <= error(&without) + 1e-4 * (1.0 + error(&without).abs()));
                    if criterion == Criterion::Obs && kept + 1 == groups {
                        let block_of = |gone: usize| (0..n).map(|j| j / width != gone).collect::<Vec<bool>>();
                        let least = (0..groups).map(|gone| numbers.error(&numbers.best(&block_of(gone)))).fold(f64::INFINITY, f64::min);
                        prop_assert!(error(&with) <= least + 2e-3 * (1.0 + least.abs()));
                    }
                }
            }
        }
    }

    /// With a bias that may change, `V x + b` is fitted: the same as least squares with a column of ones.
    #[test]
    fn a_bias_takes_the_means() {
        let numbers = Numbers::new(2, 5, &[3, -7, 11, 2, -5, 8, 1]);
        let mut problem = numbers.problem();
        let (mu, d) = (vec![0.3f32, -0.2, 0.1, 0.25, 0.0], vec![0.1f32, -0.05]);
        problem.drift_energy = 1.0;
        problem.means = Some(Means {
            input: mu.clone(),
            drift: d.clone(),
        });
        let centred = problem.centred(true);
        let solution = solve(&centred, 3, 5, Criterion::Obs, true);
        // The same with the ones as a sixth column that always stays, of weight zero.
        let n = 6;
        let mut wide = Numbers {
            m: 2,
            n,
            weight: vec![0.0; 2 * n],
            gram: vec![0.0; n * n],
            drift: vec![0.0; 2 * n],
        };
        for (i, mean) in mu.iter().enumerate() {
            (0..5).for_each(|j| wide.gram[i * n + j] = numbers.gram[i * 5 + j]);
            wide.gram[i * n + 5] = f64::from(*mean);
            wide.gram[5 * n + i] = f64::from(*mean);
        }
        wide.gram[35] = 1.0;
        for (row, mean) in d.iter().enumerate() {
            (0..5).for_each(|j| {
                wide.weight[row * n + j] = numbers.weight[row * 5 + j];
                wide.drift[row * n + j] = numbers.drift[row * 5 + j];
            });
            wide.drift[row * n + 5] = f64::from(*mean);
        }
        let keep: Vec<bool> = columns(&solution, 5).into_iter().chain([true]).collect();
        let best = wide.best(&keep);
        let bias = solution.bias.unwrap();
        for row in 0..2 {
            assert!(
                (f64::from(bias[row]) - best[row * n + 5]).abs() < 1e-3,
                "{bias:?} {best:?}"
            );
            for j in 0..5 {
                assert!((f64::from(solution.values[row * 5 + j]) - best[row * n + j]).abs() < 1e-3);
            }
        }
    }
}
