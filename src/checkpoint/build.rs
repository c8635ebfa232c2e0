//! A safetensors file from pieces that are made when they are written. In: names, dtypes, shapes, and how to make the
//! bytes. Out: header and data, handed to a sink one tensor at a time. For packed files, exports and masks.

use super::StoredDtype;
use super::header::{Entry, Header, bytes_of};
use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// Makes a tensor's bytes.
pub(crate) type Piece<'a> = Box<dyn Fn() -> Result<Vec<u8>> + 'a>;

/// A file to be written.
#[derive(Default)]
pub(crate) struct FileBuilder<'a> {
    entries: Vec<Entry>,
    pieces: BTreeMap<String, Piece<'a>>,
    metadata: BTreeMap<String, String>,
}

impl<'a> FileBuilder<'a> {
    /// Adds a tensor of a known dtype; its size follows from that and the shape.
    pub(crate) fn add(&mut self, name: String, dtype: StoredDtype, shape: Vec<usize>, piece: Piece<'a>) {
        let bytes = dtype.bits().and_then(|bits| bytes_of(&shape, bits)).unwrap_or(0);
        let start = 0;
        self.add_entry(
            Entry {
                name,
                dtype,
                shape,
                start,
                bytes,
            },
            piece,
        );
    }

    /// Adds a tensor by its entry in another file.
    pub(crate) fn add_entry(&mut self, entry: Entry, piece: Piece<'a>) {
        self.pieces.insert(entry.name.clone(), piece);
        self.entries.push(entry);
    }

    /// Adds a tensor whose bytes are there already.
    pub(crate) fn add_bytes(&mut self, name: String, dtype: StoredDtype, shape: Vec<usize>, bytes: Vec<u8>) {
        self.add(name, dtype, shape, Box::new(move || Ok(bytes.clone())));
    }

    /// Sets a text of `__metadata__`.
    pub(crate) fn note(&mut self, key: &str, value: String) {
        self.metadata.insert(key.to_owned(), value);
    }

    /// Names of the tensors so far, and their bytes together.
    pub(crate) fn contents(&self) -> (Vec<String>, u64) {
        let names = self.entries.iter().map(|e| e.name.clone()).collect();
        (names, self.entries.iter().map(|e| e.bytes).sum())
    }

    /// Hands the file to `sink`: the header, then each tensor, wider elements first. Gives its size in bytes.
    ///
    /// # Errors
    /// What a piece or `sink` says, or when a piece has another size than its entry.
    pub(crate) fn write(self, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<u64> {
        let mut header = Header::lay_out(self.entries);
        header.metadata = Some(self.metadata);
        let first = header.to_bytes();
        sink(&first)?;
        let mut written = first.len() as u64;
        for entry in &header.entries {
            let bytes = match self.pieces.get(&entry.name) {
                Some(piece) => piece()?,
                None => Vec::new(),
            };
            if bytes.len() as u64 != entry.bytes {
                return Err(Error::internal(format!(
                    "`{}` has {} bytes, {} were announced",
                    entry.name,
                    bytes.len(),
                    entry.bytes
                )));
            }
            sink(&bytes)?;
            written += entry.bytes;
        }
        Ok(written)
    }
}
