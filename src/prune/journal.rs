//! What a run has finished so far, kept beside its unfinished output, so that another process can go on where one was killed.
//!
//! A file of JSON lines: first what the run is ([`identity`](Journal::begin)), then a line for every finished layer, written
//! after the layer's weights have reached the disk. A line that was cut off is a layer that is not finished. The process that
//! writes holds a lock on the file, which the system lifts when the process ends in whatever way.

use super::allocation::Allocated;
use crate::checkpoint::JOURNAL;
use crate::error::{Error, PruneError, Result};
use crate::report::{LayerSeconds, OperatorReport};
use crate::structured::Decided;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Version of the lines; a run is only continued by a program that writes the same.
const VERSION: u32 = 1;

/// A layer that needs no more work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct FinishedLayer {
    pub(crate) layer: usize,
    pub(crate) operators: Vec<OperatorReport>,
    pub(crate) seconds: LayerSeconds,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Run {
        version: u32,
        identity: Value,
        /// The unfinished folder of statistics, where they are saved.
        statistics: Option<PathBuf>,
    },
    /// Who gets which zeros, where that was measured.
    Allocated(Allocated),
    /// The losses of the masks of one step of a search.
    Losses(Vec<f64>),
    /// What structured pruning was decided on.
    Decided(Decided),
    Layer(FinishedLayer),
}

/// A journal that this process writes. It goes with its folder.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    path: PathBuf,
}

/// What an earlier run has left.
#[derive(Debug, Default)]
pub(crate) struct Earlier {
    pub(crate) allocated: Option<Allocated>,
    pub(crate) statistics: Option<PathBuf>,
    /// By step.
    pub(crate) losses: Vec<Vec<f64>>,
    pub(crate) decided: Option<Decided>,
    layers: BTreeMap<usize, FinishedLayer>,
}

impl Earlier {
    /// The finished layers from the first of `span` on, without a gap.
    pub(crate) fn finished(self, span: &Range<usize>) -> Vec<FinishedLayer> {
        let mut layers = self.layers;
        span.clone().map_while(|layer| layers.remove(&layer)).collect()
    }
}

/// A folder with a journal in it.
enum Found {
    /// Its process lives.
    Busy,
    /// It ended before any work was done.
    Unbegun,
    Begun {
        journal: Journal,
        identity: Value,
        earlier: Box<Earlier>,
    },
}

impl Journal {
    /// A new, locked journal in a new folder.
    pub(crate) fn create(folder: &Path) -> Result<Self> {
        let path = folder.join(JOURNAL);
        let file = File::create_new(&path).map_err(Error::io("create", &path))?;
        // Of a file that nobody else knows yet; where the file system has no locks, nobody is kept out either.
        let _ = file.try_lock();
        Ok(Self { file, path })
    }

    /// Says what the run is. From here on it can be continued.
    pub(crate) fn begin(&mut self, identity: &Value, statistics: Option<&Path>) -> Result<()> {
        self.write(&Line::Run {
            version: VERSION,
            identity: identity.clone(),
            statistics: statistics.map(Path::to_path_buf),
        })
    }

    /// Keeps what an allocation has measured.
    pub(crate) fn allocated(&mut self, allocated: &Allocated) -> Result<()> {
        self.write(&Line::Allocated(allocated.clone()))
    }

    /// Keeps what a step of a search has measured.
    pub(crate) fn losses(&mut self, losses: &[f64]) -> Result<()> {
        self.write(&Line::Losses(losses.to_vec()))
    }

    /// Keeps what structured pruning was decided on.
    pub(crate) fn decided(&mut self, decided: &Decided) -> Result<()> {
        self.write(&Line::Decided(decided.clone()))
    }

    /// A layer is finished and on the disk.
    pub(crate) fn layer(&mut self, layer: FinishedLayer) -> Result<()> {
        self.write(&Line::Layer(layer))
    }

    /// The run is over, and the folder about to be what it was made for.
    pub(crate) fn remove(self) -> Result<()> {
        drop(self.file);
        std::fs::remove_file(&self.path).map_err(Error::io("remove", &self.path))
    }

