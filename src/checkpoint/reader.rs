//! A checkpoint folder, opened. In: its path. Out: configuration text, tensor table, and tensors as f32 or as stored.

use super::dtype::{CHUNK_ELEMENTS, decode_into};
use super::file::WeightFile;
use super::header::{Header, bytes_of};
use super::index::Index;
use super::layout::{Layout, WeightFormat, adapter_base};
use super::packed::PackedShard;
use super::{CheckpointError, StoredDtype, pytorch};
use crate::error::{Error, Result};
use burn::tensor::TensorData;
use fista_pruner_models::{SourceError, TensorSource};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What is known of a tensor without reading its numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// How its numbers are stored.
    pub dtype: StoredDtype,
    /// Its shape; a linear operator's weight is `[out, in]`.
    pub shape: Vec<usize>,
    /// The plain name of the file that holds it.
    pub file: String,
}

impl TensorInfo {
    /// Its number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Where a tensor lies: the file, and its place there.
#[derive(Debug)]
struct Stored {
    info: TensorInfo,
    file: usize,
    /// Size in bytes when dense.
    bytes: u64,
    place: Place,
}

/// How a tensor lies in its file. `start` is the byte position of its first element.
#[derive(Debug)]
enum Place {
    Dense {
        start: u64,
    },
    /// With these element strides, only in files of torch.
    Strided {
        start: u64,
        strides: Vec<u64>,
    },
    /// The entry of that number in the header of the plain file.
    Packed {
        entry: usize,
    },
}

/// One weight file with what its header said.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) file: WeightFile,
    /// For safetensors: the parsed header.
    pub(crate) header: Option<Header>,
    /// For packed files: the plain file.
    pub(crate) packed: Option<PackedShard>,
    header_sha256: [u8; 32],
}

impl Shard {
    /// Name and size of the file without packing, so that packing does not change a fingerprint.
    fn plain(&self) -> (&str, u64) {
        match &self.packed {
            Some(packed) => (&packed.name, packed.bytes),
            None => (&self.file.name, self.file.bytes),
        }
    }
}

/// An opened checkpoint folder in Hugging Face layout. All headers are validated when it is opened; numbers are read when
/// they are asked for, from several threads if need be.
#[derive(Debug)]
pub struct Checkpoint {
    dir: PathBuf,
    config_json: String,
    format: WeightFormat,
    index_name: Option<String>,
    shards: Vec<Shard>,
    tensors: BTreeMap<String, Stored>,
}

impl Checkpoint {
    /// Opens a folder: `config.json`, and the weights from the first that exists of `model.safetensors`,
    /// `model.safetensors.index.json`, `pytorch_model.bin`, `pytorch_model.bin.index.json`, the packed form of the first
    /// two, or the only file with the extension `.safetensors`, packed or not.
    ///
    /// # Errors
    /// When a file is missing, truncated or damaged, or the index and the shards disagree.
    pub fn open(dir: &Path) -> Result<Self> {
        match std::fs::metadata(dir) {
            Ok(found) if found.is_dir() => {}
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(Error::io("read", dir)(error)),
            _ => {
                let path = dir.to_path_buf();
                return Err(CheckpointError::NoFolder { path }.into());
            }
        }
        let config_json = read_config(dir)?;
        let layout = Layout::find(dir)?;
        let mut checkpoint = Self {
            dir: dir.to_path_buf(),
            config_json,
            format: layout.format,
            index_name: layout.index.as_ref().map(|(name, _)| name.clone()),
            shards: Vec::new(),
            tensors: BTreeMap::new(),
        };
        for name in &layout.files {
            checkpoint.add_shard(name)?;
        }
        if let Some((_, index)) = &layout.index {
            checkpoint.check_index(index)?;
        }
        Ok(checkpoint)
    }

