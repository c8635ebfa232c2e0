//! The log-likelihood of texts after others, of many at once. In: requests as token ids, grouped by what they have in
//! common. Out: a score each, for `tasks`. The decoder is streamed, one layer at a time over all requests of a pass;
//! requests of a group share the rows of their common beginning (`fista_pruner_models::Pack`), and the head is applied
//! only where a token is to be predicted.

use super::perplexity::PASS_BYTES;
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result, SolverError};
use crate::progress::{Event, Observer};
use crate::prune::Limits;
use burn::tensor::{Int, Tensor, TensorData};
use fista_pruner_backends::SolverOps;
use fista_pruner_models::{Decoder, Head, Pack};
use serde::Serialize;
use std::cmp::Reverse;

/// Tokens to read, and what should follow each of the last of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What the model is given; at least as long as `targets`.
    pub inputs: Vec<u32>,
    /// The tokens that should follow the last `targets.len()` of the inputs; at least one.
    pub targets: Vec<u32>,
}

/// The outcome of a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoglikelihoodScore {
    /// Sum over the targets, in nats.
    pub loglikelihood: f64,
    /// Whether every target is the most likely token at its place; of equally likely ones the first counts.
    pub greedy: bool,
}

/// How much was computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Work {
    /// Requests.
    pub requests: usize,
    /// Tokens of all requests.
    pub tokens: usize,
    /// Tokens that went through the decoder: those, less the shared ones.
    pub computed: usize,
    /// Tokens predicted.
    pub targets: usize,
}

/// Scores requests, group by group. The order of groups and requests does not matter; that of the scores is theirs.
///
/// Every id must be below the vocabulary's size and no request longer than the model's positions.
///
/// # Errors
/// When a tensor cannot be read, the device fails, or a likelihood is not finite.
///
/// # Panics
/// When a request has no targets, or fewer inputs than targets.
pub fn loglikelihoods<B: SolverOps>(
    (checkpoint, decoder): (&Checkpoint, &Decoder),
    groups: &[Vec<Request>],
    device: &B::Device,
    observer: &mut dyn Observer,
) -> Result<(Vec<Vec<LoglikelihoodScore>>, Work)> {
    decoder.head_weight()?;
    let rows = Limits::of::<B>(decoder, device)?.rows();
    let plans = plan(groups, Pack::<B>::preferred_rows(device).min(rows.max(1)));
    let row_bytes = decoder.config().hidden_size() * size_of::<f32>();
    let passes = passes(plans, PASS_BYTES / row_bytes.max(1));
    observer.event(Event::Stage {
        name: "layers",
        steps: passes.len() * (decoder.config().num_layers() + 1),
    });
    let none = LoglikelihoodScore {
        loglikelihood: 0.0,
        greedy: true,
    };
    let mut scores: Vec<Vec<LoglikelihoodScore>> =
        groups.iter().map(|group| vec![none; group.len()]).collect();
    let mut work = Work::default();
    for pass in &passes {
        work.computed += pass.iter().map(|plan| plan.rows).sum::<usize>();
        let found = one_pass::<B>((checkpoint, decoder), groups, pass, device, observer)?;
        for (plan, found) in pass.iter().zip(found) {
            plan.collect(groups, &found, &mut scores);
        }
    }
    observer.event(Event::Done);
    for request in groups.iter().flatten() {
        work.requests += 1;
        work.tokens += request.inputs.len();
        work.targets += request.targets.len();
    }
    if scores
        .iter()
        .flatten()
        .any(|score| !score.loglikelihood.is_finite())
    {
        return Err(Error::from(SolverError::NotFinite {
            what: "the likelihood",
            operator: "the evaluated text".into(),
        }));
    }
    Ok((scores, work))
}

/// A request by its group and its place there.
type RequestId = (usize, usize);

/// What is computed at once.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    /// The requests whose inputs are read.
    sequences: Vec<RequestId>,
    /// The row of each of their tokens.
    row_of: Vec<Vec<usize>>,
    rows: usize,
    /// Every request, and the rows that predict its targets.
    wanted: Vec<(RequestId, Vec<usize>)>,
}

/// Distributes groups over plans of about `rows` rows, the longest first, so that sequences of similar length come
/// together.
fn plan(groups: &[Vec<Request>], rows: usize) -> Vec<Plan> {
    let longest = |group: &usize| {
        let lengths = groups[*group].iter().map(|request| request.inputs.len());
        Reverse(lengths.max().unwrap_or(0))
    };
    let mut order: Vec<usize> = (0..groups.len()).collect();
    order.sort_by_key(longest);
    let mut plans: Vec<Plan> = Vec::new();
    for group in order {
        let next = Plan::of_group(group, &groups[group]);
        match plans.last_mut() {
            Some(last) if last.rows + next.rows <= rows => last.append(next),
            _ => plans.push(next),
        }
    }
    plans
}

