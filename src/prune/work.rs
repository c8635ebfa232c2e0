//! The work of a run on its device: zeros are spread, layers pruned and perplexities measured in one pass, after what an earlier run
//! has finished.

use super::journal::{Earlier, FinishedLayer};
use super::output::Output;
use super::{
    AfterLayer, Allocation, Branch, Source, Span, StateStore, Timer, allocate, prune_branches,
    prune_on_devices,
};
use crate::checkpoint::Model;
use crate::config::{PruneConfig, StructureConfig};
use crate::error::Result;
use crate::eval::{Along, PerplexityScore as Score};
use crate::progress::Observer;
use crate::report::{Decision, LayerSeconds, OperatorReport, StageSeconds, TriedAllocation};
use crate::structured::{self, Losses};
use crate::text::TokenWindows;
use fista_pruner_backends::{DeviceJob, DeviceSpec, SolverOps};
use fista_pruner_models::TensorSource;
use std::ops::Range;
use std::time::Instant;

/// Everything a run works on.
pub(crate) struct Work<'a, 'w> {
    pub(crate) model: &'a Model,
    pub(crate) windows: &'a TokenWindows,
    /// May be empty.
    pub(crate) evaluation: &'a [Vec<u32>],
    pub(crate) config: &'a mut PruneConfig,
    pub(crate) allocation: Allocation,
    pub(crate) structure: Option<&'a StructureConfig>,
    /// The layers to prune.
    pub(crate) layers: Range<usize>,
    /// What an earlier run has done of it.
    pub(crate) earlier: Option<Earlier>,
    pub(crate) devices: &'a [DeviceSpec],
    pub(crate) states: &'a StateStore,
    /// As [`Source::offload`].
    pub(crate) offload: bool,
    pub(crate) output: &'a mut Output<'w>,
    /// The loop's stages are added to it.
    pub(crate) seconds: &'a mut StageSeconds,
    pub(crate) observer: &'a mut dyn Observer,
}

/// What the device made.
pub(crate) struct Pruned {
    pub(crate) operators: Vec<OperatorReport>,
    pub(crate) layer_seconds: Vec<LayerSeconds>,
    /// Of the dense and the pruned model.
    pub(crate) scores: Option<(Score, Score)>,
    /// Layers that an earlier run had finished, and the seconds they took it.
    pub(crate) earlier_layers: usize,
    pub(crate) earlier_seconds: f64,
    /// What structured pruning was decided on.
    pub(crate) decision: Option<Decision>,
    /// Of [`Allocation::Kl`].
    pub(crate) tried_allocations: Vec<TriedAllocation>,
}

impl DeviceJob for Work<'_, '_> {
    type Output = Result<Pruned>;

    fn run<B: SolverOps>(mut self, device: &B::Device) -> Self::Output {
        let source = Source {
            checkpoint: &self.model.checkpoint,
            decoder: &self.model.decoder,
            windows: &self.windows.ids,
            batch_tokens: self.config.batch_tokens,
            states: self.states,
            offload: self.offload,
        };
        let mut earlier = self.earlier.take().unwrap_or_default();
        let mut tried_allocations = Vec::new();
        // A uniform rate leaves what a table file may have said.
        if self.allocation != Allocation::Uniform {
            let started = Instant::now();
            let allocated = match earlier.allocated.take() {
                Some(allocated) => allocated,
                None => {
                    let allocated =
                        allocate::<B>(source, self.config, self.allocation, device, self.observer)?;
                    self.output.journal.allocated(&allocated)?;
                    allocated
                }
            };
            self.config.patterns = allocated.patterns;
            tried_allocations = allocated.tried;
            self.seconds.allocation = started.elapsed().as_secs_f64();
        }
        let mut decision = None;
        if let Some(asked) = self.structure {
            let started = Instant::now();
            let decided = match earlier.decided.take() {
                Some(decided) => decided,
                None => {
                    let journal = &mut self.output.journal;
                    let losses = Losses {
                        earlier: std::mem::take(&mut earlier.losses),
                        keep: &mut |losses| journal.losses(losses),
                    };
                    let decided =
                        structured::decide::<B>(source, self.config, asked, losses, device, self.observer)?;
                    self.output.journal.decided(&decided)?;
                    decided
                }
            };
            decided.apply(asked, source.decoder, self.config);
            decision = Some(decided.decision);
            self.seconds.allocation = started.elapsed().as_secs_f64();
        }
        let finished = earlier.finished(&self.layers);
        let mut loop_ = Loop {
            source,
            evaluated: Source {
                windows: self.evaluation,
                ..source
            },
            config: self.config,
            layers: self.layers.start + finished.len()..self.layers.end,
            resumed: !finished.is_empty(),
            output: self.output,
            seconds: self.seconds,
        };
        let (operators, layer_seconds, scores) = match self.devices {
            [] | [_] => loop_.one_device::<B>(device, self.observer)?,
            devices => loop_.several::<B>(devices, device, self.observer)?,
        };
        let mut pruned = Pruned {
            operators: Vec::new(),
            layer_seconds: Vec::new(),
            scores: <[Score; 2]>::try_from(scores)
                .ok()
                .map(|[dense, pruned]| (dense, pruned)),
            earlier_layers: finished.len(),
            earlier_seconds: 0.0,
            decision,
            tried_allocations,
        };
        for FinishedLayer {
            operators, seconds, ..
        } in finished
        {
            pruned.operators.extend(operators);
            pruned.earlier_seconds += seconds.total();
            pruned.layer_seconds.push(seconds);
        }
        pruned.operators.extend(operators);
        pruned.layer_seconds.extend(layer_seconds);
        self.seconds.add_layers(&pruned.layer_seconds);
        Ok(pruned)
    }
}

