//! Greedy Output Approximation (arXiv 2407.19126): channels by the second moment of what they add to the output, heads by how alike
//! their attention is. In: a few windows through the dense model. Out: a score for every unit.
//!
//! A channel `j` of `B σ(A x)` has the moment `½ ‖B_:j‖² A_j Σ A_jᵀ`, with `Σ` the covariance of `x`; in a gated MLP it is the product
//! of the moments of the gate's and the up path. Exactly it is `‖B_:j‖² E h_j²`, with `h` the input of `B`.

use super::depth::few;
use crate::config::{Removable, StructureConfig};
use crate::error::{Error, Result};
use crate::progress::{Event, Observer};
use crate::prune::{Accumulator, Source, States, embed};
use crate::solver::download;
use burn::tensor::Tensor;
use fista_pruner_backends::SolverOps;
use fista_pruner_models::{Layer, Unit};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// What the dense model's units are worth.
pub(super) struct Judged {
    /// Moments of channels and ranks of heads, by operator.
    pub(super) scores: BTreeMap<String, Vec<f32>>,
    /// Heads that are alike by the threshold, on average over the layers.
    pub(super) alike: f64,
}

/// Judges the units of every layer.
pub(super) fn judge<B: SolverOps>(
    source: Source<'_>,
    asked: &StructureConfig,
    device: &B::Device,
    observer: &mut dyn Observer,
) -> Result<Judged> {
    let greedy = asked.greedy;
    let windows = few(source.windows, greedy.samples * greedy.tokens, greedy.tokens);
    let source = Source {
        windows: &windows,
        ..source
    };
    let (decoder, config) = (source.decoder, source.decoder.config());
    let layers = config.num_layers();
    observer.event(Event::Stage {
        name: "survey of the dense layers",
        steps: layers,
    });
    let mut judged = Judged {
        scores: BTreeMap::new(),
        alike: 0.0,
    };
    let mut hidden = embed::<B>(&source, device)?;
    for number in 0..layers {
        let layer = decoder.layer::<B>(number, source.checkpoint, device)?;
        let mut states = hidden.map(|state| layer.begin(state.input))?;
        if asked.removes(Removable::Heads) {
            let heads = config.units(Unit::Head);
            let distances = head_distances(&layer, &states, heads)?;
            let alike = alike(
                &distances,
                greedy.similarity.unwrap_or(f64::INFINITY),
                greedy.similarity.is_none(),
            );
            judged.alike += alike.len() as f64 / layers as f64;
            let mut scores = vec![1.0; heads];
            for (rank, head) in alike.iter().enumerate() {
                scores[*head] = rank as f32 - heads as f32;
            }
            let name = decoder.operator_name(number, config.operator_of(Unit::Head));
            judged.scores.insert(name, scores);
        }
        for group in 0..Layer::<B>::ATTENTION_GROUPS {
            states = states.map(|state| layer.advance(state, group))?;
        }
        let name = decoder.operator_name(number, config.operator_of(Unit::Channel));
        let into = covariance(&states, &name)?;
        states = states.map(|state| layer.advance(state, Layer::<B>::ATTENTION_GROUPS))?;
        let weight = |operator: &str| {
            let lost = || Error::internal(format!("layer {number} has no `{operator}`"));
            layer.weight(operator).ok_or_else(lost)
        };
        let last = weight(config.operator_of(Unit::Channel))?;
        let moments = if greedy.exact_moment {
            last.square().sum_dim(0) * energies(&states, &name)?
        } else {
            let before = config.operators_before(Unit::Channel);
            let paths = before.iter().map(|operator| weight(operator.name));
            second_moments::<B>(last, paths.collect::<Result<_>>()?, into)
        };
        judged.scores.insert(name, download(moments)?);
        let groups = Layer::<B>::ATTENTION_GROUPS + 1..Layer::<B>::GROUPS;
        for group in groups {
            states = states.map(|state| layer.advance(state, group))?;
        }
        hidden = states;
        observer.event(Event::Step);
    }
    observer.event(Event::Done);
    Ok(judged)
}

