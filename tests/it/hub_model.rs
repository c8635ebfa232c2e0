//! Models of a hub: fetched whole and once, from a server on this machine; the cache alone; everything that can fail.

use crate::command::{Outcome, Workspace, names};
use crate::hub_server::{Files, HubServer, commit};
use serde_json::Value;
use std::path::{Path, PathBuf};

const ID: &str = "org/opt-mini";
const REPO: &str = "models/org/opt-mini";

/// Where the cache keeps that model.
const FOLDER: &str = "tmp/hf/hub/models--org--opt-mini";

/// A small evaluation of the built-in text.
const EVAL: &str = "eval --max-windows 1 --seq-len 64";

fn demo() -> Files {
    folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/opt-mini"))
}

pub(crate) fn folder(path: &Path) -> Files {
    let file = |name: String| (name.clone(), std::fs::read(path.join(name)).unwrap());
    names(path).into_iter().map(file).collect()
}

fn fixture(name: &str) -> Files {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("models/tests/fixtures/models")
        .join(name);
    let mut files = folder(&path);
    files.retain(|name, _| !name.starts_with("expected."));
    files
}

/// The demo with what a repository has besides.
fn server() -> HubServer {
    let server = HubServer::start();
    let mut files = demo();
    for name in [
        "README.md",
        ".gitattributes",
        "pytorch_model.bin",
        "flax_model.msgpack",
        "onnx/model.onnx",
    ] {
        files.insert(name.into(), b"not needed".to_vec());
    }
    files.insert("generation_config.json".into(), b"{\"eos_token_id\": 2}".to_vec());
    server.add(REPO, "main", &commit(1), files);
    server
}

/// Runs a command that knows the server.
pub(crate) fn online(workspace: &Workspace, server: &HubServer, line: &str, token: Option<&str>) -> Outcome {
    let mut command = workspace.command(line);
    command
        .env("HF_ENDPOINT", server.endpoint())
        .env("HF_HUB_OFFLINE", "0");
    if let Some(token) = token {
        command.env("HF_TOKEN", token);
    }
    Outcome::of(command)
}

fn succeed(workspace: &Workspace, server: &HubServer, line: &str) -> Value {
    online(workspace, server, &format!("{line} --format json"), None)
        .success(line)
        .json()
}

fn snapshot(workspace: &Workspace, commit: &str) -> PathBuf {
    workspace.path(FOLDER).join("snapshots").join(commit)
}

fn file_requests(server: &HubServer) -> Vec<String> {
    let log = server.take_log().into_iter();
    log.filter(|r| r.method == "GET" && !r.path.starts_with("/api/"))
        .map(|r| r.path)
        .collect()
}

#[test]
#[cfg_attr(not(feature = "hub"), ignore = "needs the feature hub")]
fn a_model_is_fetched_once_and_used_without_a_network() {
    let (workspace, server) = (Workspace::new(), server());
    let expected = workspace.json(EVAL);
    let line = format!("{EVAL} --model {ID}");
    let found = succeed(&workspace, &server, &line);
    assert_eq!(found["mean_nll"], expected["mean_nll"]);
    assert_eq!(found["model"], format!("{ID}@{}", commit(1)));
    let mut wanted: Vec<String> = demo().into_keys().collect();
    wanted.push("generation_config.json".into());
    wanted.sort();
    assert_eq!(names(&snapshot(&workspace, &commit(1))), wanted);
    // The layout that other programs read.
    assert_eq!(
        workspace.read(&format!("{FOLDER}/refs/main")),
        commit(1).as_bytes()
    );
    #[cfg(unix)]
    {
        let link = std::fs::read_link(snapshot(&workspace, &commit(1)).join("config.json")).unwrap();
        assert!(link.starts_with("../../blobs"), "{}", link.display());
    }
    assert_eq!(names(&workspace.path(FOLDER).join("blobs")).len(), wanted.len());
    assert!(!file_requests(&server).is_empty());
    succeed(&workspace, &server, &line);
    assert_eq!(file_requests(&server), Vec::<String>::new());

    let endpoint = server.endpoint();
    drop(server);
    assert_eq!(workspace.json(&line)["mean_nll"], expected["mean_nll"]);
    assert_eq!(workspace.run(&line).stderr, "");
    let mut command = workspace.command(&line);
    command.env("HF_ENDPOINT", endpoint).env("HF_HUB_OFFLINE", "0");
    let outcome = Outcome::of(command).success("no server, but a cache");
    assert!(outcome.stderr.contains("from the cache"), "{}", outcome.stderr);
    for line in ["inspect", "generate --prompt Once --max-new-tokens 2"] {
        workspace.succeed(&format!("{line} --model {ID}"));
    }
    // A pruned copy is files, not links, and says what it was made of.
    workspace.succeed(&format!(
        "prune --model {ID} --calibration demo --output out --method magnitude --samples 2 --seq-len 32 --targets layers.0"
    ));
    let report = workspace.read_json("out/pruning_report.json");
    assert_eq!(report["model"]["path"], format!("{ID}@{}", commit(1)));
    let tree = names(&workspace.path("out"));
    assert!(tree.contains(&"tokenizer.json".to_owned()), "{tree:?}");
    for name in tree {
        assert!(!workspace.path("out").join(&name).is_symlink(), "{name}");
    }
}

