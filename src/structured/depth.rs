//! In which order whole layers may go: greedily, each time the one without which the model stays closest to the dense one
//! (SLEB, arXiv 2402.09025, with the Kullback-Leibler divergence as measure).

use crate::error::Result;
use crate::eval::divergence;
use crate::progress::{Event, Observer};
use crate::prune::{Source, States, embed, through};
use fista_pruner_backends::SolverOps;
use std::collections::BTreeMap;

/// Tokens that layers are judged on.
const TOKENS: usize = 1024;
/// Tokens of a window at most: more, shorter windows say more about a layer than few long ones.
const WINDOW: usize = 256;
/// Layers that are looked at again in each turn: those that did best in the one before.
const LOOKED_AT: usize = 6;

/// The last windows of a source, the very last first, cut to `window` tokens: so many that they have `tokens` in all.
pub(super) fn few(windows: &[Vec<u32>], tokens: usize, window: usize) -> Vec<Vec<u32>> {
    let length = windows.first().map_or(1, Vec::len).clamp(1, window);
    let count = (tokens / length).max(1);
    let cut = windows.iter().rev().take(count).map(|ids| ids[..length].to_vec());
    cut.collect()
}

/// So many layers in the order in which they may go, never the first, each with the divergence from the dense model without it and
/// those before it.
pub(super) fn order<B: SolverOps>(
    source: Source<'_>,
    count: usize,
    device: &B::Device,
    observer: &mut dyn Observer,
) -> Result<Vec<(usize, f64)>> {
    let windows = few(source.windows, TOKENS, WINDOW);
    let source = Source {
        windows: &windows,
        ..source
    };
    observer.event(Event::Stage {
        name: "layers that may go",
        steps: count,
    });
    let layers = source.decoder.config().num_layers();
    let mut order: Vec<(usize, f64)> = Vec::new();
    let mut scores: Vec<(f64, usize)> = (1..layers).map(|layer| (0.0, layer)).collect();
    let mut dense: Option<States<'_, B>> = None;
    while order.len() < count {
        let gone: Vec<usize> = order.iter().map(|(layer, _)| *layer).collect();
        let looked_at = if order.is_empty() { layers } else { LOOKED_AT };
        let candidates: Vec<usize> = scores.iter().take(looked_at).map(|(_, layer)| *layer).collect();
        let mut whole = embed::<B>(&source, device)?;
        let mut without: BTreeMap<usize, States<'_, B>> = BTreeMap::new();
        for layer in (0..layers).filter(|layer| !gone.contains(layer)) {
            let weights = source.decoder.layer::<B>(layer, source.checkpoint, device)?;
            for states in without.values_mut() {
                *states = through(&weights, states.clone())?;
            }
            if candidates.contains(&layer) {
                without.insert(layer, whole.clone());
            }
            whole = through(&weights, whole)?;
        }
        let dense = dense.get_or_insert(whole);
        for (layer, states) in without {
            let score = divergence::<B>(source, dense, &states, device)?;
            if let Some(entry) = scores.iter_mut().find(|(_, known)| *known == layer) {
                entry.0 = score;
            }
        }
        // Those that were not looked at again keep an older, lower number, and stay behind those that were.
        let fresh = |layer: usize| candidates.contains(&layer);
        scores.sort_by(|a, b| {
            fresh(b.1)
                .cmp(&fresh(a.1))
                .then(a.0.total_cmp(&b.0))
                .then(a.1.cmp(&b.1))
        });
        let (score, best) = scores.remove(0);
        order.push((best, score));
        scores.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        observer.event(Event::Step);
    }
    observer.event(Event::Done);
    Ok(order)
}
