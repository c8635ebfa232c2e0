//! One visible loop: decoder layer → operator groups → statistics → solve → write.
//!
//! In: an opened checkpoint, calibration windows, a [`PruneConfig`](crate::config::PruneConfig). Out: weights in a [`WeightSink`] and one
//! [`OperatorReport`] an operator. At most one decoder layer is on the device, besides the calibration set's hidden
//! states.
//!
//! Two paths of hidden states are the whole of error correction. The *dense* path feeds the targets and, where
//! [`Propagation`](crate::config::Propagation) says so, the next layer; the *real* path is what the operators see once
//! earlier ones are pruned. They share their states for as long as they are equal.

mod allocation;
pub mod compare;
mod comparison;
mod devices;
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
pub use error::PruneError;
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
pub use source::{AfterLayer, Branch, BranchOutcome, Forms, Job, Source, Span, token_batches};
pub(crate) use states::States;
pub use states::{StateFolder, StateStore};
pub use statistics::*;
pub(crate) use survey::survey;
pub use timer::*;
pub(crate) use workspace::Workspace;
