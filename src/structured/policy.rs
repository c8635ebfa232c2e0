//! Bypass Back-propagation (arXiv 2406.10576): every unit stays with a probability, whole masks are drawn, and the probabilities move
//! towards the masks that did well, by forward passes alone. In: the dense model and windows. Out: the probabilities.
//!
//! With masks `m_k ~ Bernoulli(s)` and their losses `L_k`, a step is `s ← P(s − η Σ_k (L_k − δ_k) (m_k − s) / √(s (1 − s)) / (K − 1))`;
//! `δ` is a baseline that does not depend on the mask, and `P` moves all numbers of a budget by the same amount, within 0 and 1, until
//! they sum to what stays.

use super::depth::few;
use crate::config::{Baseline, PolicyConfig, PolicyLoss, Removable, Shape, StructureConfig};
use crate::error::Result;
use crate::eval::{divergence, finite, mean_nll};
use crate::progress::{Event, Observer};
use crate::prune::{Source, States, embed, survey};
use crate::solver::unit_scores;
use crate::system::free_memory;
use burn::tensor::{Tensor, TensorData};
use fista_pruner_backends::SolverOps;
use fista_pruner_models::{Layer, Unit};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, VecDeque};

/// Steps whose mean loss is the moving baseline.
const MOVING: usize = 5;

/// The probabilities of the units of one operator.
struct Part {
    layer: usize,
    unit: Unit,
    name: String,
    probabilities: Vec<f64>,
}

/// What came of a search.
pub(super) struct Searched {
    /// The probabilities by operator.
    pub(super) scores: BTreeMap<String, Vec<f32>>,
    /// The mean loss of the masks of every step.
    pub(super) curve: Vec<f64>,
}

/// The losses of a search's steps. Masks follow from the seed and the losses before, so that a search that was stopped goes on from
/// these alone.
pub(crate) struct Losses<'a> {
    /// What an earlier run has measured, by step.
    pub(crate) earlier: Vec<Vec<f64>>,
    /// Keeps those of one step more.
    pub(crate) keep: &'a mut dyn FnMut(&[f64]) -> Result<()>,
}

/// Searches for the units that stay.
pub(super) fn search<B: SolverOps>(
    source: Source<'_>,
    config: &crate::config::PruneConfig,
    asked: &StructureConfig,
    shape: &Shape,
    losses: Losses<'_>,
    device: &B::Device,
    observer: &mut dyn Observer,
) -> Result<Searched> {
    let policy = asked.policy;
    let mut parts = start::<B>(source, config, asked, shape, device, observer)?;
    let model = source.decoder.config();
    let windows = few(source.windows, usize::MAX, policy.tokens);
    let layers = Layers::<B>::new(source, shape, device)?;
    let mut generator = ChaCha8Rng::seed_from_u64(policy.seed);
    let Losses { earlier, keep } = losses;
    let mut earlier = earlier.into_iter();
    let mut recent: VecDeque<f64> = VecDeque::new();
    let mut curve = Vec::with_capacity(policy.steps);
    observer.event(Event::Stage {
        name: "steps of the search",
        steps: policy.steps,
    });
    for step in 0..policy.steps {
        let batch: Vec<Vec<u32>> = (0..policy.batch)
            .map(|i| windows[(step * policy.batch + i) % windows.len()].clone())
            .collect();
        let batched = Source {
            windows: &batch,
            ..source
        };
        let masks: Vec<Vec<Vec<bool>>> = (0..policy.masks)
            .map(|_| {
                let draw = |part: &Part| {
                    part.probabilities
                        .iter()
                        .map(|s| generator.random::<f64>() < *s)
                        .collect()
                };
                parts.iter().map(draw).collect()
            })
            .collect();
        let losses = match earlier.next() {
            Some(losses) if losses.len() == masks.len() => losses,
            _ => {
                let losses = layers.losses(batched, policy.loss, &parts, &masks)?;
                keep(&losses)?;
                losses
            }
        };
        let mean = losses.iter().sum::<f64>() / losses.len() as f64;
        let baselines: Vec<f64> = losses
            .iter()
            .map(|loss| match policy.baseline {
                Baseline::LeaveOneOut => (mean * losses.len() as f64 - loss) / (losses.len() - 1) as f64,
                Baseline::Moving if recent.is_empty() => mean,
                Baseline::Moving => recent.iter().sum::<f64>() / recent.len() as f64,
            })
            .collect();
        recent.push_back(mean);
        if recent.len() > MOVING {
            recent.pop_front();
        }
        curve.push(mean);
        let rate = policy.learning_rate
            * 0.5
            * (1.0 + (std::f64::consts::PI * step as f64 / policy.steps as f64).cos());
        for (at, part) in parts.iter_mut().enumerate() {
            let drawn = masks.iter().map(|mask| mask[at].as_slice());
            let pulls: Vec<(f64, &[bool])> = losses
                .iter()
                .zip(&baselines)
                .map(|(l, d)| l - d)
                .zip(drawn)
                .collect();
            move_against(&mut part.probabilities, &pulls, rate);
        }
        project(&mut parts, asked, |unit| (shape.kept(unit), model.units(unit)));
        observer.event(Event::Step);
    }
    observer.event(Event::Done);
    let scores = parts.into_iter().map(|part| {
        let scores = part.probabilities.iter().map(|s| *s as f32).collect();
        (part.name, scores)
    });
    Ok(Searched {
        scores: scores.collect(),
        curve,
    })
}

