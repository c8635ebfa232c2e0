//! `pytorch_model.bin`: state dicts that torch saved. In: an opened file. Out: where each tensor's numbers lie in it, for
//! `reader`; nothing is executed and no number is read.
//!
//! Two containers are read: the zip archive of torch 1.6 and later, and the sequence of pickles of torch 0.4 to 1.5.
//! Strides are honoured, several tensors may share a storage, and a storage that is missing or too short is an error.
//! (burn-store 0.21's reader was tried first: it ignores strides, so that a transposed weight comes out wrong without an
//! error, it panics on empty tensors, and its source reads a missing storage as zeros.)

use super::file::WeightFile;
use super::header::bytes_of;
use super::pickle::{PickleError, StorageRef, TensorRef, unpickle};
use super::zip::{self, StoredEntry};
use super::{CheckpointError, StoredDtype};
use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// torch's magic number as the first pickle of the older container: protocol 2, a 10-byte integer, stop.
const LEGACY_MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
/// No state dict's description is this long.
const MAX_PICKLE_BYTES: u64 = 100_000_000;

/// A tensor's place in the file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Place {
    pub(crate) dtype: StoredDtype,
    pub(crate) shape: Vec<usize>,
    /// Byte position of its first element.
    pub(crate) start: u64,
    /// Distance of neighbours along each axis, in elements; `None` where the tensor is row-major and dense.
    pub(crate) strides: Option<Vec<u64>>,
}

/// The tensors of a state dict by name, and its pickle for the fingerprint.
pub(crate) fn read(file: &WeightFile) -> Result<(BTreeMap<String, Place>, Vec<u8>)> {
    let (tensors, storages, pickle) = if zip::is_zip(file)? {
        read_zip(file)?
    } else if file.bytes >= LEGACY_MAGIC.len() as u64 && file.read(0, LEGACY_MAGIC.len())? == LEGACY_MAGIC {
        read_legacy(file)?
    } else {
        return Err(damaged(
            file,
            "it is neither a zip archive nor the older format of torch 0.4 to 1.5",
        ));
    };
    let place = |(name, tensor): (String, TensorRef)| {
        let place = place(&tensor, storages.get(&tensor.storage.key).copied());
        place
            .map(|place| (name.clone(), place))
            .map_err(|reason| damaged(file, format!("`{name}` {reason}")))
    };
    Ok((tensors.into_iter().map(place).collect::<Result<_>>()?, pickle))
}

type StateDict = (
    BTreeMap<String, TensorRef>,
    BTreeMap<String, StoredEntry>,
    Vec<u8>,
);

fn damaged(file: &WeightFile, reason: impl Into<String>) -> Error {
    CheckpointError::Pytorch {
        file: file.path.clone(),
        reason: reason.into(),
    }
    .into()
}

fn refused(file: &WeightFile, error: PickleError) -> Error {
    match error {
        PickleError::Object(object) => CheckpointError::PythonObject {
            file: file.path.clone(),
            object,
        }
        .into(),
        PickleError::Damaged(reason) => damaged(file, reason),
    }
}

/// torch ≥ 1.6: `NAME/data.pkl` describes the tensors, `NAME/data/KEY` holds a storage.
fn read_zip(file: &WeightFile) -> Result<StateDict> {
    let entries = zip::entries(file)?;
    let mut pickles = entries
        .iter()
        .filter_map(|(name, entry)| Some((name.strip_suffix("data.pkl")?, entry)));
    let (Some((prefix, pickle)), None) = (pickles.next(), pickles.next()) else {
        return Err(damaged(file, "the archive does not hold exactly one data.pkl"));
    };
    if let Some(order) = entries.get(&format!("{prefix}byteorder"))
        && order.bytes < 64
        && file.read(order.start, order.bytes as usize)? == b"big"
    {
        return Err(damaged(file, "it was saved on a big-endian machine"));
    }
    if pickle.bytes > MAX_PICKLE_BYTES {
        return Err(damaged(file, "its data.pkl is impossibly long"));
    }
    let raw = file.read(pickle.start, pickle.bytes as usize)?;
    let tensors = unpickle(&raw)
        .and_then(|u| u.state_dict())
        .map_err(|e| refused(file, e))?;
    let data = format!("{prefix}data/");
    let storages = entries
        .iter()
        .filter_map(|(name, entry)| Some((name.strip_prefix(&data)?.to_owned(), *entry)))
        .collect();
    Ok((tensors, storages, raw))
}

