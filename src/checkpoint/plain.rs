//! Weight files as safetensors files without packing, whatever an opened checkpoint holds. In: a [`Checkpoint`]. Out: for
//! each of its files the name, header and bytes of the plain file that it stands for. For the writers, `pack` and
//! `verify`.

use super::header::{Entry, Header};
use super::index::Index;
use super::layout::WeightFormat;
use super::{Checkpoint, packed};
use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// A safetensors file, in memory only as far as its header.
#[derive(Debug)]
pub(crate) struct PlainShard {
    /// Its file name.
    pub(crate) name: String,
    /// Its header.
    pub(crate) header: Header,
    /// Its first bytes, up to the data: length and JSON.
    pub(crate) header_bytes: Vec<u8>,
}

/// The name of the index of safetensors shards.
const INDEX_NAME: &str = "model.safetensors.index.json";

impl Checkpoint {
    /// Every weight file. Those of torch are given as the safetensors files that a conversion would make of them.
    ///
    /// # Errors
    /// When a header cannot be read again.
    pub(crate) fn plain_shards(&self) -> Result<Vec<PlainShard>> {
        self.shards()
            .iter()
            .map(|shard| match (&shard.packed, &shard.header) {
                (Some(packed), _) => Ok(PlainShard {
                    name: packed.name.clone(),
                    header: packed.header.clone(),
                    header_bytes: packed.header_bytes.clone(),
                }),
                (None, Some(header)) => Ok(PlainShard {
                    name: shard.file.name.clone(),
                    header: header.clone(),
                    header_bytes: shard.file.read(0, header.data_start as usize)?,
                }),
                (None, None) => Ok(self.converted(&shard.file.name)),
            })
            .collect()
    }

    /// The safetensors file for a file of torch: wider elements first, then by name.
    fn converted(&self, torch_name: &str) -> PlainShard {
        let entries = self
            .tensors()
            .filter(|(_, info)| info.file == torch_name)
            .map(|(tensor, info)| Entry {
                name: tensor.to_owned(),
                dtype: info.dtype.clone(),
                shape: info.shape.clone(),
                start: 0,
                bytes: info.dtype.bits().unwrap_or(0) / 8 * info.elements() as u64,
            });
        let header = Header::lay_out(entries.collect());
        PlainShard {
            name: safetensors_name(torch_name),
            header_bytes: header.to_bytes(),
            header,
        }
    }

    /// Name and content of the index, where there is one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn plain_index(&self) -> Result<Option<(String, Vec<u8>)>> {
        let Some(name) = self.index_name() else {
            return Ok(None);
        };
        let content = || {
            let path = self.dir().join(name);
            std::fs::read(&path).map_err(Error::io("read", &path))
        };
        Ok(Some(match self.format() {
            WeightFormat::Safetensors => (name.to_owned(), content()?),
            WeightFormat::Packed => (packed::plain_index_name(name), content()?),
            WeightFormat::Pytorch => (INDEX_NAME.to_owned(), self.converted_index()),
        }))
    }

    fn converted_index(&self) -> Vec<u8> {
        let mut weight_map = BTreeMap::new();
        let mut total_bytes = 0u64;
        for (tensor, info) in self.tensors() {
            weight_map.insert(tensor.to_owned(), safetensors_name(&info.file));
            total_bytes += info.dtype.bits().unwrap_or(0) / 8 * info.elements() as u64;
        }
        index_json(weight_map, total_bytes)
    }
}

/// The text of an index.
pub(crate) fn index_json(weight_map: BTreeMap<String, String>, total_bytes: u64) -> Vec<u8> {
    let metadata = [("total_size".to_owned(), total_bytes.into())]
        .into_iter()
        .collect();
    let index = serde_json::json!(Index { metadata, weight_map });
    format!("{index:#}\n").into_bytes()
}

/// `pytorch_model-00001-of-00002.bin` → `model-00001-of-00002.safetensors`; a file of any other name is the only one.
fn safetensors_name(torch_name: &str) -> String {
    let stem = torch_name.strip_suffix(".bin").unwrap_or("model");
    format!("{}.safetensors", stem.strip_prefix("pytorch_").unwrap_or(stem))
}
