//! Trains a small LLaMA on letters from scratch, prunes it to half and to 2:4, and recovers it in several ways.
//!
//! `cargo run --release --example train_then_prune`

use burn::backend::{Autodiff, Flex};
use burn::module::{AutodiffModule, Module};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig, RmsNorm, RmsNormConfig};
use burn::optim::{AdamWConfig, GradientsParams, Optimizer};
use burn::tensor::activation::{silu, softmax};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use fista_pruner::checkpoint::{CheckpointWriter, Model};
use fista_pruner::config::{Pattern, PruneConfig, SolverConfig};
use fista_pruner::error::{Error, Result};
use fista_pruner::eval::perplexity;
use fista_pruner::progress::silent;
use fista_pruner::prune::{self, WeightSink, prune};
use fista_pruner::recover::{self, BlockConfig, Recovery, SppConfig, recover};
use fista_pruner::report::overall_sparsity;
use safetensors::tensor::{Dtype, TensorView};
use std::path::{Path, PathBuf};

type Device = Flex;
type Training = Autodiff<Device>;

const STORIES: &str = include_str!("../demo/calibration.txt");
const OTHER_STORIES: &str = include_str!("../demo/evaluation.txt");

const LETTERS: usize = 128;
const HIDDEN: usize = 64;
const INTERMEDIATE: usize = 192;
const HEADS: usize = 4;
const LAYERS: usize = 2;
const CONTEXT: usize = 64;
const THETA: f32 = 10_000.0;
const EPSILON: f64 = 1e-5;

const STEPS: usize = 300;
const BATCH: usize = 32;
const LEARNING_RATE: f64 = 4e-3;

/// The LLaMA of `transformers`, by its own names.
#[derive(Module, Debug)]
struct Llama<B: Backend> {
    embed_tokens: Embedding<B>,
    layers: Vec<Layer<B>>,
    norm: RmsNorm<B>,
    lm_head: Linear<B>,
}

#[derive(Module, Debug)]
struct Layer<B: Backend> {
    input_layernorm: RmsNorm<B>,
    q_proj: Linear<B>,
    k_proj: Linear<B>,
    v_proj: Linear<B>,
    o_proj: Linear<B>,
    post_attention_layernorm: RmsNorm<B>,
    gate_proj: Linear<B>,
    up_proj: Linear<B>,
    down_proj: Linear<B>,
}

fn linear<B: Backend>(inputs: usize, outputs: usize, device: &B::Device) -> Linear<B> {
    LinearConfig::new(inputs, outputs).with_bias(false).init(device)
}

impl<B: Backend> Llama<B> {
    fn new(device: &B::Device) -> Self {
        let norm = || RmsNormConfig::new(HIDDEN).with_epsilon(EPSILON).init(device);
        let layer = |_| Layer {
            input_layernorm: norm(),
            q_proj: linear(HIDDEN, HIDDEN, device),
            k_proj: linear(HIDDEN, HIDDEN, device),
            v_proj: linear(HIDDEN, HIDDEN, device),
            o_proj: linear(HIDDEN, HIDDEN, device),
            post_attention_layernorm: norm(),
            gate_proj: linear(HIDDEN, INTERMEDIATE, device),
            up_proj: linear(HIDDEN, INTERMEDIATE, device),
            down_proj: linear(INTERMEDIATE, HIDDEN, device),
        };
        Self {
            embed_tokens: EmbeddingConfig::new(LETTERS, HIDDEN).init(device),
            layers: (0..LAYERS).map(layer).collect(),
            norm: norm(),
            lm_head: linear(HIDDEN, LETTERS, device),
        }
    }

    /// `[batch, tokens]` to logits `[batch, tokens, LETTERS]`.
    fn forward(&self, letters: Tensor<B, 2, Int>) -> Tensor<B, 3> {
        let mut x = self.embed_tokens.forward(letters);
        for layer in &self.layers {
            x = layer.forward(x);
        }
        self.lm_head.forward(self.norm.forward(x))
    }
}

impl<B: Backend> Layer<B> {
    fn forward(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        let x = x.clone() + self.attention(self.input_layernorm.forward(x));
        let y = self.post_attention_layernorm.forward(x.clone());
        let y = silu(self.gate_proj.forward(y.clone())) * self.up_proj.forward(y);
        x + self.down_proj.forward(y)
    }

