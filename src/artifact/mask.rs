//! Which weights a pruned model keeps, as a file of its own: to hand a mask on without the weights. In: a pruned model, or
//! a dense one and a mask. Out: a safetensors file with a bit a weight, or the dense model with the mask's zeros.
//!
//! The file holds for each operator with zeros the tensor `NAME.weight` U8 `[out, ⌈in/8⌉]`: bit c mod 8, from the lowest,
//! of byte ⌊c/8⌋ of a row is set where the weight of input c is kept. `__metadata__` has the version
//! (`fista_pruner.mask`), the operators' shapes as a JSON object (`fista_pruner.shapes`), and a SHA-256 over names,
//! shapes and bits (`fista_pruner.sha256`).

use crate::checkpoint::build::FileBuilder;
use crate::checkpoint::file::WeightFile;
use crate::checkpoint::header::{Entry, Header};
use crate::checkpoint::{Checkpoint, CheckpointWriter, Model, StoredDtype};
use crate::error::{ArtifactError, ConfigError, Error, Result};
use crate::report;
use crate::system::{AtomicFile, Destination};
use fista_pruner_models::LayerOperator;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// The version of the layout that is written, and the only one that is read.
const VERSION: &str = "1";
const VERSION_KEY: &str = "fista_pruner.mask";
const SHAPES_KEY: &str = "fista_pruner.shapes";
const SHA256_KEY: &str = "fista_pruner.sha256";

/// What a mask says, over all of its operators.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MaskSummary {
    /// Operators with a mask.
    pub operators: usize,
    /// Operators of the model without one: they stay as they are.
    pub without_mask: usize,
    /// Weights of the operators with a mask.
    pub weights: usize,
    /// Those that the mask removes.
    pub zeros: usize,
    /// Their share.
    pub sparsity: f64,
    /// Size of the mask's file in bytes.
    pub file_bytes: u64,
}

/// One operator's mask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OperatorMask {
    /// `[out, in]`.
    pub(crate) shape: [usize; 2],
    /// `[out, ⌈in/8⌉]`.
    pub(crate) bits: Vec<u8>,
}

/// Masks by the full name of the weight.
pub(crate) type Masks = BTreeMap<String, OperatorMask>;

/// Whether a stored floating-point number is neither +0 nor −0: any bit but the sign is set.
pub(crate) fn is_nonzero(element: &[u8]) -> bool {
    match element.split_last() {
        Some((last, rest)) => last & 0x7F != 0 || rest.iter().any(|b| *b != 0),
        None => false,
    }
}

/// A bit an entry, rows of `columns` entries padded to whole bytes, the first entry in the lowest bit.
pub(crate) fn bits(keep: &[bool], columns: usize) -> Vec<u8> {
    let byte = |bits: &[bool]| {
        let bits = bits.iter().enumerate();
        bits.fold(0, |byte, (i, keep)| byte | (u8::from(*keep) << i))
    };
    keep.chunks(columns.max(1))
        .flat_map(|row| row.chunks(8).map(byte))
        .collect()
}

impl OperatorMask {
    pub(crate) fn zeros(&self) -> usize {
        let kept: u32 = self.bits.iter().map(|b| b.count_ones()).sum();
        self.shape[0] * self.shape[1] - kept as usize
    }

    pub(crate) fn keeps(&self, row: usize, column: usize) -> bool {
        let row_bytes = self.shape[1].div_ceil(8);
        self.bits[row * row_bytes + column / 8] >> (column % 8) & 1 == 1
    }

    /// Sets what the mask removes to +0; everything else stays bit for bit.
    fn apply(&self, bytes: &mut [u8]) {
        let [rows, columns] = self.shape;
        let width = bytes.len() / (rows * columns).max(1);
        for (row, weights) in bytes.chunks_mut((columns * width).max(1)).enumerate() {
            for (column, weight) in weights.chunks_mut(width).enumerate() {
                if !self.keeps(row, column) {
                    weight.fill(0);
                }
            }
        }
    }
}

/// Writes the mask of `model` to `output`.
///
/// # Errors
/// When the model has no zeros, `output` exists and `overwrite` is not set, or anything cannot be read or written.
pub fn export(model: &Model, output: &Path, overwrite: bool) -> Result<MaskSummary> {
    let output = &Destination::new(output, overwrite)
        .apart_from(model.dir())
        .file()?;
    let mut masks = Masks::new();
    let operators = operators(model);
    for (name, shape) in &operators {
        let dtype = &model.checkpoint.expect(name, shape)?.dtype;
        let width = (dtype.bits().unwrap_or(0) / 8).max(1) as usize;
        let keep: Vec<bool> = model
            .checkpoint
            .raw(name)?
            .chunks(width)
            .map(is_nonzero)
            .collect();
        if keep.contains(&false) {
            let (shape, bits) = (*shape, bits(&keep, shape[1]));
            masks.insert(name.clone(), OperatorMask { shape, bits });
        }
    }
    if masks.is_empty() {
        return Err(Error::from(ConfigError::Setting {
            setting: "‹model›",
            reason: "no operator of the model has a zero, so there is no mask".into(),
        }));
    }
    let file_bytes = write(&masks, output)?;
    let read_back = read(output)?;
    if read_back != masks {
        return Err(Error::internal(format!(
            "the mask `{}` does not read back as it was written",
            output.display()
        )));
    }
    Ok(summary(&masks, &operators, file_bytes))
}