    fn write(&mut self, line: &Line) -> Result<()> {
        let mut bytes = serde_json::to_vec(line)
            .map_err(|e| Error::internal(format!("the journal's line is no JSON: {e}")))?;
        bytes.push(b'\n');
        let written = self.file.write_all(&bytes).and_then(|()| self.file.sync_data());
        written.map_err(Error::io("write", &self.path))
    }

    /// Opens the journal that another process has left in `folder`; `None` where there is none.
    fn open(folder: &Path) -> Result<Option<Found>> {
        let path = folder.join(JOURNAL);
        let mut file = match File::options().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("open", &path)(e)),
        };
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            return Ok(Some(Found::Busy));
        }
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(Error::io("read", &path))?;
        let mut whole = 0;
        let mut begun = None;
        let mut earlier = Earlier::default();
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            // The last line may have been cut off.
            let Some(line) = line.strip_suffix(b"\n") else {
                break;
            };
            match serde_json::from_slice::<Line>(line) {
                Ok(Line::Run {
                    version: VERSION,
                    identity,
                    statistics,
                }) => {
                    begun = Some(identity);
                    earlier.statistics = statistics;
                }
                Ok(Line::Losses(losses)) => earlier.losses.push(losses),
                Ok(Line::Decided(decided)) => earlier.decided = Some(decided),
                Ok(Line::Allocated(allocated)) => earlier.allocated = Some(allocated),
                Ok(Line::Layer(layer)) => {
                    earlier.layers.insert(layer.layer, layer);
                }
                Ok(Line::Run { .. }) | Err(_) => {
                    return Err(Error::from(PruneError::Resume {
                        folder: folder.to_path_buf(),
                        reason: "its journal was written by another version of this program, or is damaged"
                            .into(),
                    }));
                }
            }
            whole += line.len() as u64 + 1;
        }
        let Some(identity) = begun else {
            return Ok(Some(Found::Unbegun));
        };
        let cut = file
            .set_len(whole)
            .and_then(|()| file.seek(SeekFrom::Start(whole)).map(drop));
        cut.map_err(Error::io("write", &path))?;
        Ok(Some(Found::Begun {
            journal: Self { file, path },
            identity,
            earlier: Box::new(earlier),
        }))
    }

    /// Looks in `parent` for the folder `<name>.partial-…` that a run with the same identity has left. Folders of runs that
    /// ended before they had begun are removed.
    ///
    /// # Errors
    /// When a process is still at work there, or when what is there was begun with something else: the error says what.
    pub(crate) fn find(
        parent: &Path,
        name: &str,
        identity: &Value,
    ) -> Result<Option<(PathBuf, Self, Earlier)>> {
        let prefix = format!("{name}.partial-");
        let entries = match std::fs::read_dir(parent) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("read", parent)(e)),
        };
        let mut folders = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::io("read", parent))?;
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                folders.push(entry.path());
            }
        }
        folders.sort_unstable();
        let mut other = None;
        for folder in folders {
            match Self::open(&folder)? {
                None => {}
                Some(Found::Busy) => {
                    return Err(Error::from(PruneError::Busy { folder }));
                }
                Some(Found::Unbegun) => {
                    std::fs::remove_dir_all(&folder).map_err(Error::io("remove", &folder))?;
                }
                Some(Found::Begun {
                    journal,
                    identity: theirs,
                    earlier,
                }) => match difference(&theirs, identity) {
                    None => return Ok(Some((folder, journal, *earlier))),
                    Some(difference) => other = Some((folder, difference)),
                },
            }
        }
        match other {
            None => Ok(None),
            Some((folder, difference)) => Err(Error::from(PruneError::Resume {
                folder,
                reason: format!("that run was begun with another {difference}"),
            })),
        }
    }
}

/// The first thing in which two runs differ, as `key: theirs, ours`; `None` where they are the same. A setting goes before the
/// hashes that follow from it.
pub(crate) fn difference(theirs: &Value, ours: &Value) -> Option<String> {
    let mut all = Vec::new();
    differences(theirs, ours, "", &mut all);
    let first = all.iter().position(|(_, hash)| !hash).unwrap_or(0);
    (first < all.len()).then(|| all.swap_remove(first).0)
}

