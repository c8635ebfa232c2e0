//! The header of a safetensors file. In: an opened file. Out: every tensor's dtype, shape and byte range, in file order;
//! and back, for the writer. Also read by `calibration` for files of token ids.
//!
//! Layout: 8 bytes little-endian length N, N bytes of JSON, then the data. The JSON maps each tensor to
//! `{"dtype", "shape", "data_offsets": [start, end]}` relative to the data, and `__metadata__` to strings.
//! Parsed here and not by the safetensors crate, because that one rejects dtypes it does not know and forgets the order
//! of the tensors, and the writer promises to keep both.

use super::file::WeightFile;
use super::{CheckpointError, StoredDtype};
use crate::error::{Error, Result};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

/// The largest header read, in bytes: the format's own limit.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) dtype: StoredDtype,
    pub(crate) shape: Vec<usize>,
    /// First byte, counted from the start of the data.
    pub(crate) start: u64,
    /// Number of bytes.
    pub(crate) bytes: u64,
}

/// The validated header of a file.
#[derive(Debug, Clone)]
pub(crate) struct Header {
    /// `__metadata__`, where there is one.
    pub(crate) metadata: Option<BTreeMap<String, String>>,
    /// The tensors in the order in which the header lists them.
    pub(crate) entries: Vec<Entry>,
    /// Position of the data in the file.
    pub(crate) data_start: u64,
}

#[derive(Deserialize)]
struct RawEntry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

/// The JSON object as it stands, in its own order and with repeated names refused.
struct RawHeader {
    metadata: Option<BTreeMap<String, String>>,
    entries: Vec<(String, RawEntry)>,
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = RawHeader;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
                let mut raw = RawHeader {
                    metadata: None,
                    entries: Vec::new(),
                };
                let mut seen = BTreeSet::new();
                while let Some(name) = map.next_key::<String>()? {
                    if !seen.insert(name.clone()) {
                        return Err(A::Error::custom(format!("`{name}` appears twice")));
                    }
                    if name == "__metadata__" {
                        raw.metadata = map.next_value()?;
                    } else {
                        raw.entries.push((name, map.next_value()?));
                    }
                }
                Ok(raw)
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

impl Header {
    /// Reads and validates the header of `file`; also its raw bytes, for the fingerprint.
    pub(crate) fn read(file: &WeightFile) -> Result<(Self, Vec<u8>)> {
        let wrong = |reason: String| wrong(&file.path, reason);
        let length = file.read(0, 8)?;
        let length = length
            .try_into()
            .map(u64::from_le_bytes)
            .map_err(|_| wrong("it has no length".into()))?;
        if length > MAX_HEADER_BYTES {
            return Err(wrong(format!(
                "it starts with a header length of {length} bytes, more than the format allows"
            )));
        }
        let raw = file.read(8, length as usize)?;
        let (header, data_bytes) = Self::parse(&raw, &file.path)?;
        let expected = header
            .data_start
            .checked_add(data_bytes)
            .ok_or_else(|| wrong("its offsets overflow".into()))?;
        if expected > file.bytes {
            return Err(CheckpointError::Truncated {
                file: file.path.clone(),
                found: file.bytes,
                expected,
            }
            .into());
        }
        if expected < file.bytes {
            return Err(wrong(format!(
                "{} bytes follow its last tensor",
                file.bytes - expected
            )));
        }
        Ok((header, raw))
    }

    /// Parses and validates the JSON of a header, which stands in `path`. Also the bytes of data that it describes.
    pub(crate) fn parse(raw: &[u8], path: &Path) -> Result<(Self, u64)> {
        let wrong = |reason: String| wrong(path, reason);
        if raw.first() != Some(&b'{') {
            return Err(wrong("its header is not a JSON object".into()));
        }
        let parsed: RawHeader =
            serde_json::from_slice(raw).map_err(|e| wrong(format!("its header cannot be parsed: {e}")))?;
        let entries = parsed
            .entries
            .into_iter()
            .map(|(name, entry)| entry.check(name).map_err(&wrong))
            .collect::<Result<Vec<_>>>()?;
        let data_bytes = contiguous(&entries).map_err(&wrong)?;
        let header = Self {
            metadata: parsed.metadata,
            entries,
            data_start: 8 + raw.len() as u64,
        };
        Ok((header, data_bytes))
    }

