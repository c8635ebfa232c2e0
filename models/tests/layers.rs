//! Ways to run a layer that must agree: in stages, whole, from a cache, one sequence at a time; and replacing weights.

#![allow(clippy::unwrap_used)]

mod common;

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::optim::GradientsParams;
use burn::tensor::{Distribution, Tensor, TensorData};
use common::{B, Tensors, config, distance, expected, fixture, folders, ids_tensor, layers, tensors, values};
use fista_pruner_models::{Decoder, KvCache, Layer, ModelConfig, ModelError, RopeScaling};
use std::path::PathBuf;

fn all_folders() -> Vec<PathBuf> {
    [folders("models"), folders("generated")].concat()
}

/// Decoder, source, and hidden states `[batch, tokens, hidden]` that the embedding gives for the folder's ids.
fn start(folder: &std::path::Path) -> (Decoder, Tensors, Tensor<B, 3>) {
    let source = tensors(folder);
    let decoder = Decoder::new(config(folder), &source).unwrap();
    let device = Default::default();
    let embedding = decoder.embedding::<B>(&source, &device).unwrap();
    let ids = ids_tensor::<B>(&expected(folder).ids, &device);
    let hidden = embedding.forward(ids, 0);
    (decoder, source, hidden)
}

#[test]
fn stages_are_the_whole_layer() {
    for folder in all_folders() {
        let (decoder, source, hidden) = start(&folder);
        let groups = decoder.config().operator_groups();
        assert_eq!(groups.len(), Layer::<B>::GROUPS);
        let mut hidden = hidden;
        for layer in layers(&decoder, &source) {
            let whole = values(layer.forward(hidden.clone()));
            let mut state = layer.begin(hidden);
            for (group, operators) in groups.iter().enumerate() {
                for operator in operators {
                    assert_eq!(state.input.dims()[2], operator.in_features, "{operator:?}");
                }
                state = layer.advance(state, group);
            }
            assert_eq!(values(state.input.clone()), whole, "{folder:?}");
            hidden = state.input;
        }
    }
}

#[test]
fn a_sequence_does_not_depend_on_its_batch() {
    for folder in all_folders() {
        let (decoder, source, hidden) = start(&folder);
        let layer = &layers(&decoder, &source)[0];
        let together = layer.forward(hidden.clone());
        for i in 0..hidden.dims()[0] {
            let alone = layer.forward(hidden.clone().slice_dim(0, i..i + 1));
            let part = together.clone().slice_dim(0, i..i + 1);
            assert_eq!(values(alone), values(part), "{folder:?}");
        }
    }
}

/// Whether frequencies depend on how long the sequence has become, so that tokens seen one by one are rotated
/// differently from tokens seen at once.
fn length_matters(config: &ModelConfig) -> bool {
    match config {
        ModelConfig::Opt(_) => false,
        ModelConfig::Llama(config) => matches!(
            config.rope.scaling,
            RopeScaling::Dynamic { .. } | RopeScaling::Longrope { .. }
        ),
    }
}

#[test]
fn tokens_from_a_cache_are_as_from_the_whole_sequence() {
    for folder in all_folders() {
        let (decoder, source, whole) = start(&folder);
        let device = Default::default();
        let embedding = decoder.embedding::<B>(&source, &device).unwrap();
        let layers = layers(&decoder, &source);
        let expected = expected(&folder);
        let ids = ids_tensor::<B>(&expected.ids, &device);
        let tokens = expected.ids[0].len();
        let whole = values(layers.iter().fold(whole, |x, layer| layer.forward(x)));

        let mut pieces = vec![tokens];
        if !length_matters(decoder.config()) {
            pieces = vec![7, 3, 1, 1, tokens - 12];
        }
        let mut caches: Vec<KvCache<B>> = layers.iter().map(|_| KvCache::new()).collect();
        let (mut seen, mut outputs) = (0, Vec::new());
        for piece in pieces {
            let part = ids.clone().slice_dim(1, seen..seen + piece);
            let mut hidden = embedding.forward(part, seen);
            for (layer, cache) in layers.iter().zip(&mut caches) {
                assert_eq!(cache.tokens(), seen);
                hidden = layer.forward_cached(hidden, cache);
            }
            outputs.push(hidden);
            seen += piece;
        }
        assert_eq!(seen, tokens);
        let distance = distance(&values(Tensor::cat(outputs, 1)), &whole);
        let largest = whole.iter().fold(1.0, |largest: f32, x| largest.max(x.abs()));
        assert!(distance < 2e-5 * largest, "{folder:?}: {distance:e}");
    }
}