#[test]
#[cfg_attr(not(feature = "hub"), ignore = "needs the feature hub")]
fn shards_and_torch_files() {
    let (workspace, server) = (Workspace::new(), HubServer::start());
    for (name, number) in [("llama1-style", 2), ("opt-350m-style", 3)] {
        let mut files = fixture(name);
        files.insert("model-00009-of-00004.safetensors".into(), b"of no index".to_vec());
        if name == "opt-350m-style" {
            files.remove("model-00009-of-00004.safetensors");
        }
        server.add(&format!("models/org/{name}"), "main", &commit(number), files);
        workspace.copy_model(name, name);
        let local = workspace.json(&format!("inspect --model {name}"));
        let found = succeed(&workspace, &server, &format!("inspect --model org/{name}"));
        assert_eq!(found["operators"], local["operators"]);
        let fetched = file_requests(&server);
        assert!(!fetched.iter().any(|path| path.contains("00009")), "{fetched:?}");
    }
    // A shard that vanished from the cache: the error names it.
    let folder = workspace.path(&format!(
        "tmp/hf/hub/models--org--llama1-style/snapshots/{}",
        commit(2)
    ));
    let shard = "model-00003-of-00004.safetensors";
    std::fs::remove_file(folder.join(shard)).unwrap();
    workspace
        .run("inspect --model org/llama1-style")
        .check_failure("a missing shard", &[shard, "HF_HUB_OFFLINE", "hint:"]);
    succeed(&workspace, &server, "inspect --model org/llama1-style");
}

#[test]
#[cfg_attr(not(feature = "hub"), ignore = "needs the feature hub")]
fn a_path_that_exists_wins() {
    let (workspace, server) = (Workspace::new(), server());
    std::fs::create_dir(workspace.path("org")).unwrap();
    workspace.copy_model("smollm2-style", "org/opt-mini");
    let found = succeed(&workspace, &server, &format!("inspect --model {ID}"));
    assert_eq!(found, workspace.json("inspect --model org/opt-mini"));
    assert!(server.take_log().is_empty());
    let line = format!("inspect --model {ID} --revision main");
    online(&workspace, &server, &line, None).check_failure(&line, &["--revision", "not an id"]);
}

#[test]
#[cfg_attr(not(feature = "hub"), ignore = "needs the feature hub")]
fn revisions() {
    let (workspace, server) = (Workspace::new(), HubServer::start());
    for (revision, number, model) in [
        ("main", 1, "qwen2-style"),
        ("v1.0", 2, "qwen3-style"),
        ("refs/pr/7", 3, "smollm2-style"),
    ] {
        server.add(REPO, revision, &commit(number), fixture(model));
        workspace.copy_model(model, model);
    }
    let inspect = |what: &str| succeed(&workspace, &server, &format!("inspect --model {ID}{what}"));
    let local = |model: &str| workspace.json(&format!("inspect --model {model}"));
    assert_eq!(inspect(""), local("qwen2-style"));
    assert_eq!(inspect(" --revision v1.0"), local("qwen3-style"));
    assert_eq!(inspect("@refs/pr/7"), local("smollm2-style"));
    assert!(snapshot(&workspace, &commit(3)).join("config.json").exists());
    server.take_log();
    // A commit in the cache is not asked for again; a branch that moved on is.
    assert_eq!(
        inspect(&format!(" --revision {}", commit(2))),
        local("qwen3-style")
    );
    assert_eq!(file_requests(&server), Vec::<String>::new());
    server.add(REPO, "main", &commit(4), fixture("qwen3-style"));
    assert_eq!(inspect(""), local("qwen3-style"));
    assert_eq!(
        workspace.read(&format!("{FOLDER}/refs/main")),
        commit(4).as_bytes()
    );
    let line = format!("inspect --model {ID}@main --revision v1.0");
    online(&workspace, &server, &line, None).check_failure(&line, &["--revision", "already"]);
    for (revision, word) in [("v9", "`v9`"), ("../x", "branch"), (&commit(9), "revision")] {
        let line = format!("inspect --model {ID} --revision {revision}");
        online(&workspace, &server, &line, None).check_failure(&line, &[word]);
    }
    workspace.refuse("inspect --revision v1.0", &["--revision", "demo"]);
}

