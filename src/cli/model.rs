//! The model of a run: the folder named, or the built-in demo.

use crate::demo;
use crate::error::Result;
use crate::model::Model;
use fista_pruner_models::RopePrecision;
use std::path::{Path, PathBuf};

/// A model and how to call it.
pub(crate) struct Chosen {
    pub(crate) model: Model,
    pub(crate) dir: PathBuf,
    /// As the user knows it.
    pub(crate) name: String,
    pub(crate) is_demo: bool,
}

/// Opens the folder, or unpacks the demo model and opens that.
///
/// # Errors
/// When it cannot be opened.
pub(crate) fn open(dir: Option<&Path>) -> Result<Chosen> {
    open_with(dir, RopePrecision::F32)
}

/// As [`open`], with rotation frequencies rounded.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_with(dir: Option<&Path>, precision: RopePrecision) -> Result<Chosen> {
    let (dir, name, is_demo) = match dir {
        Some(dir) => (dir.to_path_buf(), dir.display().to_string(), false),
        None => (
            demo::model()?,
            "the built-in demo model (opt-mini)".to_owned(),
            true,
        ),
    };
    Ok(Chosen {
        model: Model::open_with(&dir, precision)?,
        dir,
        name,
        is_demo,
    })
}
