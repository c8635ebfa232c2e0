//! The place a checkpoint is written to. In: the output's path. Out: a folder beside it to build in, which either takes
//! the output's place in one step or vanishes with everything made for it.

use super::Checkpoint;
use super::replaceable::replaceable;
use crate::error::{DestinationError, Error, Result};
use crate::system::{Destination, PartialFolder};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// A folder under construction. Dropped before [`finish`](Self::finish), it removes what it made.
#[derive(Debug)]
pub(crate) struct OutputFolder {
    partial: PartialFolder,
    output: PathBuf,
    destination: Destination,
    source: PathBuf,
}

impl OutputFolder {
    /// Checks `destination` against the source and what is there, and makes `<output>.partial-<random>` beside it, or takes the folder
    /// that `partial` gives for the output's parent and name.
    pub(crate) fn create(
        source: &Checkpoint,
        destination: &Destination,
        partial: impl FnOnce(&Path, &OsStr) -> Result<PartialFolder>,
    ) -> Result<Self> {
        let source = source.dir().to_path_buf();
        let destination = destination.clone().apart_from(&source);
        let output = destination.folder(|folder| replaceable(folder, &source))?;
        let (Some(parent), Some(name)) = (output.parent(), output.file_name()) else {
            return Err(DestinationError::Exists { path: output }.into());
        };
        let partial = partial(parent, name)?;
        Ok(Self {
            partial,
            output,
            destination,
            source,
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
        let (destination, source) = (self.destination, self.source);
        self.partial.publish(|partial| {
            // Somebody else may have put something there meanwhile.
            let output = destination.folder(|folder| replaceable(folder, &source))?;
            take_place(partial, &output, &aside)
        })
    }

    /// `<output>.old-<random>`, with the random part of the partial folder, which nobody else has.
    fn aside(&self) -> PathBuf {
        let mut aside = self.output.file_name().unwrap_or_default().to_os_string();
        aside.push(format!(".old-{}", self.partial.random()));
        self.output.with_file_name(aside)
    }
}

/// Puts `new` in the output's place; what is there goes to `aside` and, once that has worked, away.
fn take_place(new: &Path, output: &Path, aside: &Path) -> Result<()> {
    let old = output.exists().then_some(aside);
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
