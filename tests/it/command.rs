//! The harness: the real program in a folder of its own, with small checkpoints that a test may damage.

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// The rows of the small checkpoints' embeddings.
pub(crate) const VOCABULARY: i64 = 320;

/// The small checkpoints of `models/tests/fixtures/models`: hidden size 64, three layers, no tokenizer.
pub(crate) const MODELS: [&str; 8] = [
    "llama1-style",
    "llama3.1-style",
    "mistral-style",
    "opt-125m-style",
    "opt-350m-style",
    "qwen2-style",
    "qwen3-style",
    "smollm2-style",
];

/// A folder that commands run in. It has `tmp`, for the program's own temporary files, and `ids.safetensors`, token ids
/// of four windows of 32 tokens.
pub(crate) struct Workspace {
    root: TempDir,
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Contents of every file below a folder by relative path; folders have none.
pub(crate) type Tree = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// Settings of a network that a test must not depend on.
const NETWORK_VARIABLES: [&str; 15] = [
    "HF_ENDPOINT",
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "HF_TOKEN",
    "HF_TOKEN_PATH",
    "HUGGING_FACE_HUB_TOKEN",
    "HF_HUB_DOWNLOAD_TIMEOUT",
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "ALL_PROXY",
    "all_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
];

impl Workspace {
    pub(crate) fn new() -> Self {
        let root = tempfile::Builder::new().prefix("fista-it-").tempdir().unwrap();
        std::fs::create_dir(root.path().join("tmp")).unwrap();
        let workspace = Self { root };
        workspace.ids("ids.safetensors", 4, 32);
        workspace
    }

    /// A workspace with one small checkpoint in the folder `model`.
    pub(crate) fn with(model: &str) -> Self {
        let workspace = Self::new();
        workspace.copy_model(model, "model");
        workspace
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Copies a small checkpoint; the numbers that its own test expects stay behind.
    pub(crate) fn copy_model(&self, model: &str, to: &str) {
        let from = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("models/tests/fixtures/models")
            .join(model);
        std::fs::create_dir(self.path(to)).unwrap();
        for name in names(&from).iter().filter(|name| !name.starts_with("expected.")) {
            self.write(&format!("{to}/{name}"), &std::fs::read(from.join(name)).unwrap());
        }
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    pub(crate) fn read_json(&self, name: &str) -> serde_json::Value {
        serde_json::from_slice(&self.read(name)).unwrap()
    }

    /// Replaces a field of a JSON file.
    pub(crate) fn set_json(&self, name: &str, field: &str, value: serde_json::Value) {
        let mut json = self.read_json(name);
        json[field] = value;
        self.write(name, json.to_string().as_bytes());
    }

    /// Writes pseudo-random token ids, the same for the same sizes.
    pub(crate) fn ids(&self, name: &str, windows: usize, tokens: usize) {
        let mut state = 1u64;
        let ids: Vec<i64> = (0..windows * tokens)
            .map(|_| {
                state = state
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                (state >> 33) as i64 % VOCABULARY
            })
            .collect();
        self.given_ids(name, [windows, tokens], &ids);
    }

    pub(crate) fn given_ids(&self, name: &str, shape: [usize; 2], ids: &[i64]) {
        let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        let mut weights = Weights::default();
        weights
            .0
            .insert("input_ids".into(), (Dtype::I64, shape.to_vec(), bytes));
        weights.save(&self.path(name));
    }

    /// Changes a safetensors file.
    pub(crate) fn edit(&self, name: &str, change: impl FnOnce(&mut Weights)) {
        let path = self.path(name);
        let mut weights = Weights::open(&path);
        change(&mut weights);
        weights.save(&path);
    }

    /// The program with the arguments of `line`, which are separated by blanks.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fista-pruner"));
        command.args(line.split_whitespace());
        self.prepare(&mut command);
        command
    }

    /// Runs in this folder, whatever the environment of the tests is.
    pub(crate) fn prepare(&self, command: &mut Command) {
        command
            .current_dir(self.root.path())
            .env("TMPDIR", self.path("tmp"))
            .env("NO_COLOR", "1")
            .env_remove("RUST_LOG")
            .env_remove("RAYON_NUM_THREADS")
            .env("HF_HOME", self.path("tmp/hf"))
            .env("HF_HUB_OFFLINE", "1")
            .stdin(Stdio::null());
        for name in NETWORK_VARIABLES {
            command.env_remove(name);
        }
    }

    pub(crate) fn run(&self, line: &str) -> Outcome {
        Outcome::of(self.command(line))
    }

    /// Runs a command that must succeed.
    pub(crate) fn succeed(&self, line: &str) -> Outcome {
        self.run(line).success(line)
    }

    /// Runs a command that must succeed, and gives its one JSON document.
    pub(crate) fn json(&self, line: &str) -> serde_json::Value {
        self.succeed(&format!("{line} --format json")).json()
    }

    /// Runs a command that must fail and leave nothing behind: exit code 1, nothing on stdout, each of `words` in the
    /// message, and every file as it was.
    pub(crate) fn refuse(&self, line: &str, words: &[&str]) -> Outcome {
        let before = self.tree();
        let outcome = self.run(line);
        outcome.check_failure(line, words);
        same_trees(&before, &self.tree(), line);
        outcome
    }

    /// Every file but the program's own temporary ones.
    pub(crate) fn tree(&self) -> Tree {
        let mut tree = tree_of(self.root.path());
        tree.retain(|path, _| !path.starts_with("tmp/"));
        tree
    }

    /// The weights in all safetensors files of a folder.
    pub(crate) fn weights(&self, folder: &str) -> Weights {
        let mut all = Weights::default();
        for name in names(&self.path(folder)) {
            if name.ends_with(".safetensors") {
                all.0.extend(Weights::open(&self.path(folder).join(name)).0);
            }
        }
        all
    }

    /// A text of the program without what differs from run to run.
    pub(crate) fn filtered(&self, text: &str) -> String {
        let real = self.root.path().canonicalize().unwrap();
        text.replace(&*real.to_string_lossy(), "[ROOT]")
            .replace(&*self.root.path().to_string_lossy(), "[ROOT]")
    }

    /// Exit code and both outputs of a command, for a snapshot.
    pub(crate) fn transcript(&self, line: &str) -> String {
        let outcome = self.run(line);
        self.filtered(&format!(
            "exit code {}\n----- stdout\n{}----- stderr\n{}",
            outcome.code, outcome.stdout, outcome.stderr
        ))
    }
}

impl Outcome {
    pub(crate) fn of(mut command: Command) -> Self {
        let output = command.output().unwrap();
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    pub(crate) fn success(self, what: &str) -> Self {
        assert_eq!(self.code, 0, "{what}\n{self:#?}");
        self
    }

    /// stdout as exactly one JSON document.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}", self.stdout))
    }

