//! The folder of `prune --save-statistics`: one file a layer. It, or its new files where it exists already, appear only
//! when the run is over.

use crate::error::{ConfigError, Error, Result};
use crate::prune::SavedStatistics;
use crate::prune::saved::{self, NamedTensor};
use crate::system::{Destination, PartialFolder};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A folder of statistics under construction. Dropped before [`finish`](Self::finish), it leaves nothing.
pub(crate) struct StatisticsFolder {
    path: PathBuf,
    partial: PartialFolder,
    tensors: Vec<NamedTensor>,
    files: Vec<String>,
}

impl StatisticsFolder {
    /// A folder that will be at `path`, which must not lie inside `output`: that does not exist before it is finished.
    /// It must have none of the files of `layers`, unless they are to be replaced.
    ///
    /// # Errors
    /// When nothing may be written there.
    pub(crate) fn create(destination: &Destination, output: &Path, layers: &Range<usize>) -> Result<Self> {
        Self::at(place(destination, output, layers)?)
    }

    fn at(resolved: PathBuf) -> Result<Self> {
        let partial = if resolved.is_dir() {
            // Within the folder, which may be the only writable one, or a file system of its own.
            PartialFolder::create(&resolved, "statistics".as_ref())?
        } else {
            let (false, Some(parent), Some(name)) =
                (resolved.exists(), resolved.parent(), resolved.file_name())
            else {
                return Err(refused(&resolved, "is no folder"));
            };
            PartialFolder::create(parent, name)?
        };
        Ok(Self {
            path: resolved,
            partial,
            tensors: Vec::new(),
            files: Vec::new(),
        })
    }

    /// Goes on in the folder that an earlier run of the same kind has begun, with the files of those of `layers` that it has.
    ///
    /// # Errors
    /// When the folder is gone.
    pub(crate) fn resume(
        destination: &Destination,
        output: &Path,
        begun: PathBuf,
        layers: &Range<usize>,
    ) -> Result<Self> {
        let resolved = place(destination, output, &(0..0))?;
        if !begun.is_dir() {
            // All is done there but the checkpoint, or somebody has removed it.
            if resolved.is_dir() && layers.clone().any(|layer| resolved.join(file(layer)).exists()) {
                return Self::at(resolved);
            }
            return Err(refused(
                &resolved,
                "was begun by the run that is to be resumed, and is gone",
            ));
        }
        let files = layers.clone().map(file).filter(|name| begun.join(name).exists());
        Ok(Self {
            path: resolved,
            files: files.collect(),
            partial: PartialFolder::adopt(begun),
            tensors: Vec::new(),
        })
    }

    /// From now on it stays where it is if the run fails or is interrupted.
    pub(crate) fn keep(&mut self) {
        self.partial.keep();
    }

    /// The folder under construction.
    pub(crate) fn partial(&self) -> &Path {
        self.partial.path()
    }

    /// Takes an operator of the layer at hand.
    pub(crate) fn add(&mut self, operator: SavedStatistics) {
        self.tensors.extend(saved::tensors(operator));
    }

    /// Writes the layer's file, if any of its operators was taken.
    pub(crate) fn write(&mut self, layer: usize) -> Result<()> {
        let tensors = std::mem::take(&mut self.tensors);
        if tensors.is_empty() {
            return Ok(());
        }
        let name = file(layer);
        saved::write(&self.partial.path().join(&name), &tensors)?;
        if !self.files.contains(&name) {
            self.files.push(name);
        }
        Ok(())
    }

    /// Puts the folder in its place; files of a folder that was there are replaced where a new one has their name.
    pub(crate) fn finish(self) -> Result<()> {
        let (target, files) = (self.path, self.files);
        self.partial.publish(|partial| {
            if !target.is_dir() {
                return std::fs::rename(partial, &target).map_err(Error::io("rename to", &target));
            }
            for name in files {
                let path = target.join(&name);
                std::fs::rename(partial.join(&name), &path).map_err(Error::io("rename to", &path))?;
            }
            std::fs::remove_dir(partial).map_err(Error::io("remove", partial))
        })
    }
}

fn file(layer: usize) -> String {
    format!("layer-{layer:03}.safetensors")
}

fn refused(path: &Path, reason: &str) -> Error {
    Error::from(ConfigError::Setting {
        setting: "‹save-statistics›",
        reason: format!("`{}` {reason}", path.display()),
    })
}

/// The folder's resolved path, outside `output`, which does not exist yet.
fn place(destination: &Destination, output: &Path, layers: &Range<usize>) -> Result<PathBuf> {
    let resolved = destination.shared_folder(layers.clone().map(file))?;
    if resolved.starts_with(output) {
        return Err(refused(&resolved, "lies in the folder of ‹output›"));
    }
    Ok(resolved)
}
