//! What a run is asked to do: the settings with their defaults and the defaults' sources, sparsity patterns, which entries
//! a pattern keeps, and how strongly weights are held at their dense values.

mod check;
mod columns;
mod error;
mod names;
mod pattern;
mod ridge;
pub(crate) mod select;
mod settings;
mod structure;

pub use columns::{ColumnConfig, Criterion};
pub use error::ConfigError;
pub(crate) use names::{means, shown};
pub use pattern::{ComparisonGroup, Pattern, PatternError};
pub use ridge::Ridge;
pub use settings::*;
pub use structure::*;
