//! A packed weight file, read. In: an opened file. Out: the header of the plain file that it stands for, and the plain
//! bytes of any tensor, checked against their checksum.

use super::codec::{Encoding, Parts, decode, width_of};
use super::{
    CHECKSUM_TENSOR, FILE_KEY, HEADER_TENSOR, SHA256_KEY, VERSION, VERSION_KEY, crc32, header_checksum,
    part_names,
};
use crate::checkpoint::file::WeightFile;
use crate::checkpoint::header::{Entry, Header};
use crate::checkpoint::index::is_plain_name;
use crate::checkpoint::{CheckpointError, StoredDtype};
use crate::error::{Error, Result};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// A range of the file's bytes.
#[derive(Debug, Clone, Copy)]
struct Range {
    start: u64,
    bytes: u64,
}

/// Where a tensor of the plain file lies in the packed one.
#[derive(Debug)]
enum Stored {
    /// As it was.
    Plain(Range),
    Packed {
        encoding: Encoding,
        code: Range,
        values: Range,
        width: usize,
    },
}

/// What a packed file says of the plain one. The numbers are read when they are asked for.
#[derive(Debug)]
pub(crate) struct PackedShard {
    /// The plain file's name.
    pub(crate) name: String,
    /// Its SHA-256 in hex, as noted when it was packed.
    pub(crate) sha256: String,
    /// Its header; `data_start` is a position in the plain file.
    pub(crate) header: Header,
    /// Its first bytes, up to the data: length and JSON.
    pub(crate) header_bytes: Vec<u8>,
    /// Its size in bytes.
    pub(crate) bytes: u64,
    /// In the order of the header's entries.
    stored: Vec<Stored>,
    checksums: Vec<u32>,
}

impl PackedShard {
    /// Reads the description of the plain file and checks that every tensor of it can be told from this file. Also the
    /// plain file's header as it stood there, without its length.
    pub(crate) fn read(file: &WeightFile) -> Result<(Self, Vec<u8>)> {
        let wrong = |reason: String| {
            Error::from(CheckpointError::Packed {
                file: file.path.clone(),
                reason,
            })
        };
        let (outer, _) = Header::read(file)?;
        let metadata = outer.metadata.clone().unwrap_or_default();
        match metadata.get(VERSION_KEY) {
            None => return Err(wrong(format!("its metadata has no `{VERSION_KEY}`"))),
            Some(version) if version != VERSION => {
                return Err(CheckpointError::PackedVersion {
                    file: file.path.clone(),
                    version: version.clone(),
                }
                .into());
            }
            Some(_) => {}
        }
        let name = metadata.get(FILE_KEY).cloned().unwrap_or_default();
        if !is_plain_name(&name) {
            return Err(wrong(format!("`{name}` is not a plain file name")));
        }
        let sha256 = metadata.get(SHA256_KEY).cloned().unwrap_or_default();
        let mut tensors = Tensors::new(&outer);
        let of_type = |found: Option<Entry>, name: &str, dtype: &str| {
            found
                .filter(|e| e.dtype.name() == dtype && e.shape.len() == 1)
                .ok_or_else(|| wrong(format!("it has no vector `{name}` of {dtype}")))
        };
        let header_entry = of_type(tensors.take(HEADER_TENSOR), HEADER_TENSOR, "U8")?;
        let checksum_entry = of_type(tensors.take(CHECKSUM_TENSOR), CHECKSUM_TENSOR, "U32")?;
        let read = |entry: &Entry| file.read(outer.data_start + entry.start, entry.bytes as usize);
        let raw = read(&header_entry)?;
        let checksums: Vec<u32> = read(&checksum_entry)?
            .as_chunks()
            .0
            .iter()
            .map(|b| u32::from_le_bytes(*b))
            .collect();
        let Some((expected, checksums)) = checksums.split_first() else {
            return Err(wrong("it has no checksum".into()));
        };
        if header_checksum(&name, &raw) != *expected {
            return Err(damaged(file, HEADER_TENSOR));
        }
        let (header, data_bytes) = Header::parse(&raw, &file.path)?;
        if checksums.len() != header.entries.len() {
            return Err(wrong(format!(
                "it has {} checksums for {} tensors",
                checksums.len(),
                header.entries.len()
            )));
        }
        let stored = header
            .entries
            .iter()
            .map(|entry| tensors.locate(entry, outer.data_start).map_err(&wrong))
            .collect::<Result<Vec<_>>>()?;
        if let Some(name) = tensors.left.keys().next() {
            return Err(wrong(format!("`{name}` belongs to no tensor")));
        }
        let mut header_bytes = (raw.len() as u64).to_le_bytes().to_vec();
        header_bytes.extend_from_slice(&raw);
        let shard = Self {
            name,
            header_bytes,
            sha256,
            bytes: header
                .data_start
                .checked_add(data_bytes)
                .ok_or_else(|| wrong("its offsets overflow".into()))?,
            header,
            stored,
            checksums: checksums.to_vec(),
        };
        Ok((shard, raw))
    }