    pub(crate) fn check_failure(&self, what: &str, words: &[&str]) {
        assert_eq!(self.code, 1, "{what}\n{self:#?}");
        assert_eq!(self.stdout, "", "{what}");
        assert!(self.stderr.starts_with("error: "), "{what}\n{}", self.stderr);
        for word in words {
            assert!(
                self.stderr.contains(word),
                "{what}: no `{word}` in\n{}",
                self.stderr
            );
        }
    }
}

/// Tensors of a safetensors file, with their bytes.
#[derive(Default)]
pub(crate) struct Weights(pub(crate) BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>);

impl Weights {
    pub(crate) fn open(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensors = file.tensors().into_iter().map(|(name, view)| {
            let tensor = (view.dtype(), view.shape().to_vec(), view.data().to_vec());
            (name, tensor)
        });
        Self(tensors.collect())
    }

    pub(crate) fn save(&self, path: &Path) {
        let views = self.0.iter().map(|(name, (dtype, shape, bytes))| {
            (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        safetensors::serialize_to_file(views, Some(metadata), path).unwrap();
    }

    /// Sets the entries of a tensor at `positions`, row-major.
    pub(crate) fn set(&mut self, name: &str, positions: impl IntoIterator<Item = usize>, value: f32) {
        let (dtype, _, bytes) = self.0.get_mut(name).unwrap_or_else(|| panic!("no {name}"));
        let encoded = match dtype {
            Dtype::F32 => value.to_le_bytes().to_vec(),
            Dtype::F16 => half::f16::from_f32(value).to_le_bytes().to_vec(),
            Dtype::BF16 => half::bf16::from_f32(value).to_le_bytes().to_vec(),
            other => panic!("{name} is stored as {other:?}"),
        };
        for position in positions {
            bytes[position * encoded.len()..][..encoded.len()].copy_from_slice(&encoded);
        }
    }

    /// Sets every entry of a tensor.
    pub(crate) fn fill(&mut self, name: &str, value: f32) {
        let elements = self.0[name].1.iter().product();
        self.set(name, 0..elements, value);
    }

    pub(crate) fn shape(&self, name: &str) -> &[usize] {
        &self.0.get(name).unwrap_or_else(|| panic!("no {name}")).1
    }

    /// A tensor's values.
    pub(crate) fn values(&self, name: &str) -> Vec<f64> {
        let (dtype, _, bytes) = self.0.get(name).unwrap_or_else(|| panic!("no {name}"));
        match dtype {
            Dtype::F32 => bytes
                .as_chunks()
                .0
                .iter()
                .map(|b| f32::from_le_bytes(*b).into())
                .collect(),
            Dtype::F16 => bytes
                .as_chunks()
                .0
                .iter()
                .map(|b| half::f16::from_le_bytes(*b).into())
                .collect(),
            Dtype::BF16 => bytes
                .as_chunks()
                .0
                .iter()
                .map(|b| half::bf16::from_le_bytes(*b).into())
                .collect(),
            other => panic!("{name} is stored as {other:?}"),
        }
    }

    /// Which entries are zero.
    pub(crate) fn zeros(&self, name: &str) -> Vec<bool> {
        self.values(name).into_iter().map(|v| v == 0.0).collect()
    }

    /// Names of the linear operators of the decoder layers, as the tensors alone tell them.
    pub(crate) fn operators(&self) -> BTreeSet<String> {
        let is_operator = |(name, (_, shape, _)): &(&String, &(Dtype, Vec<usize>, Vec<u8>))| {
            name.contains("layers.") && name.ends_with(".weight") && shape.len() == 2
        };
        self.0
            .iter()
            .filter(is_operator)
            .map(|(name, _)| name.trim_end_matches(".weight").to_owned())
            .collect()
    }
}

/// Names of a folder's entries, sorted.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

pub(crate) fn tree_of(folder: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut left = vec![PathBuf::new()];
    while let Some(relative) = left.pop() {
        for name in names(&folder.join(&relative)) {
            let path = relative.join(name);
            if folder.join(&path).is_dir() {
                tree.insert(path.clone(), None);
                left.push(path);
            } else {
                tree.insert(path.clone(), Some(std::fs::read(folder.join(&path)).unwrap()));
            }
        }
    }
    tree
}

/// Compares two trees and, where they differ, says which files do.
pub(crate) fn same_trees(before: &Tree, after: &Tree, what: &str) {
    let paths: BTreeSet<&PathBuf> = before.keys().chain(after.keys()).collect();
    let changed: Vec<_> = paths
        .into_iter()
        .filter(|path| before.get(*path) != after.get(*path))
        .collect();
    assert!(changed.is_empty(), "{what} changed {changed:?}");
}
