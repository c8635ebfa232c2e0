//! The model of a run: a local folder, a model of the hub, or the built-in demo.

use super::args::{Global, ModelArgs};
use super::hub;
use crate::demo;
use crate::error::{Error, Result};
use crate::hub::Repo;
use crate::model::Model;
use fista_pruner_models::RopePrecision;
use std::path::{Path, PathBuf};

/// A model and how to call it.
pub(crate) struct Chosen {
    pub(crate) model: Model,
    pub(crate) dir: PathBuf,
    /// As the user knows it; of the hub, with the commit.
    pub(crate) name: String,
    pub(crate) is_demo: bool,
    /// No progress of downloads.
    pub(crate) quiet: bool,
}

/// Opens the model, fetching or unpacking it first where that is needed.
///
/// # Errors
/// When it cannot be had or opened.
pub(crate) fn open(args: &ModelArgs, global: &Global) -> Result<Chosen> {
    open_with(args, global, RopePrecision::F32)
}

/// As [`open`], with rotation frequencies rounded.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_with(args: &ModelArgs, global: &Global, precision: RopePrecision) -> Result<Chosen> {
    let (dir, name) = locate(args, global)?;
    Ok(Chosen {
        model: Model::open_with(&dir, precision)?,
        dir,
        name,
        is_demo: args.model.is_none(),
        quiet: global.quiet,
    })
}

/// The folder and what to call it. A path that exists wins over an id of the hub.
fn locate(args: &ModelArgs, global: &Global) -> Result<(PathBuf, String)> {
    let local = |reason: String| match &args.revision {
        None => Ok(()),
        Some(_) => Err(Error::Setting {
            setting: "--revision",
            reason,
        }),
    };
    let Some(model) = &args.model else {
        local("the built-in demo model has none".into())?;
        return Ok((demo::model()?, "the built-in demo model (opt-mini)".to_owned()));
    };
    let found = match model.exists() {
        true => None,
        false => model.to_str().and_then(Repo::model),
    };
    let Some(mut repo) = found else {
        local(format!("`{}` is not an id of the hub", model.display()))?;
        return Ok((model.clone(), display(model)));
    };
    if let Some(revision) = &args.revision {
        if model.to_string_lossy().contains('@') {
            return Err(Error::Setting {
                setting: "--revision",
                reason: format!("`{}` names a revision already", model.display()),
            });
        }
        repo = repo.at(revision).ok_or_else(|| Error::Setting {
            setting: "--revision",
            reason: format!("`{revision}` is not the name of a branch, a tag or a commit"),
        })?;
    }
    let snapshot = hub::open(global.quiet)?.model(&repo)?;
    Ok((snapshot.dir, snapshot.name))
}

fn display(path: &Path) -> String {
    path.display().to_string()
}
