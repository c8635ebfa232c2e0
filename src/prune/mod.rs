//! Prunes a checkpoint one decoder layer after the other. [`PruneRun`] is a whole run with its output folder; [`prune`] is the loop
//! alone: decoder layer → groups of linear layers (called operators) → statistics → solver → write.
//!
//! In: an opened checkpoint, token windows for calibration, a [`PruneConfig`](crate::config::PruneConfig). Out: weights in a
//! [`WeightSink`], and one [`OperatorReport`](crate::report::OperatorReport) per linear layer. Only one decoder layer is on the
//! device at a time; the hidden states of the calibration data are there too, in RAM or on disk.
//!
//! Error propagation needs two paths of hidden states. The *dense* path is the original model's. It gives the wanted outputs and,
//! if [`Propagation`](crate::config::Propagation) says so, the input of the next layer. The *real* path is what a linear layer
//! sees after those before it were pruned. As long as both are equal, they are stored once.

mod allocation;
pub mod compare;
mod comparison;
mod devices;
mod divergences;
mod error;
mod gather;
mod job;
mod journal;
mod layer;
mod limits;
mod merge;
mod output;
mod pass;
pub mod plan;
mod record;
mod run;
mod saved;
mod saved_folder;
mod selection;
mod shard;
mod sink;
mod solve;
mod source;
mod states;
mod statistics;
mod survey;
mod timer;
mod weights;
mod work;
mod workspace;

pub use allocation::*;
pub use comparison::{CompareRun, ComparisonReport};
pub use devices::prune_on_devices;
pub(crate) use divergences::by_config;
pub use error::PruneError;
pub(crate) use gather::through;
pub(crate) use journal::*;
pub(crate) use limits::Limits;
pub use merge::merge;
pub use pass::*;
pub use run::PruneRun;
pub use selection::selected;
pub use shard::*;
pub use sink::*;
pub use solve::{SolveRun, Solved};
pub(crate) use source::embed;
pub use source::{AfterLayer, Branch, BranchOutcome, Forms, PruneJob, Source, Span, token_batches};
pub(crate) use states::States;
pub use states::{StateFolder, StateStore};
pub use statistics::*;
pub(crate) use survey::survey;
pub use timer::*;
pub(crate) use workspace::Workspace;
