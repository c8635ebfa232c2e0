//! A path that a command was told to write. In: the path, whether something there may be replaced, and what the same command
//! reads. Out: the real path to write to, or why nothing may be written there. Every output of every command passes here.

use super::error::DestinationError;
use crate::error::{Error, Result};
use std::fs::{FileType, Metadata};
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

/// A path to write to, with what must stay as it is.
#[derive(Debug, Clone)]
pub struct Destination {
    path: PathBuf,
    overwrite: bool,
    inputs: Vec<PathBuf>,
}

/// A file to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FilePlace {
    /// A plain file, new or to be replaced.
    Plain(PathBuf),
    /// A pipe, a terminal, `/dev/null`: it is written to and stays.
    Stream(PathBuf),
}

impl Destination {
    /// The path; with `overwrite`, a file or a checkpoint that is there may be replaced.
    pub fn new(path: impl Into<PathBuf>, overwrite: bool) -> Self {
        Self {
            path: path.into(),
            overwrite,
            inputs: Vec::new(),
        }
    }

    /// Adds something that the same command reads: a file, or a folder with all that is in it. What does not exist is
    /// nobody's loss.
    #[must_use]
    pub fn apart_from(mut self, input: impl AsRef<Path>) -> Self {
        let input = input.as_ref();
        self.inputs.extend(input.canonicalize());
        // Files of the hub's cache are links out of their folder.
        let entries = std::fs::read_dir(input).into_iter().flatten().flatten();
        let links = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink()));
        self.inputs
            .extend(links.filter_map(|link| link.path().canonicalize().ok()));
        self
    }

    /// As [`apart_from`](Self::apart_from), for several.
    #[must_use]
    pub fn apart_from_all(self, inputs: impl IntoIterator<Item = impl AsRef<Path>>) -> Self {
        inputs.into_iter().fold(self, Self::apart_from)
    }

    /// Whether what is there may be replaced.
    pub fn overwrite(&self) -> bool {
        self.overwrite
    }

    /// The real path of a plain file to write.
    ///
    /// # Errors
    /// When something else is there; when a file is there and is not to be replaced; when it lies in an input, or is one.
    pub(crate) fn file(&self) -> Result<PathBuf> {
        match self.file_or_stream()? {
            FilePlace::Plain(path) => Ok(path),
            FilePlace::Stream(path) => {
                let kind = "no plain file";
                Err(DestinationError::Kind { path, kind }.into())
            }
        }
    }

    /// As [`file`](Self::file), for what can go into a pipe or a terminal as well.
    ///
    /// # Errors
    /// As [`file`](Self::file).
    pub(crate) fn file_or_stream(&self) -> Result<FilePlace> {
        let stream = || Ok(FilePlace::Stream(self.path.clone()));
        if is_open_file(&self.path) {
            return stream();
        }
        let path = self.resolved()?;
        let Some(there) = metadata(&path)? else {
            return Ok(FilePlace::Plain(path));
        };
        let kind = there.file_type();
        if kind.is_file() {
            return match self.overwrite {
                true => Ok(FilePlace::Plain(path)),
                false => Err(DestinationError::Exists {
                    path: self.path.clone(),
                }
                .into()),
            };
        }
        match special(kind) {
            None => stream(),
            Some(kind) => Err(self.kind(kind)),
        }
    }

    /// The real path of a folder to make, in place of what is there where that may be replaced: an empty folder, or one that
    /// `replaceable` has nothing against.
    ///
    /// # Errors
    /// When something is there that is not to be replaced; when the folder lies in an input, or holds one.
    pub(crate) fn folder(&self, replaceable: impl FnOnce(&Path) -> Result<(), String>) -> Result<PathBuf> {
        let path = self.resolved()?;
        let Some(there) = metadata(&path)? else {
            return Ok(path);
        };
        if std::env::current_dir()
            .and_then(|current| current.canonicalize())
            .is_ok_and(|current| current.starts_with(&path))
        {
            let path = self.path.clone();
            return Err(DestinationError::Current { path }.into());
        }
        let refuse = |reason: String| {
            let path = self.path.clone();
            Error::from(DestinationError::NotReplaced { path, reason })
        };
        if !there.is_dir() {
            return Err(refuse("is no folder".into()));
        }
        if !self.overwrite {
            let path = self.path.clone();
            return Err(DestinationError::Exists { path }.into());
        }
        let mut entries = std::fs::read_dir(&path).map_err(Error::io("read", &path))?;
        if entries.next().is_some() {
            replaceable(&path).map_err(refuse)?;
        }
        Ok(path)
    }

    /// The real path of a folder that files are put into, beside those that are there. None of `files` may be there already,
    /// unless it is to be replaced.
    ///
    /// # Errors
    /// When it is no folder; when it has one of the files; when it lies in an input, or holds one.
    pub(crate) fn shared_folder(&self, files: impl IntoIterator<Item = String>) -> Result<PathBuf> {
        let path = self.resolved()?;
        if metadata(&path)?.is_some_and(|there| !there.is_dir()) {
            return Err(self.kind("no folder"));
        }
        for name in files {
            let path = path.join(name);
            let replaced = match metadata(&path)? {
                None => true,
                Some(there) => self.overwrite && there.is_file(),
            };
            if !replaced {
                return Err(DestinationError::Exists { path }.into());
            }
        }
        Ok(path)
    }

    /// Where the path leads, whether it exists or not, apart from all inputs.
    fn resolved(&self) -> Result<PathBuf> {
        let path = resolve(&self.path)?;
        let overlaps = |input: &&PathBuf| path.starts_with(input) || input.starts_with(&path);
        match self.inputs.iter().find(overlaps) {
            None => Ok(path),
            Some(input) => Err(DestinationError::Overlaps {
                output: self.path.clone(),
                input: input.clone(),
            }
            .into()),
        }
    }

    fn kind(&self, kind: &'static str) -> Error {
        let path = self.path.clone();
        DestinationError::Kind { path, kind }.into()
    }
}