/// Cuts plans into passes of at most `rows` rows, or one plan each.
fn passes(plans: Vec<Plan>, rows: usize) -> Vec<Vec<Plan>> {
    let mut passes: Vec<Vec<Plan>> = Vec::new();
    let mut used = 0;
    for plan in plans {
        used += plan.rows;
        match passes.last_mut() {
            Some(last) if used <= rows => last.push(plan),
            _ => {
                used = plan.rows;
                passes.push(vec![plan]);
            }
        }
    }
    passes
}

impl Plan {
    /// Long requests come first, so that one which another begins with needs no sequence.
    fn of_group(group: usize, requests: &[Request]) -> Self {
        let mut plan = Self::default();
        let mut order: Vec<usize> = (0..requests.len()).collect();
        order.sort_by_key(|request| Reverse(requests[*request].inputs.len()));
        for index in order {
            let Request { inputs, targets } = &requests[index];
            let mut rows = plan.shared_rows(requests, inputs);
            if rows.len() < inputs.len() {
                let fresh = inputs.len() - rows.len();
                rows.extend(plan.rows..plan.rows + fresh);
                plan.rows += fresh;
                plan.sequences.push((group, index));
                plan.row_of.push(rows.clone());
            }
            let wanted = rows.split_off(inputs.len() - targets.len());
            plan.wanted.push(((group, index), wanted));
        }
        plan
    }

    /// The rows of the longest beginning of `inputs` that a sequence of the plan has.
    fn shared_rows(&self, requests: &[Request], inputs: &[u32]) -> Vec<usize> {
        let shared = |sequence: usize| {
            let other = &requests[self.sequences[sequence].1].inputs;
            other.iter().zip(inputs).take_while(|(a, b)| a == b).count()
        };
        let best = (0..self.sequences.len()).max_by_key(|sequence| shared(*sequence));
        best.map_or_else(Vec::new, |best| self.row_of[best][..shared(best)].to_vec())
    }

    fn append(&mut self, other: Self) {
        let offset = self.rows;
        let moved = |rows: Vec<usize>| rows.into_iter().map(|row| row + offset).collect();
        self.sequences.extend(other.sequences);
        self.row_of.extend(other.row_of.into_iter().map(moved));
        self.rows += other.rows;
        let wanted = other.wanted.into_iter();
        self.wanted
            .extend(wanted.map(|(request, rows)| (request, moved(rows))));
    }

    /// The inputs `[sequences, longest]`, filled up with each sequence's first token.
    fn ids<B: SolverOps>(&self, groups: &[Vec<Request>], device: &B::Device) -> Tensor<B, 2, Int> {
        let longest = self.row_of.iter().map(Vec::len).max().unwrap_or(0);
        let mut ids = Vec::with_capacity(self.sequences.len() * longest);
        for (sequence, (group, request)) in self.sequences.iter().enumerate() {
            let inputs = &groups[*group][*request].inputs;
            ids.extend(inputs.iter().map(|id| i64::from(*id)));
            ids.resize((sequence + 1) * longest, i64::from(inputs[0]));
        }
        Tensor::from_data(TensorData::new(ids, [self.sequences.len(), longest]), device)
    }

    /// The targets of all requests, in the order of `wanted`.
    fn targets<'a>(&'a self, groups: &'a [Vec<Request>]) -> impl Iterator<Item = u32> + 'a {
        let requests = self.wanted.iter();
        requests.flat_map(|((group, request), _)| groups[*group][*request].targets.iter().copied())
    }

    /// What the head makes of the rows that predict targets: the likelihood of each target and the likeliest token.
    fn predict<B: SolverOps>(
        &self,
        head: &Head<B>,
        hidden: Tensor<B, 3>,
        groups: &[Vec<Request>],
        device: &B::Device,
    ) -> Result<Predictions> {
        let [_, rows, width] = hidden.dims();
        let predicting: Vec<i64> = self
            .wanted
            .iter()
            .flat_map(|(_, rows)| rows.iter().map(|row| *row as i64))
            .collect();
        let targets: Vec<i64> = self.targets(groups).map(i64::from).collect();
        let count = targets.len();
        let predicting = Tensor::from_data(TensorData::new(predicting, [count]), device);
        let targets = Tensor::from_data(TensorData::new(targets, [1, count]), device);
        let hidden = hidden
            .reshape([rows, width])
            .select(0, predicting)
            .reshape([1, count, width]);
        let (nll, best) = head.token_scores(hidden, targets);
        let best = best.try_into_data().map_err(|error| {
            Error::from(SolverError::DeviceFailed {
                reason: error.to_string(),
            })
        })?;
        Ok(Predictions {
            nll: crate::solver::download(nll)?,
            best: best.iter::<i64>().collect(),
        })
    }