/// The paper's moments `[1, channels]`: of `B [m, channels]`, the paths `A [channels, n]` that make the channels, and the covariance
/// `[n, n]` of their input.
fn second_moments<B: SolverOps>(
    last: Tensor<B, 2>,
    paths: Vec<Tensor<B, 2>>,
    covariance: Tensor<B, 2>,
) -> Tensor<B, 2> {
    let halves = last.square().sum_dim(0).mul_scalar(0.5);
    paths.into_iter().fold(halves.ones_like(), |product, path| {
        let quadratic = (B::matmul_f32(path.clone(), covariance.clone()) * path).sum_dim(1);
        product * halves.clone() * quadratic.transpose()
    })
}

/// The covariance `[n, n]` of the inputs.
fn covariance<B: SolverOps>(states: &States<'_, B>, name: &str) -> Result<Tensor<B, 2>> {
    let mut accumulator = Accumulator::with_means();
    for state in states.iter() {
        accumulator.add(state?.input.flatten(0, 1));
    }
    let statistics = accumulator.finish(name)?;
    Ok(match statistics.mean {
        Some(mean) => statistics.gram - B::matmul_f32(mean.clone().transpose(), mean),
        None => statistics.gram,
    })
}

/// The mean squares `[1, n]` of the inputs.
fn energies<B: SolverOps>(states: &States<'_, B>, name: &str) -> Result<Tensor<B, 2>> {
    let mut accumulator = Accumulator::default();
    for state in states.iter() {
        accumulator.add(state?.input.flatten(0, 1));
    }
    let gram = accumulator.finish(name)?.gram;
    let eye = Tensor::eye(gram.dims()[0], &gram.device());
    Ok((gram * eye).sum_dim(0))
}

/// Jensen-Shannon divergences of the attention of every two heads of keys and values, means over all rows and over the query heads
/// that stand at the same place of each; in nats.
fn head_distances<B: SolverOps>(
    layer: &Layer<B>,
    states: &States<'_, B>,
    heads: usize,
) -> Result<Vec<Vec<f64>>> {
    let mut sums = vec![vec![0.0; heads]; heads];
    let mut rows = 0usize;
    for state in states.iter() {
        let Some(attention) = layer.attention_rows(state?.input) else {
            continue;
        };
        let [batch, tokens, all, keys] = attention.dims();
        let values = download(attention)?;
        let group = all / heads;
        rows += batch * tokens * group;
        let pairs: Vec<(usize, usize)> = (0..heads)
            .flat_map(|i| (i + 1..heads).map(move |j| (i, j)))
            .collect();
        let found: Vec<f64> = pairs
            .par_iter()
            .map(|(i, j)| {
                let of_row = |row: &[f32]| -> f64 {
                    let head = |h: usize| &row[h * keys..(h + 1) * keys];
                    (0..group)
                        .map(|k| jensen_shannon(head(i * group + k), head(j * group + k)))
                        .sum()
                };
                values.chunks(all * keys).map(of_row).sum()
            })
            .collect();
        for ((i, j), sum) in pairs.into_iter().zip(found) {
            sums[i][j] += sum;
            sums[j][i] += sum;
        }
    }
    for row in &mut sums {
        row.iter_mut().for_each(|sum| *sum /= rows.max(1) as f64);
    }
    Ok(sums)
}

/// The Jensen-Shannon divergence of two distributions, in nats.
fn jensen_shannon(p: &[f32], q: &[f32]) -> f64 {
    let part = |x: f64, mean: f64| if x > 0.0 { x * (x / mean).ln() } else { 0.0 };
    p.iter()
        .zip(q)
        .map(|(p, q)| {
            let (p, q) = (f64::from(*p), f64::from(*q));
            let mean = f64::midpoint(p, q);
            0.5 * (part(p, mean) + part(q, mean))
        })
        .sum()
}

