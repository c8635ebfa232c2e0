//! The recovery of all operators, by whichever method.

use super::directions::Space;
use super::job::RecoverJob;
use super::{Recovered, Recovery, block, distill, operators, spp, zeroth};
use crate::checkpoint::Model;
use crate::error::{ConfigError, Error, Result};
use crate::progress::Observer;
use crate::prune::WeightSink;
use crate::report::OperatorReport;
use fista_pruner_backends::SolverOps;

/// Adapts the pruned model's weights. The sink gets every operator's, a layer at a time, rounded to what is stored.
///
/// # Errors
/// When a setting is out of range, the dense model is missing or another one, the windows are empty or too short, a tensor
/// cannot be read, the sink refuses a weight, or the device fails.
pub fn recover<B: SolverOps>(
    job: RecoverJob<'_>,
    device: &B::Device,
    sink: &mut dyn WeightSink,
    observer: &mut dyn Observer,
) -> Result<Recovered> {
    job.recovery.validate()?;
    crate::text::check_windows(job.windows, "‹seq-len›")?;
    if !matches!(job.recovery, Recovery::Block(_)) {
        job.pruned.decoder.head_weight()?;
    }
    if let Some(dense) = job.dense {
        check_same_shape(job.pruned, dense, job.kept_layers)?;
    }
    operators::check_zeros(&job)?;
    let mut counting = Counting::new(sink);
    let (loss, (curves, resumed)) = match job.recovery {
        Recovery::Block(config) => (
            block::LOSS,
            block::run::<B>(&job, config, device, &mut counting, observer)?,
        ),
        Recovery::Distill(config) => (
            distill::LOSS,
            distill::run::<B>(&job, config, device, &mut counting, observer)?,
        ),
        Recovery::Spp(config) => (
            spp::LOSS,
            spp::run::<B>(&job, config, device, &mut counting, observer)?,
        ),
        Recovery::Mezo(config) => (
            zeroth::LOSS,
            zeroth::run::<B>(&job, config, Space::Full, device, &mut counting, observer)?,
        ),
        Recovery::Subzero(config) => {
            let (rank, refresh) = (config.rank, config.refresh);
            let space = Space::Subspace { rank, refresh };
            (
                zeroth::LOSS,
                zeroth::run::<B>(&job, &config.steps, space, device, &mut counting, observer)?,
            )
        }
    };
    Ok(Recovered {
        loss: loss.to_owned(),
        curves,
        operators: counting.operators,
        weights: counting.weights,
        zeros: counting.zeros,
        resumed,
    })
}

/// Whether both models are of one family and have the same operators and tokens; of a structurally pruned one, whether the dense one
/// has its layers and their residual stream.
fn check_same_shape(pruned: &Model, dense: &Model, kept: Option<&[usize]>) -> Result<()> {
    let of = |model: &Model| -> Vec<_> {
        let operators = model.decoder.operators();
        operators
            .map(|operator| (operator.name.clone(), operator.shape()))
            .collect()
    };
    let (ours, its) = (pruned.decoder.config(), dense.decoder.config());
    let differs = if ours.family() != its.family() {
        format!("is of family `{}`, and not `{}`", its.family(), ours.family())
    } else if ours.vocab_size() != its.vocab_size() {
        format!("has {} tokens, and not {}", its.vocab_size(), ours.vocab_size())
    } else if let Some(kept) = kept {
        let reaches = kept.iter().max().is_some_and(|last| *last < its.num_layers());
        if reaches && ours.hidden_size() == its.hidden_size() {
            return Ok(());
        }
        "has fewer layers, or another width between them".to_owned()
    } else if of(pruned) != of(dense) || ours.num_heads() != its.num_heads() {
        "has linear layers of other names, shapes or heads".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::from(ConfigError::Setting {
        setting: "‹dense›",
        reason: format!(
            "`{}` {differs}: `{}` was not made from it",
            dense.dir().display(),
            pruned.dir().display()
        ),
    }))
}

/// Counts what goes into a sink.
struct Counting<'a> {
    sink: &'a mut dyn WeightSink,
    operators: usize,
    weights: usize,
    zeros: usize,
}

impl<'a> Counting<'a> {
    fn new(sink: &'a mut dyn WeightSink) -> Self {
        Self {
            sink,
            operators: 0,
            weights: 0,
            zeros: 0,
        }
    }
}

impl WeightSink for Counting<'_> {
    fn weight(&mut self, name: &str, values: &[f32], keep: &[bool]) -> Result<()> {
        self.operators += 1;
        self.weights += values.len();
        self.zeros += keep.iter().filter(|keep| !**keep).count();
        self.sink.weight(name, values, keep)
    }

    fn layer_done(&mut self, layer: usize, operators: &[OperatorReport]) -> Result<()> {
        self.sink.layer_done(layer, operators)
    }
}
