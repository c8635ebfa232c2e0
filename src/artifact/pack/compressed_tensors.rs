//! Export in the sparse formats of the Python package `compressed-tensors`, for programs that still read them. In: a
//! pruned model. Out: a folder with the zeros taken out of its operators, and the entry in `config.json` that says so.
//!
//! Each pruned operator `P.weight [R, C]` becomes `P.shape` (R, C as I64), `P.bitmask` (U8 `[R, ⌈C/8⌉]`, the lowest bit
//! first) and `P.compressed`:
//! - `sparse-bitmask`: the non-zeros `[nnz]`, with `P.row_offsets` I64 `[R]`, the non-zeros before each row;
//! - `sparse-24-bitmask`: two entries of each four `[R, C/2]`, zeros among them where more than two are zero.
//!
//! Layouts as read and written by compressed-tensors 0.9 to 0.14 (`sparse_bitmask.py`, `sparse_24_bitmask.py`), in which −0
//! counts as zero and is read back as +0.

use super::Sizes;
use crate::checkpoint::build::FileBuilder;
use crate::checkpoint::plain::{PlainShard, index_json};
use crate::checkpoint::{CheckpointWriter, Destination, Model, StoredDtype};
use crate::error::{ConfigError, Error, Result};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

/// Who can read an export.
pub const READERS: [&str; 4] = [
    "compressed-tensors 0.9 to 0.14.0.1, with ModelCompressor.decompress; later versions have no sparse compressors",
    "transformers (4.57 with compressed-tensors 0.14.0.1) with from_pretrained: sparse-24-bitmask only",
    "vLLM 0.18.1 and earlier, on GPUs of compute capability 9.0 and later: sparse-24-bitmask only",
    "nothing newer, and not fista-pruner: keep the plain or the packed folder",
];

/// The version that the written entry of `config.json` names: the last that reads both formats.
const VERSION: &str = "0.14.0.1";

/// The two sparse formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SparseFormat {
    /// Any zeros.
    SparseBitmask,
    /// At least two zeros in each four inputs.
    #[serde(rename = "sparse-24-bitmask")]
    Sparse24Bitmask,
}

/// What an export came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExportSummary {
    /// One format for the whole model: that for 2:4 where every compressed operator has it.
    pub sparse_format: SparseFormat,
    /// The operators without their zeros.
    pub packed_tensors: Sizes,
    /// The weight files as a whole.
    pub weight_files: Sizes,
    /// Linear modules that stay as they are.
    pub ignored: Vec<String>,
    /// Files and folders of the source that were not copied.
    pub left_out: Vec<String>,
    /// [`READERS`].
    pub readers: Vec<&'static str>,
}

/// Zeros of one operator.
struct Operator {
    shape: [usize; 2],
    /// Non-zeros of each row.
    rows: Vec<usize>,
    is_24: bool,
}

/// The operators to compress, by the names of their weights.
type Operators = BTreeMap<String, Operator>;

/// Writes `model` to the folder `output` in the sparse format that fits it.
///
/// # Errors
/// When no operator gets smaller, `config.json` says that the model is quantised, or anything cannot be read or written.
pub fn export(model: &Model, output: &Path, overwrite: bool) -> Result<ExportSummary> {
    let (operators, dense) = survey(model)?;
    if operators.is_empty() {
        return Err(Error::from(ConfigError::Setting {
            setting: "‹container›",
            reason: "no operator of the model has enough zeros to get smaller".into(),
        }));
    }
    let sparse_format = if operators.values().all(|o| o.is_24) {
        SparseFormat::Sparse24Bitmask
    } else {
        SparseFormat::SparseBitmask
    };
    let ignored = ignored(model, dense);
    let config = config(model, sparse_format, &operators, &ignored)?;
    let writer = CheckpointWriter::without_weights(&model.checkpoint, &Destination::new(output, overwrite))?;
    let path = writer.partial().join("config.json");
    std::fs::write(&path, format!("{config:#}\n")).map_err(Error::io("write", &path))?;
    let mut summary = ExportSummary {
        sparse_format,
        packed_tensors: Sizes::default(),
        weight_files: Sizes::default(),
        ignored,
        left_out: writer.left_out().to_vec(),
        readers: READERS.to_vec(),
    };
    let (mut weight_map, mut total_bytes) = (BTreeMap::new(), 0);
    for shard in model.checkpoint.plain_shards()? {
        let file = compressed(model, &shard, &operators, &mut summary);
        let (names, bytes) = file.contents();
        weight_map.extend(names.into_iter().map(|name| (name, shard.name.clone())));
        total_bytes += bytes;
        let path = writer.partial().join(&shard.name);
        let mut out = writer.new_file(&shard.name)?;
        let written = file.write(&mut |bytes| out.write_all(bytes).map_err(Error::io("write", &path)))?;
        let data_bytes: u64 = shard.header.entries.iter().map(|e| e.bytes).sum();
        summary
            .weight_files
            .add(shard.header_bytes.len() as u64 + data_bytes, written);
    }
    if let Some((name, _)) = model.checkpoint.plain_index()? {
        let path = writer.partial().join(&name);
        let index = index_json(weight_map, total_bytes);
        writer
            .new_file(&name)?
            .write_all(&index)
            .map_err(Error::io("write", &path))?;
    }
    writer.finish()?;
    Ok(summary)
}