/// The heads that another one stands for, in the order in which they are found: the paper's Algorithm 2 in the order of the pairs, or,
/// where no threshold was set, in that of their distances.
fn alike(distances: &[Vec<f64>], threshold: f64, closest_first: bool) -> Vec<usize> {
    let heads = distances.len();
    let mut pairs: Vec<(usize, usize)> = (0..heads)
        .flat_map(|i| (i + 1..heads).map(move |j| (i, j)))
        .collect();
    if closest_first {
        pairs.sort_by(|a, b| distances[a.0][a.1].total_cmp(&distances[b.0][b.1]).then(a.cmp(b)));
    }
    let mut gone: Vec<usize> = Vec::new();
    for (i, j) in pairs {
        if distances[i][j] < threshold && !gone.contains(&i) && !gone.contains(&j) {
            gone.push(j);
        }
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergences_are_numpys() {
        // 0.5 * (entropy(p, m) + entropy(q, m)) by scipy.stats.entropy, and what scipy's jensenshannon squares to.
        let p = [0.7, 0.2, 0.1, 0.0];
        let q = [0.1, 0.4, 0.4, 0.1];
        assert!(
            (jensen_shannon(&p, &q) - 0.226_384_259_684_379_75).abs() < 1e-7,
            "{}",
            jensen_shannon(&p, &q)
        );
        assert_eq!(jensen_shannon(&p, &p), 0.0);
        let apart = jensen_shannon(&[1.0, 0.0], &[0.0, 1.0]);
        assert!((apart - std::f64::consts::LN_2).abs() < 1e-12);
    }

    #[test]
    fn moments_are_numpys() {
        use burn::backend::Flex;
        let device = Default::default();
        let matrix = |rows: &[&[f32]]| {
            let shape = [rows.len(), rows[0].len()];
            Tensor::<Flex, 2>::from_data(burn::tensor::TensorData::new(rows.concat(), shape), &device)
        };
        let gate = matrix(&[
            &[1.5, 0.6, -0.4],
            &[-1.4, -1.8, -0.7],
            &[-0.4, -2.2, -1.7],
            &[0.3, -0.4, -0.8],
        ]);
        let up = matrix(&[
            &[-0.4, -0.8, 0.9],
            &[1.6, 2.1, 0.7],
            &[0.7, 1.5, 1.7],
            &[1.5, 1.2, -0.6],
        ]);
        let down = matrix(&[&[-1.6, 0.9, -0.1, -0.1], &[-0.9, -1.3, 1.4, 0.5]]);
        // np.cov(X, bias=True) of forty columns.
        let covariance = matrix(&[
            &[0.817_475, 0.009_6, 0.137_387_5],
            &[0.009_6, 1.049_6, 0.304_7],
            &[0.137_387_5, 0.304_7, 1.059_743_8],
        ]);
        // 0.5 * (B**2).sum(0) * np.einsum('ij,jk,ik->i', A, S, A), for up alone and times the same for gate.
        let cases = [
            (
                vec![up.clone()],
                [1.903_021_2, 10.636_03, 7.610_045_4, 0.400_496_85],
            ),
            (vec![gate, up], [6.711_050_5, 87.850_11, 80.628_98, 0.054_485_74]),
        ];
        for (paths, expected) in cases {
            let found = download(second_moments::<Flex>(down.clone(), paths, covariance.clone())).unwrap();
            for (found, expected) in found.iter().zip(expected) {
                assert!((found / expected - 1.0).abs() < 1e-5, "{found} {expected}");
            }
        }
    }

    #[test]
    fn heads_are_chosen_as_algorithm_2_does() {
        let distances = vec![
            vec![0.0, 0.1, 0.5, 0.2],
            vec![0.1, 0.0, 0.05, 0.3],
            vec![0.5, 0.05, 0.0, 0.4],
            vec![0.2, 0.3, 0.4, 0.0],
        ];
        // Pairs in order: (0,1) goes, so (1,2) does not count; (0,3) goes; (2,3) has lost 3.
        assert_eq!(alike(&distances, 0.25, false), [1, 3]);
        // The closest pair first: (1,2), then (0,1).
        assert_eq!(alike(&distances, f64::INFINITY, true), [2, 1, 3]);
    }
}