/// One step along the estimated gradient; units that are certain are in every mask or in none, and stay.
fn move_against(probabilities: &mut [f64], pulls: &[(f64, &[bool])], rate: f64) {
    let others = pulls.len().saturating_sub(1).max(1) as f64;
    for (i, s) in probabilities.iter_mut().enumerate() {
        let spread = (*s * (1.0 - *s)).sqrt();
        if spread > 0.0 {
            let pull: f64 = pulls
                .iter()
                .map(|(loss, mask)| loss * (f64::from(u8::from(mask[i])) - *s))
                .sum();
            *s -= rate * pull / spread / others;
        }
    }
}

/// Brings the probabilities back to what stays: by kind over all layers as published, or in every layer.
fn project(parts: &mut [Part], asked: &StructureConfig, kept: impl Fn(Unit) -> (usize, usize)) {
    for unit in Unit::ALL {
        let (stays, _) = kept(unit);
        if asked.policy.per_layer {
            for part in parts.iter_mut().filter(|part| part.unit == unit) {
                onto_budget(&mut part.probabilities, stays as f64);
            }
            continue;
        }
        let mut all: Vec<f64> = Vec::new();
        let of_unit = |part: &&mut Part| part.unit == unit;
        let count = parts
            .iter_mut()
            .filter(of_unit)
            .map(|part| all.extend(&part.probabilities))
            .count();
        onto_budget(&mut all, (count * stays) as f64);
        let mut moved = all.into_iter();
        for part in parts.iter_mut().filter(of_unit) {
            part.probabilities
                .iter_mut()
                .for_each(|s| *s = moved.next().unwrap_or(*s));
        }
    }
}

/// The closest point with `0 ≤ s ≤ 1` and `Σ s = budget`: `s ← clamp(s − v, 0, 1)`, `v` by bisection.
fn onto_budget(values: &mut [f64], budget: f64) {
    let sum = |v: f64| values.iter().map(|s| (s - v).clamp(0.0, 1.0)).sum::<f64>();
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let (mut low, mut high) = (least - 1.0, most);
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        if sum(middle) > budget {
            low = middle;
        } else {
            high = middle;
        }
    }
    let v = f64::midpoint(low, high);
    values.iter_mut().for_each(|s| *s = (*s - v).clamp(0.0, 1.0));
}

