//! The model of a run by its name: a local folder, a model of the hub, or the built-in demo.

use super::Model;
use crate::demo;
use crate::error::{ConfigError, Error, Result};
use crate::hub::{OpenHub, Repo};
use fista_pruner_models::RopePrecision;
use std::path::{Path, PathBuf};

/// Which model.
#[derive(Debug, Clone, Default)]
pub struct ModelName {
    /// A folder, or an id of the hub; the built-in demo where there is none.
    pub name: Option<PathBuf>,
    /// Branch, tag or commit of a model of the hub.
    pub revision: Option<String>,
    /// As which numbers the rotation frequencies are kept.
    pub precision: RopePrecision,
}

impl ModelName {
    /// The folder or the id `name`.
    pub fn new(name: impl Into<PathBuf>) -> Self {
        Self {
            name: Some(name.into()),
            ..Self::default()
        }
    }

    /// Opens the model, fetching or unpacking it first where that is needed. `hub` is asked only for what no local path is.
    ///
    /// # Errors
    /// When it cannot be had or opened.
    pub fn open(&self, hub: &mut OpenHub<'_>) -> Result<Model> {
        let (dir, name) = self.locate(hub)?;
        Ok(Model {
            name,
            is_demo: self.name.is_none(),
            ..Model::open_with(&dir, self.precision)?
        })
    }

    /// The folder and what to call it. A path that exists wins over an id of the hub.
    fn locate(&self, hub: &mut OpenHub<'_>) -> Result<(PathBuf, String)> {
        let Some(model) = &self.name else {
            self.no_revision("the built-in demo model has none".into())?;
            return Ok((demo::model()?, "the built-in demo model (opt-mini)".to_owned()));
        };
        let found = match model.exists() {
            true => None,
            false => model.to_str().and_then(Repo::model),
        };
        let Some(mut repo) = found else {
            self.no_revision(format!("`{}` is not an id of the hub", model.display()))?;
            return Ok((model.clone(), model.display().to_string()));
        };
        if let Some(revision) = &self.revision {
            repo = at(repo, model, revision)?;
        }
        let snapshot = hub()?.model(&repo)?;
        Ok((snapshot.dir, snapshot.name))
    }

    fn no_revision(&self, reason: String) -> Result<()> {
        match &self.revision {
            None => Ok(()),
            Some(_) => Err(wrong(reason)),
        }
    }
}

/// The repository at a revision.
fn at(repo: Repo, model: &Path, revision: &str) -> Result<Repo> {
    if model.to_string_lossy().contains('@') {
        let reason = format!("`{}` names a revision already", model.display());
        return Err(wrong(reason));
    }
    let reason = format!("`{revision}` is not the name of a branch, a tag or a commit");
    repo.at(revision).ok_or_else(|| wrong(reason))
}

fn wrong(reason: String) -> Error {
    let setting = "‹revision›";
    Error::from(ConfigError::Setting { setting, reason })
}