    /// The tensors in the order of their data.
    pub(crate) fn in_file_order(&self) -> Vec<&Entry> {
        let mut entries: Vec<&Entry> = self.entries.iter().collect();
        entries.sort_by_key(|e| (e.start, e.bytes));
        entries
    }

    /// Whether Python's loader accepts the header: it asks for this entry.
    pub(crate) fn says_pt(&self) -> bool {
        self.metadata
            .as_ref()
            .and_then(|m| m.get("format"))
            .is_some_and(|f| f == "pt")
    }

    /// The first bytes of a file with these tensors in this order and `"format": "pt"`: length, JSON, padding to 8 bytes.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut metadata = self.metadata.clone().unwrap_or_default();
        metadata.insert("format".into(), "pt".into());
        let mut json = format!("{{\"__metadata__\":{}", serde_json::json!(metadata));
        for entry in &self.entries {
            let value = serde_json::json!({
                "dtype": entry.dtype.name(),
                "shape": entry.shape,
                "data_offsets": [entry.start, entry.start + entry.bytes],
            });
            json.push_str(&format!(",{}:{value}", serde_json::json!(entry.name)));
        }
        json.push('}');
        json.push_str(&" ".repeat(json.len().next_multiple_of(8) - json.len()));
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(json.as_bytes());
        bytes
    }

    /// A header for these tensors, laid out one after the other: wider elements first, then by name, so that every
    /// tensor is aligned to its element.
    pub(crate) fn lay_out(mut entries: Vec<Entry>) -> Self {
        entries.sort_by(|a, b| {
            let width = |e: &Entry| std::cmp::Reverse(e.dtype.bits());
            (width(a), &a.name).cmp(&(width(b), &b.name))
        });
        let mut start = 0;
        for entry in &mut entries {
            entry.start = start;
            start += entry.bytes;
        }
        let mut header = Self {
            metadata: None,
            entries,
            data_start: 0,
        };
        header.data_start = header.to_bytes().len() as u64;
        header
    }
}

fn wrong(path: &Path, reason: String) -> Error {
    let file = path.to_path_buf();
    CheckpointError::Header { file, reason }.into()
}

impl RawEntry {
    /// Checks the size against shape and dtype.
    fn check(self, name: String) -> Result<Entry, String> {
        let dtype = StoredDtype::from_name(&self.dtype);
        let (start, end) = self.data_offsets;
        let bytes = end
            .checked_sub(start)
            .ok_or_else(|| format!("`{name}` ends before it starts"))?;
        if let Some(bits) = dtype.bits() {
            let expected = bytes_of(&self.shape, bits).ok_or_else(|| {
                format!(
                    "`{name}` of shape {:?} as {dtype} has no possible size",
                    self.shape
                )
            })?;
            if expected != bytes {
                return Err(format!(
                    "`{name}` of shape {:?} as {dtype} needs {expected} bytes and has {bytes}",
                    self.shape
                ));
            }
        }
        Ok(Entry {
            name,
            dtype,
            shape: self.shape,
            start,
            bytes,
        })
    }
}

/// Bytes of a tensor, or `None` where they overflow or are no whole number.
pub(crate) fn bytes_of(shape: &[usize], bits: u64) -> Option<u64> {
    let total = shape
        .iter()
        .try_fold(bits, |product, &n| product.checked_mul(n as u64))?;
    (total % 8 == 0).then_some(total / 8)
}