/// The first probabilities: scores of the dense model's units, `σ` of their deviations in each layer, moved to what stays.
fn start<B: SolverOps>(
    source: Source<'_>,
    config: &crate::config::PruneConfig,
    asked: &StructureConfig,
    shape: &Shape,
    device: &B::Device,
    observer: &mut dyn Observer,
) -> Result<Vec<Part>> {
    let decoder = source.decoder;
    let model = decoder.config();
    let policy: PolicyConfig = asked.policy;
    let windows = few(
        source.windows,
        16 * 1024,
        source.windows.first().map_or(1, Vec::len),
    );
    let source = Source {
        windows: &windows,
        ..source
    };
    let mut parts = Vec::new();
    let wanted: Vec<(usize, Unit, String)> = shape
        .layers(model)
        .into_iter()
        .flat_map(|layer| Unit::ALL.map(|unit| (layer, unit)))
        .filter(|(_, unit)| shape.kept(*unit) < model.units(*unit))
        .map(|(layer, unit)| (layer, unit, decoder.operator_name(layer, model.operator_of(unit))))
        .collect();
    survey::<B>(source, config, device, observer, |_, problem| {
        if let Some((layer, unit, name)) = wanted.iter().find(|(_, _, name)| *name == problem.name) {
            let of = model.units(*unit);
            let scores = unit_scores(problem, policy.start, of, config.solver.ridge)?;
            let mut probabilities = sigmoid_of_deviations(&scores);
            onto_budget(&mut probabilities, shape.kept(*unit) as f64);
            parts.push(Part {
                layer: *layer,
                unit: *unit,
                name: name.clone(),
                probabilities,
            });
        }
        Ok(())
    })?;
    if !asked.removes(Removable::Layers) && parts.is_empty() {
        return Err(crate::error::Error::internal("a search without units"));
    }
    Ok(parts)
}

fn sigmoid_of_deviations(scores: &[f64]) -> Vec<f64> {
    let count = scores.len().max(1) as f64;
    let mean = scores.iter().sum::<f64>() / count;
    let spread = (scores.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / count).sqrt();
    let deviation = |s: f64| if spread > 0.0 { (s - mean) / spread } else { 0.0 };
    scores
        .iter()
        .map(|s| 1.0 / (1.0 + (-deviation(*s)).exp()))
        .collect()
}

/// The dense layers, in memory all the time where a quarter of what is free has room for them.
struct Layers<'a, B: SolverOps> {
    source: Source<'a>,
    device: B::Device,
    numbers: Vec<usize>,
    resident: Option<Vec<Layer<B>>>,
}

impl<'a, B: SolverOps> Layers<'a, B> {
    fn new(source: Source<'a>, shape: &Shape, device: &B::Device) -> Result<Self> {
        let config = source.decoder.config();
        let bytes = config.linear_weights() as u64 * 4;
        let roomy = !source.offload && free_memory().is_some_and(|free| bytes < free / 4);
        let load = |layer| Ok(source.decoder.layer::<B>(layer, source.checkpoint, device)?);
        let all = (0..config.num_layers()).map(load);
        Ok(Self {
            source,
            device: device.clone(),
            numbers: shape.layers(config),
            resident: roomy.then(|| all.collect::<Result<_>>()).transpose()?,
        })
    }

    fn get(&self, number: usize) -> Result<Layer<B>> {
        match &self.resident {
            Some(layers) => Ok(layers[number].clone()),
            None => Ok(self
                .source
                .decoder
                .layer::<B>(number, self.source.checkpoint, &self.device)?),
        }
    }

    /// The loss of every mask on the windows of `batched`.
    fn losses(
        &self,
        batched: Source<'_>,
        loss: PolicyLoss,
        parts: &[Part],
        masks: &[Vec<Vec<bool>>],
    ) -> Result<Vec<f64>> {
        let device = &self.device;
        let start = embed::<B>(&batched, device)?;
        let dense = match loss {
            PolicyLoss::Kl => Some(self.dense(start.clone())?),
            PolicyLoss::CrossEntropy => None,
        };
        let of_mask = |mask: &Vec<Vec<bool>>| {
            let hidden = self.masked(start.clone(), parts, mask)?;
            let loss = match &dense {
                Some(dense) => divergence::<B>(batched, dense, &hidden, device)?,
                None => {
                    let model = (batched.checkpoint, batched.decoder);
                    let hidden = hidden.iter().map(|state| Ok(state?.input));
                    mean_nll::<B>(model, hidden, batched.windows, device)?
                }
            };
            finite(loss, "the model without some units")
        };
        masks.iter().map(of_mask).collect()
    }