/// Writes the checkpoint of `dense` with the zeros of the mask `file` to the folder `output`.
///
/// # Errors
/// When the mask is damaged or not one of this model, or as [`CheckpointWriter::create`].
pub fn apply(dense: &Model, file: &Path, output: &Path, overwrite: bool) -> Result<MaskSummary> {
    let masks = read(file)?;
    let operators = operators(dense);
    for (name, mask) in &masks {
        match operators.get(name) {
            None => return Err(refused(file, format!("the model has no operator `{name}`"))),
            Some(shape) if *shape != mask.shape => {
                return Err(refused(
                    file,
                    format!(
                        "`{name}` has shape {:?} in it and {shape:?} in the model",
                        mask.shape
                    ),
                ));
            }
            Some(_) => {}
        }
    }
    let destination = Destination::new(output, overwrite).apart_from(file);
    let mut writer = CheckpointWriter::create_at(&dense.checkpoint, &destination)?;
    for (name, mask) in &masks {
        let mut bytes = dense.checkpoint.raw(name)?;
        mask.apply(&mut bytes);
        writer.write_stored(name, &bytes)?;
    }
    // A report that came with the model would describe other zeros.
    for name in report::FILE_NAMES {
        let stale = writer.partial().join(name);
        if stale.exists() {
            std::fs::remove_file(&stale).map_err(Error::io("remove", &stale))?;
        }
    }
    check(&Checkpoint::open(writer.partial())?, dense, &masks)?;
    writer.finish()?;
    let file_bytes = std::fs::metadata(file).map_err(Error::io("read", file))?.len();
    Ok(summary(&masks, &operators, file_bytes))
}

/// Reads every weight with a mask back.
fn check(written: &Checkpoint, dense: &Model, masks: &Masks) -> Result<()> {
    for (name, mask) in masks {
        let mut expected = dense.checkpoint.raw(name)?;
        mask.apply(&mut expected);
        if written.raw(name)? != expected {
            return Err(Error::internal(format!(
                "`{name}` does not read back as it was written"
            )));
        }
    }
    Ok(())
}

/// Every operator of the decoder layers: its weight's name and shape.
fn operators(model: &Model) -> BTreeMap<String, [usize; 2]> {
    let named = |operator: LayerOperator| (operator.weight(), operator.shape());
    model.decoder.operators().map(named).collect()
}

fn summary(masks: &Masks, operators: &BTreeMap<String, [usize; 2]>, file_bytes: u64) -> MaskSummary {
    let weights: usize = masks.values().map(|m| m.shape[0] * m.shape[1]).sum();
    let zeros: usize = masks.values().map(OperatorMask::zeros).sum();
    MaskSummary {
        operators: masks.len(),
        without_mask: operators.len() - masks.len(),
        weights,
        zeros,
        sparsity: zeros as f64 / weights.max(1) as f64,
        file_bytes,
    }
}

fn refused(path: &Path, reason: String) -> Error {
    let path = path.to_path_buf();
    Error::from(ArtifactError::Mask { path, reason })
}

/// A SHA-256 in hex over each name, shape and bits, with lengths before what varies.
fn sha256(masks: &Masks) -> String {
    let mut hasher = Sha256::new();
    for (name, mask) in masks {
        hasher.update((name.len() as u64).to_le_bytes());
        hasher.update(name);
        mask.shape
            .iter()
            .for_each(|n| hasher.update((*n as u64).to_le_bytes()));
        hasher.update(&mask.bits);
    }
    format!("{:x}", hasher.finalize())
}

/// Writes beside `output` and renames, so that it appears whole. Gives its size in bytes.
pub(crate) fn write(masks: &Masks, output: &Path) -> Result<u64> {
    let mut file = FileBuilder::default();
    for (name, mask) in masks {
        let shape = vec![mask.shape[0], mask.shape[1].div_ceil(8)];
        let u8s = StoredDtype::Other("U8".into());
        file.add(name.clone(), u8s, shape, Box::new(|| Ok(mask.bits.clone())));
    }
    let shapes: BTreeMap<&str, [usize; 2]> = masks.iter().map(|(n, m)| (n.as_str(), m.shape)).collect();
    file.note(VERSION_KEY, VERSION.into());
    file.note(SHAPES_KEY, serde_json::json!(shapes).to_string());
    file.note(SHA256_KEY, sha256(masks));
    let mut partial = AtomicFile::create(output)?;
    let bytes = file.write(&mut |bytes| partial.write(bytes))?;
    partial.finish()?;
    Ok(bytes)
}

