//! A run over several machines: each prunes a range of layers and writes it as a *part*; together the parts make the
//! checkpoint that one machine would have made. Layers can be pruned apart from each other where their input is the dense
//! model's.
//!
//! A part is a folder `part-K-of-N` with a safetensors file a layer, in the source's dtypes, and `part.json`: what the part
//! is, what the run is, and the report on its layers.

use super::Workspace;
use crate::checkpoint::build::FileBuilder;
use crate::checkpoint::{Checkpoint, StoredDtype, encode};
use crate::error::{ConfigError, Error, PruneError, Result};
use crate::prune::difference;
use crate::report::Report;
use crate::system::{Destination, PartialFolder};
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The description inside a part's folder.
pub const DESCRIPTION: &str = "part.json";

/// Version of a part's layout.
const VERSION: u32 = 1;

/// Part `K` of `N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// `K`, from 1 to `N`.
    pub number: usize,
    /// `N`.
    pub count: usize,
}

impl FromStr for Shard {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = text
            .split_once('/')
            .and_then(|(number, count)| Some((number.trim().parse().ok()?, count.trim().parse().ok()?)));
        match parsed {
            Some((number, count)) if number >= 1 && number <= count => Ok(Self { number, count }),
            _ => Err(Error::from(ConfigError::Setting {
                setting: "‹shard›",
                reason: format!("`{text}` is not K/N with K from 1 to N, such as 2/8"),
            })),
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.count)
    }
}

impl Shard {
    /// Its share of a model's layers. The shares of all shards follow each other, and no two differ by more than one layer.
    ///
    /// # Errors
    /// When there are more shards than layers.
    pub fn layers(self, layers: usize) -> Result<Range<usize>> {
        if self.count > layers {
            return Err(Error::from(ConfigError::Setting {
                setting: "‹shard›",
                reason: format!("{} shards are more than the model's {layers} layers", self.count),
            }));
        }
        Ok((self.number - 1) * layers / self.count..self.number * layers / self.count)
    }

    fn folder(self) -> String {
        format!("part-{:03}-of-{:03}", self.number, self.count)
    }
}

/// What `part.json` says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Part {
    part_version: u32,
    /// Which part it is.
    pub shard: Shard,
    /// The layers in it, from the first to the one after the last.
    pub layers: [usize; 2],
    /// The dense model's folder.
    pub model: PathBuf,
    /// What the run is: the same in every part.
    pub identity: Value,
    /// The report on its layers.
    pub report: Report,
}

impl Part {
    /// Part `shard` of a run.
    pub fn new(shard: Shard, layers: &Range<usize>, model: &Path, identity: Value, report: Report) -> Self {
        Self {
            part_version: VERSION,
            shard,
            layers: [layers.start, layers.end],
            model: model.to_path_buf(),
            identity,
            report,
        }
    }
}

/// A part under construction. Dropped before [`finish`](Self::finish), it leaves nothing, unless the run is to be resumed.
pub(crate) struct PartWriter<'a> {
    source: &'a Checkpoint,
    partial: PartialFolder,
    target: PathBuf,
    /// Of the layer at hand: name, shape, dtype, bytes.
    tensors: Vec<(String, Vec<usize>, StoredDtype, Vec<u8>)>,
}

impl<'a> PartWriter<'a> {
    /// A part that will be a folder in `output`, which is made where it is missing.
    ///
    /// # Errors
    /// When `output` is a checkpoint or no folder; when the part is there and `overwrite` is not set; and [`PruneError::Resume`].
    pub(crate) fn create(
        source: &'a Checkpoint,
        destination: &Destination,
        shard: Shard,
        identity: &Value,
        resume: bool,
    ) -> Result<(Self, Workspace)> {
        let output = destination.shared_folder([])?;
        let refuse = |reason: String| {
            Error::from(PruneError::Parts {
                folder: output.clone(),
                reason,
            })
        };
        if output.join("config.json").exists() {
            return Err(refuse("it is no folder of parts".into()));
        }
        let name = shard.folder();
        let target = Destination::new(output.join(&name), destination.overwrite()).folder(is_part)?;
        let (mut partial, workspace) = Workspace::open(&output, name.as_ref(), identity, resume)?;
        if resume {
            partial.keep();
        }
        let tensors = Vec::new();
        let part = Self {
            source,
            partial,
            target,
            tensors,
        };
        Ok((part, workspace))
    }

