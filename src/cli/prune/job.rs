//! The work on the device, and what takes its results.

use crate::allocation::{Allocation, allocate};
use crate::calibration::TokenWindows;
use crate::checkpoint::{Checkpoint, CheckpointWriter};
use crate::cli::progress::Bar;
use crate::cli::statistics::StatisticsFolder;
use crate::config::PruneConfig;
use crate::error::Result;
use crate::eval::{Along, PerplexityScore as Score};
use crate::journal::{Earlier, FinishedLayer, Journal};
use crate::model::Model;
use crate::prune::{
    AfterLayer, Branch, SavedStatistics, Source, Span, StateStore, WeightSink, prune_branches,
    prune_on_devices,
};
use crate::report::{LayerSeconds, OperatorReport, StageSeconds, Timer};
use crate::shard::PartWriter;
use fista_pruner_backends::{DeviceJob, DeviceSpec, SolverOps};
use fista_pruner_models::TensorSource;
use std::ops::Range;
use std::time::Instant;

/// Everything a run works on.
pub(super) struct Job<'a, 'w> {
    pub(super) model: &'a Model,
    pub(super) windows: &'a TokenWindows,
    /// May be empty.
    pub(super) evaluation: &'a [Vec<u32>],
    pub(super) config: &'a mut PruneConfig,
    pub(super) allocation: Allocation,
    /// The layers to prune.
    pub(super) layers: Range<usize>,
    /// What an earlier run has done of it.
    pub(super) earlier: Option<Earlier>,
    pub(super) devices: &'a [DeviceSpec],
    pub(super) states: &'a StateStore,
    /// As [`Source::offload`].
    pub(super) offload: bool,
    pub(super) output: &'a mut Output<'w>,
    /// The loop's stages are added to it.
    pub(super) seconds: &'a mut StageSeconds,
    pub(super) quiet: bool,
}

/// What the device made.
pub(super) struct Pruned {
    pub(super) operators: Vec<OperatorReport>,
    pub(super) layer_seconds: Vec<LayerSeconds>,
    /// Of the dense and the pruned model.
    pub(super) scores: Option<(Score, Score)>,
    /// Layers that an earlier run had finished, and the seconds they took it.
    pub(super) earlier_layers: usize,
    pub(super) earlier_seconds: f64,
}

impl DeviceJob for Job<'_, '_> {
    type Output = Result<Pruned>;

    fn run<B: SolverOps>(mut self, device: &B::Device) -> Self::Output {
        let mut bar = Bar::new(self.quiet);
        let source = Source {
            checkpoint: &self.model.checkpoint,
            decoder: &self.model.decoder,
            windows: &self.windows.ids,
            batch_tokens: self.config.batch_tokens,
            states: self.states,
            offload: self.offload,
        };
        let mut earlier = self.earlier.take().unwrap_or_default();
        // A uniform rate leaves what a table file may have said.
        if self.allocation != Allocation::Uniform {
            let started = Instant::now();
            self.config.patterns = match earlier.patterns.take() {
                Some(patterns) => patterns,
                None => {
                    let patterns = allocate::<B>(source, self.config, self.allocation, device, &mut bar)?;
                    self.output.journal.patterns(&patterns)?;
                    patterns
                }
            };
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
            [] | [_] => loop_.one_device::<B>(device, &mut bar)?,
            devices => loop_.several::<B>(devices, device, &mut bar)?,
        };
        let mut pruned = Pruned {
            operators: Vec::new(),
            layer_seconds: Vec::new(),
            scores: <[Score; 2]>::try_from(scores)
                .ok()
                .map(|[dense, pruned]| (dense, pruned)),
            earlier_layers: finished.len(),
            earlier_seconds: 0.0,
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
    fn one_device<B: SolverOps>(&mut self, device: &B::Device, bar: &mut Bar) -> Result<Outcome> {
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
        let (outcomes, _) = prune_branches::<B>(self.source, vec![branch], span, device, bar, after_layer)?;
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
        bar: &mut Bar,
    ) -> Result<Outcome> {
        self.output.since = Instant::now();
        let layers = self.layers.clone();
        let (operators, layer_seconds) =
            prune_on_devices(self.source, self.config, self.output, layers, devices, bar)?;
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

/// What a run writes: a checkpoint, or a part of one.
pub(super) enum Target<'a> {
    Whole(CheckpointWriter),
    Part(PartWriter<'a>),
}

/// Where a run's weights and statistics go.
pub(super) struct Output<'a> {
    pub(super) target: Target<'a>,
    pub(super) statistics: Option<StatisticsFolder>,
    pub(super) journal: Journal,
    /// When the layer at hand began.
    pub(super) since: Instant,
}

impl Output<'_> {
    /// The checkpoint as far as it is pruned; a part has none.
    fn pruned_so_far(&self) -> Option<Result<Checkpoint>> {
        match &self.target {
            Target::Whole(writer) => Some(Checkpoint::open(writer.partial())),
            Target::Part(_) => None,
        }
    }
}

impl WeightSink for Output<'_> {
    fn weight(&mut self, name: &str, values: &[f32], keep: &[bool]) -> Result<()> {
        match &mut self.target {
            Target::Whole(writer) => writer.write_weight(name, values, keep),
            Target::Part(part) => part.weight(name, values, keep),
        }
    }

    fn wants_statistics(&self) -> bool {
        self.statistics.is_some()
    }

    fn statistics(&mut self, operator: SavedStatistics) -> Result<()> {
        if let Some(folder) = &mut self.statistics {
            folder.add(operator);
        }
        Ok(())
    }

    fn layer_done(&mut self, layer: usize, operators: &[OperatorReport]) -> Result<()> {
        if let Some(folder) = &mut self.statistics {
            folder.write(layer)?;
        }
        match &mut self.target {
            Target::Whole(writer) => writer.sync()?,
            Target::Part(part) => part.layer(layer)?,
        }
        let solver: f64 = operators.iter().map(|operator| operator.seconds).sum();
        let seconds = LayerSeconds {
            layer,
            statistics: (self.since.elapsed().as_secs_f64() - solver).max(0.0),
            solver,
            ..LayerSeconds::default()
        };
        self.since = Instant::now();
        self.journal.layer(FinishedLayer {
            layer,
            operators: operators.to_vec(),
            seconds,
        })
    }
}