/// A path's real form, whether it exists or not: links and `..` resolved as far as it exists, and the last link's target where that
/// does not exist.
///
/// # Errors
/// When the system cannot follow it, or links lead in a circle.
fn resolve(output: &Path) -> Result<PathBuf> {
    const LINKS: usize = 40;
    let mut absolute = std::path::absolute(output).map_err(Error::io("resolve", output))?;
    for _ in 0..LINKS {
        let path = existing(&absolute);
        match std::fs::read_link(&path) {
            Ok(target) => absolute = path.parent().unwrap_or(Path::new("/")).join(target),
            Err(_) => return Ok(path),
        }
    }
    let path = output.to_path_buf();
    Err(DestinationError::Link { path }.into())
}

fn existing(absolute: &Path) -> PathBuf {
    let mut real = PathBuf::new();
    for component in absolute.components() {
        match component {
            // What is there has no link in it by now, so that this is its parent.
            Component::ParentDir => drop(real.pop()),
            other => real.push(other),
        }
        if let Ok(found) = real.canonicalize() {
            real = found;
        }
    }
    real
}

fn metadata(path: &Path) -> Result<Option<Metadata>> {
    match std::fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(Error::io("look at", path)(e)),
    }
}

/// Whether it is a file that this process has open already, such as `/dev/stdout`.
fn is_open_file(path: &Path) -> bool {
    let is = |path: &Path| {
        ["/dev/fd", "/proc/self/fd"]
            .iter()
            .any(|folder| path.parent() == Some(Path::new(folder)))
            || ["/dev/stdout", "/dev/stderr"]
                .iter()
                .any(|name| path == Path::new(name))
    };
    cfg!(unix) && is(path)
}

