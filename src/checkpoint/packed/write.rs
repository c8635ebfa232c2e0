//! A packed weight file, written. In: a plain weight file of an opened checkpoint. Out: the packed file, and what each
//! tensor came to.

use super::codec::{Choice, Parts, choose, encode, width_of};
use super::{
    CHECKSUM_TENSOR, FILE_KEY, HEADER_TENSOR, SHA256_KEY, VERSION, VERSION_KEY, crc32, header_checksum,
    part_names,
};
use crate::checkpoint::build::FileBuilder;
use crate::checkpoint::header::Entry;
use crate::checkpoint::plain::PlainShard;
use crate::checkpoint::{Checkpoint, CheckpointError, StoredDtype};
use crate::error::Result;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// What a second entry in the header takes, apart from the name; a tensor that saves less is left as it is.
const ENTRY_BYTES: u64 = 128;

/// What became of one tensor.
#[derive(Debug, Clone)]
pub(crate) struct PackedTensor {
    /// Its size in the plain file, in bytes.
    pub(crate) plain_bytes: u64,
    /// How it is packed, where it is.
    pub(crate) choice: Option<Choice>,
}

impl PackedTensor {
    /// "mask", "2:4", …, where it is packed.
    pub(crate) fn encoding(&self) -> Option<String> {
        self.choice.map(|choice| choice.encoding.tag())
    }
}

/// Writes the packed form of `shard`, a file of `source`, to `sink`, tensor by tensor: once through the tensors to choose,
/// once to write.
///
/// # Errors
/// When a tensor cannot be read, `sink` refuses bytes, or the file has a tensor with a name of the container's own.
pub(crate) fn write_shard(
    source: &Checkpoint,
    shard: &PlainShard,
    sink: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<Vec<PackedTensor>> {
    let names: BTreeSet<&str> = shard.header.entries.iter().map(|e| e.name.as_str()).collect();
    if let Some(name) = [HEADER_TENSOR, CHECKSUM_TENSOR]
        .iter()
        .find(|n| names.contains(*n))
    {
        return Err(CheckpointError::ReservedName {
            file: shard.name.clone(),
            tensor: (*name).to_owned(),
        }
        .into());
    }
    let mut hasher = Sha256::new();
    hasher.update(&shard.header_bytes);
    let mut plans = BTreeMap::new();
    for entry in shard.header.in_file_order() {
        let bytes = source.raw(&entry.name)?;
        hasher.update(&bytes);
        plans.insert(
            entry.name.as_str(),
            (crc32(&bytes), choice(entry, &bytes, &names)),
        );
    }
    let sha256 = format!("{:x}", hasher.finalize());
    container(source, shard, &plans, sha256).write(sink)?;
    let tensors = shard.header.entries.iter().map(|entry| PackedTensor {
        plain_bytes: entry.bytes,
        choice: plans[entry.name.as_str()].1,
    });
    Ok(tensors.collect())
}

/// The best encoding, where it makes the tensor smaller and no other tensor has a name that it needs.
fn choice(entry: &Entry, bytes: &[u8], names: &BTreeSet<&str>) -> Option<Choice> {
    let width = entry.dtype.bits().and_then(width_of)?;
    if bytes.is_empty() {
        return None;
    }
    let prefix = format!("{}#", entry.name);
    if names
        .range(prefix.as_str()..)
        .next()
        .is_some_and(|next| next.starts_with(&prefix))
    {
        return None;
    }
    let columns = entry.shape.last().copied().unwrap_or(1);
    let choice = choose(bytes, width, columns);
    let overhead = ENTRY_BYTES + entry.name.len() as u64;
    (choice.bytes() + overhead < entry.bytes).then_some(choice)
}

type Plans<'a> = BTreeMap<&'a str, (u32, Option<Choice>)>;

/// The packed file.
fn container<'a>(
    source: &'a Checkpoint,
    shard: &'a PlainShard,
    plans: &Plans<'_>,
    sha256: String,
) -> FileBuilder<'a> {
    let u8s = || StoredDtype::Other("U8".into());
    let mut file = FileBuilder::default();
    file.note(VERSION_KEY, VERSION.to_owned());
    file.note(FILE_KEY, shard.name.clone());
    file.note(SHA256_KEY, sha256);
    let json = shard.header_bytes[8..].to_vec();
    let checksums: Vec<u8> = std::iter::once(header_checksum(&shard.name, &json))
        .chain(
            shard
                .header
                .entries
                .iter()
                .map(|entry| plans[entry.name.as_str()].0),
        )
        .flat_map(u32::to_le_bytes)
        .collect();
    file.add_bytes(HEADER_TENSOR.into(), u8s(), vec![json.len()], json);
    let u32s = StoredDtype::Other("U32".into());
    file.add_bytes(CHECKSUM_TENSOR.into(), u32s, vec![checksums.len() / 4], checksums);
    for entry in &shard.header.entries {
        let name = entry.name.as_str();
        let width = entry.dtype.bits().and_then(width_of);
        let (Some(choice), Some(width)) = (plans[name].1, width) else {
            file.add_entry(entry.clone(), Box::new(move || source.raw(name)));
            continue;
        };
        // The two halves of a tensor do not lie together: the wider elements come first, so that all are aligned. The
        // tensor is read and encoded for each of them.
        let parts = move || Ok(encode(&source.raw(name)?, width, choice.encoding));
        let [code, values] = part_names(name, choice.encoding);
        let code_shape = vec![choice.code_bytes as usize];
        let values_shape = vec![choice.value_bytes as usize / width];
        file.add(
            code,
            u8s(),
            code_shape,
            Box::new(move || parts().map(|p: Parts| p.code)),
        );
        let dtype = entry.dtype.clone();
        file.add(
            values,
            dtype,
            values_shape,
            Box::new(move || parts().map(|p: Parts| p.values)),
        );
    }
    file
}
