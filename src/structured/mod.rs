//! Structured pruning: whole channels, heads and layers go, and what comes out is a smaller dense checkpoint. The work is
//! [`prune`](crate::prune)'s: the same streams of hidden states, statistics, solver, journal and report. This room decides before the
//! first layer what goes ([`decide`]), and cuts the finished weights to their new sizes ([`cut`]).
//!
//! In: a dense model, windows, a [`StructureConfig`]. Out: a [`Decision`] and scores for the solver; in the end a checkpoint.

mod cut;
mod decided;
mod depth;
mod greedy;
mod policy;
mod search;

pub(crate) use cut::{cut, planned};
pub(crate) use decided::Decided;
pub(crate) use policy::Losses;

use crate::config::{PruneConfig, Shape, StructureConfig, StructuredMethod};
use crate::error::Result;
use crate::progress::Observer;
use crate::prune::Source;
use fista_pruner_backends::SolverOps;
use std::collections::BTreeMap;

/// Decides what goes. A search goes on from the `losses` of an earlier run.
///
/// # Errors
/// When no shape fits, a tensor cannot be read, or the device fails.
pub(crate) fn decide<B: SolverOps>(
    source: Source<'_>,
    config: &PruneConfig,
    asked: &StructureConfig,
    losses: Losses<'_>,
    device: &B::Device,
    observer: &mut dyn Observer,
) -> Result<Decided> {
    let model = source.decoder.config();
    let most = asked.most_layers(model);
    let layer_order = match most {
        0 => Vec::new(),
        most => depth::order::<B>(source, most, device, observer)?,
    };
    let order: Vec<usize> = layer_order.iter().map(|(layer, _)| *layer).collect();
    // Whatever an earlier look at the run has told the solver: of the dense model everything is asked.
    let dense = PruneConfig {
        patterns: BTreeMap::new(),
        dropped: None,
        ..config.clone()
    };
    let (mut judged, mut heads) = (None, None);
    if asked.method == StructuredMethod::Greedy && asked.greedy.similarity.is_some() {
        let found = greedy::judge::<B>(source, asked, device, observer)?;
        heads = Some(model.sizes().heads as f64 - found.alike);
        judged = Some(found);
    }
    let mut shapes = asked.shapes_with(model, &order, heads)?;
    let (shape, tried) = match shapes.len() {
        0 | 1 => (shapes.pop().unwrap_or_else(|| Shape::whole(model)), Vec::new()),
        _ => search::best::<B>(source, config, asked, shapes, device, observer)?,
    };
    let mut decided = Decided::only(shape);
    match asked.method {
        StructuredMethod::Greedy => {
            let judged = match judged {
                Some(judged) => judged,
                None => greedy::judge::<B>(source, asked, device, observer)?,
            };
            decided.scores = judged.scores;
        }
        StructuredMethod::PolicyGradient => {
            let shape = decided.decision.shape.clone();
            let searched = policy::search::<B>(source, &dense, asked, &shape, losses, device, observer)?;
            decided.scores = searched.scores;
            decided.decision.curve = searched.curve;
        }
        _ => {}
    }
    decided.decision.tried = tried;
    decided.decision.layer_order = layer_order;
    Ok(decided)
}
