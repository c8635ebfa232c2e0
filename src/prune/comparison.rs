//! A comparison as the command `compare` does it: a model, windows and ways in, one table out.

use super::compare::{Comparison, StructureSpec, Table, compare};
use super::{Source, StateStore};
use crate::checkpoint::Model;
use crate::error::Result;
use crate::progress::Observer;
use crate::report::{peak_host_bytes, program};
use crate::text::{TokenWindows, WindowsSummary};
use fista_pruner_backends::{DeviceJob, DeviceSpec, SolverOps, dispatch_opened};
use serde::Serialize;
use std::time::Instant;

/// Everything that a comparison is asked to do.
#[derive(Debug, Clone)]
pub struct CompareRun<'a> {
    /// The dense model.
    pub model: &'a Model,
    /// The windows to calibrate with.
    pub calibration: &'a TokenWindows,
    /// The windows to measure perplexity on.
    pub evaluation: Option<&'a TokenWindows>,
    /// The ways and patterns.
    pub comparison: Comparison,
    /// A device that [`open`](fista_pruner_backends::open) has opened.
    pub device: DeviceSpec,
    /// When the work on it began, for the seconds.
    pub started: Instant,
}

/// The table, and what it was measured on.
#[derive(Debug, Clone, Serialize)]
pub struct ComparisonReport {
    /// This program and its version.
    pub program: String,
    /// The dense model, as the user named it.
    pub model: String,
    /// A hash of its configuration and of every weight file's layout.
    pub fingerprint: String,
    /// The device.
    pub device: String,
    /// The calibration data.
    pub calibration: WindowsSummary,
    /// Seed of its draws.
    pub seed: u64,
    /// The evaluation data, where perplexity was measured.
    pub evaluation: Option<WindowsSummary>,
    /// Seconds in all.
    pub seconds: f64,
    /// Largest resident memory of the process in bytes, where the system tells it.
    pub peak_host_bytes: Option<u64>,
    /// The rows.
    #[serde(flatten)]
    pub table: Table,
}

impl CompareRun<'_> {
    /// Does it.
    ///
    /// # Errors
    /// As [`compare`].
    pub fn run(&self, observer: &mut dyn Observer) -> Result<ComparisonReport> {
        let table = dispatch_opened(&self.device, Work { run: self, observer })??;
        Ok(ComparisonReport {
            program: program(),
            model: self.model.name.clone(),
            fingerprint: self.model.checkpoint.fingerprint(),
            device: self.device.to_string(),
            calibration: self.calibration.summary(),
            seed: self.calibration.seed,
            evaluation: self.evaluation.map(TokenWindows::summary),
            seconds: self.started.elapsed().as_secs_f64(),
            peak_host_bytes: peak_host_bytes(),
            table,
        })
    }

    /// What is pruned side by side, in the order of the table.
    pub fn branches(&self) -> Vec<String> {
        let structures = &self.comparison.structures;
        if !structures.is_empty() {
            let name = |way: &StructureSpec| format!("{} {}", way.name, way.structure.remove);
            return structures.iter().map(name).collect();
        }
        let patterns = self.comparison.patterns.iter();
        let branches = patterns.flat_map(|pattern| {
            let ways = self.comparison.ways.iter();
            ways.map(move |way| format!("{} {pattern}", way.name))
        });
        branches.collect()
    }
}

/// What runs on the device.
struct Work<'a, 'r> {
    run: &'a CompareRun<'r>,
    observer: &'a mut dyn Observer,
}

impl DeviceJob for Work<'_, '_> {
    type Output = Result<Table>;

    fn run<B: SolverOps>(self, device: &B::Device) -> Self::Output {
        let run = self.run;
        let source = Source {
            checkpoint: &run.model.checkpoint,
            decoder: &run.model.decoder,
            windows: &run.calibration.ids,
            batch_tokens: run.comparison.base.batch_tokens,
            states: StateStore::ON_DEVICE,
            offload: false,
        };
        let evaluation = run.evaluation.map_or(&[][..], |windows| &windows.ids);
        compare::<B>(source, &run.comparison, evaluation, device, self.observer)
    }
}