#[test]
fn weights_are_the_checkpoints_and_can_be_replaced() {
    for folder in all_folders() {
        let (decoder, source, hidden) = start(&folder);
        let device = Default::default();
        let mut layer = decoder.layer::<B>(1, &source, &device).unwrap();
        let untouched = layer.clone();
        for operator in decoder.config().operator_groups().iter().flatten() {
            let name = format!("{}.weight", decoder.operator_name(1, operator.name));
            let weight = layer.weight(operator.name).unwrap();
            assert_eq!(weight.dims(), [operator.out_features, operator.in_features]);
            assert_eq!(values(weight), source[&name].1, "{name}");

            let shape = [operator.out_features, operator.in_features];
            let new = Tensor::<B, 2>::random(shape, Distribution::Default, &device);
            layer.set_weight(operator.name, new.clone()).unwrap();
            assert_eq!(values(layer.weight(operator.name).unwrap()), values(new));
            let old = values(untouched.weight(operator.name).unwrap());
            assert_eq!(old, source[&name].1, "a clone keeps its weights");
        }
        let (before, after) = (untouched.forward(hidden.clone()), layer.forward(hidden));
        assert_ne!(values(before), values(after));
    }
}

#[test]
fn a_replaced_weight_takes_effect_between_stages() {
    let folder = fixture("models", "smollm2-style");
    let (decoder, source, hidden) = start(&folder);
    let mut layer = decoder.layer::<B>(0, &source, &Default::default()).unwrap();
    let down = layer.weight("mlp.down_proj").unwrap();
    let mut state = layer.begin(hidden);
    for group in 0..3 {
        state = layer.advance(state, group);
    }
    layer
        .set_weight("mlp.down_proj", down.clone().zeros_like())
        .unwrap();
    let without = layer.advance(state.clone(), 3).input;
    layer.set_weight("mlp.down_proj", down.clone()).unwrap();
    let with = layer.advance(state.clone(), 3).input;
    let product = state.input.matmul(down.transpose().unsqueeze());
    let distance = distance(&values(with - without), &values(product));
    assert!(distance < 1e-5, "{distance:e}");
}

#[test]
fn wrong_weights_are_refused() {
    let folder = fixture("models", "llama1-style");
    let source = tensors(&folder);
    let decoder = Decoder::new(config(&folder), &source).unwrap();
    let device = Default::default();
    let mut layer = decoder.layer::<B>(0, &source, &device).unwrap();
    let square = Tensor::<B, 2>::zeros([64, 64], &device);
    assert!(layer.weight("self_attn.out_proj").is_none());
    assert!(matches!(
        layer.set_weight("fc1", square.clone()),
        Err(ModelError::NoSuchOperator { operator }) if operator == "fc1"
    ));
    assert!(matches!(
        layer.set_weight("mlp.up_proj", square),
        Err(ModelError::WeightShape {
            expected: [160, 64],
            found: [64, 64],
            ..
        })
    ));
    assert!(matches!(
        decoder.layer::<B>(3, &source, &device),
        Err(ModelError::NoSuchLayer { layer: 3, layers: 3 })
    ));
}

