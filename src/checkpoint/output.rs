//! The place a checkpoint is written to. In: the output's path. Out: a folder beside it to build in, which either takes
//! the output's place in one step or vanishes with everything made for it.

use super::{Checkpoint, CheckpointError};
use crate::error::{Error, Result};
use crate::system::PartialFolder;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// A folder under construction. Dropped before [`finish`](Self::finish), it removes what it made.
#[derive(Debug)]
pub(crate) struct OutputFolder {
    partial: PartialFolder,
    output: PathBuf,
    overwrite: bool,
}

impl OutputFolder {
    /// Checks `output` against the source and what is there, and makes `<output>.partial-<random>` beside it.
    pub(crate) fn create(source: &Checkpoint, output: &Path, overwrite: bool) -> Result<Self> {
        Self::with(source, output, overwrite, PartialFolder::create)
    }

    /// As [`create`](Self::create), in the folder that `partial` gives for the output's parent and name.
    pub(crate) fn with(
        source: &Checkpoint,
        output: &Path,
        overwrite: bool,
        partial: impl FnOnce(&Path, &OsStr) -> Result<PartialFolder>,
    ) -> Result<Self> {
        let output = resolve(output)?;
        refuse_overlap(source, &output)?;
        if std::fs::symlink_metadata(&output).is_ok() {
            refuse_existing(&output, overwrite)?;
        }
        let (Some(parent), Some(name)) = (output.parent(), output.file_name()) else {
            return Err(CheckpointError::OutputExists { path: output }.into());
        };
        let partial = partial(parent, name)?;
        Ok(Self {
            partial,
            output,
            overwrite,
        })
    }

    /// From now on the folder stays where it is if the run fails or is interrupted.
    pub(crate) fn keep(&mut self) {
        self.partial.keep();
    }

    /// The folder to build in.
    pub(crate) fn path(&self) -> &Path {
        self.partial.path()
    }

    /// Where the folder will be.
    pub(crate) fn output(&self) -> &Path {
        &self.output
    }

    /// Puts the folder in the output's place. With `overwrite`, what was there is moved aside first, moved back if the
    /// new folder cannot take its place, and removed last. An interruption waits until that is over.
    pub(crate) fn finish(self) -> Result<()> {
        sync_folder(self.partial.path())?;
        let aside = self.aside();
        let (output, overwrite) = (self.output, self.overwrite);
        self.partial
            .publish(|partial| take_place(partial, &output, &aside, overwrite))
    }

    /// `<output>.old-<random>`, with the random part of the partial folder, which nobody else has.
    fn aside(&self) -> PathBuf {
        let mut aside = self.output.file_name().unwrap_or_default().to_os_string();
        aside.push(format!(".old-{}", self.partial.random()));
        self.output.with_file_name(aside)
    }
}

/// Puts `new` in the output's place; what is there goes to `aside` and, once that has worked, away.
fn take_place(new: &Path, output: &Path, aside: &Path, overwrite: bool) -> Result<()> {
    let mut old = None;
    if std::fs::symlink_metadata(output).is_ok() {
        refuse_existing(output, overwrite)?;
        old = Some(aside);
    }
    swap(new, output, old)?;
    if let Some(parent) = output.parent()
        && let Err(error) = sync_folder(parent)
    {
        // The output is where it belongs; only a power failure could still undo that.
        tracing::warn!("{error}");
    }
    if let Some(aside) = old
        && let Err(error) = std::fs::remove_dir_all(aside)
    {
        tracing::warn!(
            "the replaced folder could not be removed from `{}`: {error}",
            aside.display()
        );
    }
    Ok(())
}

/// Renames `new` to `output`, after `output` to `aside` where that is given; a failure puts the old one back.
fn swap(new: &Path, output: &Path, aside: Option<&Path>) -> Result<()> {
    if let Some(aside) = aside {
        std::fs::rename(output, aside).map_err(Error::io("move aside", output))?;
    }
    let Err(source) = std::fs::rename(new, output) else {
        return Ok(());
    };
    if let Some(aside) = aside {
        std::fs::rename(aside, output).map_err(Error::io("move back", aside))?;
    }
    Err(Error::io("rename to", output)(source))
}

/// A path's real form, whether it exists or not: links and `..` resolved as far as it exists.
pub(crate) fn resolve(output: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(output).map_err(Error::io("resolve", output))?;
    let mut existing = absolute.as_path();
    let mut rest = Vec::new();
    loop {
        match existing.canonicalize() {
            Ok(real) => return Ok(rest.iter().rev().fold(real, |path, name| path.join(name))),
            Err(source) => match (existing.parent(), existing.file_name()) {
                (Some(parent), Some(name)) => {
                    rest.push(name.to_owned());
                    existing = parent;
                }
                _ => return Err(Error::io("resolve", output)(source)),
            },
        }
    }
}

/// Neither folder may hold the other, and replacing the output may not remove a weight file that the source links to.
fn refuse_overlap(source: &Checkpoint, output: &Path) -> Result<()> {
    let dir = source
        .dir()
        .canonicalize()
        .map_err(Error::io("resolve", source.dir()))?;
    let linked = |shard: &super::reader::Shard| {
        shard
            .file
            .path
            .canonicalize()
            .is_ok_and(|real| real.starts_with(output))
    };
    if output.starts_with(&dir) || dir.starts_with(output) || source.shards().iter().any(linked) {
        let source_dir = source.dir().to_path_buf();
        return Err(CheckpointError::OutputOverlaps {
            output: output.to_path_buf(),
            source_dir,
        }
        .into());
    }
    Ok(())
}

/// Only with `overwrite`, and only a checkpoint or an empty folder: a mistyped path must not cost somebody their files.
fn refuse_existing(output: &Path, overwrite: bool) -> Result<()> {
    let path = output.to_path_buf();
    if !overwrite {
        return Err(CheckpointError::OutputExists { path }.into());
    }
    let empty = || std::fs::read_dir(output).is_ok_and(|mut entries| entries.next().is_none());
    if output.is_dir() && (output.join("config.json").exists() || empty()) {
        return Ok(());
    }
    Err(CheckpointError::OutputIsNoCheckpoint { path }.into())
}

/// Makes a folder's entries durable, where the platform and the file system have that.
fn sync_folder(folder: &Path) -> Result<()> {
    #[cfg(unix)]
    {
        use std::io::ErrorKind::{InvalidInput, Unsupported};
        match std::fs::File::open(folder).and_then(|f| f.sync_all()) {
            Err(e) if !matches!(e.kind(), InvalidInput | Unsupported) => {
                return Err(Error::io("write", folder)(e));
            }
            _ => {}
        }
    }
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::IoError;
    use std::fs;

    #[test]
    fn a_failed_swap_puts_the_old_folder_back() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir(at("out")).unwrap();
        fs::write(at("out").join("old"), "").unwrap();
        let error = swap(&at("not there"), &at("out"), Some(&at("aside"))).unwrap_err();
        assert!(matches!(
            error,
            Error::Io(IoError {
                action: "rename to",
                ..
            })
        ));
        assert!(at("out").join("old").exists() && !at("aside").exists());
        fs::create_dir(at("new")).unwrap();
        swap(&at("new"), &at("out"), Some(&at("aside"))).unwrap();
        assert!(at("aside").join("old").exists() && !at("out").join("old").exists());
    }
}
