//! A decoder layer like LLaMA-3-8B's, pruned as the program prunes it, from a checkpoint of random weights.

use crate::matrices::{Preset, drift, gram, product, solve};
use crate::measure::Work;
use crate::setting::setting;
use fista_pruner::checkpoint::Model;
use fista_pruner::config::{Pattern, PruneConfig};
use fista_pruner::progress::silent;
use fista_pruner::prune::{NullSink, PruneJob, prune};
use fista_pruner_backends::SolverOps;
use rand::{Rng, SeedableRng};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use std::path::Path;
use tempfile::TempDir;

const VOCABULARY: usize = 512;
/// One layer, its weights on disk, and windows of token ids.
pub(crate) struct DecoderLayer {
    folder: TempDir,
    windows: Vec<Vec<u32>>,
    config: PruneConfig,
}

impl DecoderLayer {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), config_json()).unwrap();
        let mut draw = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = tensors()
            .into_iter()
            .map(|(name, shape)| {
                let one = half::bf16::from_f32(1.0).to_le_bytes();
                let width = *shape.last().unwrap() as f32;
                let count = shape.iter().product();
                let values = match shape.len() {
                    1 => one.repeat(count),
                    _ => (0..count)
                        .flat_map(|_| {
                            let value = draw.random_range(-1.0f32..1.0) / width.sqrt();
                            half::bf16::from_f32(value).to_le_bytes()
                        })
                        .collect(),
                };
                (name, shape, values)
            })
            .collect();
        let views = tensors.iter().map(|(name, shape, bytes)| {
            let view = TensorView::new(Dtype::BF16, shape.clone(), bytes).unwrap();
            (name.as_str(), view)
        });
        let file = folder.path().join("model.safetensors");
        safetensors::serialize_to_file(views, None, &file).unwrap();
        let window = || {
            (0..setting().seq_len)
                .map(|_| draw.random_range(0..VOCABULARY as u32))
                .collect()
        };
        Self {
            folder,
            windows: std::iter::repeat_with(window).take(setting().samples).collect(),
            config: PruneConfig {
                batch_tokens: setting().tokens,
                ..PruneConfig::new(Pattern::unstructured(0.5).unwrap(), Preset::Fast.config())
            },
        }
    }

    /// Copies the checkpoint into `folder`, with the windows as `tokens.safetensors` beside it.
    pub(crate) fn write(&self, folder: &Path) {
        std::fs::create_dir_all(folder).unwrap();
        for name in ["config.json", "model.safetensors"] {
            std::fs::copy(self.folder.path().join(name), folder.join(name)).unwrap();
        }
        let ids: Vec<u8> = self
            .windows
            .iter()
            .flatten()
            .flat_map(|id| id.to_le_bytes())
            .collect();
        let shape = vec![self.windows.len(), setting().seq_len];
        let view = TensorView::new(Dtype::U32, shape, &ids).unwrap();
        safetensors::serialize_to_file([("input_ids", view)], None, &folder.join("tokens.safetensors"))
            .unwrap();
    }

    fn tokens(&self) -> usize {
        self.windows.len() * setting().seq_len
    }
}

impl Work for DecoderLayer {
    fn shape(&self) -> String {
        format!(
            "{} / {}, p {}",
            setting().hidden,
            setting().intermediate,
            self.tokens()
        )
    }

    fn product(&self) -> [usize; 3] {
        [setting().tokens, setting().hidden, setting().intermediate]
    }

    /// Matrix products of statistics, error correction and solver, and both paths' forward passes; attention not counted.
    fn operations(&self) -> f64 {
        let tokens = self.tokens();
        groups()
            .iter()
            .enumerate()
            .map(|(group, operators)| {
                let inputs = operators[0].2;
                let outputs = operators.iter().map(|(_, outputs, _)| outputs).sum();
                // The first group's inputs are the dense model's; nobody asks for the last group's pruned outputs.
                let drift = if group > 0 {
                    drift(outputs, inputs, tokens)
                } else {
                    0.0
                };
                let paths = if group + 1 < groups().len() { 2.0 } else { 1.0 };
                // One inverse serves them all.
                let solved = solve(&self.config.solver, outputs, inputs);
                gram(inputs, tokens) + drift + paths * product(outputs, inputs, tokens) + solved
            })
            .sum()
    }

    fn prepare<B: SolverOps>(&self, device: &B::Device) -> Box<dyn FnMut()> {
        let model = Model::open(self.folder.path()).unwrap();
        let (windows, config, device) = (self.windows.clone(), self.config.clone(), device.clone());
        Box::new(move || {
            let job = PruneJob {
                checkpoint: &model.checkpoint,
                decoder: &model.decoder,
                windows: &windows,
                config: &config,
            };
            divan::black_box(prune::<B>(job, &device, &mut NullSink, &mut silent()).unwrap());
        })
    }
}

/// Operators with outputs and inputs, in the order of pruning.
fn groups() -> [Vec<(&'static str, usize, usize)>; 4] {
    let (hidden, ffn) = (setting().hidden, setting().intermediate);
    let keys = hidden / setting().heads * setting().kv_heads;
    [
        vec![
            ("self_attn.q_proj", hidden, hidden),
            ("self_attn.k_proj", keys, hidden),
            ("self_attn.v_proj", keys, hidden),
        ],
        vec![("self_attn.o_proj", hidden, hidden)],
        vec![("mlp.gate_proj", ffn, hidden), ("mlp.up_proj", ffn, hidden)],
        vec![("mlp.down_proj", hidden, ffn)],
    ]
}

fn tensors() -> Vec<(String, Vec<usize>)> {
    let hidden = setting().hidden;
    let mut tensors = vec![
        ("model.embed_tokens.weight".to_owned(), vec![VOCABULARY, hidden]),
        ("model.norm.weight".to_owned(), vec![hidden]),
    ];
    for norm in ["input_layernorm", "post_attention_layernorm"] {
        tensors.push((format!("model.layers.0.{norm}.weight"), vec![hidden]));
    }
    for (name, outputs, inputs) in groups().iter().flatten() {
        tensors.push((format!("model.layers.0.{name}.weight"), vec![*outputs, *inputs]));
    }
    tensors
}

fn config_json() -> String {
    let setting = setting();
    serde_json::json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": setting.hidden,
        "intermediate_size": setting.intermediate,
        "max_position_embeddings": 8192,
        "num_attention_heads": setting.heads,
        "num_hidden_layers": 1,
        "num_key_value_heads": setting.kv_heads,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500_000.0,
        "tie_word_embeddings": true,
        "torch_dtype": "bfloat16",
        "vocab_size": VOCABULARY
    })
    .to_string()
}