/// Layers are modules that can be trained: the gradient of a weight agrees with a difference quotient.
#[test]
fn gradients_reach_the_weights() {
    type A = Autodiff<B>;
    for name in ["llama1-style", "qwen3-style", "opt-350m-style"] {
        let folder = fixture("models", name);
        let source = tensors(&folder);
        let decoder = Decoder::new(config(&folder), &source).unwrap();
        let device = Default::default();
        let mut layer = decoder.layer::<A>(0, &source, &device).unwrap();
        let noise = |seed: u32, count: usize| -> Vec<f32> {
            let mut state = seed;
            let next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            };
            std::iter::repeat_with(next).take(count).collect()
        };
        let shape = [2, 9, 64];
        let hidden = Tensor::<A, 3>::from_data(TensorData::new(noise(1, 2 * 9 * 64), shape), &device);
        let direction = Tensor::<A, 3>::from_data(TensorData::new(noise(2, 2 * 9 * 64), shape), &device);
        let loss = |layer: &Layer<A>| (layer.forward(hidden.clone()) * direction.clone()).sum();

        let weight = layer.weight("self_attn.q_proj").unwrap();
        let gradients = loss(&layer).backward();
        let parameter = GradientsParams::from_grads(gradients, &layer);
        assert!(parameter.len() >= 9, "{name}: {} gradients", parameter.len());

        let tracked = weight.detach().require_grad();
        layer.set_weight("self_attn.q_proj", tracked.clone()).unwrap();
        let [rows, columns] = tracked.dims();
        let step = TensorData::new(noise(3, rows * columns), [rows, columns]);
        let step = Tensor::<A, 2>::from_data(step, &device);
        let at = |t: f32, layer: &mut Layer<A>| {
            let moved = tracked.clone().detach() + step.clone().mul_scalar(t);
            layer.set_weight("self_attn.q_proj", moved).unwrap();
            // Summed in f64, so that the difference keeps its digits.
            let terms = values(layer.forward(hidden.clone()) * direction.clone());
            terms.into_iter().map(f64::from).sum::<f64>()
        };
        let quotient = ((at(3e-3, &mut layer) - at(-3e-3, &mut layer)) / 6e-3) as f32;
        layer.set_weight("self_attn.q_proj", tracked.clone()).unwrap();
        let gradients = loss(&layer).backward();
        let gradient = tracked.grad(&gradients);
        let slope = match gradient {
            Some(gradient) => values((gradient * step.clone().inner()).sum())[0],
            None => panic!("{name}: no gradient at the weight"),
        };
        let bound = 0.02 * slope.abs().max(0.1);
        assert!((slope - quotient).abs() < bound, "{name}: {slope} {quotient}");

        let plain: Layer<B> = layer.valid();
        let (a, b) = (
            plain.forward(hidden.clone().inner()),
            layer.forward(hidden.clone()).inner(),
        );
        assert!(distance(&values(a), &values(b)) < 1e-5, "{name}");
    }
}

/// Rows of attention times the values are what attention gives, for every family that has removable heads.
#[test]
fn attention_rows_are_those_of_attention() {
    let mut seen = 0;
    for folder in all_folders() {
        let (decoder, source, hidden) = start(&folder);
        let ModelConfig::Llama(config) = decoder.config() else {
            continue;
        };
        let layer = &layers(&decoder, &source)[0];
        let state = layer.begin(hidden);
        let rows = layer.attention_rows(state.input.clone()).unwrap();
        let [batch, tokens, heads, keys] = rows.dims();
        assert_eq!([heads, keys], [config.num_heads, tokens]);
        let weight = layer.weight("self_attn.v_proj").unwrap();
        let values_of = state.input.clone().matmul(weight.transpose().unsqueeze::<3>());
        let values_of = match layer.bias("self_attn.v_proj") {
            Some(bias) => values_of + bias.unsqueeze::<3>(),
            None => values_of,
        };
        let group = config.num_heads / config.num_kv_heads;
        let dim = config.head_dim;
        let v = values_of
            .reshape([batch, tokens, config.num_kv_heads, 1, dim])
            .repeat_dim(3, group)
            .reshape([batch, tokens, heads, dim])
            .swap_dims(1, 2);
        let attended = rows
            .swap_dims(1, 2)
            .matmul(v)
            .swap_dims(1, 2)
            .reshape([batch, tokens, heads * dim]);
        let found = layer.advance(state, 0).input;
        assert!(distance(&values(attended), &values(found)) < 1e-5, "{folder:?}");
        seen += 1;
    }
    assert!(seen >= 5);
}

/// A smaller configuration has the tensors that the axes of the units say.
#[test]
fn units_lie_where_the_smaller_configuration_has_them() {
    for folder in all_folders() {
        let config = config(&folder);
        let heads = config
            .possible_heads()
            .map_or(config.sizes().heads, |counts| counts[0]);
        let channels = config.sizes().channels / 2;
        let smaller = config.resized(&[0, 2], channels, heads).unwrap();
        assert_eq!(smaller.num_layers(), 2);
        let (before, after) = (config.layer_tensors(), smaller.layer_tensors());
        for ((name, mut shape), (same, found)) in before.into_iter().zip(after) {
            assert_eq!(name, same);
            if let Some(axis) = config.unit_axis(&name) {
                let kept = if axis.unit == fista_pruner_models::Unit::Channel {
                    channels
                } else {
                    heads
                };
                assert_eq!(
                    shape[axis.axis],
                    config.units(axis.unit) * axis.width,
                    "{folder:?} {name}"
                );
                shape[axis.axis] = kept * axis.width;
            }
            assert_eq!(shape, found, "{folder:?} {name}");
        }
        for (layers, channels) in [(vec![], 1), (vec![0], 0), (vec![0], config.sizes().channels + 1)] {
            assert!(config.resized(&layers, channels, 1).is_err());
        }
    }
}
