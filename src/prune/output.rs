//! Where a run's weights and statistics go: into a checkpoint or a part of one, with the journal that lets another process go on.

use super::journal::{FinishedLayer, Journal};
use super::saved_folder::StatisticsFolder;
use super::shard::PartWriter;
use super::sink::{SavedStatistics, WeightSink};
use crate::checkpoint::{Checkpoint, CheckpointWriter};
use crate::error::Result;
use crate::report::{LayerSeconds, OperatorReport};
use std::time::Instant;

/// What a run writes: a checkpoint, or a part of one.
pub(crate) enum Target<'a> {
    Whole(CheckpointWriter),
    Part(PartWriter<'a>),
}

/// Where a run's weights and statistics go.
pub(crate) struct Output<'a> {
    pub(crate) target: Target<'a>,
    pub(crate) statistics: Option<StatisticsFolder>,
    pub(crate) journal: Journal,
    /// When the layer at hand began.
    pub(crate) since: Instant,
}

impl Output<'_> {
    /// The checkpoint as far as it is pruned; a part has none.
    pub(crate) fn pruned_so_far(&self) -> Option<Result<Checkpoint>> {
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
