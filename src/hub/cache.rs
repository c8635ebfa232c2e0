//! The cache on disk: one repository's folder. In: commits, etags and names. Out: paths; `fetch` fills it.

use super::error::Result;
use super::{HubError, Repo, RepoKind};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

/// A repository's folder in the cache.
#[derive(Debug)]
pub(crate) struct RepoCache {
    folder: PathBuf,
    locks: PathBuf,
}

impl RepoCache {
    pub(crate) fn new(root: &Path, repo: &Repo) -> Self {
        let kind = match repo.kind {
            RepoKind::Model => "models",
            RepoKind::Dataset => "datasets",
        };
        let name = format!("{kind}--{}", repo.name.replace('/', "--"));
        Self {
            folder: root.join(&name),
            locks: root.join(".locks").join(&name),
        }
    }

    /// The commit that a revision stood at when it was last asked for.
    pub(crate) fn commit_of(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let text = std::fs::read_to_string(self.folder.join("refs").join(revision)).ok()?;
        Some(text.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    /// Notes the commit that a revision stands at.
    pub(crate) fn remember(&self, revision: &str, commit: &str) -> Result<()> {
        if self.commit_of(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let file = self.folder.join("refs").join(revision);
        replace(&file, |partial| std::fs::write(partial, commit))
    }

    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// A file of a snapshot, where it is complete.
    pub(crate) fn file(&self, commit: &str, name: &str) -> Option<PathBuf> {
        let path = self.snapshot(commit).join(name);
        path.is_file().then_some(path)
    }

    /// Names of a snapshot's complete files, sorted, with `/` between folders.
    pub(crate) fn files(&self, commit: &str) -> Vec<String> {
        let mut names = Vec::new();
        let mut left = vec![(self.snapshot(commit), String::new())];
        while let Some((folder, prefix)) = left.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let Ok(name) = entry.file_name().into_string() else {
                    continue;
                };
                let (path, name) = (entry.path(), format!("{prefix}{name}"));
                if path.is_dir() {
                    left.push((path, format!("{name}/")));
                } else if path.is_file() {
                    names.push(name);
                }
            }
        }
        names.sort();
        names
    }

    pub(crate) fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// Waits until no other process downloads the same contents, and keeps others waiting until it is dropped.
    pub(crate) fn lock(&self, etag: &str) -> Result<File> {
        let path = self.locks.join(format!("{etag}.lock"));
        make_parent(&path)?;
        let file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(HubError::io("create", &path))?;
        let held = match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                tracing::warn!("waiting for another process that downloads the same file");
                file.lock()
            }
            Err(TryLockError::Error(error)) => Err(error),
            Ok(()) => Ok(()),
        };
        match held {
            // File systems without locks are left to the user's care, as in other programs that share the cache.
            Err(e) if e.kind() != std::io::ErrorKind::Unsupported => Err(HubError::io("lock", &path)(e)),
            _ => Ok(file),
        }
    }

    /// Makes complete contents appear as a snapshot's file: a relative link, or a copy where links cannot be made.
    pub(crate) fn link(&self, etag: &str, commit: &str, name: &str) -> Result<PathBuf> {
        let path = self.snapshot(commit).join(name);
        let up = "../".repeat(2 + name.matches('/').count());
        let target = format!("{up}blobs/{etag}");
        replace(&path, |partial| symlink(&target, partial, &self.blob(etag)))?;
        Ok(path)
    }
}

/// Whether a revision is a full commit, which never changes its meaning.
pub(crate) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|b| b.is_ascii_hexdigit())
}

pub(crate) fn make_parent(path: &Path) -> Result<&Path> {
    let parent = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(HubError::io("create", parent))?;
    Ok(parent)
}

/// Puts what `make` makes in the place of a file, in one step.
fn replace(path: &Path, make: impl FnMut(&Path) -> std::io::Result<()>) -> Result<()> {
    let made = tempfile::Builder::new()
        .prefix(".new-")
        .make_in(make_parent(path)?, make);
    let made = made.map_err(HubError::io("write", path))?;
    let persisted = made.into_temp_path().persist(path);
    persisted.map_err(|e| HubError::io("create", path)(e.error))
}

#[cfg(unix)]
fn symlink(target: &str, path: &Path, _blob: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

/// Links need a privilege on Windows that not everybody has.
#[cfg(windows)]
fn symlink(target: &str, path: &Path, blob: &Path) -> std::io::Result<()> {
    std::os::windows::fs::symlink_file(target.replace('/', "\\"), path)
        .or_else(|_| std::fs::copy(blob, path).map(|_| ()))
}

#[cfg(not(any(unix, windows)))]
fn symlink(_target: &str, path: &Path, blob: &Path) -> std::io::Result<()> {
    std::fs::copy(blob, path).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn links_and_references() {
        let root = tempfile::tempdir().unwrap();
        let cache = RepoCache::new(root.path(), &Repo::model("a/b").unwrap());
        assert_eq!(cache.folder, root.path().join("models--a--b"));
        assert_eq!(cache.commit_of("main"), None);
        assert_eq!(cache.commit_of(COMMIT).as_deref(), Some(COMMIT));
        cache.remember("refs/convert/x", COMMIT).unwrap();
        assert_eq!(cache.commit_of("refs/convert/x").as_deref(), Some(COMMIT));
        let blob = cache.blob("tag");
        make_parent(&blob).unwrap();
        std::fs::write(&blob, "text").unwrap();
        for name in ["x.txt", "deep/er/y.txt"] {
            assert_eq!(cache.file(COMMIT, name), None);
            let path = cache.link("tag", COMMIT, name).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), "text");
            assert_eq!(cache.file(COMMIT, name), Some(path));
            // A second process may have been faster.
            cache.link("tag", COMMIT, name).unwrap();
        }
        assert_eq!(cache.files(COMMIT), ["deep/er/y.txt", "x.txt"]);
        // A link whose contents somebody removed is no file.
        std::fs::remove_file(&blob).unwrap();
        assert_eq!(cache.file(COMMIT, "x.txt"), None);
        assert!(cache.files(COMMIT).is_empty());
        drop(cache.lock("tag").unwrap());
        drop(cache.lock("tag").unwrap());
    }
}
