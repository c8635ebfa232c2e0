//! What one does with a finished checkpoint: look at it, check it, take its mask, write it without its zeros.

mod error;
pub mod inspect;
pub mod mask;
pub mod pack;
pub mod verify;

pub use error::ArtifactError;
