//! What the fuzz targets do. In: a target's name, and bytes that anybody could hand to the program as a file. Out: nothing;
//! whatever they are, the library gives a value or an error, and leaves no folder behind. `fuzz_targets/` gives these to
//! libFuzzer, and `tests/it/fuzz.rs` of the crate replays `seeds/` without it.
//!
//! A target of several files takes them one after the other, with a byte 0xFF between two: no UTF-8 text has one. An empty
//! file is none.

use fista_pruner::artifact::{inspect, mask, verify};
use fista_pruner::checkpoint::{Checkpoint, Model};
use fista_pruner::config::{Method, Pattern, PruneConfig, SolverConfig};
use fista_pruner::prune::{Parts, PruneRun, SolveRun, merge, read_table};
use fista_pruner::report::{Report, html};
use fista_pruner::text::{
    ChatTemplate, Conversation, TextOptions, TokenWindows, Tokenizer, read_documents, read_text,
    token_windows,
};
use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A target: its name, and what it does with its bytes in an empty folder.
type Target = (&'static str, fn(&mut Place, &[u8]));

/// Every target.
pub const TARGETS: [Target; 15] = [
    ("chat_template", chat_template),
    ("config", config),
    ("index", index),
    ("journal", journal),
    ("mask", mask_file),
    ("packed", packed),
    ("parquet", parquet),
    ("part", part),
    ("pickle", pickle),
    ("rows", rows),
    ("safetensors", safetensors),
    ("statistics", statistics),
    ("tables", tables),
    ("tokenizer", tokenizer),
    ("zip", zip),
];

/// Gives `data` to the target of that name.
///
/// # Panics
/// When there is no such target; when the library panics, or leaves something behind: that is what is looked for.
pub fn run(name: &str, data: &[u8]) {
    thread_local! {
        static PLACE: RefCell<Option<Place>> = const { RefCell::new(None) };
    }
    let (_, target) = TARGETS
        .iter()
        .find(|(known, _)| *known == name)
        .unwrap_or_else(|| panic!("no target `{name}`"));
    PLACE.with_borrow_mut(|place| {
        let place = place.get_or_insert_with(Place::new);
        place.clear();
        target(place, data);
        place.no_folder_is_left();
    });
}

/// A folder for the target's files, in memory where the system has that, and a model that is in order.
pub struct Place {
    root: TempDir,
    /// A folder of `data` in which a pruning run was stopped, with its journal; made when it is needed.
    stopped: Option<PathBuf>,
}

/// Layers of the model that is in order.
const LAYERS: usize = 2;

/// Its configuration.
const CONFIG: &str = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8,
"intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": 2, "vocab_size": 12,
"max_position_embeddings": 16, "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": true,
"torch_dtype": "float32"}"#;

impl Place {
    fn new() -> Self {
        // libFuzzer's own ends the process even where the library goes on: some of its libraries panic on damaged files.
        drop(std::panic::take_hook());
        let memory = Path::new("/dev/shm");
        let root = if memory.is_dir() {
            tempfile::tempdir_in(memory)
        } else {
            tempfile::tempdir()
        };
        let root = root.expect("a temporary folder");
        fs::create_dir(root.path().join("model")).expect("a folder");
        fs::write(root.path().join("model/config.json"), CONFIG).expect("a configuration");
        fs::write(root.path().join("model/model.safetensors"), weights()).expect("weights");
        Self { root, stopped: None }
    }

    /// Where the target's files are.
    fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }

    /// The model that is in order.
    fn model(&self) -> PathBuf {
        self.root.path().join("model")
    }

    /// Where a target may write.
    fn output(&self) -> PathBuf {
        self.root.path().join("output/result")
    }

    fn clear(&self) {
        for folder in ["data", "output"] {
            let folder = self.root.path().join(folder);
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir(&folder).expect("a folder");
        }
    }

    /// Puts a file into the target's folder.
    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.data().join(name);
        fs::write(&path, bytes).expect("a file");
        path
    }

    /// Puts the files `names` into it, whose contents follow each other in `data`.
    fn files(&self, names: &[&str], data: &[u8]) {
        for (name, bytes) in names.iter().zip(data.split(|byte| *byte == 0xFF)) {
            if !bytes.is_empty() {
                self.file(name, bytes);
            }
        }
    }

    fn no_folder_is_left(&self) {
        for entry in fs::read_dir(self.root.path().join("output")).expect("a folder") {
            let name = entry.expect("an entry").file_name();
            assert!(!name.to_string_lossy().contains(".partial-"), "{name:?} was left");
        }
    }
}

