//! Smaller files for pruned checkpoints: without their zeros, and back. In: an opened checkpoint. Out: a folder of packed
//! weight files (`docs/packed-format.md`) with the same side files, or the plain folder again, byte for byte.
//!
//! Every command reads packed folders as they are; nothing needs to be unpacked for this program. Other programs need the
//! plain folder, or, for old ones, what [`compressed_tensors`] exports.

pub mod compressed_tensors;

use crate::checkpoint::packed::{PackedTensor, packed_index_name, packed_name, write_shard};
use crate::checkpoint::{Checkpoint, CheckpointWriter, Destination, WeightFormat};
use crate::error::{Error, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

/// Sizes of the same tensors or files in both forms, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Sizes {
    /// How many there are.
    pub count: usize,
    /// As plain safetensors.
    pub plain_bytes: u64,
    /// Packed.
    pub packed_bytes: u64,
}

impl Sizes {
    pub(crate) fn add(&mut self, plain_bytes: u64, packed_bytes: u64) {
        self.count += 1;
        self.plain_bytes += plain_bytes;
        self.packed_bytes += packed_bytes;
    }

    /// Packed bytes as a share of the plain ones.
    pub fn share(&self) -> f64 {
        self.packed_bytes as f64 / self.plain_bytes.max(1) as f64
    }
}

/// What packing came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PackSummary {
    /// The tensors that are packed.
    pub packed_tensors: Sizes,
    /// The same by how they are packed: `mask`, or n:m for groups.
    pub by_encoding: BTreeMap<String, Sizes>,
    /// The tensors that would not get smaller and stay as they are.
    pub other_tensors: Sizes,
    /// The weight files as a whole, headers included.
    pub weight_files: Sizes,
    /// Whether the source is in torch's format: unpacking then gives safetensors with the same tensors.
    pub converted: bool,
    /// Files and folders of the source that were not copied, because they hold the weights in another format.
    pub left_out: Vec<String>,
}

/// Packs a checkpoint into the folder `output`, checks that every file comes back, and puts the folder in its place.
///
/// # Errors
/// When anything cannot be read or written, or as [`CheckpointWriter::create`].
pub fn pack(source: &Checkpoint, output: &Path, overwrite: bool) -> Result<PackSummary> {
    let writer = CheckpointWriter::without_weights(source, &Destination::new(output, overwrite))?;
    let mut summary = PackSummary {
        packed_tensors: Sizes::default(),
        by_encoding: BTreeMap::new(),
        other_tensors: Sizes::default(),
        weight_files: Sizes::default(),
        converted: source.format() == WeightFormat::Pytorch,
        left_out: writer.left_out().to_vec(),
    };
    for shard in source.plain_shards()? {
        let name = packed_name(&shard.name);
        let mut file = writer.new_file(&name)?;
        let path = writer.partial().join(&name);
        let mut packed_bytes = 0;
        let tensors = write_shard(source, &shard, &mut |bytes| {
            packed_bytes += bytes.len() as u64;
            file.write_all(bytes).map_err(Error::io("write", &path))
        })?;
        let data_bytes: u64 = shard.header.entries.iter().map(|e| e.bytes).sum();
        summary
            .weight_files
            .add(shard.header_bytes.len() as u64 + data_bytes, packed_bytes);
        tensors.iter().for_each(|tensor| summary.add(tensor));
    }
    if let Some((name, content)) = source.plain_index()? {
        let name = packed_index_name(&name);
        let path = writer.partial().join(&name);
        writer
            .new_file(&name)?
            .write_all(&content)
            .map_err(Error::io("write", &path))?;
    }
    check(&Checkpoint::open(writer.partial())?)?;
    writer.finish()?;
    Ok(summary)
}

impl PackSummary {
    fn add(&mut self, tensor: &PackedTensor) {
        let bytes = tensor.choice.as_ref().map(|choice| choice.bytes());
        match (bytes, tensor.encoding()) {
            (Some(bytes), Some(encoding)) => {
                self.packed_tensors.add(tensor.plain_bytes, bytes);
                self.by_encoding
                    .entry(encoding)
                    .or_default()
                    .add(tensor.plain_bytes, bytes);
            }
            _ => self.other_tensors.add(tensor.plain_bytes, tensor.plain_bytes),
        }
    }
}

/// Reads a packed checkpoint completely and checks that every plain file comes back from it.
///
/// # Errors
/// When one does not.
pub(crate) fn check(packed: &Checkpoint) -> Result<()> {
    packed.shards().iter().try_for_each(|shard| match &shard.packed {
        Some(container) => container.unpack_checked(&shard.file, &mut |_| Ok(())),
        None => Ok(()),
    })
}

/// Writes the folder that `source` was packed from to `output`: the same files, byte for byte.
///
/// # Errors
/// When `source` is not packed or is damaged, or as [`CheckpointWriter::create`].
pub fn unpack(source: &Checkpoint, output: &Path, overwrite: bool) -> Result<Vec<String>> {
    let writer = CheckpointWriter::unpack(source, output, overwrite)?;
    let files = source.plain_shards()?.into_iter().map(|shard| shard.name);
    let files = files.collect();
    writer.finish()?;
    Ok(files)
}

#[cfg(test)]
mod tests;