/// torch < 1.6: pickles of magic number, protocol, system, state dict and storage names, then each storage as its number
/// of elements (8 bytes) and its bytes.
fn read_legacy(file: &WeightFile) -> Result<StateDict> {
    // The description is far shorter than the data, but its length is not written down.
    let head = file.read(0, file.bytes.min(MAX_PICKLE_BYTES) as usize)?;
    let mut position = 0;
    let mut next = || {
        let unpickled = unpickle(&head[position..]).map_err(|e| refused(file, e))?;
        position += unpickled.bytes;
        Ok::<_, Error>(unpickled)
    };
    let (_magic, _protocol, system) = (next()?, next()?, next()?);
    if system.flag("little_endian") == Some(false) {
        return Err(damaged(file, "it was saved on a big-endian machine"));
    }
    let described = next()?;
    let keys = next()?;
    let tensors = described.state_dict().map_err(|e| refused(file, e))?;
    let referred = described.storages();
    let mut storages = BTreeMap::new();
    let mut start = position as u64;
    for key in keys.strings().map_err(|e| refused(file, e))? {
        let Some(storage) = referred.get(key) else {
            return Err(damaged(file, format!("the storage `{key}` belongs to no tensor")));
        };
        let elements = file
            .read(start, 8)?
            .try_into()
            .map(u64::from_le_bytes)
            .unwrap_or(u64::MAX);
        let bytes = storage_bytes(storage).filter(|_| elements == storage.elements);
        let Some(bytes) = bytes else {
            return Err(damaged(
                file,
                format!("the storage `{key}` has another size than its tensors say"),
            ));
        };
        start += 8;
        storages.insert(key.to_owned(), StoredEntry { start, bytes });
        start = start.saturating_add(bytes);
    }
    if start > file.bytes {
        return Err(CheckpointError::Truncated {
            file: file.path.clone(),
            found: file.bytes,
            expected: start,
        }
        .into());
    }
    let description = head[..position].to_vec();
    Ok((tensors, storages, description))
}

fn storage_bytes(storage: &StorageRef) -> Option<u64> {
    bytes_of(&[usize::try_from(storage.elements).ok()?], storage.dtype.bits()?)
}

/// Checks the tensor against its storage; the error continues a sentence that begins with the tensor's name.
fn place(tensor: &TensorRef, entry: Option<StoredEntry>) -> Result<Place, String> {
    let key = &tensor.storage.key;
    let entry = entry.ok_or_else(|| format!("lies in the storage `{key}`, which is missing"))?;
    let declared =
        storage_bytes(&tensor.storage).ok_or_else(|| format!("has a storage `{key}` of impossible size"))?;
    if entry.bytes < declared {
        return Err(format!(
            "lies in the storage `{key}`, which has {} bytes and needs {declared}",
            entry.bytes
        ));
    }
    let bits = tensor.dtype.bits().ok_or("has an unknown number format")?;
    let beyond = || format!("reaches beyond the end of its storage `{key}`");
    bytes_of(&tensor.shape, bits).ok_or_else(beyond)?;
    let empty = tensor.shape.contains(&0);
    if !empty {
        let last = tensor
            .shape
            .iter()
            .zip(&tensor.strides)
            .try_fold(tensor.offset, |at, (&n, &stride)| {
                at.checked_add((n as u64 - 1).checked_mul(stride)?)
            });
        let end = last
            .and_then(|last| last.checked_add(1)?.checked_mul(bits / 8))
            .ok_or_else(beyond)?;
        if end > declared {
            return Err(beyond());
        }
    }
    let start = if empty {
        entry.start
    } else {
        entry.start + tensor.offset * (bits / 8)
    };
    let dense = empty || is_row_major(&tensor.shape, &tensor.strides);
    let strides = (!dense).then(|| tensor.strides.clone());
    Ok(Place {
        dtype: tensor.dtype.clone(),
        shape: tensor.shape.clone(),
        start,
        strides,
    })
}

