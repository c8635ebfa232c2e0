//! What a recovery has done so far, in a folder, so that an interrupted run goes on where it was. A folder belongs to one
//! run: models, windows and settings. Its files appear whole.

use super::job::RecoverJob;
use super::operators::Operator;
use super::report::Curve;
use crate::checkpoint::build::FileBuilder;
use crate::checkpoint::file::WeightFile;
use crate::checkpoint::header::Header;
use crate::checkpoint::{StoredDtype, decode_into, encode};
use crate::error::{ConfigError, Error, Result};
use crate::system::AtomicFile;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// The file that says what the others belong to.
const STATE: &str = "recovery_state.json";

/// What the names of the layers' files begin with.
const LAYER: &str = "recovery_layer_";

/// What the names of the files of factors and moments begin with.
const FACTORS: &str = "recovery_factors.bin.";

/// The file of factors and moments after that many steps.
pub(super) fn factors_file(steps: usize) -> String {
    format!("{FACTORS}{steps}")
}

/// A folder of checkpoints.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// A hash over all that decides the result.
    key: String,
}

/// A number that comes back whatever it is: JSON has no digits for one that is not finite.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Exact(pub(super) f64);

impl Serialize for Exact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0.to_bits())
    }
}

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u64::deserialize(deserializer).map(|bits| Self(f64::from_bits(bits)))
    }
}

/// The contents of [`STATE`].
#[derive(Serialize, Deserialize)]
struct State<T> {
    key: String,
    #[serde(flatten)]
    done: T,
}

impl Folder {
    /// The folder at `path`, made if it is missing, and what is done already.
    ///
    /// # Errors
    /// When it holds the progress of another run, or cannot be read or made.
    pub(super) fn open<T: DeserializeOwned>(path: &Path, job: &RecoverJob<'_>) -> Result<(Self, Option<T>)> {
        std::fs::create_dir_all(path).map_err(Error::io("create", path))?;
        let folder = Self {
            path: path.to_path_buf(),
            key: key(job)?,
        };
        let file = path.join(STATE);
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((folder, None)),
            Err(error) => return Err(Error::io("read", file)(error)),
        };
        let refuse = |reason: String| {
            Error::from(ConfigError::Setting {
                setting: "‹checkpoints›",
                reason,
            })
        };
        let other = || {
            refuse(format!(
                "`{}` holds the progress of a run with other models, text or settings; name another folder",
                path.display()
            ))
        };
        let found: State<serde_json::Value> = serde_json::from_str(&text)
            .map_err(|e| refuse(format!("`{}` cannot be parsed: {e}", file.display())))?;
        if found.key != folder.key {
            return Err(other());
        }
        let done = serde_json::from_value(found.done)
            .map_err(|e| refuse(format!("`{}` cannot be used: {e}", file.display())))?;
        Ok((folder, Some(done)))
    }

    /// Says what is done. Files that it speaks of must be there already.
    pub(super) fn save<T: Serialize>(&self, done: &T) -> Result<()> {
        let state = State {
            key: self.key.clone(),
            done,
        };
        let json =
            serde_json::to_vec(&state).map_err(|e| Error::internal(format!("progress is no JSON: {e}")))?;
        self.write(STATE, &json)
    }

    /// A file of the folder, whole.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let mut file = AtomicFile::create(&self.path.join(name))?;
        file.write(bytes)?;
        file.finish()
    }

    /// Where the file of that name is.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes weights `[out, in]` of a layer in `dtype`, or in each operator's own.
    pub(super) fn write_layer<'a>(
        &self,
        layer: usize,
        operators: impl Iterator<Item = (&'a Operator, &'a [f32])>,
        dtype: Option<&StoredDtype>,
        step: usize,
    ) -> Result<()> {
        let mut builder = FileBuilder::default();
        for (operator, values) in operators {
            let dtype = dtype.unwrap_or(&operator.dtype);
            let bytes = encode(values, None, dtype)?;
            builder.add_bytes(
                operator.tensor.clone(),
                dtype.clone(),
                operator.shape.to_vec(),
                bytes,
            );
        }
        builder.note(STEP, step.to_string());
        let mut file = AtomicFile::create(&self.file(&layer_file(layer)))?;
        builder.write(&mut |bytes| file.write(bytes))?;
        file.finish()
    }

    /// Reads the weights of a layer, in the order of `operators`, and the step they are of; `None` where there are none.
    pub(super) fn read_layer(
        &self,
        layer: usize,
        operators: &[Operator],
    ) -> Result<Option<(Vec<Vec<f32>>, usize)>> {
        let name = layer_file(layer);
        if !self.file(&name).exists() {
            return Ok(None);
        }
        let damaged = || {
            Error::from(ConfigError::Setting {
                setting: "‹checkpoints›",
                reason: format!("`{}` is damaged: name another folder", self.file(&name).display()),
            })
        };
        let file = WeightFile::open(&self.path, &name)?;
        let (header, _) = Header::read(&file)?;
        let mut all = Vec::with_capacity(operators.len());
        for operator in operators {
            let entry = header.entries.iter().find(|entry| entry.name == operator.tensor);
            let entry = entry
                .filter(|entry| entry.shape == operator.shape)
                .ok_or_else(damaged)?;
            let bytes = file.read(header.data_start + entry.start, entry.bytes as usize)?;
            let mut values = vec![0.0; operator.keep.len()];
            if decode_into(&bytes, &entry.dtype, &mut values).is_some() {
                return Err(damaged());
            }
            all.push(values);
        }
        let metadata = header.metadata.unwrap_or_default();
        let step = metadata
            .get(STEP)
            .and_then(|step| step.parse().ok())
            .ok_or_else(damaged)?;
        Ok(Some((all, step)))
    }
}

