//! How long a run will take: measured on the first layer with a few of the windows, and multiplied.

use super::room::Room;
use crate::checkpoint::Model;
use crate::config::{Method, PruneConfig};
use crate::error::Result;
use crate::eval::Along;
use crate::prune::{Source, StateStore, one_layer, selected};
use fista_pruner_backends::{DeviceJob, SolverOps};
use serde::Serialize;
use std::collections::BTreeSet;
use std::time::Instant;

/// Seconds of a run's stages.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct PlannedSeconds {
    /// Reading layers, running them, and summing up their operators' statistics.
    pub statistics: f64,
    /// Choosing weights.
    pub solver: f64,
    /// Perplexities before and after.
    pub evaluation: f64,
    /// All of it.
    pub total: f64,
}

/// Measures what a run will take. Prunes the first layer, and throws it away.
pub struct Probe<'a> {
    /// The dense model.
    pub model: &'a Model,
    /// Calibration windows.
    pub windows: &'a [Vec<u32>],
    /// What to do.
    pub config: &'a PruneConfig,
    /// How much of it there is.
    pub room: &'a Room,
    /// How many devices share the layers.
    pub devices: usize,
}

/// Batches of the larger of the two measurements.
const BATCHES: usize = 3;

impl DeviceJob for Probe<'_> {
    type Output = Result<PlannedSeconds>;

    fn run<B: SolverOps>(self, device: &B::Device) -> Self::Output {
        let window = self.room.window.max(1);
        let in_batch = (self.config.batch_tokens / window).max(1);
        let source = |batches: usize| Source {
            checkpoint: &self.model.checkpoint,
            decoder: &self.model.decoder,
            windows: &self.windows[..(batches * in_batch).min(self.windows.len())],
            batch_tokens: self.config.batch_tokens,
            states: StateStore::ON_DEVICE,
            offload: self.room.offload,
        };
        let mut quick = self.config.clone();
        quick.solver.method = Method::Magnitude;
        quick.solver.polish = 0;
        let mut chosen = self.config.clone();
        if let Some(operator) = selected(&self.model.decoder, self.config).first()
            && operator.layer > 0
        {
            // The first layer stands for those that are pruned.
            (chosen.targets, chosen.ignore) = (None, None);
            quick.targets = None;
            quick.ignore = None;
        }
        // Once for nothing: threads start, kernels are compiled, and memory is touched for the first time, as in a run's first
        // layer alone.
        one_layer::<B>(source(BATCHES), &shortened(&chosen), device)?;
        let one = one_layer::<B>(source(1), &quick, device)?;
        let some = one_layer::<B>(source(BATCHES), &chosen, device)?;
        let batches = |windows: usize| windows.div_ceil(in_batch) as f64;
        let more = batches(source(BATCHES).windows.len()) - 1.0;
        let each = if more > 0.0 {
            ((some.statistics - one.statistics) / more).max(0.0)
        } else {
            0.0
        };
        let fixed = (one.statistics - each).max(0.0);
        let pruned: BTreeSet<usize> = selected(&self.model.decoder, self.config)
            .into_iter()
            .map(|operator| operator.layer)
            .filter(|layer| self.room.layers.contains(layer))
            .collect();
        let layers = pruned.len() as f64;
        let mut planned = PlannedSeconds {
            statistics: layers * (fixed + each * batches(self.room.tokens / window)),
            solver: layers * some.solver,
            ..PlannedSeconds::default()
        };
        let (through, head) = forward::<B>(source(1), device)?;
        let tokens = (source(1).windows.len() * window).max(1) as f64;
        let per_token = through / tokens;
        // Layers that are only passed through: before a shard's first, and those without an operator to prune.
        let passed = self.room.layers.end as f64 - layers;
        planned.statistics += passed * per_token * self.room.tokens as f64;
        let whole = self.model.decoder.config().num_layers() as f64;
        planned.evaluation = 2.0 * whole * per_token * self.room.evaluation_tokens as f64;
        if self.room.evaluation_tokens > 0 {
            planned.evaluation += 2.0 * head * self.room.evaluation_tokens as f64 / tokens;
        }
        // Devices of the host share its cores.
        let shared = if self.room.device_is_host { 1 } else { self.devices };
        planned.statistics /= shared as f64;
        planned.solver /= shared as f64;
        planned.total = planned.statistics + planned.solver + planned.evaluation;
        Ok(planned)
    }
}

/// The same work with as few steps as take it everywhere.
fn shortened(config: &PruneConfig) -> PruneConfig {
    let mut short = config.clone();
    let solver = &mut short.solver;
    solver.polish = solver.polish.min(1);
    solver.l0.steps = solver.l0.steps.min(solver.l0.refresh + 1);
    solver.fista.max_rounds = Some(1);
    short
}

/// Seconds of a batch through one layer, and through the head.
fn forward<B: SolverOps>(source: Source<'_>, device: &B::Device) -> Result<(f64, f64)> {
    let layer = source.decoder.layer::<B>(0, source.checkpoint, device)?;
    let mut along = Along::<B>::new(source, 0, device)?;
    let started = Instant::now();
    along.layer(&layer, &[])?;
    B::sync(device).ok();
    let through = started.elapsed().as_secs_f64();
    along.finish(device)?;
    Ok((through, started.elapsed().as_secs_f64() - through))
}