/// Reads and checks a mask.
pub(crate) fn read(path: &Path) -> Result<Masks> {
    let wrong = |reason: String| refused(path, reason);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let file = WeightFile::open(path.parent().unwrap_or(Path::new("")), &name)?;
    let (header, _) = Header::read(&file)?;
    let metadata = header.metadata.clone().unwrap_or_default();
    match metadata.get(VERSION_KEY).map(String::as_str) {
        Some(VERSION) => {}
        Some(other) => {
            return Err(wrong(format!(
                "it has version {other} of the layout, and {VERSION} is read"
            )));
        }
        None => return Err(wrong("it is not a mask that `mask export` wrote".into())),
    }
    let shapes = metadata.get(SHAPES_KEY).map_or("{}", String::as_str);
    let shapes: BTreeMap<String, [usize; 2]> =
        serde_json::from_str(shapes).map_err(|e| wrong(format!("its shapes cannot be parsed: {e}")))?;
    if shapes.len() != header.entries.len() {
        return Err(wrong(format!(
            "it has {} shapes for {} tensors",
            shapes.len(),
            header.entries.len()
        )));
    }
    let mut masks = Masks::new();
    for entry in &header.entries {
        let shape = *shapes
            .get(&entry.name)
            .ok_or_else(|| wrong(format!("`{}` has no shape", entry.name)))?;
        check_entry(entry, shape).map_err(&wrong)?;
        let bits = file.read(header.data_start + entry.start, entry.bytes as usize)?;
        let mask = OperatorMask { shape, bits };
        masks.insert(entry.name.clone(), mask);
    }
    if metadata.get(SHA256_KEY) != Some(&sha256(&masks)) {
        return Err(wrong("it is damaged: its SHA-256 is wrong".into()));
    }
    for (name, mask) in &masks {
        let [_, columns] = mask.shape;
        let unused =
            |row: &[u8]| !columns.is_multiple_of(8) && row.last().is_some_and(|b| b >> (columns % 8) != 0);
        if mask.bits.chunks(columns.div_ceil(8).max(1)).any(unused) {
            return Err(wrong(format!("`{name}` has bits after the last input")));
        }
    }
    Ok(masks)
}

fn check_entry(entry: &Entry, [rows, columns]: [usize; 2]) -> Result<(), String> {
    let fits = entry.dtype.name() == "U8" && entry.shape == [rows, columns.div_ceil(8)];
    if fits && rows.checked_mul(columns).is_some() {
        return Ok(());
    }
    Err(format!(
        "`{}` is {} {:?}, which are not the bits of {rows} x {columns} weights",
        entry.name, entry.dtype, entry.shape
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Masks {
        let mask = |shape: [usize; 2], bits: Vec<u8>| OperatorMask { shape, bits };
        Masks::from([
            (
                "a.weight".to_owned(),
                mask([2, 10], vec![0b1010_1010, 0b01, 0xFF, 0b11]),
            ),
            ("b.weight".to_owned(), mask([1, 8], vec![0])),
        ])
    }

    #[test]
    fn a_written_mask_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mask.safetensors");
        let bytes = write(&sample(), &path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), bytes);
        assert_eq!(read(&path).unwrap(), sample());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn every_damaged_byte_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mask.safetensors");
        write(&sample(), &path).unwrap();
        let good = std::fs::read(&path).unwrap();
        for position in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[position] ^= 1 << bit;
                std::fs::write(&path, &bad).unwrap();
                // `format` may say anything: no reader of masks looks at it.
                if let Ok(masks) = read(&path) {
                    assert_eq!(masks, sample(), "byte {position}, bit {bit}");
                }
            }
            std::fs::write(&path, &good[..position]).unwrap();
            assert!(read(&path).is_err(), "{position} bytes");
        }
    }

    proptest! {
        #[test]
        fn bits_and_entries_agree(rows in 0usize..5, columns in 1usize..40, seed in any::<u64>()) {
            let keep: Vec<bool> = (0..rows * columns).map(|i| seed.rotate_left(i as u32 * 7) & 1 == 1).collect();
            let mask = OperatorMask { shape: [rows, columns], bits: bits(&keep, columns) };
            prop_assert_eq!(mask.bits.len(), rows * columns.div_ceil(8));
            for (i, keep) in keep.iter().enumerate() {
                prop_assert_eq!(mask.keeps(i / columns, i % columns), *keep);
            }
            let mut bytes: Vec<u8> = (0..rows * columns).flat_map(|i| (i as u16 | 0x8000).to_le_bytes()).collect();
            let before = bytes.clone();
            mask.apply(&mut bytes);
            for (i, keep) in keep.iter().enumerate() {
                let expected = if *keep { &before[2 * i..2 * i + 2] } else { &[0, 0] };
                prop_assert_eq!(&bytes[2 * i..2 * i + 2], expected);
            }
            prop_assert_eq!(mask.zeros(), keep.iter().filter(|k| !**k).count());
        }
    }

    #[test]
    fn both_zeros_are_zero() {
        assert!(!is_nonzero(&[0, 0]) && !is_nonzero(&[0, 0x80]));
        assert!(is_nonzero(&[1, 0]) && is_nonzero(&[0, 1]) && is_nonzero(&[1, 0x80]));
    }
}