/// The operators that get smaller, and the names of those that do not.
fn survey(model: &Model) -> Result<(Operators, Vec<String>)> {
    let (mut operators, mut dense) = (Operators::new(), Vec::new());
    for found in model.decoder.operators() {
        let (name, shape) = (found.weight(), found.shape());
        let values = model.checkpoint.read(&name, &shape)?;
        let kept = |part: &[f32]| part.iter().filter(|v| **v != 0.0).count();
        let rows: Vec<usize> = values.chunks(shape[1]).map(kept).collect();
        let is_24 = shape[1].is_multiple_of(4) && values.chunks(4).all(|group| kept(group) <= 2);
        let operator = Operator { shape, rows, is_24 };
        let width = model.checkpoint.expect(&name, &shape)?.dtype.bits().unwrap_or(0) as usize / 8;
        if operator.bitmask_bytes(width) < values.len() * width {
            operators.insert(name, operator);
        } else {
            dense.push(found.name);
        }
    }
    Ok((operators, dense))
}

impl Operator {
    fn nonzeros(&self) -> usize {
        self.rows.iter().sum()
    }

    /// Size in the more general of the formats.
    fn bitmask_bytes(&self, width: usize) -> usize {
        let [rows, columns] = self.shape;
        self.nonzeros() * width + rows * columns.div_ceil(8) + 8 * rows + 16
    }

    /// Bytes of `P.row_offsets`.
    fn row_offsets(&self) -> Vec<u8> {
        let offsets = self.rows.iter().scan(0i64, |next, kept| {
            let offset = *next;
            *next += *kept as i64;
            Some(offset)
        });
        offsets.flat_map(i64::to_le_bytes).collect()
    }
}

/// Linear modules that readers must not look for in compressed form.
fn ignored(model: &Model, dense: Vec<String>) -> Vec<String> {
    let projections = ["model.decoder.project_in", "model.decoder.project_out"];
    let has = |module: &&str| model.checkpoint.info(&format!("{module}.weight")).is_some();
    let mut ignored = vec!["lm_head".to_owned()];
    ignored.extend(projections.into_iter().filter(has).map(str::to_owned));
    ignored.extend(dense);
    ignored
}

/// `config.json` with the entry that names the format.
fn config(model: &Model, format: SparseFormat, operators: &Operators, ignored: &[String]) -> Result<Value> {
    let unusable = |reason: String| {
        Error::from(ConfigError::Setting {
            setting: "‹container›",
            reason,
        })
    };
    let mut config: Value = crate::json::parse(model.checkpoint.config_json())
        .map_err(|e| unusable(format!("config.json cannot be parsed: {e}")))?;
    for key in ["quantization_config", "compression_config"] {
        if config.get(key).is_some_and(|v| !v.is_null()) {
            return Err(unusable(format!("config.json has a `{key}` already")));
        }
    }
    let all: usize = model.checkpoint.tensors().map(|(_, info)| info.elements()).sum();
    let zeros: usize = operators
        .values()
        .map(|o| o.shape[0] * o.shape[1] - o.nonzeros())
        .sum();
    let structure = match format {
        SparseFormat::SparseBitmask => "unstructured",
        SparseFormat::Sparse24Bitmask => "2:4",
    };
    config["quantization_config"] = json!({
        "quant_method": "compressed-tensors",
        "version": VERSION,
        "sparsity_config": {
            "format": format,
            "global_sparsity": zeros as f64 / all.max(1) as f64,
            "sparsity_structure": structure,
            "targets": ["Linear"],
            "ignore": ignored,
        },
    });
    Ok(config)
}

