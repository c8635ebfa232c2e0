//! Packed weight files: a safetensors file without the zeros of its tensors, in a safetensors file of its own. The layout
//! is described in `docs/packed-format.md`.
//!
//! `container` reads one for [`Checkpoint`](super::Checkpoint), which gives its tensors as if they were not packed;
//! `write` makes one for [`pack`](crate::artifact::pack). `codec` and `groups` know bytes only.

mod codec;
mod container;
mod groups;
mod write;

pub(crate) use container::PackedShard;
pub(crate) use write::{PackedTensor, write_shard};

/// The version of the layout that is written, and the only one that is read.
pub(crate) const VERSION: &str = "1";

/// Keys of `__metadata__`: the layout's version, the plain file's name and its SHA-256.
pub(crate) const VERSION_KEY: &str = "fista_pruner.packed";
pub(crate) const FILE_KEY: &str = "fista_pruner.file";
pub(crate) const SHA256_KEY: &str = "fista_pruner.sha256";

/// Tensors of the container itself: the plain file's header, and checksums: of its name and header, then of
/// each tensor in its order.
pub(crate) const HEADER_TENSOR: &str = "#header";
pub(crate) const CHECKSUM_TENSOR: &str = "#crc32";

/// Ends of the names of packed weight files and of their index.
pub(crate) const SUFFIX: &str = ".packed.safetensors";
pub(crate) const INDEX_SUFFIX: &str = ".packed.safetensors.index.json";

/// `model.safetensors` → `model.packed.safetensors`.
pub(crate) fn packed_name(plain: &str) -> String {
    format!("{}{SUFFIX}", plain.strip_suffix(".safetensors").unwrap_or(plain))
}

/// `model.safetensors.index.json` → `model.packed.safetensors.index.json`.
pub(crate) fn packed_index_name(plain: &str) -> String {
    let stem = plain.strip_suffix(".safetensors.index.json").unwrap_or(plain);
    format!("{stem}{INDEX_SUFFIX}")
}

/// The inverse of [`packed_index_name`].
pub(crate) fn plain_index_name(packed: &str) -> String {
    let stem = packed.strip_suffix(INDEX_SUFFIX).unwrap_or(packed);
    format!("{stem}.safetensors.index.json")
}

/// The names of the tensors that hold `name` packed.
fn part_names(name: &str, encoding: codec::Encoding) -> [String; 2] {
    [format!("{name}#{}", encoding.tag()), format!("{name}#values")]
}

/// The checksum of the plain file's name and header.
pub(crate) fn header_checksum(name: &str, json: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(name.as_bytes());
    crc.update(json);
    crc.sum()
}

/// The CRC-32 (as in gzip) of `bytes`.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}
