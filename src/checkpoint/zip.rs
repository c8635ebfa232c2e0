//! The directory of a zip archive. In: an opened file. Out: where each stored entry's bytes lie, for `pytorch`.
//!
//! torch stores its entries uncompressed, so that an entry is a byte range of the file and a tensor can be read in
//! place. Only that is supported: plain and zip64 archives on one disk, stored entries.

use super::CheckpointError;
use super::file::WeightFile;
use crate::error::Result;
use std::collections::BTreeMap;

const LOCAL_SIGNATURE: u32 = 0x0403_4b50;
const CENTRAL_SIGNATURE: u32 = 0x0201_4b50;
const END_SIGNATURE: u32 = 0x0605_4b50;
const END64_SIGNATURE: u32 = 0x0606_4b50;
const LOCATOR64_SIGNATURE: u32 = 0x0706_4b50;
/// The end record without its comment.
const END_BYTES: u64 = 22;
/// The locator of the zip64 end record, which lies just before the end record.
const LOCATOR64_BYTES: u64 = 20;
/// A comment is at most that long.
const MAX_COMMENT_BYTES: u64 = 65_535;
/// No state dict has a directory this long.
const MAX_DIRECTORY_BYTES: u64 = 100_000_000;

/// An entry's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoredEntry {
    /// Position in the file.
    pub(crate) start: u64,
    /// Number of bytes.
    pub(crate) bytes: u64,
}

/// Little-endian numbers from a slice; reading past the end is an error value.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let (head, tail) = self
            .0
            .split_at_checked(n)
            .ok_or("its zip directory ends too early")?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn u16(&mut self) -> Result<u16, String> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }
}

/// Whether the file starts as a zip archive does.
pub(crate) fn is_zip(file: &WeightFile) -> Result<bool> {
    Ok(file.bytes >= END_BYTES && file.read(0, 4)? == LOCAL_SIGNATURE.to_le_bytes())
}

/// Every entry of the archive by name.
pub(crate) fn entries(file: &WeightFile) -> Result<BTreeMap<String, StoredEntry>> {
    let damaged = |reason: String| CheckpointError::Pytorch {
        file: file.path.clone(),
        reason,
    };
    let (start, bytes, count) = directory(file)?.map_err(damaged)?;
    if bytes > MAX_DIRECTORY_BYTES {
        return Err(damaged("its zip directory is impossibly long".into()).into());
    }
    let raw = file.read(start, bytes as usize)?;
    let mut fields = Fields(&raw);
    let mut entries = BTreeMap::new();
    for _ in 0..count {
        let (name, local_start, bytes) = central_record(&mut fields).map_err(damaged)?;
        let local = file.read(local_start, 30)?;
        let start = data_start(&local, local_start).map_err(damaged)?;
        let end = start.saturating_add(bytes);
        if end > file.bytes {
            return Err(CheckpointError::Truncated {
                file: file.path.clone(),
                found: file.bytes,
                expected: end,
            }
            .into());
        }
        entries.insert(name, StoredEntry { start, bytes });
    }
    Ok(entries)
}

/// Position, size and number of entries of the central directory.
fn directory(file: &WeightFile) -> Result<Result<(u64, u64, u64), String>> {
    let tail_bytes = file.bytes.min(END_BYTES + MAX_COMMENT_BYTES);
    let tail = file.read(file.bytes - tail_bytes, tail_bytes as usize)?;
    let Some(at) = tail
        .windows(END_BYTES as usize)
        .rposition(|w| w[..4] == END_SIGNATURE.to_le_bytes())
    else {
        return Ok(Err("it has no zip directory; the file is truncated".into()));
    };
    let end_start = file.bytes - tail_bytes + at as u64;
    let plain = end_record(&tail[at..]);
    let Some(locator_start) = end_start.checked_sub(LOCATOR64_BYTES) else {
        return Ok(plain);
    };
    let locator = file.read(locator_start, LOCATOR64_BYTES as usize)?;
    if locator[..4] != LOCATOR64_SIGNATURE.to_le_bytes() {
        return Ok(plain);
    }
    let mut fields = Fields(&locator[8..]);
    match fields.u64() {
        Ok(end64_start) => Ok(end64_record(&file.read(end64_start, 56)?)),
        Err(reason) => Ok(Err(reason)),
    }
}

fn end_record(raw: &[u8]) -> Result<(u64, u64, u64), String> {
    let mut fields = Fields(raw);
    fields.take(10)?;
    let count = fields.u16()?;
    let bytes = fields.u32()?;
    let start = fields.u32()?;
    Ok((start.into(), bytes.into(), count.into()))
}

fn end64_record(raw: &[u8]) -> Result<(u64, u64, u64), String> {
    let mut fields = Fields(raw);
    if fields.u32()? != END64_SIGNATURE {
        return Err("its zip64 directory is damaged".into());
    }
    fields.take(28)?;
    let count = fields.u64()?;
    let bytes = fields.u64()?;
    let start = fields.u64()?;
    Ok((start, bytes, count))
}

/// Name, position of the local header, and size of the next entry of the central directory.
fn central_record(fields: &mut Fields<'_>) -> Result<(String, u64, u64), String> {
    if fields.u32()? != CENTRAL_SIGNATURE {
        return Err("its zip directory is damaged".into());
    }
    fields.take(4)?;
    let flags = fields.u16()?;
    let method = fields.u16()?;
    fields.take(8)?;
    let mut packed_bytes = u64::from(fields.u32()?);
    let mut bytes = u64::from(fields.u32()?);
    let (name_len, extra_len, comment_len) = (fields.u16()?, fields.u16()?, fields.u16()?);
    fields.take(8)?;
    let mut local_start = u64::from(fields.u32()?);
    let name = String::from_utf8_lossy(fields.take(name_len.into())?).into_owned();
    let mut extra = Fields(fields.take(extra_len.into())?);
    fields.take(comment_len.into())?;
    while extra.0.len() >= 4 {
        let (id, len) = (extra.u16()?, extra.u16()?);
        let mut field = Fields(extra.take(len.into())?);
        if id == 1 {
            // zip64: only the numbers that did not fit are here, in this order.
            for number in [&mut bytes, &mut packed_bytes, &mut local_start] {
                if *number == u64::from(u32::MAX) {
                    *number = field.u64()?;
                }
            }
        }
    }
    if flags & 1 != 0 {
        return Err(format!("its entry `{name}` is encrypted"));
    }
    if method != 0 || packed_bytes != bytes {
        return Err(format!(
            "its entry `{name}` is compressed; torch stores tensors uncompressed"
        ));
    }
    Ok((name, local_start, bytes))
}

/// Where an entry's bytes start, from its local header.
fn data_start(local: &[u8], local_start: u64) -> Result<u64, String> {
    let mut fields = Fields(local);
    if fields.u32()? != LOCAL_SIGNATURE {
        return Err("its zip directory points to a place that holds no entry".into());
    }
    fields.take(22)?;
    let (name_len, extra_len) = (fields.u16()?, fields.u16()?);
    Ok(local_start + 30 + u64::from(name_len) + u64::from(extra_len))
}