#[test]
#[cfg_attr(not(feature = "hub"), ignore = "needs the feature hub")]
fn an_interrupted_download_goes_on() {
    let (workspace, server) = (Workspace::new(), server());
    let weights = &demo()["model.safetensors"];
    // Ends early three times within a run: once in the middle, once without a byte, once near the end.
    for bytes in [1_000_000, 0, 3_000_000] {
        server.cut("model.safetensors", bytes);
    }
    server.cut("tokenizer.json", 1000);
    succeed(&workspace, &server, &format!("inspect --model {ID}"));
    let log = server.take_log();
    let ranges = |word: &str| -> Vec<Option<String>> {
        let of = log
            .iter()
            .filter(|r| r.method == "GET" && r.path.contains(word) && !r.path.contains("/api/"));
        of.map(|r| r.range.clone()).collect()
    };
    let from = |bytes: usize| Some(format!("bytes={bytes}-"));
    assert_eq!(
        ranges("/storage/"),
        [None, from(3_000_000), from(3_000_000), from(4_000_000)]
    );
    assert_eq!(ranges("tokenizer.json"), [None, from(1000)]);
    let path = snapshot(&workspace, &commit(1)).join("model.safetensors");
    assert!(&std::fs::read(&path).unwrap() == weights);

    // What an earlier run left is gone on with; what cannot be right is fetched again.
    let blob = path.canonicalize().unwrap();
    let partial = blob.with_file_name(format!(
        "{}.incomplete",
        blob.file_name().unwrap().to_str().unwrap()
    ));
    for (left, first) in [
        (weights[..2_000_000].to_vec(), from(2_000_000)),
        (vec![0; 2_000_000], from(2_000_000)),
        (vec![0; weights.len() + 1], None),
    ] {
        std::fs::remove_file(&blob).unwrap();
        std::fs::write(&partial, left).unwrap();
        succeed(&workspace, &server, &format!("inspect --model {ID}"));
        assert!(&std::fs::read(&path).unwrap() == weights);
        assert!(!partial.exists());
        let log = server.take_log();
        let storage = log.iter().find(|r| r.path.starts_with("/storage/")).unwrap();
        assert_eq!(storage.range, first);
    }
}

#[test]
#[cfg_attr(not(feature = "hub"), ignore = "needs the feature hub")]
fn contents_other_than_promised() {
    let (workspace, server) = (Workspace::new(), server());
    server.damage("model.safetensors");
    let line = format!("inspect --model {ID}");
    let outcome = online(&workspace, &server, &line, None);
    outcome.check_failure(&line, &["`model.safetensors`", "damaged", "SHA-256", "hint:"]);
    let left = names(&workspace.path(FOLDER).join("blobs"));
    assert!(!left.iter().any(|name| name.ends_with(".incomplete")), "{left:?}");
    assert!(
        !snapshot(&workspace, &commit(1))
            .join("model.safetensors")
            .exists()
    );
}

#[test]
#[cfg_attr(not(feature = "hub"), ignore = "needs the feature hub")]
fn a_busy_or_renamed_hub() {
    let (workspace, server) = (Workspace::new(), server());
    server.be_busy(2);
    server.rename("old/name", ID);
    let found = succeed(&workspace, &server, "inspect --model old/name");
    assert_eq!(
        found,
        succeed(&workspace, &server, &format!("inspect --model {ID}"))
    );
}