    /// Opens one weight file and enters its tensors in the table.
    fn add_shard(&mut self, name: &str) -> Result<()> {
        let file = WeightFile::open(&self.dir, name)?;
        let (mut header, mut packed) = (None, None);
        let (description, places): (_, Vec<_>) = match self.format {
            WeightFormat::Safetensors => {
                let (read, raw) = Header::read(&file)?;
                let places = read.entries.iter().map(|e| {
                    let start = read.data_start + e.start;
                    let place = Place::Dense { start };
                    (e.name.clone(), e.dtype.clone(), e.shape.clone(), e.bytes, place)
                });
                let places = places.collect();
                header = Some(read);
                (raw, places)
            }
            WeightFormat::Packed => {
                let (read, raw) = PackedShard::read(&file)?;
                let entries = read.header.entries.iter().enumerate();
                let places = entries.map(|(entry, e)| {
                    let place = Place::Packed { entry };
                    (e.name.clone(), e.dtype.clone(), e.shape.clone(), e.bytes, place)
                });
                let places = places.collect();
                packed = Some(read);
                (raw, places)
            }
            WeightFormat::Pytorch => {
                let (tensors, raw) = pytorch::read(&file)?;
                let places = tensors.into_iter().map(|(name, place)| {
                    // The file's reader has checked that this is a whole number that does not overflow.
                    let bytes = place
                        .dtype
                        .bits()
                        .and_then(|bits| bytes_of(&place.shape, bits))
                        .unwrap_or(0);
                    let start = place.start;
                    let at = match place.strides {
                        Some(strides) => Place::Strided { start, strides },
                        None => Place::Dense { start },
                    };
                    (name, place.dtype, place.shape, bytes, at)
                });
                (raw, places.collect())
            }
        };
        let index = self.shards.len();
        for (tensor, dtype, shape, bytes, place) in places {
            let info = TensorInfo {
                dtype,
                shape,
                file: name.to_owned(),
            };
            let stored = Stored {
                info,
                file: index,
                bytes,
                place,
            };
            if let Some(earlier) = self.tensors.insert(tensor.clone(), stored) {
                let first = self.path_of(&earlier.info.file);
                let second = self.path_of(name);
                return Err(CheckpointError::StoredTwice {
                    tensor,
                    first,
                    second,
                }
                .into());
            }
        }
        let header_sha256 = Sha256::digest(&description).into();
        self.shards.push(Shard {
            file,
            header,
            packed,
            header_sha256,
        });
        Ok(())
    }

    /// Every tensor that the index names is in the shard that it names, or in the packed form of that.
    fn check_index(&self, index: &Index) -> Result<()> {
        for (tensor, shard) in &index.weight_map {
            let shard = &self.format.file_name(shard);
            if self
                .tensors
                .get(tensor)
                .is_none_or(|stored| stored.info.file != *shard)
            {
                let file = self.dir.join(shard);
                return Err(CheckpointError::NotInShard {
                    file,
                    tensor: tensor.clone(),
                }
                .into());
            }
        }
        Ok(())
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The text of `config.json`, as it is stored.
    pub fn config_json(&self) -> &str {
        &self.config_json
    }

    /// Every tensor, sorted by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &TensorInfo)> {
        self.tensors
            .iter()
            .map(|(name, stored)| (name.as_str(), &stored.info))
    }