/// Checks that the tensors cover the data without gap or overlap; returns its size in bytes.
fn contiguous(entries: &[Entry]) -> Result<u64, String> {
    let mut by_start: Vec<&Entry> = entries.iter().collect();
    by_start.sort_by_key(|e| (e.start, e.bytes));
    let mut end = 0;
    for entry in by_start {
        if entry.start != end {
            let found = entry.start;
            return Err(format!(
                "`{}` starts at byte {found} of the data and should start at {end}",
                entry.name
            ));
        }
        end += entry.bytes;
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, data_bytes: usize) -> Result<Header> {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(json.as_bytes());
        bytes.resize(bytes.len() + data_bytes, 0);
        std::fs::write(dir.path().join("m.safetensors"), bytes).unwrap();
        Header::read(&WeightFile::open(dir.path(), "m.safetensors").unwrap()).map(|(header, _)| header)
    }

    fn reason(result: Result<Header>) -> String {
        match result {
            Err(Error::Checkpoint(CheckpointError::Header { reason, .. })) => reason,
            other => panic!("expected a header error, got {other:?}"),
        }
    }

    #[test]
    fn keeps_the_order_of_the_file() {
        let json = r#"{"b":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},
            "a":{"dtype":"NEW","shape":[3],"data_offsets":[4,5]},"__metadata__":{"format":"pt"}}"#;
        let header = check(json, 5).unwrap();
        assert!(header.says_pt());
        assert_eq!(
            header.entries.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(),
            ["b", "a"]
        );
        assert_eq!(header.entries[1].dtype, StoredDtype::Other("NEW".into()));
    }

    #[test]
    fn a_written_header_is_read_back() {
        let json = r#"{"b\"":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},"__metadata__":{"k":"v"}}"#;
        let mut header = check(json, 4).unwrap();
        assert!(!header.says_pt());
        let bytes = header.to_bytes();
        assert_eq!(bytes.len() % 8, 0);
        let again = check(std::str::from_utf8(&bytes[8..]).unwrap(), 4).unwrap();
        assert!(again.says_pt());
        header
            .metadata
            .as_mut()
            .unwrap()
            .insert("format".into(), "pt".into());
        assert_eq!((again.metadata, again.entries), (header.metadata, header.entries));
    }

    #[test]
    fn refuses_what_cannot_be() {
        let one = |entry: &str| format!("{{\"a\":{entry}}}");
        let cases = [
            (one(r#"{"dtype":"F32","shape":[2],"data_offsets":[0,4]}"#), 4, "needs 8 bytes"),
            (one(r#"{"dtype":"F32","shape":[1],"data_offsets":[4,8]}"#), 8, "should start at 0"),
            (one(r#"{"dtype":"F32","shape":[1],"data_offsets":[4,0]}"#), 4, "ends before"),
            (one(r#"{"dtype":"F32","shape":[18446744073709551615,9],"data_offsets":[0,4]}"#), 4, "no possible size"),
            (one(r#"{"dtype":"F4","shape":[3],"data_offsets":[0,2]}"#), 2, "no possible size"),
            (one(r#"{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}"#), 4, "cannot be parsed"),
            (one(r#"{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#), 5, "1 bytes follow"),
            ("[]".into(), 0, "not a JSON object"),
            (r#"{"a":1"#.into(), 0, "cannot be parsed"),
            (
                r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#
                    .into(),
                2,
                "twice",
            ),
        ];
        for (json, data, expected) in cases {
            let found = reason(check(&json, data));
            assert!(found.contains(expected), "{json}: {found}");
        }
        let short = check(&one(r#"{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#), 7);
        assert!(matches!(
            short,
            Err(Error::Checkpoint(CheckpointError::Truncated { .. }))
        ));
    }

    #[test]
    fn refuses_garbage_lengths() {
        let dir = tempfile::tempdir().unwrap();
        let read = |bytes: &[u8]| {
            std::fs::write(dir.path().join("m"), bytes).unwrap();
            Header::read(&WeightFile::open(dir.path(), "m").unwrap()).map(|(header, _)| header)
        };
        assert!(reason(read(b"PK\x03\x04 this is something else")).contains("header length"));
        assert!(matches!(
            read(b""),
            Err(Error::Checkpoint(CheckpointError::Truncated { .. }))
        ));
        assert!(matches!(
            read(b"\x40\0\0\0\0\0\0\0{}"),
            Err(Error::Checkpoint(CheckpointError::Truncated { .. }))
        ));
        assert!(matches!(
            read(&[0; 8]),
            Err(Error::Checkpoint(CheckpointError::Header { .. }))
        ));
    }
}