/// A safetensors file of the model that is in order.
fn weights() -> Vec<u8> {
    let mut shapes = vec![("model.embed_tokens.weight".to_owned(), vec![12, 8])];
    for layer in 0..LAYERS {
        let mut add = |name: &str, shape: &[usize]| {
            shapes.push((format!("model.layers.{layer}.{name}.weight"), shape.to_vec()));
        };
        add("self_attn.q_proj", &[8, 8]);
        add("self_attn.k_proj", &[4, 8]);
        add("self_attn.v_proj", &[4, 8]);
        add("self_attn.o_proj", &[8, 8]);
        add("mlp.gate_proj", &[16, 8]);
        add("mlp.up_proj", &[16, 8]);
        add("mlp.down_proj", &[8, 16]);
        add("input_layernorm", &[8]);
        add("post_attention_layernorm", &[8]);
    }
    shapes.push(("model.norm.weight".to_owned(), vec![8]));
    let (mut entries, mut bytes) = (Vec::new(), Vec::new());
    for (name, shape) in shapes {
        let start = bytes.len();
        for element in 0..shape.iter().product::<usize>() {
            let value = ((element * 37 + start) % 101) as f32 / 50.0 - 1.0;
            bytes.extend(value.to_le_bytes());
        }
        entries.push(format!(
            r#""{name}":{{"dtype":"F32","shape":{shape:?},"data_offsets":[{start},{}]}}"#,
            bytes.len()
        ));
    }
    let header = format!(r#"{{"__metadata__":{{"format":"pt"}},{}}}"#, entries.join(","));
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &bytes].concat()
}

/// Opens the target's folder in every way, and reads its tensors.
fn read_checkpoint(place: &Place) {
    /// A file may claim much more than it has; what it really has is small here.
    const ELEMENTS: usize = 1 << 20;
    let folder = place.data();
    if let Ok(checkpoint) = Checkpoint::open(&folder) {
        let tensors: Vec<_> = checkpoint
            .tensors()
            .map(|(name, info)| (name.to_owned(), info.shape.clone(), info.elements()))
            .collect();
        for (name, shape, elements) in tensors {
            if elements < ELEMENTS {
                let _ = checkpoint.raw(&name);
                let _ = checkpoint.read(&name, &shape);
            }
        }
        let _ = checkpoint.content_sha256();
    }
    if let Ok(model) = Model::open(&folder) {
        let _ = inspect::inspect(&model);
        let _ = verify::verify(&folder, Some(&place.model()), None);
    }
}

fn safetensors(place: &mut Place, data: &[u8]) {
    place.file("config.json", CONFIG.as_bytes());
    place.file("model.safetensors", data);
    read_checkpoint(place);
}

fn packed(place: &mut Place, data: &[u8]) {
    place.file("config.json", CONFIG.as_bytes());
    place.file("model.packed.safetensors", data);
    read_checkpoint(place);
    if let Ok(checkpoint) = Checkpoint::open(&place.data()) {
        let _ = fista_pruner::artifact::pack::unpack(&checkpoint, &place.output(), false);
    }
}

fn zip(place: &mut Place, data: &[u8]) {
    place.file("config.json", CONFIG.as_bytes());
    place.file("pytorch_model.bin", data);
    read_checkpoint(place);
}

/// The pickles of a state dict, in the older container of torch, which is nothing but pickles.
fn pickle(place: &mut Place, data: &[u8]) {
    const MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    const PROTOCOL_AND_SYSTEM: &[u8] = b"\x80\x02M\xe9\x03.\x80\x02}.";
    zip(place, &[MAGIC, PROTOCOL_AND_SYSTEM, data].concat());
}

fn config(place: &mut Place, data: &[u8]) {
    place.file("config.json", data);
    place.file("model.safetensors", &weights());
    read_checkpoint(place);
}

fn index(place: &mut Place, data: &[u8]) {
    place.file("config.json", CONFIG.as_bytes());
    place.file("model.safetensors.index.json", data);
    place.file("model-00001-of-00001.safetensors", &weights());
    read_checkpoint(place);
}

fn tokenizer(place: &mut Place, data: &[u8]) {
    const FILES: [&str; 6] = [
        "tokenizer.json",
        "tokenizer_config.json",
        "added_tokens.json",
        "special_tokens_map.json",
        "vocab.json",
        "merges.txt",
    ];
    const TEXT: &str =
        " Once upon a time, there's 12\n\n r\u{e9}sum\u{e9} \u{65e5}\u{672c} </s> end\u{0}\t<|x|>";
    place.files(&FILES, data);
    if let Ok(tokenizer) = Tokenizer::open(&place.data())
        && let Ok(ids) = tokenizer.encode(TEXT)
    {
        let _ = tokenizer.decode(&ids);
    }
}

fn chat_template(place: &mut Place, data: &[u8]) {
    let mut files = data.splitn(2, |byte| *byte == 0xFF);
    place.file("chat_template.jinja", files.next().unwrap_or_default());
    let messages: serde_json::Value = serde_json::from_slice(files.next().unwrap_or_default())
        .unwrap_or_else(|_| serde_json::json!([{"role": "user", "content": "Hello"}]));
    if let Ok(conversation) = Conversation::new(messages)
        && let Ok(template) = ChatTemplate::open(&place.data())
    {
        let _ = template.render(&conversation);
    }
}

