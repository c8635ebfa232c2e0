//! The shape that stays closest to the dense model: every candidate is pruned on a part of the calibration windows, all in one pass,
//! and measured on windows that none has seen.

use super::decided::Decided;
use crate::config::{PruneConfig, Removable, Shape, StructureConfig};
use crate::error::{Error, Result};
use crate::progress::Observer;
use crate::prune::{Source, by_config};
use crate::report::TriedShape;
use fista_pruner_backends::SolverOps;

/// Windows that candidates are pruned with, at most.
const FITTED: usize = 32;
/// Windows that they are measured on, at most.
const HELD_OUT: usize = 8;
/// Candidates of a pass.
const CANDIDATES: usize = 5;

/// The best of several shapes, and what was found of each that was looked at: so many spread over the numbers of layers that may go,
/// then the neighbours of the best of them and its other numbers of heads.
pub(super) fn best<B: SolverOps>(
    source: Source<'_>,
    config: &PruneConfig,
    asked: &StructureConfig,
    shapes: Vec<Shape>,
    device: &B::Device,
    observer: &mut dyn Observer,
) -> Result<(Shape, Vec<TriedShape>)> {
    let model = source.decoder.config();
    let all_heads = model.sizes().heads;
    let mut depths: Vec<&Shape> = shapes.iter().filter(|shape| shape.heads == all_heads).collect();
    if depths.is_empty() {
        depths = shapes.iter().collect();
    }
    let last = depths.len() - 1;
    let mut first: Vec<Shape> = (0..CANDIDATES)
        .map(|i| depths[i * last / (CANDIDATES - 1)].clone())
        .collect();
    first.dedup();
    let mut tried = measure::<B>(source, config, asked, first, device, observer)?;
    let near = closest(&tried)?.shape.clone();
    let known = |shape: &Shape, tried: &[TriedShape]| tried.iter().any(|t| t.shape == *shape);
    let at = depths.iter().position(|shape| **shape == near).unwrap_or(0);
    let step = (last / (CANDIDATES - 1) / 2).max(1);
    let mut second: Vec<Shape> = [at.saturating_sub(step), (at + step).min(last)]
        .map(|i| depths[i].clone())
        .into_iter()
        .filter(|shape| !known(shape, &tried))
        .collect();
    if asked.removes(Removable::Heads) {
        let others = shapes
            .iter()
            .filter(|s| s.dropped == near.dropped && !known(s, &tried) && !second.contains(s));
        let others: Vec<Shape> = others.rev().take(2).cloned().collect();
        second.extend(others);
    }
    second.dedup();
    if !second.is_empty() {
        tried.extend(measure::<B>(source, config, asked, second, device, observer)?);
    }
    Ok((closest(&tried)?.shape.clone(), tried))
}

fn closest(tried: &[TriedShape]) -> Result<&TriedShape> {
    tried
        .iter()
        .min_by(|a, b| a.divergence.total_cmp(&b.divergence))
        .ok_or_else(|| Error::internal("a search without shapes"))
}

/// Prunes to each shape and measures it.
fn measure<B: SolverOps>(
    source: Source<'_>,
    config: &PruneConfig,
    asked: &StructureConfig,
    shapes: Vec<Shape>,
    device: &B::Device,
    observer: &mut dyn Observer,
) -> Result<Vec<TriedShape>> {
    let held_out = HELD_OUT.min(source.windows.len() / 2).max(1);
    let (fitted, measured) = source.windows.split_at(source.windows.len() - held_out);
    let fitted = if fitted.is_empty() { measured } else { fitted };
    let source = Source {
        windows: &fitted[..FITTED.min(fitted.len())],
        ..source
    };
    let measured = Source {
        windows: measured,
        ..source
    };
    let configs: Vec<PruneConfig> = shapes
        .iter()
        .map(|shape| {
            let mut config = config.clone();
            let searched = StructureConfig {
                method: asked.method.for_search(),
                ..asked.clone()
            };
            Decided::only(shape.clone()).apply(&searched, source.decoder, &mut config);
            config
        })
        .collect();
    let divergences = by_config::<B>(source, measured, &configs, device, observer)?;
    let model = source.decoder.config();
    shapes
        .into_iter()
        .zip(divergences)
        .map(|(shape, divergence)| {
            Ok(TriedShape {
                removed: shape.removed(model)?,
                shape,
                divergence,
            })
        })
        .collect()
}
