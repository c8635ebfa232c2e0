//! Names, shapes and layouts: what a decoder asks a source for, and what it makes of checkpoints that name things
//! differently or lack some.

#![allow(clippy::unwrap_used)]

mod common;

use burn::tensor::TensorData;
use common::{B, Tensors, config, expected, fixture, folders, ids_tensor, shapes, tensors, values};
use fista_pruner_models::{Decoder, ModelError, SourceError, TensorSource};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;

/// Writes down what is asked for.
struct Recorder {
    tensors: Tensors,
    asked: Mutex<Vec<(String, Vec<usize>)>>,
}

impl TensorSource for Recorder {
    fn load(&self, name: &str, shape: &[usize]) -> Result<TensorData, SourceError> {
        let mut asked = self.asked.lock().unwrap();
        asked.push((name.to_owned(), shape.to_vec()));
        self.tensors.load(name, shape)
    }

    fn contains(&self, name: &str) -> bool {
        self.tensors.contains(name)
    }
}

#[test]
fn what_is_listed_is_what_is_loaded_and_all_there_is() {
    for folder in [folders("models"), folders("generated")].concat() {
        let source = Recorder {
            tensors: tensors(&folder),
            asked: Mutex::default(),
        };
        let decoder = Decoder::new(config(&folder), &source).unwrap();
        let device = Default::default();
        let take = || -> BTreeMap<String, Vec<usize>> {
            std::mem::take(&mut *source.asked.lock().unwrap())
                .into_iter()
                .collect()
        };
        let mut all = BTreeMap::new();
        let mut check = |listed: Vec<(String, Vec<usize>)>| {
            let asked = take();
            assert_eq!(
                listed.iter().cloned().collect::<BTreeMap<_, _>>(),
                asked,
                "{folder:?}"
            );
            all.extend(asked);
        };
        decoder.embedding::<B>(&source, &device).unwrap();
        check(decoder.embedding_tensors());
        for layer in 0..decoder.config().num_layers() {
            decoder.layer::<B>(layer, &source, &device).unwrap();
            check(decoder.layer_tensors(layer));
        }
        decoder.head::<B>(&source, &device).unwrap();
        check(decoder.head_tensors());

        let listed = decoder.tensors();
        let count = listed.len();
        let listed: BTreeMap<_, _> = listed.into_iter().collect();
        assert_eq!(listed.len(), count, "{folder:?}: a tensor is listed twice");
        assert_eq!(listed, all, "{folder:?}");
        let in_file = shapes(&source.tensors);
        for (name, shape) in in_file {
            let buffer = name.ends_with("act_fn.beta") || name.ends_with("act_fn.eps");
            let tied = name == "lm_head.weight" && decoder.config().tied_head();
            assert!(
                buffer || tied || all.get(&name) == Some(&shape),
                "{folder:?}: {name} unused"
            );
        }
    }
}

#[test]
fn names_are_as_in_the_file() {
    let name = |group: &str, folder: &str, operator: &str| {
        let folder = fixture(group, folder);
        let decoder = Decoder::new(config(&folder), &tensors(&folder)).unwrap();
        decoder.operator_name(2, operator)
    };
    assert_eq!(
        name("models", "mistral-style", "mlp.up_proj"),
        "model.layers.2.mlp.up_proj"
    );
    assert_eq!(
        name("models", "opt-125m-style", "fc2"),
        "model.decoder.layers.2.fc2"
    );
}

/// Logits of a folder's ids with the tensors renamed or dropped.
fn logits(folder: &Path, rename: impl Fn(&str) -> Option<String>) -> Vec<f32> {
    let source: Tensors = tensors(folder)
        .into_iter()
        .filter_map(|(name, tensor)| rename(&name).map(|name| (name, tensor)))
        .collect();
    let decoder = Decoder::new(config(folder), &source).unwrap();
    let device = Default::default();
    let ids = ids_tensor::<B>(&expected(folder).ids, &device);
    let mut hidden = decoder.embedding::<B>(&source, &device).unwrap().forward(ids, 0);
    for layer in 0..decoder.config().num_layers() {
        hidden = decoder
            .layer::<B>(layer, &source, &device)
            .unwrap()
            .forward(hidden);
    }
    values(decoder.head::<B>(&source, &device).unwrap().forward(hidden))
}

