//! What a run asks of the operating system: files that appear whole or not at all, what an interruption removes, memory.

mod atomic_file;
mod brief;
pub(crate) mod cleanup;
mod destination;
mod error;
mod guard;
mod memory;
mod partial;

pub(crate) use atomic_file::AtomicFile;
pub(crate) use brief::brief;
pub use destination::Destination;
pub(crate) use destination::FilePlace;
pub use error::{DestinationError, IoError};
pub(crate) use guard::{Panicked, guarded, is_guarded};
pub(crate) use memory::{Memory, free_memory};
pub(crate) use partial::PartialFolder;