/// One weight file with its operators compressed.
fn compressed<'a>(
    model: &'a Model,
    shard: &'a PlainShard,
    operators: &'a Operators,
    summary: &mut ExportSummary,
) -> FileBuilder<'a> {
    let mut file = FileBuilder::default();
    for (key, value) in shard.header.metadata.iter().flatten() {
        file.note(key, value.clone());
    }
    for entry in &shard.header.entries {
        let name = entry.name.as_str();
        let raw = move || model.checkpoint.raw(name);
        let Some(operator) = operators.get(name) else {
            file.add_entry(entry.clone(), Box::new(raw));
            continue;
        };
        let before = file.contents().1;
        add_operator(
            &mut file,
            operator,
            name,
            &entry.dtype,
            raw,
            summary.sparse_format,
        );
        summary
            .packed_tensors
            .add(entry.bytes, file.contents().1 - before);
    }
    file
}

fn add_operator<'a>(
    file: &mut FileBuilder<'a>,
    operator: &'a Operator,
    name: &str,
    dtype: &StoredDtype,
    raw: impl Fn() -> Result<Vec<u8>> + Copy + 'a,
    format: SparseFormat,
) {
    let module = name.strip_suffix(".weight").unwrap_or(name);
    let [rows, columns] = operator.shape;
    let width = (dtype.bits().unwrap_or(0) / 8) as usize;
    let i64s = || StoredDtype::Other("I64".into());
    let shape: Vec<u8> = [rows, columns]
        .iter()
        .flat_map(|n| (*n as i64).to_le_bytes())
        .collect();
    let (shape_shape, values_shape) = match format {
        SparseFormat::SparseBitmask => (vec![2], vec![operator.nonzeros()]),
        SparseFormat::Sparse24Bitmask => (vec![2, 1], vec![rows, columns / 2]),
    };
    let keep = move |bytes: &[u8]| kept(bytes, width, format);
    file.add_bytes(format!("{module}.shape"), i64s(), shape_shape, shape);
    if format == SparseFormat::SparseBitmask {
        let offsets = operator.row_offsets();
        file.add_bytes(format!("{module}.row_offsets"), i64s(), vec![rows], offsets);
    }
    let values = move || {
        let bytes = raw()?;
        let chosen = bytes.chunks(width).zip(keep(&bytes)).filter(|(_, keep)| *keep);
        Ok(chosen.flat_map(|(element, _)| element).copied().collect())
    };
    file.add(
        format!("{module}.compressed"),
        dtype.clone(),
        values_shape,
        Box::new(values),
    );
    let bitmask = move || Ok(crate::artifact::mask::bits(&keep(&raw()?), columns));
    let u8s = StoredDtype::Other("U8".into());
    file.add(
        format!("{module}.bitmask"),
        u8s,
        vec![rows, columns.div_ceil(8)],
        Box::new(bitmask),
    );
}

/// Which elements are stored: the non-zeros, and in the format for 2:4 as many zeros as make two of each four.
fn kept(bytes: &[u8], width: usize, format: SparseFormat) -> Vec<bool> {
    let mut keep: Vec<bool> = bytes
        .chunks(width)
        .map(crate::artifact::mask::is_nonzero)
        .collect();
    if format == SparseFormat::Sparse24Bitmask {
        for group in keep.chunks_mut(4) {
            let mut missing = 2usize.saturating_sub(group.iter().filter(|k| **k).count());
            for keep in group.iter_mut().filter(|k| !**k) {
                if missing == 0 {
                    break;
                }
                *keep = true;
                missing -= 1;
            }
        }
    }
    keep
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Groups of the layouts that compressed-tensors' documentation of the bitmask describes, by hand.
    #[test]
    fn two_of_four_always_keeps_two() {
        let values: [u16; 12] = [0, 5, 0, 6, 0, 0, 0, 7, 0, 0, 0x8000, 0];
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let (f, t) = (false, true);
        assert_eq!(
            kept(&bytes, 2, SparseFormat::Sparse24Bitmask),
            [f, t, f, t, t, f, f, t, t, t, f, f]
        );
        assert_eq!(
            kept(&bytes, 2, SparseFormat::SparseBitmask),
            [f, t, f, t, f, f, f, t, f, f, f, f]
        );
    }

    #[test]
    fn row_offsets_count_what_comes_before() {
        let operator = Operator {
            shape: [3, 4],
            rows: vec![2, 0, 4],
            is_24: false,
        };
        let expected: Vec<u8> = [0i64, 2, 2].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(operator.row_offsets(), expected);
    }
}