const STEP: &str = "fista_pruner.step";

fn layer_file(layer: usize) -> String {
    format!("{LAYER}{layer:05}.safetensors")
}

/// Whether a recovery writes files of that name into its folder; one that was killed while it wrote leaves an unfinished one.
fn is_ours(name: &str) -> bool {
    let numbered = |first: &str, last: &str| {
        let middle = name.strip_prefix(first).and_then(|rest| rest.strip_suffix(last));
        middle.is_some_and(|middle| middle.bytes().all(|byte| byte.is_ascii_digit()))
    };
    name == STATE
        || name.starts_with(AtomicFile::UNFINISHED)
        || numbered(LAYER, ".safetensors")
        || numbered(FACTORS, "")
}

/// Removes what a recovery has left in its folder, once its output is complete; the folder too, if nothing else is in it.
///
/// # Errors
/// When a file cannot be removed.
pub fn remove_checkpoints(folder: &Path) -> Result<()> {
    let entries = std::fs::read_dir(folder).map_err(Error::io("read", folder))?;
    for entry in entries {
        let path = entry.map_err(Error::io("read", folder))?.path();
        if path
            .file_name()
            .is_some_and(|name| is_ours(&name.to_string_lossy()))
        {
            std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
    }
    // Whatever somebody else put there keeps it.
    let _ = std::fs::remove_dir(folder);
    Ok(())
}

/// A SHA-256 in hex over models, windows and settings. Of the pruned model's numbers, those of its first and last layer; of
/// the dense model's, some of every file.
fn key(job: &RecoverJob<'_>) -> Result<String> {
    let mut hasher = Sha256::new();
    hasher.update(env!("CARGO_PKG_VERSION"));
    hasher.update(job.pruned.checkpoint.fingerprint());
    if let Some(dense) = job.dense {
        hasher.update(dense.checkpoint.sample_sha256()?);
    }
    let last = job.pruned.decoder.config().num_layers().saturating_sub(1);
    for operator in job.pruned.decoder.operators() {
        if operator.layer == 0 || operator.layer == last {
            hasher.update(job.pruned.checkpoint.raw(&operator.weight())?);
        }
    }
    for window in job.windows {
        hasher.update((window.len() as u64).to_le_bytes());
        window.iter().for_each(|id| hasher.update(id.to_le_bytes()));
    }
    let settings = serde_json::to_string(job.recovery)
        .map_err(|e| Error::internal(format!("settings are no JSON: {e}")))?;
    hasher.update(settings);
    Ok(format!("{:x}", hasher.finalize()))
}

/// What block reconstruction has done: whole layers.
#[derive(Debug, Default)]
pub(super) struct Progress {
    folder: Option<Folder>,
    done: Layers,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Layers {
    layers: usize,
    curves: Vec<StoredCurve>,
}

/// A [`Curve`] to the last bit.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct StoredCurve {
    name: String,
    before: Exact,
    steps: Vec<Exact>,
    after: Exact,
    kept_old: bool,
    seconds: f64,
}

impl From<Curve> for StoredCurve {
    fn from(curve: Curve) -> Self {
        Self {
            name: curve.name,
            before: Exact(curve.before),
            steps: curve.steps.into_iter().map(Exact).collect(),
            after: Exact(curve.after),
            kept_old: curve.kept_old,
            seconds: curve.seconds,
        }
    }
}

impl From<StoredCurve> for Curve {
    fn from(curve: StoredCurve) -> Self {
        Self {
            name: curve.name,
            before: curve.before.0,
            steps: curve.steps.into_iter().map(|step| step.0).collect(),
            after: curve.after.0,
            kept_old: curve.kept_old,
            seconds: curve.seconds,
        }
    }
}

impl Progress {
    /// What the job's folder says; nothing without one.
    pub(super) fn open(job: &RecoverJob<'_>) -> Result<Self> {
        let Some(path) = job.checkpoints else {
            return Ok(Self::default());
        };
        let (folder, done) = Folder::open(path, job)?;
        Ok(Self {
            folder: Some(folder),
            done: done.unwrap_or_default(),
        })
    }

    /// Layers that are done.
    pub(super) fn layers(&self) -> usize {
        self.done.layers
    }

    /// Takes the weights of a layer that is done.
    pub(super) fn load_layer(&self, layer: usize, operators: &mut [Operator]) -> Result<()> {
        let stored = match &self.folder {
            Some(folder) => folder.read_layer(layer, operators)?,
            None => None,
        };
        let (values, _) = stored.ok_or_else(|| {
            Error::from(ConfigError::Setting {
                setting: "‹checkpoints›",
                reason: format!("the weights of layer {layer} are missing: name another folder"),
            })
        })?;
        for (operator, values) in operators.iter_mut().zip(values) {
            operator.values = values;
        }
        Ok(())
    }

    /// Stores a layer, in the order of their numbers.
    pub(super) fn layer_done(
        &mut self,
        layer: usize,
        operators: &[Operator],
        curves: Vec<Curve>,
    ) -> Result<()> {
        self.done.layers = layer + 1;
        self.done.curves.extend(curves.into_iter().map(StoredCurve::from));
        if let Some(folder) = &self.folder {
            let weights = operators
                .iter()
                .map(|operator| (operator, operator.values.as_slice()));
            folder.write_layer(layer, weights, None, 0)?;
            folder.save(&self.done)?;
        }
        Ok(())
    }

    /// All curves.
    pub(super) fn finish(self) -> Vec<Curve> {
        self.done.curves.into_iter().map(Curve::from).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn only_what_a_recovery_wrote_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let ours = [
            STATE,
            "recovery_layer_00003.safetensors",
            "recovery_factors.bin.8",
            ".partial-Ab3dE9",
        ];
        for other in [None, Some("recovery_layer_x.safetensors")] {
            let folder = dir.path().join("steps");
            std::fs::create_dir(&folder).unwrap();
            for name in ours.into_iter().chain(other) {
                std::fs::write(folder.join(name), "").unwrap();
            }
            remove_checkpoints(&folder).unwrap();
            let left = std::fs::read_dir(&folder)
                .map(|entries| entries.count())
                .unwrap_or(0);
            assert_eq!(
                (folder.exists(), left),
                (other.is_some(), usize::from(other.is_some()))
            );
        }
    }
}
