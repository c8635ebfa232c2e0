//! Checkpoints for tests: a folder's safetensors files as a tensor source in memory, and running a decoder on it.

#![allow(dead_code, clippy::unwrap_used)] // each test file uses a part

use burn::tensor::backend::Backend;
use burn::tensor::{DType, Int, Tensor, TensorData};
use fista_pruner_models::{Decoder, Layer, ModelConfig};
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// The backend of the tests.
pub(crate) type B = burn::backend::Flex;

/// Row-major f32 by name, with the shape.
pub(crate) type Tensors = HashMap<String, (Vec<usize>, Vec<f32>)>;

/// What transformers computed.
pub(crate) struct Expected {
    pub(crate) ids: Vec<Vec<i64>>,
    /// Input of each decoder layer and, in some folders, the output of the last one; `[batch, tokens, hidden]`.
    pub(crate) hidden: Vec<Vec<f32>>,
    /// `[batch, tokens, vocab]`.
    pub(crate) logits: Vec<f32>,
    pub(crate) loss: f32,
}

/// The fixture folders below `tests/fixtures/GROUP`, sorted.
pub(crate) fn folders(group: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    folders_in(&root.join(group))
}

/// The folders in `root`, sorted.
pub(crate) fn folders_in(root: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = std::fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    folders.sort();
    folders
}

/// One fixture folder.
pub(crate) fn fixture(group: &str, name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    root.join(group).join(name)
}

fn floats(dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
    let pairs = |f: fn([u8; 2]) -> f32| bytes.chunks_exact(2).map(|b| f([b[0], b[1]])).collect();
    match dtype {
        Dtype::F32 => bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect(),
        Dtype::F16 => pairs(|b| f16::from_le_bytes(b).to_f32()),
        Dtype::BF16 => pairs(|b| bf16::from_le_bytes(b).to_f32()),
        other => panic!("unexpected dtype {other:?}"),
    }
}

/// All tensors of a folder's model files.
pub(crate) fn tensors(folder: &Path) -> Tensors {
    let mut tensors = Tensors::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let file = file.unwrap().path();
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        if !name.starts_with("model") || !name.ends_with(".safetensors") {
            continue;
        }
        let bytes = std::fs::read(&file).unwrap();
        for (name, view) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
            tensors.insert(name, (view.shape().to_vec(), floats(view.dtype(), view.data())));
        }
    }
    tensors
}

/// The parsed configuration of a folder.
pub(crate) fn config(folder: &Path) -> ModelConfig {
    let text = std::fs::read_to_string(folder.join("config.json")).unwrap();
    ModelConfig::from_json(&text).unwrap()
}

/// The folder's `expected.safetensors`.
pub(crate) fn expected(folder: &Path) -> Expected {
    expected_in(&folder.join("expected.safetensors"))
}

/// What transformers computed, from one file.
pub(crate) fn expected_in(file: &Path) -> Expected {
    let bytes = std::fs::read(file).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let ids = file.tensor("input_ids").unwrap();
    let tokens = ids.shape()[1];
    let values: Vec<i64> = ids
        .data()
        .chunks_exact(8)
        .map(|b| i64::from_le_bytes(b.try_into().unwrap()))
        .collect();
    let view = |name: &str| {
        let view = file.tensor(name).unwrap();
        floats(view.dtype(), view.data())
    };
    let layers = file.names().iter().filter(|n| n.starts_with("hidden.")).count();
    Expected {
        ids: values.chunks_exact(tokens).map(<[i64]>::to_vec).collect(),
        hidden: (0..layers).map(|i| view(&format!("hidden.{i}"))).collect(),
        logits: view("logits"),
        loss: view("loss")[0],
    }
}

/// Ids as a tensor `[batch, tokens]`.
pub(crate) fn ids_tensor<B: Backend>(ids: &[Vec<i64>], device: &B::Device) -> Tensor<B, 2, Int> {
    let shape = [ids.len(), ids[0].len()];
    Tensor::from_data(TensorData::new(ids.concat(), shape), (device, DType::I64))
}

/// All layers of a model.
pub(crate) fn layers(decoder: &Decoder, tensors: &Tensors) -> Vec<Layer<B>> {
    let device = Default::default();
    (0..decoder.config().num_layers())
        .map(|i| decoder.layer(i, tensors, &device).unwrap())
        .collect()
}

/// A tensor's values.
pub(crate) fn values<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().into_vec().unwrap()
}

/// The largest absolute difference; infinite where the lengths or a value's finiteness differ.
pub(crate) fn distance(a: &[f32], b: &[f32]) -> f32 {
    if a.len() != b.len() {
        return f32::INFINITY;
    }
    let apart = |(a, b): (&f32, &f32)| {
        let d = (a - b).abs();
        if d.is_nan() { f32::INFINITY } else { d }
    };
    a.iter().zip(b).map(apart).fold(0.0, f32::max)
}

/// Sorted names and shapes.
pub(crate) fn shapes(tensors: &Tensors) -> BTreeMap<String, Vec<usize>> {
    let shape = |(name, (shape, _)): (&String, &(Vec<usize>, Vec<f32>))| (name.clone(), shape.clone());
    tensors.iter().map(shape).collect()
}
