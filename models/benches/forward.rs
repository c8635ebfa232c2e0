//! Seconds for the decoder layers of a 135 M parameter LLaMA-family model on 8 windows of 512 tokens, and for the
//! likelihood of their tokens, with random weights: `cargo bench -p fista-pruner-models --bench forward`.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use burn::tensor::{DType, Distribution, Int, Tensor, TensorData};
use fista_pruner_models::{Decoder, ModelConfig, SourceError, TensorSource};
use std::time::Instant;

type B = burn::backend::Flex;

/// SmolLM2-135M's sizes.
const CONFIG: &str = r#"{"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536,
    "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
    "max_position_embeddings": 8192, "rope_theta": 100000.0, "tie_word_embeddings": true}"#;

/// Weights of the right shape and size, the same for every name.
struct Noise;

impl TensorSource for Noise {
    fn load(&self, _name: &str, shape: &[usize]) -> Result<TensorData, SourceError> {
        let count = shape.iter().product();
        let value = |i: usize| ((i * 7919 % 2017) as f32 / 2017.0 - 0.5) * 0.1;
        Ok(TensorData::new((0..count).map(value).collect(), shape.to_vec()))
    }

    fn contains(&self, name: &str) -> bool {
        name != "lm_head.weight"
    }
}

fn main() {
    let device = Default::default();
    let decoder = Decoder::new(ModelConfig::from_json(CONFIG).unwrap(), &Noise).unwrap();
    let layers: Vec<_> = (0..decoder.config().num_layers())
        .map(|i| decoder.layer::<B>(i, &Noise, &device).unwrap())
        .collect();
    let head = decoder.head::<B>(&Noise, &device).unwrap();
    let hidden = Tensor::<B, 3>::random([8, 512, 576], Distribution::Default, (&device, DType::F32));
    let targets = Tensor::<B, 2, Int>::zeros([8, 512], (&device, DType::I64));

    for _ in 0..4 {
        let start = Instant::now();
        let mut stages = [0.0; 5];
        let mut x = hidden.clone();
        for layer in &layers {
            let mut time = Instant::now();
            let mut lap = |stage: usize| {
                stages[stage] += time.elapsed().as_secs_f64();
                time = Instant::now();
            };
            let mut state = layer.begin(x);
            lap(0);
            for group in 0..4 {
                state = layer.advance(state, group);
                lap(group + 1);
            }
            x = state.input;
        }
        let staged = start.elapsed().as_secs_f64();
        let start = Instant::now();
        let whole = layers.iter().fold(hidden.clone(), |x, layer| layer.forward(x));
        assert_eq!(whole.dims(), x.dims());
        let whole = start.elapsed().as_secs_f64();
        let start = Instant::now();
        let nll = head.token_nll(x, targets.clone()).into_data();
        let likelihood = start.elapsed().as_secs_f64();
        let stages = stages.map(|seconds| format!("{seconds:.2}")).join(" + ");
        println!(
            "layers {whole:.2} s, in stages {staged:.2} s ({stages}), likelihood {likelihood:.2} s, {:?}",
            nll.shape
        );
    }
}