    /// The part's own folder, where it will be.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// Takes the weight `[out, in]` of a tensor of the layer at hand.
    pub(crate) fn weight(&mut self, name: &str, values: &[f32], keep: &[bool]) -> Result<()> {
        let info = self
            .source
            .info(name)
            .ok_or_else(|| Error::internal(format!("the checkpoint has no `{name}`")))?;
        let bytes = encode(values, Some(keep), &info.dtype).map_err(|error| error.of_tensor(name))?;
        let (shape, dtype) = (info.shape.clone(), info.dtype.clone());
        self.tensors.push((name.to_owned(), shape, dtype, bytes));
        Ok(())
    }

    /// Writes the layer's file.
    pub(crate) fn layer(&mut self, layer: usize) -> Result<()> {
        let path = self.partial.path().join(layer_file(layer));
        let mut builder = FileBuilder::default();
        for (name, shape, dtype, bytes) in self.tensors.drain(..) {
            builder.add_bytes(name, dtype, shape, bytes);
        }
        // Over what a killed run may have begun.
        let mut file = std::fs::File::create(&path).map_err(Error::io("create", &path))?;
        builder.write(&mut |bytes| file.write_all(bytes).map_err(Error::io("write", &path)))?;
        file.sync_data().map_err(Error::io("write", &path))
    }

    /// Puts the part in its place. `last` is done right before that.
    pub(crate) fn finish(self, part: &Part, last: impl FnOnce() -> Result<()>) -> Result<()> {
        let json = serde_json::to_vec_pretty(part)
            .map_err(|e| Error::internal(format!("a part's description is no JSON: {e}")))?;
        let path = self.partial.path().join(DESCRIPTION);
        let file = std::fs::File::create(&path).and_then(|mut file| {
            file.write_all(&json)?;
            file.sync_all()
        });
        file.map_err(Error::io("write", &path))?;
        last()?;
        let target = self.target;
        self.partial.publish(|partial| {
            if target.exists() {
                std::fs::remove_dir_all(&target).map_err(Error::io("remove", &target))?;
            }
            std::fs::rename(partial, &target).map_err(Error::io("rename to", &target))
        })
    }
}

/// Whether a folder holds a part and nothing else.
fn is_part(folder: &Path) -> Result<(), String> {
    let unreadable = |e: std::io::Error| format!("cannot be looked into ({e})");
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        let name = name.to_string_lossy();
        if name != DESCRIPTION && !(name.starts_with("layer-") && name.ends_with(".safetensors")) {
            return Err(format!("holds `{name}`, which no part has"));
        }
    }
    Ok(())
}

fn layer_file(layer: usize) -> String {
    format!("layer-{layer:04}.safetensors")
}

/// All parts of one run, in order, checked against each other.
#[derive(Debug)]
pub struct Parts {
    folder: PathBuf,
    parts: Vec<(PathBuf, Part)>,
}