    fn collect(&self, groups: &[Vec<Request>], found: &Predictions, scores: &mut [Vec<LoglikelihoodScore>]) {
        let mut found = found.nll.iter().zip(&found.best);
        for ((group, request), _) in &self.wanted {
            let score = &mut scores[*group][*request];
            for (target, (nll, best)) in groups[*group][*request].targets.iter().zip(&mut found) {
                score.loglikelihood -= f64::from(*nll);
                score.greedy &= i64::from(*target) == *best;
            }
        }
    }
}

/// For each target of a plan, in order.
struct Predictions {
    /// Its negative log-likelihood, in nats.
    nll: Vec<f32>,
    /// The most likely token in its place.
    best: Vec<i64>,
}

fn one_pass<B: SolverOps>(
    (checkpoint, decoder): (&Checkpoint, &Decoder),
    groups: &[Vec<Request>],
    plans: &[Plan],
    device: &B::Device,
    observer: &mut dyn Observer,
) -> Result<Vec<Predictions>> {
    let packs: Vec<Pack<B>> = plans.iter().map(|plan| Pack::new(&plan.row_of, device)).collect();
    let embedding = decoder.embedding::<B>(checkpoint, device)?;
    let mut hidden: Vec<Tensor<B, 3>> = plans
        .iter()
        .zip(&packs)
        .map(|(plan, pack)| pack.gather(embedding.forward(plan.ids(groups, device), 0)))
        .collect();
    drop(embedding);
    for layer in 0..decoder.config().num_layers() {
        observer.event(Event::Working {
            on: &format!("layer {layer}"),
        });
        let layer = decoder.layer::<B>(layer, checkpoint, device)?;
        hidden = layer.forward_packs(hidden, &packs);
        observer.event(Event::Step);
    }
    observer.event(Event::Working { on: "head" });
    let head = decoder.head::<B>(checkpoint, device)?;
    let found = plans
        .iter()
        .zip(hidden)
        .map(|(plan, hidden)| plan.predict(&head, hidden, groups, device))
        .collect();
    observer.event(Event::Step);
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn request(inputs: &[u32], targets: &[u32]) -> Request {
        Request {
            inputs: inputs.to_vec(),
            targets: targets.to_vec(),
        }
    }

    #[test]
    fn requests_share_their_beginnings() {
        let groups = [vec![
            request(&[1, 2, 3], &[4]),
            request(&[1, 2, 3], &[5]),
            request(&[1, 2, 7, 8], &[8, 9]),
        ]];
        let [plan] = plan(&groups, 100).try_into().unwrap();
        assert_eq!(plan.sequences, [(0, 2), (0, 0)]);
        assert_eq!(plan.row_of, [vec![0, 1, 2, 3], vec![0, 1, 4]]);
        assert_eq!(
            plan.wanted,
            [((0, 2), vec![2, 3]), ((0, 0), vec![4]), ((0, 1), vec![4])]
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        /// Whatever is shared: every request is wanted once, and behind each of its rows lie exactly the tokens up to it.
        #[test]
        fn rows_stand_for_the_tokens_before_them(
            groups in prop::collection::vec(
                prop::collection::vec((prop::collection::vec(0u32..3, 1..7), 1usize..4), 1..5), 1..8),
            rows in 1usize..40,
        ) {
            let groups: Vec<Vec<Request>> = groups
                .into_iter()
                .map(|group| group
                    .into_iter()
                    .map(|(inputs, targets)| request(&inputs, &vec![9; targets.min(inputs.len())]))
                    .collect())
                .collect();
            let mut wanted = Vec::new();
            for plan in plan(&groups, rows) {
                let mut behind = BTreeMap::new();
                for ((group, request), row_of) in plan.sequences.iter().zip(&plan.row_of) {
                    let inputs = &groups[*group][*request].inputs;
                    prop_assert_eq!(inputs.len(), row_of.len());
                    for (token, row) in row_of.iter().enumerate() {
                        let before = (*group, inputs[..=token].to_vec());
                        let known = behind.entry(*row).or_insert_with(|| before.clone());
                        prop_assert_eq!(&*known, &before);
                    }
                }
                prop_assert_eq!(behind.len(), plan.rows);
                prop_assert!(behind.keys().copied().eq(0..plan.rows));
                for ((group, request), rows) in &plan.wanted {
                    let Request { inputs, targets } = &groups[*group][*request];
                    prop_assert_eq!(rows.len(), targets.len());
                    for (row, end) in rows.iter().zip(inputs.len() - targets.len() + 1..) {
                        prop_assert_eq!(&behind[row], &(*group, inputs[..end].to_vec()));
                    }
                    wanted.push((*group, *request));
                }
            }
            wanted.sort();
            let all: Vec<RequestId> = groups
                .iter()
                .enumerate()
                .flat_map(|(group, requests)| (0..requests.len()).map(move |request| (group, request)))
                .collect();
            prop_assert_eq!(wanted, all);
        }
    }
}
