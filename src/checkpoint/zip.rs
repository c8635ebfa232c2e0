//! The directory of a zip archive. In: an opened file. Out: where each stored entry's bytes lie, for `pytorch`.
//!
//! torch stores its entries uncompressed, so that an entry is a byte range of the file and a tensor can be read in
//! place. Only that is supported: plain and zip64 archives on one disk, stored entries. `rawzip` finds and reads the
//! records; it asks for bytes at positions and takes no memory for what an archive only claims.

use super::CheckpointError;
use super::file::WeightFile;
use crate::error::{Error, Result};
use rawzip::{CompressionMethod, ErrorKind, MAX_CENTRAL_DIRECTORY_RECORD_SIZE, ZipLocator};
use std::collections::BTreeMap;
use std::io;

/// How an entry begins.
const LOCAL_SIGNATURE: &[u8] = b"PK\x03\x04";
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

/// Whether the file starts as a zip archive does.
pub(crate) fn is_zip(file: &WeightFile) -> Result<bool> {
    let length = LOCAL_SIGNATURE.len();
    Ok(file.bytes >= length as u64 && file.read(0, length)? == LOCAL_SIGNATURE)
}

/// Every entry of the archive by name.
pub(crate) fn entries(file: &WeightFile) -> Result<BTreeMap<String, StoredEntry>> {
    let damaged = |reason: String| {
        let file = file.path.clone();
        Error::from(CheckpointError::Pytorch { file, reason })
    };
    // What the library found wrong with the archive, or could not read.
    let refused = |error: rawzip::Error| match error.into_kind() {
        ErrorKind::MissingEndOfCentralDirectory => {
            damaged("it has no zip directory; the file is truncated".into())
        }
        ErrorKind::Eof => damaged("its zip directory ends too early".into()),
        ErrorKind::IO(source) if source.kind() == io::ErrorKind::UnexpectedEof => {
            damaged("its zip directory points beyond the end of the file".into())
        }
        ErrorKind::IO(source) => Error::io("read", &file.path)(source),
        other => damaged(format!("its zip directory is damaged: {other}")),
    };
    let mut buffer = vec![0; MAX_CENTRAL_DIRECTORY_RECORD_SIZE];
    let archive = ZipLocator::new()
        .locate_in_reader(file, &mut buffer, file.bytes)
        .map_err(|(_, error)| refused(error))?;
    if archive.eocd_offset().saturating_sub(archive.directory_offset()) > MAX_DIRECTORY_BYTES {
        return Err(damaged("its zip directory is impossibly long".into()));
    }
    let mut records = archive.entries(&mut buffer);
    let mut entries = BTreeMap::new();
    while let Some(record) = records.next_entry().map_err(refused)? {
        let name = String::from_utf8_lossy(record.file_path().as_bytes()).into_owned();
        if record.flags().is_encrypted() {
            return Err(damaged(format!("its entry `{name}` is encrypted")));
        }
        if record.compression_method() != CompressionMethod::STORE
            || record.compressed_size_hint() != record.uncompressed_size_hint()
        {
            return Err(damaged(format!(
                "its entry `{name}` is compressed; torch stores tensors uncompressed"
            )));
        }
        let entry = archive.get_entry(record.wayfinder()).map_err(refused)?;
        let (start, end) = entry.compressed_data_range();
        if end > file.bytes {
            return Err(CheckpointError::Truncated {
                file: file.path.clone(),
                found: file.bytes,
                expected: end,
            }
            .into());
        }
        let bytes = end - start;
        entries.insert(name, StoredEntry { start, bytes });
    }
    Ok(entries)
}
