//! Every fixture folder against what transformers computed: hidden states, logits, loss.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod common;

use burn::tensor::Tensor;
use common::{B, config, distance, expected_in, folders, folders_in, ids_tensor, tensors, values};
use fista_pruner_models::{Decoder, RopePrecision};
use std::path::Path;

/// Bound on hidden states and logits, absolute.
const VALUES: f32 = 2e-4;
/// Bound on the mean loss, absolute.
const LOSS: f64 = 1e-5;

/// What is wrong with our results on a folder, if anything: with rotation frequencies as `from_pretrained` has them, and
/// for `expected.half.safetensors`, computed with a model that had been cast to half precision and back, with rounded ones.
fn check(folder: &Path) -> Vec<String> {
    let mut wrong = check_with(folder, "expected.safetensors", RopePrecision::F32);
    if folder.join(HALF).exists() {
        wrong.extend(check_with(folder, HALF, stored_precision(folder)));
    }
    wrong
}

const HALF: &str = "expected.half.safetensors";

/// As [`check`], for folders of which it is not known how they were computed: one of the two must fit.
fn check_either(folder: &Path) -> Vec<String> {
    let exact = check_with(folder, "expected.safetensors", RopePrecision::F32);
    if exact.is_empty() || check_with(folder, "expected.safetensors", stored_precision(folder)).is_empty() {
        return Vec::new();
    }
    exact
}

/// The precision that the folder's weights are stored in.
fn stored_precision(folder: &Path) -> RopePrecision {
    let text = std::fs::read_to_string(folder.join("config.json")).unwrap();
    match (text.contains("bfloat16"), text.contains("float16")) {
        (true, _) => RopePrecision::BF16,
        (_, true) => RopePrecision::F16,
        _ => RopePrecision::F32,
    }
}

fn check_with(folder: &Path, file: &str, precision: RopePrecision) -> Vec<String> {
    let (source, expected) = (tensors(folder), expected_in(&folder.join(file)));
    let decoder = Decoder::new(config(folder).with_rope_precision(precision), &source).unwrap();
    let device = Default::default();
    let mut wrong = Vec::new();
    let mut compare = |what: String, found: Vec<f32>, expected: &[f32]| {
        let distance = distance(&found, expected);
        if distance > VALUES {
            wrong.push(format!("{what}: {distance:e}"));
        }
    };

    let ids = ids_tensor::<B>(&expected.ids, &device);
    let embedding = decoder.embedding::<B>(&source, &device).unwrap();
    let mut hidden = embedding.forward(ids.clone(), 0);
    compare("hidden.0".to_owned(), values(hidden.clone()), &expected.hidden[0]);
    for layer in 0..decoder.config().num_layers() {
        let loaded = decoder.layer::<B>(layer, &source, &device).unwrap();
        hidden = loaded.forward(hidden);
        if let Some(expected) = expected.hidden.get(layer + 1) {
            compare(format!("hidden.{}", layer + 1), values(hidden.clone()), expected);
        }
    }
    let head = decoder.head::<B>(&source, &device).unwrap();
    let logits = values(head.forward(hidden.clone()));
    compare("logits".to_owned(), logits, &expected.logits);

    let [batch, tokens, _] = hidden.dims();
    let seen: Tensor<B, 3> = hidden.slice([0..batch, 0..tokens - 1]);
    let nll = values(head.token_nll(seen, ids.slice([0..batch, 1..tokens])));
    let loss = nll.iter().map(|x| f64::from(*x)).sum::<f64>() / nll.len() as f64;
    let distance = (loss - f64::from(expected.loss)).abs();
    if distance.is_nan() || distance > LOSS {
        wrong.push(format!("loss: {loss} instead of {}", expected.loss));
    }
    wrong
}

fn check_all(folders: &[std::path::PathBuf], at_least: usize, check: fn(&Path) -> Vec<String>) {
    assert!(folders.len() >= at_least, "only {} fixtures", folders.len());
    let failures: Vec<_> = folders
        .iter()
        .map(|folder| (folder.file_name().unwrap(), check(folder)))
        .filter(|(_, wrong)| !wrong.is_empty())
        .collect();
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn models_in_the_style_of_well_known_ones() {
    check_all(&folders("models"), 8, check);
}

#[test]
fn generated_configurations() {
    check_all(&folders("generated"), 20, check);
}

/// A folder of more cases, such as all that `generate_fixtures.py --all` makes; without the variable nothing to do.
#[test]
fn configurations_of_a_sweep() {
    match std::env::var_os("FISTA_PRUNER_MODEL_FIXTURES") {
        Some(root) => check_all(&folders_in(Path::new(&root)), 1, check_either),
        None => eprintln!("skipped: FISTA_PRUNER_MODEL_FIXTURES is not set"),
    }
}
