//! Packed rows against whole sequences: what is shared, left out or filled up changes nothing.

#![allow(clippy::unwrap_used)]

mod common;

use burn::tensor::{Tensor, TensorData};
use common::{B, config, folders, ids_tensor, layers, tensors, values};
use fista_pruner_models::{Decoder, ModelConfig, Pack, RopeScaling};

/// Sequences of which some begin alike, and the row of each token: 9 rows for 15 tokens.
fn sequences() -> (Vec<Vec<i64>>, Vec<Vec<usize>>) {
    let ids = vec![
        vec![5, 7, 9, 11, 2, 6],
        vec![5, 7, 9, 12, 13],
        vec![5, 7, 9],
        vec![30],
    ];
    let rows = vec![
        vec![0, 1, 2, 3, 4, 5],
        vec![0, 1, 2, 6, 7],
        vec![0, 1, 2],
        vec![8],
    ];
    (ids, rows)
}

#[test]
fn packed_rows_are_the_sequences_rows() {
    let device = Default::default();
    for folder in [folders("models"), folders("generated")].concat() {
        let source = tensors(&folder);
        let decoder = Decoder::new(config(&folder), &source).unwrap();
        // Frequencies that depend on the longest sequence are no concern of packing.
        if let ModelConfig::Llama(config) = decoder.config()
            && matches!(
                config.rope.scaling,
                RopeScaling::Dynamic { .. } | RopeScaling::Longrope { .. }
            )
        {
            continue;
        }
        let embedding = decoder.embedding::<B>(&source, &device).unwrap();
        let layers = layers(&decoder, &source);
        let (ids, row_of) = sequences();
        let whole: Vec<Vec<f32>> = ids
            .iter()
            .map(|ids| {
                let hidden = embedding.forward(ids_tensor(std::slice::from_ref(ids), &device), 0);
                values(layers.iter().fold(hidden, |hidden, layer| layer.forward(hidden)))
            })
            .collect();

        // Two packs, the second of which is not padded.
        let packs = [
            Pack::<B>::new(&row_of, &device),
            Pack::<B>::new(&[vec![0, 1, 2]], &device),
        ];
        assert_eq!([packs[0].rows(), packs[1].rows()], [9, 3]);
        let padded: Vec<Vec<i64>> = ids
            .iter()
            .map(|ids| {
                let mut ids = ids.clone();
                ids.resize(6, 1);
                ids
            })
            .collect();
        let inputs = [padded, vec![ids[2].clone()]];
        let hidden = inputs
            .iter()
            .zip(&packs)
            .map(|(ids, pack)| pack.gather(embedding.forward(ids_tensor(ids, &device), 0)));
        let hidden = layers.iter().fold(hidden.collect(), |hidden, layer| {
            layer.forward_packs(hidden, &packs)
        });
        let width = decoder.config().hidden_size();
        assert_eq!(
            [hidden[0].dims(), hidden[1].dims()],
            [[1, 9, width], [1, 3, width]]
        );
        let mut hidden = hidden.into_iter();
        let (first, second) = (values(hidden.next().unwrap()), values(hidden.next().unwrap()));
        let close = |found: &[f32], expected: &[f32]| {
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 2e-4, "{folder:?}: {found} {expected}");
            }
        };
        for (rows, whole) in row_of.iter().zip(&whole) {
            assert_eq!(whole.len(), rows.len() * width);
            for (row, expected) in rows.iter().zip(whole.chunks(width)) {
                close(&first[row * width..][..width], expected);
            }
        }
        close(&second, &whole[2]);
    }
}

#[test]
fn spreading_and_gathering_undo_each_other() {
    let device = Default::default();
    let (_, row_of) = sequences();
    let pack = Pack::<B>::new(&row_of, &device);
    let rows: Vec<f32> = (0..27).map(|value| value as f32).collect();
    let rows = Tensor::<B, 3>::from_data(TensorData::new(rows, [1, 9, 3]), &device);
    let spread = pack.spread(rows.clone());
    assert_eq!(spread.dims(), [4, 6, 3]);
    assert_eq!(pack.gather(spread).into_data(), rows.into_data());
}
