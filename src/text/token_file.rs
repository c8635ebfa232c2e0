//! Finished windows. In: a `.safetensors` file with the tensor `input_ids` [windows, tokens]. Out: [`TokenWindows`].

use super::{DataError, DataSource, TokenWindows};
use crate::checkpoint::file::WeightFile;
use crate::checkpoint::header::Header;
use crate::error::{Error, Result};
use sha2::{Digest, Sha256};
use std::path::Path;

/// Reads windows of token ids, to be used as they are. `model_vocab` is the number of rows of the model's embedding.
///
/// # Errors
/// When the file is not valid, has no two-dimensional integer tensor `input_ids`, or an id is not below `model_vocab`.
pub fn token_windows(file: &Path, model_vocab: usize) -> Result<TokenWindows> {
    let wrong = |reason: String| {
        Error::from(DataError::TokenIds {
            file: file.to_path_buf(),
            reason,
        })
    };
    let name = file
        .file_name()
        .unwrap_or(file.as_os_str())
        .to_string_lossy()
        .into_owned();
    let opened = WeightFile::open(file.parent().unwrap_or(Path::new("")), &name)?;
    let (header, _) = Header::read(&opened)?;
    let Some(entry) = header.entries.iter().find(|entry| entry.name == "input_ids") else {
        let names: Vec<_> = header
            .entries
            .iter()
            .map(|entry| format!("`{}`", entry.name))
            .collect();
        return Err(wrong(format!(
            "it has no tensor `input_ids`, only {}",
            names.join(", ")
        )));
    };
    let &[windows, seq_len] = entry.shape.as_slice() else {
        return Err(wrong(format!("`input_ids` has shape {:?}", entry.shape)));
    };
    if windows == 0 || seq_len == 0 {
        return Err(wrong(format!("`input_ids` has shape {:?}", entry.shape)));
    }
    let bytes = opened.read(header.data_start + entry.start, entry.bytes as usize)?;
    let ids: Vec<i64> = match entry.dtype.name() {
        "I64" => bytes
            .as_chunks()
            .0
            .iter()
            .map(|&b| i64::from_le_bytes(b))
            .collect(),
        "I32" => bytes
            .as_chunks()
            .0
            .iter()
            .map(|&b| i32::from_le_bytes(b).into())
            .collect(),
        "U32" => bytes
            .as_chunks()
            .0
            .iter()
            .map(|&b| u32::from_le_bytes(b).into())
            .collect(),
        other => return Err(wrong(format!("`input_ids` is stored as {other}"))),
    };
    let below = |&id: &i64| match u32::try_from(id) {
        Ok(small) if (small as usize) < model_vocab => Ok(small),
        _ => Err(DataError::IdTooLarge {
            file: file.to_path_buf(),
            id,
            model_vocab,
        }),
    };
    let ids = ids.iter().map(below).collect::<Result<Vec<u32>, _>>()?;
    let mut hasher = Sha256::new();
    opened.hash_into(&mut hasher)?;
    Ok(TokenWindows {
        total_tokens: ids.len(),
        seed: 0,
        undrawn: 0,
        ids: ids.chunks_exact(seq_len).map(<[u32]>::to_vec).collect(),
        seq_len,
        protocol: format!("{windows} windows of {seq_len} token ids, used as given"),
        source: DataSource {
            names: vec![name],
            sha256: format!("{:x}", hasher.finalize()),
            paths: vec![file.to_path_buf()],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::is_token_file;

    fn read(name: &str, dtype: &str, shape: &str, data: &[u8]) -> Result<TokenWindows> {
        let dir = tempfile::tempdir().unwrap();
        let header = format!(
            "{{\"{name}\":{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":[0,{}]}}}}",
            data.len()
        );
        let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat();
        let path = dir.path().join("ids.safetensors");
        assert!(is_token_file(&path));
        std::fs::write(&path, bytes).unwrap();
        token_windows(&path, 100)
    }

    #[test]
    fn reads_ids_of_three_formats() {
        let wide: Vec<u8> = (0..6i64).flat_map(i64::to_le_bytes).collect();
        let narrow: Vec<u8> = (0..6u32).flat_map(u32::to_le_bytes).collect();
        for (dtype, data) in [("I64", &wide), ("I32", &narrow), ("U32", &narrow)] {
            let windows = read("input_ids", dtype, "[2,3]", data).unwrap();
            assert_eq!(windows.ids, [[0, 1, 2], [3, 4, 5]]);
            assert_eq!((windows.seq_len, windows.total_tokens), (3, 6));
            let mut first = windows.clone();
            first.truncate(1);
            assert_eq!(first.ids, [[0, 1, 2]]);
            assert!(first.protocol.ends_with("the first 1 of them"));
            first.truncate(9);
            assert_eq!(first.summary().windows, 1);
        }
    }

    #[test]
    fn refuses_what_are_no_windows_of_this_model() {
        let ids = |id: i64| [id.to_le_bytes(), 1i64.to_le_bytes()].concat();
        let error = |name, dtype, shape, data: &[u8]| match read(name, dtype, shape, data) {
            Err(Error::Data(error)) => error,
            other => panic!("{other:?}"),
        };
        assert!(matches!(
            error("tokens", "I64", "[1,2]", &ids(0)),
            DataError::TokenIds { .. }
        ));
        assert!(matches!(
            error("input_ids", "I64", "[2]", &ids(0)),
            DataError::TokenIds { .. }
        ));
        assert!(matches!(
            error("input_ids", "I64", "[0,2]", &[]),
            DataError::TokenIds { .. }
        ));
        assert!(matches!(
            error("input_ids", "F64", "[1,2]", &ids(0)),
            DataError::TokenIds { .. }
        ));
        assert!(matches!(
            error("input_ids", "I64", "[1,2]", &ids(100)),
            DataError::IdTooLarge { id: 100, .. }
        ));
        assert!(matches!(
            error("input_ids", "I64", "[1,2]", &ids(-1)),
            DataError::IdTooLarge { id: -1, .. }
        ));
    }
}