#[test]
fn prefixes_may_be_shorter() {
    for (name, prefixes) in [
        ("opt-125m-style", &["model.decoder.", "decoder.", ""] as &[&str]),
        ("opt-350m-style", &["model.decoder.", "decoder.", ""]),
        ("llama1-style", &["model.", ""]),
    ] {
        let folder = fixture("models", name);
        let reference = logits(&folder, |name| Some(name.to_owned()));
        for prefix in &prefixes[1..] {
            let renamed = logits(&folder, |name| {
                Some(match name.strip_prefix(prefixes[0]) {
                    Some(rest) => format!("{prefix}{rest}"),
                    None => name.to_owned(),
                })
            });
            assert_eq!(renamed, reference, "{name} with `{prefix}`");
        }
    }
}

#[test]
fn a_tied_head_may_be_stored_under_either_name_or_both() {
    let folder = fixture("models", "smollm2-style");
    let (table, head) = ("model.embed_tokens.weight", "lm_head.weight");
    let reference = logits(&folder, |name| (name != head).then(|| name.to_owned()));
    let as_head = logits(&folder, |name| match name {
        "lm_head.weight" => None,
        "model.embed_tokens.weight" => Some(head.to_owned()),
        other => Some(other.to_owned()),
    });
    assert_eq!(as_head, reference);

    let mut source = tensors(&folder);
    let values: Vec<f32> = source[table].1.iter().map(|x| x * 2.0).collect();
    source.insert(head.to_owned(), (source[table].0.clone(), values));
    let decoder = Decoder::new(config(&folder), &source).unwrap();
    assert_eq!(
        decoder.head_tensors().last().unwrap().0,
        head,
        "both are used where they differ"
    );
    let names: Vec<String> = decoder.tensors().into_iter().map(|(name, _)| name).collect();
    assert!(names.contains(&table.to_owned()) && names.contains(&head.to_owned()));
}

#[test]
fn what_is_missing_is_named() {
    let device = Default::default();
    let folder = fixture("models", "llama1-style");
    let mut source = tensors(&folder);
    let decoder = Decoder::new(config(&folder), &source).unwrap();
    source.remove("lm_head.weight");
    source.remove("model.layers.1.mlp.up_proj.weight");
    let error = decoder.head::<B>(&source, &device).unwrap_err();
    assert!(error.to_string().contains("lm_head.weight"), "{error}");
    let error = decoder.layer::<B>(1, &source, &device).unwrap_err();
    assert!(
        error.to_string().contains("model.layers.1.mlp.up_proj.weight"),
        "{error}"
    );

    let error = Decoder::new(config(&folder), &Tensors::new()).unwrap_err();
    assert!(matches!(error, ModelError::UnknownLayout { family: "llama", .. }));
    let opt = tensors(&fixture("models", "opt-125m-style"));
    assert!(Decoder::new(config(&folder), &opt).is_err());
}

#[test]
fn ids_and_positions_that_do_not_exist_are_not_answered() {
    let folder = fixture("models", "opt-125m-style");
    let source = tensors(&folder);
    let decoder = Decoder::new(config(&folder), &source).unwrap();
    assert_eq!(decoder.config().position_limit(), Some(128));
    let device = Default::default();
    let embedding = decoder.embedding::<B>(&source, &device).unwrap();
    let run = |id: i64, first: usize| {
        let ids = ids_tensor::<B>(&[vec![3, id]], &device);
        catch_unwind(AssertUnwindSafe(|| values(embedding.forward(ids, first))))
    };
    assert!(run(319, 126).is_ok());
    assert!(run(320, 0).is_err());
    assert!(run(-1, 0).is_err());
    assert!(run(0, 127).is_err());
}