    /// What is known of the tensor `name`.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name).map(|stored| &stored.info)
    }

    /// The tensor `name`, which must be there with exactly `shape` and in a floating-point format.
    ///
    /// # Errors
    /// When it is missing, has another shape, or is not stored in a floating-point format.
    pub fn expect(&self, name: &str, shape: &[usize]) -> Result<&TensorInfo> {
        let info = &self.stored(name)?.info;
        let (file, tensor) = (self.path_of(&info.file), name.to_owned());
        if info.shape != shape {
            let (expected, found) = (shape.to_vec(), info.shape.clone());
            return Err(CheckpointError::Shape {
                file,
                tensor,
                expected,
                found,
            }
            .into());
        }
        if !info.dtype.is_weight() {
            let dtype = info.dtype.clone();
            return Err(CheckpointError::Dtype { file, tensor, dtype }.into());
        }
        Ok(info)
    }

    /// The tensor `name` as row-major f32 of exactly `shape`.
    ///
    /// # Errors
    /// When it is missing, has another shape, is not stored in a floating-point format, or holds a value that is not
    /// finite; or when the file cannot be read.
    pub fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let info = self.expect(name, shape)?;
        let stored = self.stored(name)?;
        let mut values = vec![0.0; info.elements()];
        let wrong = match stored.place {
            Place::Dense { start } => self.decode(stored, start, &mut values)?,
            _ => decode_parts(&self.raw(name)?, &info.dtype, &mut values),
        };
        match wrong {
            None => Ok(values),
            Some(position) => Err(CheckpointError::NotFinite {
                file: self.path_of(&info.file),
                tensor: name.to_owned(),
                position,
            }
            .into()),
        }
    }

    /// Reads and decodes a dense tensor, a part per task. Returns the first position that is not finite.
    fn decode(&self, stored: &Stored, start: u64, values: &mut [f32]) -> Result<Option<usize>> {
        let file = &self.shards[stored.file].file;
        let dtype = &stored.info.dtype;
        let size = dtype.bits().unwrap_or(0) / 8;
        let part = |(index, values): (usize, &mut [f32])| {
            let first = index * CHUNK_ELEMENTS;
            let bytes = file.read(start + first as u64 * size, values.len() * size as usize)?;
            Ok(decode_into(&bytes, dtype, values).map(|position| first + position))
        };
        let wrong: Vec<Option<usize>> = values
            .par_chunks_mut(CHUNK_ELEMENTS)
            .enumerate()
            .map(part)
            .collect::<Result<_>>()?;
        Ok(wrong.into_iter().flatten().next())
    }

    /// The tensor's bytes as stored, row-major and dense, whatever its dtype.
    ///
    /// # Errors
    /// When it is missing or the file cannot be read, or where a packed tensor is damaged.
    pub fn raw(&self, name: &str) -> Result<Vec<u8>> {
        let stored = self.stored(name)?;
        let shard = &self.shards[stored.file];
        match (&stored.place, &shard.packed) {
            (Place::Dense { start }, _) => shard.file.read(*start, stored.bytes as usize),
            (Place::Strided { start, strides }, _) => self.gather(stored, *start, strides),
            (Place::Packed { entry }, Some(packed)) => packed.tensor(&shard.file, *entry),
            (Place::Packed { .. }, None) => Err(Error::internal(format!(
                "`{name}` is in a file that is not packed"
            ))),
        }
    }

    /// A tensor with strides, made dense. `pytorch` has checked that all of it lies within its storage.
    fn gather(&self, stored: &Stored, start: u64, strides: &[u64]) -> Result<Vec<u8>> {
        let shape = &stored.info.shape;
        let size = (stored.info.dtype.bits().unwrap_or(0) / 8) as usize;
        let last: u64 = shape
            .iter()
            .zip(strides)
            .map(|(&n, &stride)| (n as u64 - 1) * stride)
            .sum();
        let span = self.shards[stored.file]
            .file
            .read(start, (last as usize + 1) * size)?;
        let mut dense = Vec::with_capacity(stored.bytes as usize);
        let mut at = vec![0usize; shape.len()];
        for _ in 0..stored.info.elements() {
            let element: usize = at
                .iter()
                .zip(strides)
                .map(|(&i, &stride)| i * stride as usize)
                .sum();
            dense.extend_from_slice(&span[element * size..(element + 1) * size]);
            for axis in (0..shape.len()).rev() {
                at[axis] += 1;
                if at[axis] < shape[axis] {
                    break;
                }
                at[axis] = 0;
            }
        }
        Ok(dense)
    }

    /// A SHA-256 in hex over `config.json`, each weight file's name and size, and its description of the tensors (names,
    /// dtypes, shapes, places). Cheap: no number is read, so it does not change when only numbers do; see
    /// [`content_sha256`](Self::content_sha256). A packed file counts as the file that it was made from.
    pub fn fingerprint(&self) -> String {
        let mut hasher = self.config_hasher();
        for shard in &self.shards {
            let (name, bytes) = shard.plain();
            hasher.update((name.len() as u64).to_le_bytes());
            hasher.update(name);
            hasher.update(bytes.to_le_bytes());
            hasher.update(shard.header_sha256);
        }
        format!("{:x}", hasher.finalize())
    }

    /// A SHA-256 in hex over `config.json` and every byte of every weight file. Reads the whole checkpoint.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn content_sha256(&self) -> Result<String> {
        let mut hasher = self.config_hasher();
        for shard in &self.shards {
            let (name, bytes) = shard.plain();
            hasher.update((name.len() as u64).to_le_bytes());
            hasher.update(name);
            hasher.update(bytes.to_le_bytes());
            match &shard.packed {
                Some(packed) => packed.unpack(&shard.file, &mut |bytes| {
                    hasher.update(bytes);
                    Ok(())
                })?,
                None => shard.file.hash_into(&mut hasher)?,
            }
        }
        Ok(format!("{:x}", hasher.finalize()))
    }

    /// A SHA-256 in hex over `config.json`, the layout of every weight file as in [`fingerprint`](Self::fingerprint), and some
    /// of each file's bytes, spread over it: tells a model from one that was trained further, without reading all of it.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(crate) fn sample_sha256(&self) -> Result<String> {
        const PLACES: u64 = 64;
        const BYTES: u64 = 4096;
        let mut hasher = self.config_hasher();
        for shard in &self.shards {
            hasher.update(shard.header_sha256);
            hasher.update(shard.file.bytes.to_le_bytes());
            let last = shard.file.bytes.saturating_sub(BYTES);
            for place in 0..=PLACES {
                let start = (u128::from(last) * u128::from(place) / u128::from(PLACES)) as u64;
                let length = BYTES.min(shard.file.bytes - start);
                hasher.update(shard.file.read(start, length as usize)?);
            }
        }
        Ok(format!("{:x}", hasher.finalize()))
    }

    /// Lengths go before contents, so that no two checkpoints feed the same bytes.
    fn config_hasher(&self) -> Sha256 {
        let mut hasher = Sha256::new();
        hasher.update((self.config_json.len() as u64).to_le_bytes());
        hasher.update(&self.config_json);
        hasher
    }

    /// A weight file as messages name it.
    fn path_of(&self, file: &str) -> String {
        self.dir.join(file).display().to_string()
    }

    fn stored(&self, name: &str) -> Result<&Stored> {
        self.tensors.get(name).ok_or_else(|| {
            let (dir, tensor) = (self.dir.clone(), name.to_owned());
            CheckpointError::MissingTensor { dir, tensor }.into()
        })
    }

    /// The weight files, in the order of their names.
    pub(crate) fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// The format of the weight files.
    pub(crate) fn format(&self) -> WeightFormat {
        self.format
    }

    /// The plain name of the index, where there is one.
    pub(crate) fn index_name(&self) -> Option<&str> {
        self.index_name.as_deref()
    }
}