/// What cannot be written to like a stream.
fn special(kind: FileType) -> Option<&'static str> {
    if kind.is_dir() {
        return Some("a folder");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_block_device() {
            return Some("a disk or another block device");
        }
        if kind.is_socket() {
            return Some("a socket");
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn refused(result: Result<impl std::fmt::Debug>) -> DestinationError {
        match result {
            Err(Error::Destination(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn files() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let at = |name: &str| root.join(name);
        fs::create_dir(at("model")).unwrap();
        fs::write(at("model/weights"), "w").unwrap();
        fs::write(at("there"), "t").unwrap();
        let file = |name: &str, overwrite| {
            Destination::new(at(name), overwrite)
                .apart_from(at("model"))
                .apart_from(at("not there"))
                .file()
        };
        assert_eq!(file("new", false).unwrap(), at("new"));
        assert_eq!(file("a/../new/file", false).unwrap(), at("new/file"));
        assert!(matches!(
            refused(file("there", false)),
            DestinationError::Exists { .. }
        ));
        assert_eq!(file("there", true).unwrap(), at("there"));
        for inside in ["model/weights", "model/new", "model", "there/../model/x"] {
            assert!(
                matches!(refused(file(inside, true)), DestinationError::Overlaps { .. }),
                "{inside}"
            );
        }
        let parent = Destination::new(&root, true).apart_from(at("model")).file();
        assert!(matches!(refused(parent), DestinationError::Overlaps { .. }));
        fs::create_dir(at("folder")).unwrap();
        assert!(matches!(
            refused(file("folder", true)),
            DestinationError::Kind { .. }
        ));
    }

    #[test]
    #[cfg(unix)]
    fn links_and_streams() {
        use std::os::unix::fs::symlink;
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let at = |name: &str| root.join(name);
        fs::create_dir(at("model")).unwrap();
        fs::write(at("blob"), "w").unwrap();
        fs::write(at("there"), "t").unwrap();
        for (target, link) in [
            ("../blob", "model/weights"),
            ("there", "to there"),
            ("not yet", "to nothing"),
            ("model/new", "into the model"),
            ("circle", "circle"),
        ] {
            symlink(target, at(link)).unwrap();
        }
        let new = |name: &str, overwrite| Destination::new(at(name), overwrite).apart_from(at("model"));
        assert_eq!(new("to there", true).file().unwrap(), at("there"));
        assert!(matches!(
            refused(new("to there", false).file()),
            DestinationError::Exists { .. }
        ));
        assert_eq!(new("to nothing", false).file().unwrap(), at("not yet"));
        for inside in ["into the model", "blob"] {
            assert!(matches!(
                refused(new(inside, true).file()),
                DestinationError::Overlaps { .. }
            ));
        }
        assert!(matches!(
            refused(new("circle", true).file()),
            DestinationError::Link { .. }
        ));
        let null = Destination::new("/dev/null", false);
        assert_eq!(
            null.file_or_stream().unwrap(),
            FilePlace::Stream("/dev/null".into())
        );
        assert!(matches!(refused(null.file()), DestinationError::Kind { .. }));
        let out = Destination::new("/dev/stdout", false).file_or_stream();
        assert_eq!(out.unwrap(), FilePlace::Stream("/dev/stdout".into()));
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        assert!(matches!(
            refused(new("socket", true).file_or_stream()),
            DestinationError::Kind { .. }
        ));
    }

    #[test]
    fn folders() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let at = |name: &str| root.join(name);
        for folder in ["model", "empty", "full"] {
            fs::create_dir(at(folder)).unwrap();
        }
        fs::write(at("full/file"), "").unwrap();
        fs::write(at("plain"), "").unwrap();
        fs::write(at("data.txt"), "").unwrap();
        let folder = |name: &str, overwrite| {
            Destination::new(at(name), overwrite)
                .apart_from_all([at("model"), at("data.txt")])
                .folder(|_| Err("holds `file`".into()))
        };
        assert_eq!(folder("new", false).unwrap(), at("new"));
        assert!(matches!(
            refused(folder("empty", false)),
            DestinationError::Exists { .. }
        ));
        assert_eq!(folder("empty", true).unwrap(), at("empty"));
        for taken in ["full", "plain"] {
            assert!(matches!(
                refused(folder(taken, true)),
                DestinationError::NotReplaced { .. }
            ));
        }
        for overlap in ["", "model", "model/new", "data.txt"] {
            assert!(matches!(
                refused(folder(overlap, true)),
                DestinationError::Overlaps { .. }
            ));
        }
        let current = Destination::new(".", true).folder(|_| Ok(()));
        assert!(matches!(refused(current), DestinationError::Current { .. }));

        let shared =
            |overwrite| Destination::new(at("full"), overwrite).shared_folder(["file".into(), "new".into()]);
        assert!(matches!(refused(shared(false)), DestinationError::Exists { .. }));
        assert_eq!(shared(true).unwrap(), at("full"));
        let shared = Destination::new(at("plain"), true).shared_folder([]);
        assert!(matches!(refused(shared), DestinationError::Kind { .. }));
    }
}
