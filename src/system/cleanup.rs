//! What must vanish when the process is told to stop. In: folders under construction, as they are made and finished. Out:
//! one call, for the program's signal handling, that removes those that are left.
//!
//! One lock decides: whoever holds it is not interrupted, so that a folder is either registered or not there, and an
//! output either the old one or the new one.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

static PENDING: Mutex<Vec<Pending>> = Mutex::new(Vec::new());

/// A folder to remove, and the empty folders that were made to hold it, outermost first.
#[derive(Debug)]
struct Pending {
    id: u64,
    folder: PathBuf,
    parents: Vec<PathBuf>,
}

/// While it lives, the process is not interrupted.
#[derive(Debug)]
pub(crate) struct Hold(MutexGuard<'static, Vec<Pending>>);

/// A folder's entry; dropped, the folder is nobody's concern any more.
#[derive(Debug)]
pub(crate) struct Registration(u64);

/// Waits until nobody else is in the middle of a change, and keeps interruptions out until the result is dropped. Not to be
/// called by whoever holds one already.
pub(crate) fn hold() -> Hold {
    Hold(PENDING.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Hold {
    /// From now on an interruption removes `folder` with all that is in it, and then those of `parents` that are empty.
    pub(crate) fn register(&mut self, folder: &Path, parents: &[PathBuf]) -> Registration {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        self.0.push(Pending {
            id,
            folder: folder.to_path_buf(),
            parents: parents.to_vec(),
        });
        Registration(id)
    }

    /// Removes everything registered, newest first, and gives the folders that could not be removed.
    pub(crate) fn remove_all(&mut self) -> Vec<PathBuf> {
        let mut left = Vec::new();
        while let Some(pending) = self.0.pop() {
            if remove(&pending.folder) {
                for parent in pending.parents.iter().rev() {
                    if std::fs::remove_dir(parent).is_err() {
                        break;
                    }
                }
            } else {
                left.push(pending.folder);
            }
        }
        left
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        hold().0.retain(|pending| pending.id != self.0);
    }
}

/// Removes a folder that other threads may still be writing into. It gets another name first: what they put under the old
/// one from then on fails, so that the removal meets a folder that grows no more.
fn remove(folder: &Path) -> bool {
    let mut name = folder.file_name().unwrap_or_default().to_os_string();
    name.push(".removed");
    let renamed = folder.with_file_name(name);
    let moved = std::fs::rename(folder, &renamed).is_ok();
    let doomed = if moved { &renamed } else { folder };
    // Whoever looked the folder up before it was renamed may still add a file to it once.
    const TRIES: usize = 100;
    for _ in 0..TRIES {
        match std::fs::remove_dir_all(doomed) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            _ => return true,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_is_registered_goes_and_what_is_finished_stays() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for name in ["new/parent/begun", "kept", "shared/begun"] {
            fs::create_dir_all(at(name)).unwrap();
            fs::write(at(name).join("file"), "x").unwrap();
        }
        fs::write(at("shared/other"), "x").unwrap();
        // A list of its own, so that the tests of other modules keep their folders.
        static LIST: Mutex<Vec<Pending>> = Mutex::new(Vec::new());
        let mut hold = Hold(LIST.lock().unwrap());
        let parents = [at("new"), at("new/parent")];
        std::mem::forget(hold.register(&at("new/parent/begun"), &parents));
        std::mem::forget(hold.register(&at("shared/begun"), &[at("shared")]));
        std::mem::forget(hold.register(&at("never made"), &[]));
        assert_eq!(hold.remove_all(), Vec::<PathBuf>::new());
        assert!(!at("new").exists() && at("kept/file").exists());
        assert!(!at("shared/begun").exists() && at("shared/other").exists());
        drop(hold);

        let registration = super::hold().register(&at("kept"), &[]);
        let id = registration.0;
        assert!(super::hold().0.iter().any(|pending| pending.id == id));
        drop(registration);
        assert!(super::hold().0.iter().all(|pending| pending.id != id));
    }

    #[test]
    fn a_folder_that_is_still_written_to_goes() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("begun");
        fs::create_dir(&folder).unwrap();
        let writer = {
            let folder = folder.clone();
            std::thread::spawn(move || {
                let mut written = 0usize;
                while fs::write(folder.join(format!("{written}")), "x").is_ok() {
                    written += 1;
                }
                written
            })
        };
        while fs::read_dir(&folder).unwrap().count() < 10 {
            std::thread::yield_now();
        }
        assert!(remove(&folder));
        assert!(writer.join().unwrap() >= 10);
        assert!(!folder.exists());
    }
}
