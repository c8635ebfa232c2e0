//! The record of a run. Written beside the weights as `pruning_report.json`, for programs (`docs/report.schema.json` describes
//! it), and as `report.html`, for people.

mod error;
pub mod html;
mod record;
mod seconds;
mod structure;

pub use error::ReportError;
pub use record::*;
pub use seconds::{LayerSeconds, StageSeconds};
pub(crate) use structure::ranges;
pub use structure::{Decision, KeptReport, ShapeReport, StructureReport, TriedShape};