    fn attention(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        let [batch, tokens, _] = x.dims();
        let size = HIDDEN / HEADS;
        let device = x.device();
        let heads = |x: Tensor<B, 3>| x.reshape([batch, tokens, HEADS, size]).swap_dims(1, 2);
        let q = rotated(heads(self.q_proj.forward(x.clone())));
        let k = rotated(heads(self.k_proj.forward(x.clone())));
        let v = heads(self.v_proj.forward(x));
        let scores = q.matmul(k.swap_dims(2, 3)).div_scalar((size as f64).sqrt());
        let future = Tensor::<B, 2, Int>::ones([tokens, tokens], &device)
            .triu(1)
            .bool();
        let scores = scores.mask_fill(
            future.unsqueeze::<4>().expand([batch, HEADS, tokens, tokens]),
            -1e9,
        );
        let y = softmax(scores, 3).matmul(v).swap_dims(1, 2);
        self.o_proj.forward(y.reshape([batch, tokens, HIDDEN]))
    }
}

/// Rotary positions (arXiv 2104.09864) of `[batch, heads, tokens, size]`, halves against each other.
fn rotated<B: Backend>(x: Tensor<B, 4>) -> Tensor<B, 4> {
    let [_, _, tokens, size] = x.dims();
    let half = size / 2;
    let angles = (0..tokens)
        .flat_map(|t| (0..size).map(move |i| t as f32 * THETA.powf(-((i % half) as f32) / half as f32)));
    let angles = TensorData::new(angles.collect::<Vec<f32>>(), [1, 1, tokens, size]);
    let angles = Tensor::<B, 4>::from_data(angles, &x.device());
    let first = x.clone().slice_dim(3, 0..half);
    let second = x.clone().slice_dim(3, half..size);
    x * angles.clone().cos() + Tensor::cat(vec![second.neg(), first], 3) * angles.sin()
}

/// Windows of `CONTEXT + 1` letters, one after the other.
fn windows(text: &str) -> Vec<Vec<u32>> {
    let letters: Vec<u32> = text.bytes().filter(u8::is_ascii).map(u32::from).collect();
    letters.chunks_exact(CONTEXT + 1).map(<[u32]>::to_vec).collect()
}

/// Adam on the stories, from random weights.
fn train(windows: &[Vec<u32>]) -> Llama<Device> {
    let device = Default::default();
    Device::seed(&device, 1);
    let mut model = Llama::<Training>::new(&device);
    let mut optimizer = AdamWConfig::new().with_weight_decay(0.01).init();
    let criterion = CrossEntropyLossConfig::new().init(&device);
    for step in 0..STEPS {
        // A prime apart, so that every window comes once before any comes twice.
        let batch = (0..BATCH).map(|i| &windows[(step * BATCH + i) * 1009 % windows.len()]);
        let ids: Vec<i64> = batch.flatten().map(|id| i64::from(*id)).collect();
        let ids: Tensor<Training, 2, Int> =
            Tensor::from_data(TensorData::new(ids, [BATCH, CONTEXT + 1]), &device);
        let logits = model.forward(ids.clone().slice_dim(1, 0..CONTEXT));
        let targets = ids.slice_dim(1, 1..CONTEXT + 1).reshape([BATCH * CONTEXT]);
        let loss = criterion.forward(logits.reshape([BATCH * CONTEXT, LETTERS]), targets);
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        let rest = 1.0 - step as f64 / STEPS as f64;
        model = optimizer.step(LEARNING_RATE * rest, model, gradients);
    }
    model.valid()
}

/// Writes the model as a checkpoint that `transformers` would read.
fn save(model: &Llama<Device>, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    let mut add =
        |name: String, data: TensorData| tensors.push((name, data.shape.to_vec(), data.as_bytes().to_vec()));
    let linear = |linear: &Linear<Device>| linear.weight.val().transpose().into_data();
    let norm = |norm: &RmsNorm<Device>| norm.gamma.val().into_data();
    add(
        "model.embed_tokens.weight".into(),
        model.embed_tokens.weight.val().into_data(),
    );
    for (i, layer) in model.layers.iter().enumerate() {
        let name = |part: &str| format!("model.layers.{i}.{part}.weight");
        add(name("input_layernorm"), norm(&layer.input_layernorm));
        add(
            name("post_attention_layernorm"),
            norm(&layer.post_attention_layernorm),
        );
        add(name("self_attn.q_proj"), linear(&layer.q_proj));
        add(name("self_attn.k_proj"), linear(&layer.k_proj));
        add(name("self_attn.v_proj"), linear(&layer.v_proj));
        add(name("self_attn.o_proj"), linear(&layer.o_proj));
        add(name("mlp.gate_proj"), linear(&layer.gate_proj));
        add(name("mlp.up_proj"), linear(&layer.up_proj));
        add(name("mlp.down_proj"), linear(&layer.down_proj));
    }
    add("model.norm.weight".into(), norm(&model.norm));
    add("lm_head.weight".into(), linear(&model.lm_head));
    let internal = |what: String| Error::internal(what);
    let views = tensors.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
        view.map(|view| (name, view)).map_err(|e| internal(e.to_string()))
    });
    let bytes = safetensors::serialize(views.collect::<Result<Vec<_>>>()?, None)
        .map_err(|e| internal(e.to_string()))?;
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "max_position_embeddings": CONTEXT + 1,
        "rms_norm_eps": EPSILON,
        "rope_theta": THETA,
        "tie_word_embeddings": false,
        "vocab_size": LETTERS,
    });
    for (name, content) in [
        ("model.safetensors", bytes),
        ("config.json", config.to_string().into_bytes()),
    ] {
        let path = folder.join(name);
        std::fs::write(&path, content).map_err(Error::io("write", &path))?;
    }
    Ok(())
}