/// Axes of length one have no neighbours, so their stride does not matter.
fn is_row_major(shape: &[usize], strides: &[u64]) -> bool {
    let mut expected = 1;
    for (&n, &stride) in shape.iter().zip(strides).rev() {
        if n != 1 && stride != expected {
            return false;
        }
        expected *= n as u64;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;
    use std::path::{Path, PathBuf};

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/torch")
            .join(name)
    }

    /// A checkpoint folder with that file as its weights, changed by `change`.
    fn folder(name: &str, change: impl FnOnce(&mut Vec<u8>)) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = std::fs::read(fixture(name)).unwrap();
        change(&mut bytes);
        std::fs::write(dir.path().join("config.json"), "{}").unwrap();
        std::fs::write(dir.path().join("pytorch_model.bin"), bytes).unwrap();
        dir
    }

    fn error(name: &str, change: impl FnOnce(&mut Vec<u8>)) -> CheckpointError {
        match Checkpoint::open(folder(name, change).path()) {
            Err(Error::Checkpoint(error)) => error,
            other => panic!("expected an error, got {other:?}"),
        }
    }

    #[test]
    fn reads_what_torch_saved_in_both_containers() {
        let expected = WeightFile::open(&fixture(""), "expected.safetensors").unwrap();
        let (header, _) = super::super::header::Header::read(&expected).unwrap();
        for container in ["modern.bin", "legacy.bin", "float8.bin"] {
            let dir = folder(container, |_| {});
            let checkpoint = Checkpoint::open(dir.path()).unwrap();
            for entry in &header.entries {
                let info = checkpoint.info(&entry.name).unwrap();
                assert_eq!(
                    (&info.dtype, &info.shape),
                    (&entry.dtype, &entry.shape),
                    "{}",
                    entry.name
                );
                let bytes = expected
                    .read(header.data_start + entry.start, entry.bytes as usize)
                    .unwrap();
                assert_eq!(
                    checkpoint.raw(&entry.name).unwrap(),
                    bytes,
                    "{container}: {}",
                    entry.name
                );
            }
            let others = if container == "float8.bin" { 1 } else { 0 };
            assert_eq!(checkpoint.tensors().count(), header.entries.len() + others);
            assert_eq!(checkpoint.read("transposed", &[4, 5]).unwrap().len(), 20);
        }
    }

    #[test]
    fn executes_nothing() {
        let error = error("hostile.bin", |_| {});
        assert!(
            matches!(&error, CheckpointError::PythonObject { object, .. } if object.ends_with("system")),
            "{error}"
        );
    }

    #[test]
    fn finds_the_model_in_a_training() {
        let nested = Checkpoint::open(folder("nested.bin", |_| {}).path()).unwrap();
        let modern = Checkpoint::open(folder("modern.bin", |_| {}).path()).unwrap();
        assert!(nested.tensors().count() > 0);
        for (name, info) in nested.tensors() {
            assert_eq!(Some(info), modern.info(name));
            assert_eq!(nested.raw(name).unwrap(), modern.raw(name).unwrap());
        }
    }

    #[test]
    fn says_what_is_wrong_with_damaged_files() {
        assert!(matches!(
            error("modern.bin", |b| b.truncate(b.len() - 30)),
            CheckpointError::Pytorch { .. }
        ));
        assert!(matches!(
            error("modern.bin", |b| b.truncate(b.len() / 2)),
            CheckpointError::Pytorch { .. }
        ));
        assert!(matches!(
            error("legacy.bin", |b| b.truncate(b.len() - 1)),
            CheckpointError::Truncated { .. }
        ));
        assert!(matches!(
            error("modern.bin", |b| *b = b"<html>".repeat(9)),
            CheckpointError::Pytorch { .. }
        ));
        assert!(matches!(
            error("modern.bin", Vec::clear),
            CheckpointError::Pytorch { .. }
        ));
    }

    #[test]
    fn entries_that_are_no_plain_bytes_are_refused() {
        // Flags and method of the first record of the archive's directory.
        for (field, value, said) in [(8, 1, "encrypted"), (10, 8, "compressed")] {
            let error = error("modern.bin", |bytes| {
                let record = bytes.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
                bytes[record + field] = value;
            });
            assert!(
                matches!(&error, CheckpointError::Pytorch { reason, .. } if reason.contains(said)),
                "{error}"
            );
        }
    }

    #[test]
    fn a_missing_storage_is_an_error_and_not_zeros() {
        // Renames the storage `data/2` in both directories of the archive.
        let renamed = error("modern.bin", |bytes| {
            for at in 0..bytes.len() - 7 {
                if bytes[at..].starts_with(b"/data/2") && !bytes[at + 7].is_ascii_digit() {
                    bytes[at + 6] = b'x';
                }
            }
        });
        assert!(
            matches!(&renamed, CheckpointError::Pytorch { reason, .. } if reason.contains("missing")),
            "{renamed}"
        );
    }

    #[test]
    fn no_flipped_byte_makes_it_panic() {
        for container in ["modern.bin", "legacy.bin"] {
            let dir = folder(container, |_| {});
            let path = dir.path().join("pytorch_model.bin");
            let original = std::fs::read(&path).unwrap();
            for at in (0..original.len()).step_by(7) {
                let mut bytes = original.clone();
                bytes[at] ^= 0x55;
                std::fs::write(&path, bytes).unwrap();
                if let Ok(checkpoint) = Checkpoint::open(dir.path()) {
                    for (name, info) in checkpoint.tensors() {
                        // A changed stride of zero can ask for any amount; only plausible sizes are read.
                        if info
                            .shape
                            .iter()
                            .try_fold(1usize, |p, &n| p.checked_mul(n))
                            .is_some_and(|n| n < 1 << 16)
                        {
                            let _ = checkpoint.raw(name);
                        }
                    }
                }
            }
        }
    }
}