    /// Through all layers of the dense model.
    fn dense<'s>(&self, mut hidden: States<'s, B>) -> Result<States<'s, B>> {
        for number in 0..self.source.decoder.config().num_layers() {
            let layer = self.get(number)?;
            hidden = hidden.map_hidden(|hidden| layer.forward(hidden))?;
        }
        Ok(hidden)
    }

    /// Through the layers that stay, with the units of `mask` alone.
    fn masked<'s>(
        &self,
        mut hidden: States<'s, B>,
        parts: &[Part],
        mask: &[Vec<bool>],
    ) -> Result<States<'s, B>> {
        let config = self.source.decoder.config();
        let groups = config.operator_groups();
        for number in &self.numbers {
            let layer = self.get(*number)?;
            let row = |unit: Unit| {
                let at = parts
                    .iter()
                    .position(|part| part.layer == *number && part.unit == unit)?;
                let group = groups
                    .iter()
                    .position(|g| g.iter().any(|o| o.name == config.operator_of(unit)))?;
                let inputs = groups[group].first()?.in_features;
                let width = inputs / mask[at].len();
                let values: Vec<f32> = (0..inputs)
                    .map(|i| f32::from(u8::from(mask[at][i / width])))
                    .collect();
                let data = TensorData::new(values, [1, 1, inputs]);
                Some((group, Tensor::<B, 3>::from_data(data, &self.device)))
            };
            let rows: Vec<(usize, Tensor<B, 3>)> = Unit::ALL.into_iter().filter_map(row).collect();
            hidden = hidden.map(|state| {
                (0..Layer::<B>::GROUPS).fold(layer.begin(state.input), |mut state, group| {
                    if let Some((_, row)) = rows.iter().find(|(at, _)| *at == group) {
                        state.input = state.input * row.clone();
                    }
                    layer.advance(state, group)
                })
            })?;
        }
        Ok(hidden)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a sorted search for the same point: the breakpoints of the piecewise linear sum.
        #[test]
        fn the_projection_is_the_closest_point(values in prop::collection::vec(-2.0f64..3.0, 1..40), share in 0.01f64..0.99) {
            let budget = share * values.len() as f64;
            let mut projected = values.clone();
            onto_budget(&mut projected, budget);
            prop_assert!((projected.iter().sum::<f64>() - budget).abs() < 1e-9);
            let mut breaks: Vec<f64> = values.iter().flat_map(|v| [*v, v - 1.0]).collect();
            breaks.sort_by(f64::total_cmp);
            let sum = |v: f64| values.iter().map(|s| (s - v).clamp(0.0, 1.0)).sum::<f64>();
            let at = breaks.windows(2).find(|pair| sum(pair[0]) >= budget && sum(pair[1]) <= budget).unwrap();
            let (high, low) = (sum(at[0]), sum(at[1]));
            let v = if high > low { at[0] + (at[1] - at[0]) * (high - budget) / (high - low) } else { at[0] };
            for (projected, value) in projected.iter().zip(&values) {
                prop_assert!((projected - (value - v).clamp(0.0, 1.0)).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn probabilities_move_towards_the_better_mask() {
        let mut s = vec![0.5, 0.5, 1.0, 0.0];
        let better: &[bool] = &[true, false, true, false];
        let worse: &[bool] = &[false, true, true, false];
        move_against(&mut s, &[(-0.25, better), (0.25, worse)], 0.1);
        assert!(
            (s[0] - 0.55).abs() < 1e-12 && (s[1] - 0.45).abs() < 1e-12,
            "{s:?}"
        );
        assert_eq!(s[2..], [1.0, 0.0]);
    }
}