    /// Hands the whole plain file to `sink`, a tensor at a time.
    ///
    /// # Errors
    /// As [`tensor`](Self::tensor), or what `sink` says.
    pub(crate) fn unpack(&self, file: &WeightFile, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        sink(&self.header_bytes)?;
        let mut order: Vec<usize> = (0..self.header.entries.len()).collect();
        order.sort_by_key(|i| (self.header.entries[*i].start, self.header.entries[*i].bytes));
        order
            .into_iter()
            .try_for_each(|index| sink(&self.tensor(file, index)?))
    }

    /// Checks that the whole plain file comes back, while handing it to `sink`.
    ///
    /// # Errors
    /// As [`unpack`](Self::unpack), or when its SHA-256 is another than when it was packed.
    pub(crate) fn unpack_checked(
        &self,
        file: &WeightFile,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut hasher = Sha256::new();
        self.unpack(file, &mut |bytes| {
            hasher.update(bytes);
            sink(bytes)
        })?;
        if format!("{:x}", hasher.finalize()) == self.sha256 {
            return Ok(());
        }
        Err(CheckpointError::Packed {
            file: file.path.clone(),
            reason: format!("`{}` does not come back as it was packed", self.name),
        }
        .into())
    }

    /// The plain bytes of the tensor at `index` of the header's entries.
    ///
    /// # Errors
    /// When the file cannot be read, or what it holds is not what was packed.
    pub(crate) fn tensor(&self, file: &WeightFile, index: usize) -> Result<Vec<u8>> {
        let entry = &self.header.entries[index];
        let read = |range: Range| file.read(range.start, range.bytes as usize);
        let bytes = match &self.stored[index] {
            Stored::Plain(range) => read(*range)?,
            Stored::Packed {
                encoding,
                code,
                values,
                width,
            } => {
                let parts = Parts {
                    code: read(*code)?,
                    values: read(*values)?,
                };
                let elements = entry.bytes as usize / width;
                decode(&parts, *width, elements, *encoding).map_err(|reason| CheckpointError::Packed {
                    file: file.path.clone(),
                    reason: format!("`{}`: {reason}", entry.name),
                })?
            }
        };
        if crc32(&bytes) == self.checksums[index] {
            Ok(bytes)
        } else {
            Err(damaged(file, &entry.name))
        }
    }
}

fn damaged(file: &WeightFile, tensor: &str) -> Error {
    CheckpointError::Checksum {
        file: file.path.clone(),
        tensor: tensor.to_owned(),
    }
    .into()
}

/// The tensors of the packed file that were not asked for yet.
struct Tensors {
    left: BTreeMap<String, Entry>,
}

impl Tensors {
    fn new(header: &Header) -> Self {
        let left = header.entries.iter().map(|e| (e.name.clone(), e.clone()));
        Self { left: left.collect() }
    }

    fn take(&mut self, name: &str) -> Option<Entry> {
        self.left.remove(name)
    }

    /// Finds what holds the plain tensor `entry`, and checks its sizes.
    fn locate(&mut self, entry: &Entry, data_start: u64) -> Result<Stored, String> {
        let range = |found: &Entry| Range {
            start: data_start + found.start,
            bytes: found.bytes,
        };
        if let Some(found) = self.take(&entry.name) {
            let same = found.dtype == entry.dtype && found.shape == entry.shape && found.bytes == entry.bytes;
            return if same {
                Ok(Stored::Plain(range(&found)))
            } else {
                Err(format!(
                    "`{}` is {} {:?} and should be {} {:?}",
                    entry.name, found.dtype, found.shape, entry.dtype, entry.shape
                ))
            };
        }
        let missing = || format!("it does not hold `{}`", entry.name);
        let encoding = self.encoding(&entry.name).ok_or_else(missing)?;
        let [code_name, values_name] = part_names(&entry.name, encoding);
        let code = self.take(&code_name).ok_or_else(missing)?;
        let values = self
            .take(&values_name)
            .ok_or_else(|| format!("it has no `{values_name}`"))?;
        let width = entry.dtype.bits().and_then(width_of);
        let width = width.ok_or_else(|| format!("{} cannot be packed", entry.dtype))?;
        if code.dtype != StoredDtype::Other("U8".into()) || values.dtype != entry.dtype {
            return Err(format!(
                "`{}` is packed as {} and {}",
                entry.name, code.dtype, values.dtype
            ));
        }
        let elements = entry.bytes / width as u64;
        if encoding.code_bytes(elements) != Some(code.bytes) {
            return Err(format!(
                "`{code_name}` of {} bytes does not fit {elements} elements",
                code.bytes
            ));
        }
        Ok(Stored::Packed {
            encoding,
            code: range(&code),
            values: range(&values),
            width,
        })
    }

    /// The encoding of `name`, from the name of its codes.
    fn encoding(&self, name: &str) -> Option<Encoding> {
        let prefix = format!("{name}#");
        self.left
            .range(prefix.clone()..)
            .map_while(|(found, _)| found.strip_prefix(&prefix))
            .find_map(Encoding::from_tag)
    }
}
