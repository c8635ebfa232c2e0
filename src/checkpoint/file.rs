//! One weight file, opened once and read at positions. In: a path. Out: byte ranges, for the headers and the tensors.
//!
//! Positioned reads instead of a memory map: a disk that fails or a file that shrinks under the program is then an
//! error value and not a signal that ends the process, the resident size of the process is what the program holds
//! (invariant 4), and no unsafe code is needed. Several threads may read one file at once.

use super::CheckpointError;
use crate::error::{Error, Result};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::path::{Path, PathBuf};

/// An opened file of weights.
#[derive(Debug)]
pub(crate) struct WeightFile {
    /// Its plain name within the folder.
    pub(crate) name: String,
    /// Its path.
    pub(crate) path: PathBuf,
    /// Its size in bytes when it was opened.
    pub(crate) bytes: u64,
    file: File,
}

/// Bytes read at once when a whole file is hashed.
const HASH_CHUNK_BYTES: usize = 1 << 20;

impl WeightFile {
    /// Opens `dir/name`; a Git LFS pointer in its place is recognised here.
    pub(crate) fn open(dir: &Path, name: &str) -> Result<Self> {
        let path = dir.join(name);
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        let bytes = file.metadata().map_err(Error::io("read", &path))?.len();
        let opened = Self {
            name: name.to_owned(),
            path,
            bytes,
            file,
        };
        const POINTER: &[u8] = b"version https://git-lfs";
        if (POINTER.len() as u64..1024).contains(&bytes) && opened.read(0, POINTER.len())? == POINTER {
            return Err(CheckpointError::LfsPointer { file: opened.path }.into());
        }
        Ok(opened)
    }

    /// Fills `buffer` from byte `start` on.
    pub(crate) fn read_into(&self, start: u64, buffer: &mut [u8]) -> Result<()> {
        read_exact_at(&self.file, buffer, start).map_err(|source| match source.kind() {
            std::io::ErrorKind::UnexpectedEof => CheckpointError::Truncated {
                file: self.path.clone(),
                found: self.file.metadata().map_or(self.bytes, |m| m.len()),
                expected: start.saturating_add(buffer.len() as u64),
            }
            .into(),
            _ => Error::io("read", &self.path)(source),
        })
    }

    /// The `length` bytes from byte `start` on. The range is checked before memory is taken for it.
    pub(crate) fn read(&self, start: u64, length: usize) -> Result<Vec<u8>> {
        let end = start.saturating_add(length as u64);
        if end > self.bytes {
            return Err(CheckpointError::Truncated {
                file: self.path.clone(),
                found: self.bytes,
                expected: end,
            }
            .into());
        }
        let mut buffer = vec![0; length];
        self.read_into(start, &mut buffer)?;
        Ok(buffer)
    }

    /// Feeds every byte of the file to `hasher`.
    pub(crate) fn hash_into(&self, hasher: &mut Sha256) -> Result<()> {
        let mut buffer = vec![0; HASH_CHUNK_BYTES];
        let mut start = 0;
        while start < self.bytes {
            let length = buffer
                .len()
                .min(usize::try_from(self.bytes - start).unwrap_or(usize::MAX));
            self.read_into(start, &mut buffer[..length])?;
            hasher.update(&buffer[..length]);
            start += length as u64;
        }
        Ok(())
    }
}

impl rawzip::ReaderAt for WeightFile {
    /// As many bytes as the file has from there on, up to the buffer's length.
    fn read_at(&self, buffer: &mut [u8], start: u64) -> std::io::Result<usize> {
        let left = usize::try_from(self.bytes.saturating_sub(start)).unwrap_or(usize::MAX);
        let length = buffer.len().min(left);
        read_exact_at(&self.file, &mut buffer[..length], start)?;
        Ok(length)
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, buffer: &mut [u8], start: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, start)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut buffer: &mut [u8], mut start: u64) -> std::io::Result<()> {
    use std::os::windows::fs::FileExt;
    while !buffer.is_empty() {
        match file.seek_read(buffer, start) {
            Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                buffer = &mut buffer[n..];
                start += n as u64;
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::IoError;

    #[test]
    fn reads_ranges_and_reports_short_files() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), b"0123456789").unwrap();
        let file = WeightFile::open(dir.path(), "a").unwrap();
        assert_eq!(file.read(3, 4).unwrap(), b"3456");
        assert!(matches!(
            file.read(8, 4),
            Err(Error::Checkpoint(CheckpointError::Truncated {
                found: 10,
                expected: 12,
                ..
            }))
        ));
        assert!(file.read(u64::MAX, 4).is_err());
        assert!(matches!(
            WeightFile::open(dir.path(), "b"),
            Err(Error::Io(IoError { .. }))
        ));
    }

    #[test]
    fn recognises_a_git_lfs_pointer() {
        let dir = tempfile::tempdir().unwrap();
        let text = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
        std::fs::write(dir.path().join("model.safetensors"), text).unwrap();
        assert!(matches!(
            WeightFile::open(dir.path(), "model.safetensors"),
            Err(Error::Checkpoint(CheckpointError::LfsPointer { .. }))
        ));
    }
}