/// The text of `config.json`.
fn read_config(dir: &Path) -> Result<String> {
    let file = dir.join("config.json");
    let bytes = match std::fs::read(&file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(no_config(dir).into()),
        Err(error) => return Err(Error::io("read", &file)(error)),
    };
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        let reason = "it is UTF-16; save it as UTF-8".into();
        return Err(CheckpointError::Config { file, reason }.into());
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let reason = format!("it is not UTF-8 (byte {at})");
        CheckpointError::Config { file, reason }
    })?;
    Ok(text)
}

/// What a folder without a `config.json` is instead.
fn no_config(dir: &Path) -> CheckpointError {
    let dir = dir.to_path_buf();
    if let Some(base) = adapter_base(&dir) {
        return CheckpointError::Adapter { dir, base };
    }
    let modules: Option<serde_json::Value> = std::fs::read(dir.join("modules.json"))
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok());
    let model = modules
        .iter()
        .flat_map(|modules| modules.as_array().into_iter().flatten())
        .filter_map(|module| module["path"].as_str())
        .map(|path| dir.join(path))
        .find(|path| path.join("config.json").is_file() && *path != dir);
    match model {
        Some(model) => CheckpointError::Modules { dir, model },
        None => CheckpointError::NoConfig { dir },
    }
}

/// Decodes what is in memory, a part per task. Returns the first position that is not finite.
fn decode_parts(bytes: &[u8], dtype: &StoredDtype, values: &mut [f32]) -> Option<usize> {
    let size = (dtype.bits().unwrap_or(0) / 8) as usize;
    values
        .par_chunks_mut(CHUNK_ELEMENTS)
        .zip(bytes.par_chunks(CHUNK_ELEMENTS * size.max(1)))
        .enumerate()
        .filter_map(|(part, (values, bytes))| {
            decode_into(bytes, dtype, values).map(|position| part * CHUNK_ELEMENTS + position)
        })
        .min()
}

impl TensorSource for Checkpoint {
    fn load(&self, name: &str, shape: &[usize]) -> Result<TensorData, SourceError> {
        Ok(TensorData::new(self.read(name, shape)?, shape.to_vec()))
    }

    fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    fn names(&self) -> Vec<&str> {
        self.tensors.keys().map(String::as_str).collect()
    }
}