/// The loop over the layers that are left.
struct Loop<'a, 'w> {
    source: Source<'a>,
    /// The same with the evaluation's windows.
    evaluated: Source<'a>,
    config: &'a PruneConfig,
    layers: Range<usize>,
    resumed: bool,
    output: &'a mut Output<'w>,
    seconds: &'a mut StageSeconds,
}

type Outcome = (Vec<OperatorReport>, Vec<LayerSeconds>, Vec<Score>);

impl Loop<'_, '_> {
    fn one_device<B: SolverOps>(
        &mut self,
        device: &B::Device,
        observer: &mut dyn Observer,
    ) -> Result<Outcome> {
        let embedding = Instant::now();
        let mut along = Along::<B>::new(self.evaluated, 1, device)?;
        self.seconds.evaluation = embedding.elapsed().as_secs_f64();
        let before = match self.resumed {
            true => self.output.pruned_so_far().transpose()?,
            false => None,
        };
        let first = self.layers.start;
        let span = Span {
            layers: self.layers.clone(),
            before: before.as_ref().map(|written| written as &dyn TensorSource),
        };
        let timer = Timer::new();
        self.output.since = Instant::now();
        let branch = Branch {
            config: self.config,
            sink: &mut timer.sink(self.output),
        };
        let after_layer: &mut AfterLayer<'_, B> =
            &mut |layer, forms| timer.layer(layer, || along.forms(forms));
        let (outcomes, _) =
            prune_branches::<B>(self.source, vec![branch], span, device, observer, after_layer)?;
        let operators = outcomes.into_iter().flat_map(|o| o.operators).collect::<Vec<_>>();
        let mut layer_seconds = timer.finish(&operators);
        layer_seconds.retain(|seconds| seconds.layer >= first);
        let scores = self.score::<B>(along, device)?;
        Ok((operators, layer_seconds, scores))
    }

    fn several<B: SolverOps>(
        &mut self,
        devices: &[DeviceSpec],
        device: &B::Device,
        observer: &mut dyn Observer,
    ) -> Result<Outcome> {
        self.output.since = Instant::now();
        let layers = self.layers.clone();
        let (operators, layer_seconds) =
            prune_on_devices(self.source, self.config, self.output, layers, devices, observer)?;
        let following = Instant::now();
        let mut along = Along::<B>::new(self.evaluated, 1, device)?;
        if let Some(written) = self.output.pruned_so_far() {
            along.all_layers(&written?, device)?;
        }
        self.seconds.evaluation = following.elapsed().as_secs_f64();
        let scores = self.score::<B>(along, device)?;
        Ok((operators, layer_seconds, scores))
    }

    fn score<B: SolverOps>(&mut self, along: Along<'_, B>, device: &B::Device) -> Result<Vec<Score>> {
        let scoring = Instant::now();
        let scores = along.finish(device)?.iter().map(|nll| Score::of(nll)).collect();
        self.seconds.evaluation += scoring.elapsed().as_secs_f64();
        Ok(scores)
    }
}
