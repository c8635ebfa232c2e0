//! What structured pruning has removed, and where. In: the record of it. Out: sizes, the shapes that were tried, and a strip for
//! every layer of the original model.

use super::format::{count, percent};
use crate::report::{KeptReport, StructureReport};
use maud::{Markup, html};

/// Cells of a layer's strip.
const CELLS: usize = 64;

pub(super) fn section(structure: &StructureReport) -> Markup {
    let shape = &structure.shape;
    let last = structure
        .kept
        .iter()
        .map(|kept| kept.layer)
        .chain(shape.dropped_layers.iter().copied())
        .max();
    let width = structure
        .kept
        .iter()
        .filter_map(|kept| kept.mlp.last())
        .map(|range| range[1])
        .max()
        .unwrap_or(0);
    html! {
        section aria-labelledby="removed" {
            h2 #removed { "What was removed" }
            p.note {
                (count(structure.parameters_before)) " parameters became " (count(structure.parameters_after)) ": "
                (percent(structure.removed)) " % of the decoder's linear weights are gone, " (percent(structure.removed_of_all))
                " % of all parameters. The model has " (shape.layers) " layers, an MLP width of " (shape.mlp) ", and "
                (shape.heads) " attention heads with " (shape.kv_heads) " of keys and values."
            }
            @if !structure.decision.tried.is_empty() { (tried(structure)) }
            table {
                caption { "Channels of the MLP that stay, in the order of the original model: dark is all of them, light is none." }
                thead { tr { th { "Layer" } th { "Channels" } th { "Heads of keys and values" } } }
                tbody {
                    @for layer in 0..=last.unwrap_or(0) {
                        tr {
                            td { (layer) }
                            @match structure.kept.iter().find(|kept| kept.layer == layer) {
                                Some(kept) => {
                                    td { (strip(kept, width)) }
                                    td { (ranges(&kept.kv_heads)) }
                                }
                                None => td colspan="2" { "removed" },
                            }
                        }
                    }
                }
            }
        }
    }
}

fn tried(structure: &StructureReport) -> Markup {
    html! {
        table {
            caption { "Shapes that were tried, by their divergence from the original model on held-out text: lower is better." }
            thead { tr { th { "Layers less" } th { "MLP width" } th { "Heads of keys and values" } th { "Removed" } th { "Divergence" } } }
            tbody {
                @for tried in &structure.decision.tried {
                    tr {
                        td { (tried.shape.dropped.len()) }
                        td { (tried.shape.channels) }
                        td { (tried.shape.heads) }
                        td { (percent(tried.removed)) " %" }
                        td { (format!("{:.4}", tried.divergence)) @if tried.shape == structure.decision.shape { " (taken)" } }
                    }
                }
            }
        }
    }
}

/// The share of channels that stay, cell by cell.
fn strip(kept: &KeptReport, width: usize) -> Markup {
    let cells = CELLS.min(width.max(1));
    let mut stays = vec![0usize; cells];
    for channel in kept.mlp.iter().flat_map(|range| range[0]..range[1].min(width)) {
        stays[channel * cells / width.max(1)] += 1;
    }
    let all: usize = kept.mlp.iter().map(|range| range[1] - range[0]).sum();
    html! {
        span role="img" aria-label=(format!("{all} of {width} channels")) title=(format!("{all} of {width} channels")) {
            @for (cell, stays) in stays.iter().enumerate() {
                @let size = (cell + 1) * width / cells - cell * width / cells;
                span style=(format!("display:inline-block;width:.35em;height:1em;background:currentColor;opacity:{:.2}",
                    0.05 + 0.95 * *stays as f64 / size.max(1) as f64)) {}
            }
        }
    }
}

fn ranges(ranges: &[[usize; 2]]) -> String {
    let one = |[first, end]: &[usize; 2]| match end - first {
        1 => first.to_string(),
        _ => format!("{first}–{}", end - 1),
    };
    ranges.iter().map(one).collect::<Vec<_>>().join(", ")
}