/// Every difference, and whether it is one of hashes.
fn differences(theirs: &Value, ours: &Value, place: &str, all: &mut Vec<(String, bool)>) {
    match (theirs, ours) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let (theirs, ours) = (a.get(key), b.get(key));
                let deeper = if place.is_empty() {
                    key.clone()
                } else {
                    format!("{place}.{key}")
                };
                let (theirs, ours) = (theirs.unwrap_or(&Value::Null), ours.unwrap_or(&Value::Null));
                differences(theirs, ours, &deeper, all);
            }
        }
        _ if theirs == ours => {}
        _ => {
            let hash = |value: &Value| value.as_str().is_some_and(|text| text.len() == 64);
            let difference = format!("{place}: {theirs} there, {ours} here");
            all.push((difference, hash(theirs) || hash(ours)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn layer(layer: usize) -> FinishedLayer {
        FinishedLayer {
            layer,
            operators: Vec::new(),
            seconds: LayerSeconds {
                layer,
                ..LayerSeconds::default()
            },
        }
    }

    fn folder(root: &Path, name: &str) -> PathBuf {
        let folder = root.join(name);
        std::fs::create_dir(&folder).unwrap();
        folder
    }

    #[test]
    fn a_killed_run_is_found_with_its_whole_lines() {
        let root = tempfile::tempdir().unwrap();
        let identity = json!({ "model": "a", "settings": { "sparsity": "2:4", "seed": 0 } });
        let killed = folder(root.path(), "out.partial-abc");
        let mut journal = Journal::create(&killed).unwrap();
        journal.begin(&identity, None).unwrap();
        for number in [0, 1, 3] {
            journal.layer(layer(number)).unwrap();
        }
        journal.file.write_all(b"{\"layer\":{\"layer\":2").unwrap();
        // As long as the process lives, nobody goes on with it.
        let find = |identity: &Value| Journal::find(root.path(), "out", identity);
        assert!(find(&identity).unwrap_err().to_string().contains("is writing"));
        drop(journal);

        let (found, mut journal, earlier) = find(&identity).unwrap().unwrap();
        assert_eq!(found, killed);
        let numbers: Vec<usize> = earlier.finished(&(0..5)).iter().map(|l| l.layer).collect();
        assert_eq!(numbers, [0, 1]);
        // The cut line is gone, so that the next one is whole.
        journal.layer(layer(2)).unwrap();
        drop(journal);
        let (_, _, earlier) = find(&identity).unwrap().unwrap();
        assert_eq!(earlier.finished(&(1..9)).len(), 3);

        let other = json!({ "model": "a", "settings": { "sparsity": "2:4", "seed": 7 } });
        let message = find(&other).unwrap_err().to_string();
        assert!(message.contains("settings.seed: 0 there, 7 here"), "{message}");
        assert!(
            Journal::find(root.path(), "elsewhere", &identity)
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn what_ended_before_it_began_goes_and_foreign_folders_stay() {
        let root = tempfile::tempdir().unwrap();
        let unbegun = folder(root.path(), "out.partial-abc");
        drop(Journal::create(&unbegun).unwrap());
        let foreign = folder(root.path(), "out.partial-mine");
        assert!(Journal::find(root.path(), "out", &json!({})).unwrap().is_none());
        assert!(!unbegun.exists() && foreign.exists());
        std::fs::write(foreign.join(JOURNAL), "what\n").unwrap();
        assert!(Journal::find(root.path(), "out", &json!({})).is_err());
        assert!(foreign.exists());
    }

    #[test]
    fn differences_are_named_by_their_place() {
        let a = json!({ "a": { "b": 1, "c": [1] }, "d": null });
        assert_eq!(difference(&a, &a), None);
        let b = json!({ "a": { "b": 1, "c": [2] } });
        assert_eq!(difference(&a, &b).unwrap(), "a.c: [1] there, [2] here");
        assert_eq!(
            difference(&json!({}), &json!({ "x": "y" })).unwrap(),
            "x: null there, \"y\" here"
        );
    }
}