#[test]
#[cfg_attr(not(feature = "hub"), ignore = "needs the feature hub")]
fn gated_models_want_a_token_that_stays_with_the_hub() {
    let (workspace, server) = (Workspace::new(), server());
    server.gate(REPO, "secret");
    let line = format!("inspect --model {ID}");
    let page = format!("{}/{ID}", server.endpoint());
    online(&workspace, &server, &line, None)
        .check_failure(&line, &["401", "`config.json`", ID, "HF_TOKEN", &page]);
    let outcome = online(&workspace, &server, &line, Some("wrong"));
    outcome.check_failure(&line, &["403", "HF_TOKEN was sent", &page]);
    assert!(!outcome.stderr.contains("wrong"), "{}", outcome.stderr);
    server.take_log();
    online(&workspace, &server, &line, Some("secret")).success(&line);
    for request in server.take_log() {
        let expected = (!request.host.starts_with("localhost")).then(|| "Bearer secret".to_owned());
        assert_eq!(request.authorization, expected, "{request:?}");
    }
}

#[test]
#[cfg_attr(not(feature = "hub"), ignore = "needs the feature hub")]
fn what_the_hub_does_not_have() {
    let (workspace, server) = (Workspace::new(), server());
    let mut files = demo();
    files.remove("model.safetensors");
    files.insert("model.gguf".into(), Vec::new());
    server.add("models/org/gguf", "main", &commit(5), files.clone());
    files.remove("config.json");
    server.add("models/org/adapter", "main", &commit(6), files);
    for (line, words) in [
        (
            "inspect --model org/nothing",
            &["`org/nothing`", "401", "hint:"][..],
        ),
        (
            "inspect --model org/gguf",
            &["org/gguf", "weights", "`model.gguf`"],
        ),
        (
            "inspect --model org/adapter",
            &["org/adapter", "`config.json`", "404"],
        ),
        (
            "inspect --model org/opt-mini --revision v2",
            &["revision `v2`", "404"],
        ),
        ("inspect --model nothing", &["no model folder", "ORG/NAME"]),
    ] {
        online(&workspace, &server, line, None).check_failure(line, words);
    }
    let line = "inspect --model org/nothing";
    online(&workspace, &server, line, Some("token")).check_failure(line, &["404", "`org/nothing`"]);
}

#[test]
#[cfg_attr(not(feature = "hub"), ignore = "needs the feature hub")]
fn no_network() {
    let workspace = Workspace::new();
    // A port where nobody listens.
    let endpoint = HubServer::start().endpoint();
    for line in [
        format!("inspect --model {ID}"),
        format!("{EVAL} --model {ID} --revision v1"),
    ] {
        let url = format!("{endpoint}/{ID}/resolve/");
        let mut command = workspace.command(&line);
        command.env("HF_ENDPOINT", &endpoint).env("HF_HUB_OFFLINE", "0");
        Outcome::of(command).check_failure(
            &line,
            &["`config.json`", ID, "revision", &url, "refused", "--model"],
        );
        let words = ["`config.json`", ID, "HF_HUB_OFFLINE", "huggingface.co", "--model"];
        workspace.refuse(&line, &words);
    }
    for (name, value) in [
        ("HF_ENDPOINT", "ftp://x"),
        ("SSL_CERT_FILE", "nowhere.pem"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "long"),
    ] {
        let mut command = workspace.command(&format!("inspect --model {ID}"));
        command.env("HF_HUB_OFFLINE", "0").env(name, value);
        Outcome::of(command).check_failure(name, &[if name == "SSL_CERT_FILE" { value } else { name }]);
    }
}

/// A build without the hub says how to have one, to models and to data; paths are as good as ever.
#[test]
#[cfg(not(feature = "hub"))]
fn without_the_feature() {
    let workspace = Workspace::new();
    for line in [
        format!("inspect --model {ID}"),
        format!("{EVAL} --data org/name"),
        format!("{EVAL} --data wikitext2"),
        "eval --tasks piqa".to_owned(),
    ] {
        workspace.refuse(
            &line,
            &[
                "built without the feature `hub`",
                "rebuild with --features hub",
                "hint:",
            ],
        );
    }
    workspace.copy_model("opt-350m-style", "org");
    workspace.succeed("inspect --model org");
}