fn read_data(file: PathBuf) {
    let files = [file];
    for field in [None, Some("content".to_owned())] {
        let options = TextOptions {
            field,
            ..TextOptions::default()
        };
        let _ = read_documents(&files, &options);
        let _ = read_text(&files, &options);
    }
}

/// The first byte chooses the kind of file.
fn rows(place: &mut Place, data: &[u8]) {
    const KINDS: [&str; 7] = [
        "x.jsonl",
        "x.json",
        "x.txt",
        "x.csv",
        "x.jsonl.gz",
        "x.json.zst",
        "x.txt.gz",
    ];
    if let Some((kind, rest)) = data.split_first() {
        read_data(place.file(KINDS[usize::from(*kind) % KINDS.len()], rest));
    }
}

fn parquet(place: &mut Place, data: &[u8]) {
    read_data(place.file("x.parquet", data));
}

fn mask_file(place: &mut Place, data: &[u8]) {
    let file = place.file("mask.safetensors", data);
    let model = Model::open(&place.model()).expect("the model");
    let _ = mask::apply(&model, &file, &place.output(), false);
}

/// Tokens, rates and reports: what else the program reads.
fn tables(place: &mut Place, data: &[u8]) {
    let _ = token_windows(&place.file("x.safetensors", data), 12);
    let names = ["model.layers.0.mlp.up_proj".to_owned()];
    let _ = read_table(&place.file("rates.json", data), &names);
    if let Ok((report, _)) = Report::open(&place.file("report.json", data)) {
        let _ = html::page(&report);
    }
}

/// How the model is pruned where that is part of a target: without text, and as fast as can be.
fn magnitude() -> PruneConfig {
    let mut solver = SolverConfig::best(None);
    solver.method = Method::Magnitude;
    solver.polish = 0;
    PruneConfig::new(Pattern::n_of_m(2, 4).expect("a pattern"), solver)
}

fn statistics(place: &mut Place, data: &[u8]) {
    let statistics = place.file("layer-000.safetensors", data);
    let (device, _) = fista_pruner_backends::open_default().expect("a device");
    for operator in ["a", "model.layers.0.mlp.up_proj"] {
        let run = SolveRun {
            statistics: statistics.clone(),
            operator: operator.to_owned(),
            pattern: Pattern::n_of_m(2, 4).expect("a pattern"),
            solver: magnitude().solver,
            output: Some(place.output()),
            overwrite: true,
            device,
        };
        let _ = run.run();
    }
}

/// `part.json`, and the weights of both layers.
fn part(place: &mut Place, data: &[u8]) {
    let mut files = data.splitn(3, |byte| *byte == 0xFF);
    let folder = place.data().join("part-001-of-001");
    fs::create_dir(&folder).expect("a folder");
    for name in ["part.json", "layer-0000.safetensors", "layer-0001.safetensors"] {
        fs::write(folder.join(name), files.next().unwrap_or_default()).expect("a file");
    }
    if let Ok(parts) = Parts::open(&place.data()) {
        let _ = parts.tensors(|_, _| Ok(()));
        let model = Model::open(&place.model()).expect("the model");
        let _ = merge(&parts, &model, &place.output(), false);
    }
}

/// The journal of a run that was stopped after its first layer. A first byte below 128 puts the run's own first line before
/// the bytes.
fn journal(place: &mut Place, data: &[u8]) {
    const JOURNAL: &str = ".journal.jsonl";
    const NAME: &str = "result.partial-stopped";
    let model = Model::open(&place.model()).expect("the model");
    let windows = TokenWindows::none();
    let mut run = PruneRun::new(&model, &windows, magnitude(), place.output()).expect("a run");
    run.resume = true;
    let output = place.root.path().join("output");
    let stopped = place.stopped.get_or_insert_with(|| {
        let kept = place.root.path().join("stopped");
        run.run(&mut |event: fista_pruner::progress::Event<'_>| {
            if let fista_pruner::progress::Event::Layer { layer: 1, .. } = event {
                let folder = fs::read_dir(&output).expect("a folder").next();
                copy(&folder.expect("an entry").expect("an entry").path(), &kept);
            }
        })
        .expect("a pruned model");
        kept
    });
    let own = fs::read(stopped.join(JOURNAL)).expect("a journal");
    let folder = output.join(NAME);
    let _ = fs::remove_dir_all(output.join("result"));
    copy(stopped, &folder);
    let first = own.split_inclusive(|byte| *byte == b'\n').next();
    let journal = match data.split_first() {
        Some((first_byte, rest)) if *first_byte < 128 => [first.unwrap_or_default(), rest].concat(),
        _ => data.to_vec(),
    };
    fs::write(folder.join(JOURNAL), journal).expect("a journal");
    let _ = run.run(&mut fista_pruner::progress::silent());
    // What can be resumed may stay.
    let _ = fs::remove_dir_all(folder);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        fs::copy(&path, to.join(path.file_name().unwrap_or_default())).expect("a copy");
    }
}
