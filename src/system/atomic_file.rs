//! A file that appears under its name when it is complete. In: a path and what is written. Out: the whole file, or whatever
//! was there before. A pipe or a terminal is simply written to.

use super::destination::FilePlace;
use crate::error::{Error, Result};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Written under another name in the same folder; gone if it is dropped unfinished.
#[derive(Debug)]
pub(crate) struct AtomicFile {
    file: Target,
    path: PathBuf,
}

#[derive(Debug)]
enum Target {
    Beside(BufWriter<NamedTempFile>),
    Stream(BufWriter<File>),
}

impl AtomicFile {
    /// What the names of files begin with that a killed process left unfinished.
    pub(crate) const UNFINISHED: &str = ".partial-";

    /// What shall become `path`, with the permissions that the process gives new files.
    ///
    /// # Errors
    /// When its folder takes no file.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let mut builder = tempfile::Builder::new();
        builder.prefix(Self::UNFINISHED);
        // Temporary files are private by default; this one becomes the user's, so the umask decides.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder
            .tempfile_in(folder)
            .map_err(Error::io("create a file in", folder))?;
        Ok(Self {
            file: Target::Beside(BufWriter::new(file)),
            path: path.to_path_buf(),
        })
    }

    /// A new plain file as [`create`](Self::create) makes it, or a stream that is there.
    ///
    /// # Errors
    /// As [`create`](Self::create); when the stream cannot be opened.
    pub(crate) fn open(place: &FilePlace) -> Result<Self> {
        let path = match place {
            FilePlace::Plain(path) => return Self::create(path),
            FilePlace::Stream(path) => path,
        };
        let file = File::options().write(true).open(path);
        Ok(Self {
            file: Target::Stream(BufWriter::new(file.map_err(Error::io("open", path))?)),
            path: path.clone(),
        })
    }

    /// Adds `bytes` at the end.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = match &mut self.file {
            Target::Beside(file) => file.write_all(bytes),
            Target::Stream(file) => file.write_all(bytes),
        };
        written.map_err(Error::io("write", &self.path))
    }

    /// Gives the file its name, in place of what may have it.
    ///
    /// # Errors
    /// When the rest cannot be written or the name not be given.
    pub(crate) fn finish(self) -> Result<()> {
        let path = &self.path;
        let file = match self.file {
            Target::Stream(mut file) => return file.flush().map_err(Error::io("write", path)),
            Target::Beside(file) => file,
        };
        let file = file
            .into_inner()
            .map_err(|e| Error::io("write", path)(e.into_error()))?;
        file.as_file().sync_all().map_err(Error::io("write", path))?;
        file.persist(path)
            .map_err(|e| Error::io("create", path)(e.error))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_is_not_finished_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "old").unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        file.write(b"new").unwrap();
        drop(file);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);

        let mut file = AtomicFile::create(&path).unwrap();
        file.write(b"new").unwrap();
        file.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(AtomicFile::create(&folder.path().join("none/file")).is_err());
    }
}
