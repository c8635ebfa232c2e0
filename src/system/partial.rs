//! A folder under construction, beside its final place or within it. Dropped before it is published, or when the program is
//! interrupted, it vanishes with everything made for it.

use super::cleanup::{self, Hold, Registration};
use crate::error::{Error, Result};
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};

/// The folder, and the parent folders that were made to hold it.
#[derive(Debug)]
pub(crate) struct PartialFolder {
    /// Held while the process lives; `None` where folders cannot be locked.
    lock: Option<File>,
    // Dropped in this order: the folder before the parents that hold it, and what knows of them last.
    folder: Folder,
    made: MadeParents,
    registration: Option<Registration>,
}

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    /// Whether it goes when it is dropped.
    temporary: bool,
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.temporary {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// Parent folders that did not exist, outermost first.
#[derive(Debug, Default)]
struct MadeParents(Vec<PathBuf>);

impl Drop for MadeParents {
    fn drop(&mut self) {
        for parent in self.0.iter().rev() {
            // Only removed while empty; whatever somebody else put there keeps it.
            if std::fs::remove_dir(parent).is_err() {
                break;
            }
        }
    }
}

impl PartialFolder {
    /// Makes `<name>.partial-<random>` in `parent`, which is made too where it is missing.
    pub(crate) fn create(parent: &Path, name: &OsStr) -> Result<Self> {
        let mut prefix = name.to_os_string();
        prefix.push(".partial-");
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix);
        // Temporary folders are private by default; this one becomes the user's, so the umask decides.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
        let mut made = MadeParents::default();
        let mut hold = cleanup::hold();
        make_parents(parent, &mut made)?;
        for left in left_behind(parent, &prefix.to_string_lossy()) {
            tracing::warn!(
                "`{}` was left by an earlier run that was killed. If it was `prune`, the same command with --resume goes on there. \
                 Otherwise it can be removed",
                left.display()
            );
        }
        let folder = builder
            .tempdir_in(parent)
            .map_err(Error::io("create a folder in", parent))?;
        let path = folder.keep();
        let registration = hold.register(&path, &made.0);
        Ok(Self {
            lock: lock(&path),
            folder: Folder {
                path,
                temporary: true,
            },
            made,
            registration: Some(registration),
        })
    }

    /// Takes over a folder that an ended process has left; it stays if this one ends early too.
    pub(crate) fn adopt(path: PathBuf) -> Self {
        Self {
            lock: lock(&path),
            folder: Folder {
                path,
                temporary: false,
            },
            made: MadeParents::default(),
            registration: None,
        }
    }

    /// From now on the folder stays where it is if the run fails or is interrupted.
    pub(crate) fn keep(&mut self) {
        self.folder.temporary = false;
        self.made.0.clear();
        self.registration = None;
    }

    /// The folder to build in.
    pub(crate) fn path(&self) -> &Path {
        &self.folder.path
    }

    /// What makes its name unlike any other.
    pub(crate) fn random(&self) -> String {
        let name = self.path().file_name().unwrap_or_default().to_string_lossy();
        let random = name.rsplit_once(".partial-").map_or("", |(_, random)| random);
        random.to_owned()
    }

    /// Keeps what was made: `publish` has just moved the folder to its place, uninterrupted.
    pub(crate) fn publish(mut self, publish: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        // Some systems do not move a folder that is open.
        self.lock = None;
        let hold: Hold = cleanup::hold();
        let published = publish(&self.folder.path);
        if published.is_ok() {
            self.folder.temporary = false;
            self.made.0.clear();
        }
        // The registration ends below, and takes the lock for that.
        drop(hold);
        published
    }
}

/// A lock on the folder, which says that its process lives.
fn lock(folder: &Path) -> Option<File> {
    let file = File::open(folder).ok()?;
    file.try_lock().ok().map(|()| file)
}

/// Folders under construction whose processes have ended.
fn left_behind(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let mut left: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .filter(|path| path.is_dir() && lock(path).is_some())
        .collect();
    left.sort_unstable();
    left
}

fn make_parents(parent: &Path, made: &mut MadeParents) -> Result<()> {
    let missing: Vec<&Path> = parent
        .ancestors()
        .take_while(|p| !p.as_os_str().is_empty() && !p.exists())
        .collect();
    for folder in missing.into_iter().rev() {
        match std::fs::create_dir(folder) {
            Ok(()) => made.0.push(folder.to_path_buf()),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(Error::io("create", folder)(source)),
        }
    }
    Ok(())
}