impl Parts {
    /// Reads the descriptions of all parts in `folder`.
    ///
    /// # Errors
    /// When there are none, one is missing, doubled, damaged, or from another run: the error names it.
    pub fn open(folder: &Path) -> Result<Self> {
        let refuse = |reason: String| {
            Error::from(PruneError::Parts {
                folder: folder.to_path_buf(),
                reason,
            })
        };
        let mut found: BTreeMap<usize, (PathBuf, Part)> = BTreeMap::new();
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(Error::io("read", folder))? {
            let path = entry.map_err(Error::io("read", folder))?.path();
            if path.join(DESCRIPTION).is_file() {
                names.push(path);
            }
        }
        names.sort_unstable();
        let mut first: Option<(String, Part)> = None;
        for path in names {
            let name = file_name(&path);
            let description = path.join(DESCRIPTION);
            let bytes = std::fs::read(&description).map_err(Error::io("read", &description))?;
            let part: Part = serde_json::from_slice(&bytes)
                .map_err(|e| refuse(format!("`{name}` is no part of a run: {e}")))?;
            if part.part_version != VERSION {
                return Err(refuse(format!("`{name}` has version {}", part.part_version)));
            }
            match &first {
                None => first = Some((name.clone(), part.clone())),
                Some((other, known)) => {
                    if known.shard.count != part.shard.count {
                        return Err(refuse(format!(
                            "`{other}` is one of {}, `{name}` one of {}",
                            known.shard.count, part.shard.count
                        )));
                    }
                    if let Some(difference) = difference(&known.identity, &part.identity) {
                        return Err(refuse(format!(
                            "`{name}` is from another run than `{other}` (there, here): {difference}"
                        )));
                    }
                }
            }
            if let Some((earlier, _)) = found.get(&part.shard.number) {
                return Err(refuse(format!(
                    "part {} is there twice, as `{}` and as `{name}`",
                    part.shard,
                    file_name(earlier)
                )));
            }
            found.insert(part.shard.number, (path, part));
        }
        let count = first.map_or(0, |(_, part)| part.shard.count);
        if count == 0 {
            return Err(refuse("there are none".into()));
        }
        let missing: Vec<String> = (1..=count)
            .filter(|number| !found.contains_key(number))
            .map(|number| Shard { number, count }.to_string())
            .collect();
        if !missing.is_empty() {
            return Err(refuse(format!("part {} is missing", missing.join(", "))));
        }
        let parts: Vec<_> = found.into_values().collect();
        let mut next = 0;
        for (path, part) in &parts {
            if part.layers[0] != next || part.layers[1] < next {
                return Err(refuse(format!(
                    "`{}` begins at layer {}, and the one before it ends at {next}",
                    file_name(path),
                    part.layers[0]
                )));
            }
            next = part.layers[1];
        }
        Ok(Self {
            folder: folder.to_path_buf(),
            parts,
        })
    }

    /// The folder that holds them.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The first part; [`Parts::open`] refuses a folder without any.
    pub fn first(&self) -> &Part {
        &self.parts[0].1
    }

    /// The parts in order.
    pub fn descriptions(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter().map(|(_, part)| part)
    }

    /// Gives `each` every pruned tensor with its bytes as the source stores them.
    ///
    /// # Errors
    /// When a file is damaged, lacks a tensor that its part reports, or holds another.
    pub fn tensors(&self, mut each: impl FnMut(&str, &[u8]) -> Result<()>) -> Result<()> {
        for (path, part) in &self.parts {
            for layer in part.layers[0]..part.layers[1] {
                let mut expected: Vec<String> = part
                    .report
                    .operators
                    .iter()
                    .filter(|operator| operator.layer == layer)
                    .map(|operator| format!("{}.weight", operator.name))
                    .collect();
                expected.sort_unstable();
                let file = path.join(layer_file(layer));
                let refuse = |reason: String| {
                    Error::from(PruneError::Parts {
                        folder: self.folder.clone(),
                        reason: format!("`{}/{}` {reason}", file_name(path), layer_file(layer)),
                    })
                };
                let bytes = std::fs::read(&file).map_err(|e| refuse(format!("cannot be read: {e}")))?;
                let tensors =
                    SafeTensors::deserialize(&bytes).map_err(|e| refuse(format!("is damaged: {e}")))?;
                let mut names: Vec<&str> = tensors.names();
                names.sort_unstable();
                if names != expected {
                    return Err(refuse("does not hold the operators that its part reports".into()));
                }
                for (name, view) in tensors.iter() {
                    each(name, view.data())?;
                }
            }
        }
        Ok(())
    }
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_cover_all_layers_once_and_evenly() {
        for layers in 1..40 {
            for count in 1..=layers {
                let mut next = 0;
                for number in 1..=count {
                    let range = Shard { number, count }.layers(layers).unwrap();
                    assert_eq!(range.start, next);
                    assert!(range.len() >= layers / count && range.len() <= layers.div_ceil(count));
                    next = range.end;
                }
                assert_eq!(next, layers);
            }
            assert!(
                Shard {
                    number: 1,
                    count: layers + 1
                }
                .layers(layers)
                .is_err()
            );
        }
    }

    #[test]
    fn shards_are_written_k_of_n_from_one() {
        let shard: Shard = "2/8".parse().unwrap();
        assert_eq!(
            (shard.number, shard.count, shard.to_string()),
            (2, 8, "2/8".into())
        );
        assert_eq!(shard.folder(), "part-002-of-008");
        for bad in ["", "2", "0/8", "9/8", "1/0", "a/b", "-1/2", "1/2/3"] {
            assert!(bad.parse::<Shard>().is_err(), "{bad}");
        }
    }
}
