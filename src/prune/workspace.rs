//! A folder under construction that another process can go on in: the folder, and the journal in it.

use super::{Earlier, Journal};
use crate::error::Result;
use crate::system::PartialFolder;
use serde_json::Value;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// The journal of a folder under construction, and what an earlier run has written into it.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// The folder.
    pub(crate) path: PathBuf,
    pub(crate) journal: Journal,
    /// `None` in a new folder.
    pub(crate) earlier: Option<Earlier>,
}

impl Workspace {
    /// The folder to build `parent/name` in: with `resume` the one that a run of this `identity` has left, else a new one.
    ///
    /// # Errors
    /// As [`Journal::find`]; when the folder cannot be made.
    pub(crate) fn open(
        parent: &Path,
        name: &OsStr,
        identity: &Value,
        resume: bool,
    ) -> Result<(PartialFolder, Self)> {
        let found = if resume {
            Journal::find(parent, &name.to_string_lossy(), identity)?
        } else {
            None
        };
        if let Some((path, journal, earlier)) = found {
            let partial = PartialFolder::adopt(path.clone());
            let earlier = Some(earlier);
            return Ok((
                partial,
                Self {
                    path,
                    journal,
                    earlier,
                },
            ));
        }
        let partial = PartialFolder::create(parent, name)?;
        let journal = Journal::create(partial.path())?;
        let path = partial.path().to_path_buf();
        let earlier = None;
        Ok((
            partial,
            Self {
                path,
                journal,
                earlier,
            },
        ))
    }
}