/// Weights go straight into a new checkpoint.
struct Sink(CheckpointWriter);

impl WeightSink for Sink {
    fn weight(&mut self, name: &str, values: &[f32], keep: &[bool]) -> Result<()> {
        self.0.write_weight(name, values, keep)
    }
}

/// A folder for checkpoints, and text.
struct Work {
    folder: PathBuf,
    calibration: Vec<Vec<u32>>,
    held_out: Vec<Vec<u32>>,
}

impl Work {
    fn open(&self, name: &str) -> Result<Model> {
        Model::open(&self.folder.join(name))
    }

    /// Prunes `dense` into the folder of that name; gives its share of zeros.
    fn prune(&self, dense: &Model, pattern: Pattern, name: &str) -> Result<f64> {
        let config = PruneConfig::new(pattern, SolverConfig::best(None));
        let job = prune::PruneJob {
            checkpoint: &dense.checkpoint,
            decoder: &dense.decoder,
            windows: &self.calibration,
            config: &config,
        };
        let mut sink = Sink(CheckpointWriter::create(
            &dense.checkpoint,
            &self.folder.join(name),
            true,
        )?);
        let operators = prune::<Device>(job, &Default::default(), &mut sink, &mut silent())?;
        sink.0.finish()?;
        Ok(overall_sparsity(&operators))
    }

    /// Recovers `pruned` into the folder of that name.
    fn recover(&self, dense: &Model, pruned: &Model, recovery: &Recovery, name: &str) -> Result<()> {
        let job = recover::RecoverJob {
            pruned,
            dense: matches!(recovery, Recovery::Block(_)).then_some(dense),
            kept_layers: None,
            windows: &self.calibration,
            recovery,
            checkpoints: None,
        };
        let mut sink = Sink(CheckpointWriter::create(
            &pruned.checkpoint,
            &self.folder.join(name),
            true,
        )?);
        recover::<Device>(job, &Default::default(), &mut sink, &mut silent())?;
        sink.0.finish()
    }

    /// A line of the table.
    #[allow(clippy::print_stdout, reason = "an example shows what it did")]
    fn show(&self, what: &str, name: &str, zeros: f64) -> Result<()> {
        let model = self.open(name)?;
        let parts = (&model.checkpoint, &model.decoder);
        let found = perplexity::<Device>(parts, &self.held_out, 4096, &Default::default(), &mut silent())?;
        println!("{what:24} {:5.1} %   {:8.4}", 100.0 * zeros, found.perplexity);
        Ok(())
    }
}

#[allow(clippy::print_stdout, reason = "an example shows what it did")]
fn main() -> Result<()> {
    let folder = tempfile::tempdir().map_err(Error::io("create a folder in", std::env::temp_dir()))?;
    let stories = windows(STORIES);
    let work = Work {
        folder: folder.path().to_owned(),
        calibration: stories.iter().step_by(16).cloned().collect(),
        held_out: windows(OTHER_STORIES),
    };
    save(&train(&stories), &work.folder.join("dense"))?;
    let dense = work.open("dense")?;

    println!("{:24} {:>7}   {:>8}", "", "zeros", "perplexity");
    work.show("trained", "dense", 0.0)?;
    for pattern in [Pattern::unstructured(0.5)?, Pattern::n_of_m(2, 4)?] {
        let zeros = work.prune(&dense, pattern, "pruned")?;
        work.show(&format!("pruned to {pattern}"), "pruned", zeros)?;
        let pruned = work.open("pruned")?;
        let (block, spp) = (BlockConfig::default(), SppConfig::default());
        for recovery in [Recovery::Block(block), Recovery::Spp(spp)] {
            work.recover(&dense, &pruned, &recovery, recovery.name())?;
            work.show(&format!("  then {}", recovery.name()), recovery.name(), zeros)?;
        }
    }
    Ok(())
}
