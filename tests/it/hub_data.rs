//! Data: the published protocols against texts put together by hand, data sets of a hub, conversations, and what contradicts
//! itself.

use crate::command::{Workspace, names};
use crate::hub_model::{folder, online};
use crate::hub_server::{Files, HubServer, commit};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;

const STORIES: &str = include_str!("../../demo/evaluation.txt");

/// A quick evaluation.
const EVAL: &str = "eval --seq-len 48 --max-windows 3 --data";

/// A quick pruning whose weights tell the calibration data apart.
const PRUNE: &str = "prune --output out --overwrite --method wanda --samples 6 --seq-len 24 --targets layers.0.fc1 --calibration";

/// A parquet file with one column of texts.
pub(crate) fn parquet_file(column: &str, texts: &[&str]) -> Vec<u8> {
    let schema = format!("message rows {{ REQUIRED BYTE_ARRAY {column} (UTF8); }}");
    let properties = WriterProperties::builder().set_compression(parquet::basic::Compression::SNAPPY);
    let mut writer = SerializedFileWriter::new(
        Vec::new(),
        Arc::new(parse_message_type(&schema).unwrap()),
        Arc::new(properties.build()),
    )
    .unwrap();
    // Several groups of rows, as larger files have.
    for part in texts.chunks(50) {
        let mut group = writer.next_row_group().unwrap();
        let mut values = group.next_column().unwrap().unwrap();
        let bytes: Vec<ByteArray> = part.iter().map(|text| ByteArray::from(*text)).collect();
        values
            .typed::<ByteArrayType>()
            .write_batch(&bytes, None, None)
            .unwrap();
        values.close().unwrap();
        group.close().unwrap();
    }
    writer.into_inner().unwrap()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn json_lines(texts: &[&str]) -> Vec<u8> {
    let lines: Vec<String> = texts
        .iter()
        .map(|text| json!({"url": "x", "text": text}).to_string())
        .collect();
    lines.join("\n").into_bytes()
}

fn files<const N: usize>(files: [(&str, Vec<u8>); N]) -> Files {
    files
        .into_iter()
        .map(|(name, bytes)| (name.to_owned(), bytes))
        .collect()
}

fn run(workspace: &Workspace, server: &HubServer, line: &str) -> Value {
    online(workspace, server, &format!("{line} --format json"), None)
        .success(line)
        .json()
}

/// Rows as WikiText-2 has them: headings, paragraphs and blank rows.
fn rows() -> Vec<&'static str> {
    STORIES.lines().take(60).collect()
}

/// The published protocol `name` on a hub is the same as a text put together by hand: to evaluate, and to calibrate with.
fn is_stream(
    name: &str,
    repo: &str,
    revision: &str,
    (test, train): (&str, &str),
    column: &str,
    separator: &str,
) {
    let (workspace, server) = (Workspace::new(), HubServer::start());
    let all = rows();
    let (testing, training) = all.split_at(30);
    let (test_file, train_file) = (parquet_file(column, testing), parquet_file(column, training));
    let contents = files([
        (test, test_file.clone()),
        (train, train_file.clone()),
        ("README.md", Vec::new()),
    ]);
    server.add(&format!("datasets/{repo}"), revision, &commit(7), contents);
    workspace.write("test.txt", testing.join(separator).as_bytes());
    workspace.write("train.txt", training.join(separator).as_bytes());
    workspace.write("test.parquet", &test_file);

    let expected = workspace.json(&format!("{EVAL} test.txt"));
    let found = run(&workspace, &server, &format!("{EVAL} {name}"));
    assert_eq!(found["mean_nll"], expected["mean_nll"]);
    assert_eq!(found["text_tokens"], expected["text_tokens"]);
    assert_eq!(found["data"], json!([format!("{repo}@{}:{test}", commit(7))]));
    assert_eq!(found["data_sha256"], format!("{:x}", Sha256::digest(&test_file)));
    let protocol = found["protocol"].as_str().unwrap();
    assert!(
        protocol.starts_with(&format!("{name}, 30 rows joined by ")),
        "{protocol}"
    );

    run(&workspace, &server, &format!("{PRUNE} {name}"));
    let pruned = workspace.read("out/model.safetensors");
    let calibration = workspace.read_json("out/pruning_report.json")["calibration"].clone();
    assert_eq!(
        calibration["sources"],
        json!([format!("{repo}@{}:{train}", commit(7))])
    );
    assert_eq!(
        calibration["sha256"],
        format!("{:x}", Sha256::digest(&train_file))
    );
    workspace.succeed(&format!("{PRUNE} train.txt"));
    assert!(workspace.read("out/model.safetensors") == pruned);

    // Without the server: from the cache, and from a local copy.
    drop(server);
    for line in [
        format!("{EVAL} {name}"),
        format!("{EVAL} {name}=test.parquet"),
        format!("{EVAL} {name}=test.txt"),
    ] {
        assert_eq!(workspace.json(&line)["mean_nll"], expected["mean_nll"], "{line}");
    }
    let line = format!("{PRUNE} {name} --draw stream");
    workspace.run(&line).check_failure(&line, &["--draw"]);
    let line = format!("{PRUNE} {name} test.txt");
    workspace.run(&line).check_failure(&line, &[name, "mixed"]);
}

#[test]
#[cfg_attr(not(feature = "hub"), ignore = "needs the feature hub")]
fn wikitext2_is_rows_joined_by_blank_lines() {
    let paths = (
        "wikitext-2-raw-v1/test-00000-of-00001.parquet",
        "wikitext-2-raw-v1/train-00000-of-00001.parquet",
    );
    is_stream("wikitext2", "Salesforce/wikitext", "main", paths, "text", "\n\n");
}

#[test]
#[cfg_attr(not(feature = "hub"), ignore = "needs the feature hub")]
fn the_penn_treebank_is_sentences_joined_by_blanks() {
    let paths = (
        "penn_treebank/test/0000.parquet",
        "penn_treebank/train/0000.parquet",
    );
    let repo = "ptb-text-only/ptb_text_only";
    is_stream("ptb", repo, "refs/convert/parquet", paths, "sentence", " ");
}

#[test]
#[cfg_attr(not(feature = "hub"), ignore = "needs the feature hub")]
fn c4_is_documents() {
    let (workspace, server) = (Workspace::new(), HubServer::start());
    let words: Vec<&str> = STORIES.split_whitespace().collect();
    let documents: Vec<String> = words
        .chunks(12)
        .cycle()
        .take(1300)
        .map(|words| words.join(" "))
        .collect();
    let documents: Vec<&str> = documents.iter().map(String::as_str).collect();
    let long: Vec<String> = words.chunks(90).map(|words| words.join(" ")).collect();
    let mut train: Vec<&str> = long.iter().map(String::as_str).take(12).collect();
    train.extend(&documents[..40]);
    let (test, train_name) = (
        "en/c4-validation.00000-of-00008.json.gz",
        "en/c4-train.00000-of-01024.json.gz",
    );
    let contents = files([
        (test, gzip(&json_lines(&documents))),
        (train_name, gzip(&json_lines(&train))),
    ]);
    server.add("datasets/allenai/c4", "main", &commit(7), contents.clone());

    // The first 1100 documents joined by blanks, and 256 windows of them.
    let found = run(&workspace, &server, "eval --data c4 --seq-len 32");
    workspace.write("test.txt", documents[..1100].join(" ").as_bytes());
    let expected = workspace.json("eval --data test.txt --seq-len 32 --max-windows 256");
    assert_eq!(found["mean_nll"], expected["mean_nll"]);
    assert_eq!(
        (&found["windows"], &found["text_tokens"]),
        (&json!(256), &expected["text_tokens"])
    );
    assert!(expected["text_tokens"].as_u64().unwrap() > 256 * 32);

    // Random windows of documents that are longer than a window, as of any local file of documents.
    run(&workspace, &server, &format!("{PRUNE} c4"));
    let pruned = workspace.read("out/model.safetensors");
    workspace.write("train.jsonl", &json_lines(&train));
    workspace.succeed(&format!("{PRUNE} train.jsonl"));
    assert!(workspace.read("out/model.safetensors") == pruned);
    let packed = zstd::stream::encode_all(&json_lines(&train)[..], 1).unwrap();
    workspace.write("train.json.zst", &packed);
    workspace.succeed(&format!("{PRUNE} c4=train.json.zst"));
    assert!(workspace.read("out/model.safetensors") == pruned);

    // None is longer: an end, not a search without one.
    workspace.write("short.jsonl", &json_lines(&documents[..40]));
    let line = format!("{PRUNE} c4=short.jsonl --seq-len 64").replacen("--seq-len 24 ", "", 1);
    workspace
        .run(&line)
        .check_failure(&line, &["no document", "64 tokens", "documents: 40", "hint:"]);
}

#[test]
#[cfg_attr(not(feature = "hub"), ignore = "needs the feature hub")]
fn other_data_sets_of_a_hub() {
    let (workspace, server) = (Workspace::new(), HubServer::start());
    let all = rows();
    let parts = files([
        (
            "data/train-00000-of-00002.parquet",
            parquet_file("text", &all[..20]),
        ),
        (
            "data/train-00001-of-00002.parquet",
            parquet_file("text", &all[20..30]),
        ),
        (
            "data/test-00000-of-00002.parquet",
            parquet_file("text", &all[30..45]),
        ),
        (
            "data/test-00001-of-00002.parquet",
            parquet_file("text", &all[45..]),
        ),
    ]);
    server.add("datasets/org/parts", "main", &commit(1), parts);
    let chosen = files([
        ("a/train.jsonl", json_lines(&all[..20])),
        ("b/train.jsonl", json_lines(&all[20..])),
        ("c/ids.safetensors", workspace.read("ids.safetensors")),
    ]);
    server.add("datasets/org/several", "main", &commit(2), chosen);
    server.add(
        "datasets/org/script",
        "main",
        &commit(3),
        files([("script.py", Vec::new())]),
    );
    server.add(
        "datasets/org/script",
        "refs/convert/parquet",
        &commit(4),
        files([("default/test/0000.parquet", parquet_file("text", &all[30..]))]),
    );
    server.add(
        "datasets/org/code",
        "main",
        &commit(5),
        files([("code.py", Vec::new())]),
    );

    // All parts of a test split; the hub's conversion of a script.
    workspace.write("test.txt", all[30..].join("\n\n").as_bytes());
    let expected = workspace.json(&format!("{EVAL} test.txt"))["mean_nll"].clone();
    for name in ["org/parts", "org/script"] {
        let found = run(&workspace, &server, &format!("{EVAL} {name}"));
        assert_eq!(found["mean_nll"], expected, "{name}");
    }
    // The first part of a train split.
    let report = run(&workspace, &server, &format!("{PRUNE} org/parts --draw stream"));
    let sources = json!([format!(
        "org/parts@{}:data/train-00000-of-00002.parquet",
        commit(1)
    )]);
    assert_eq!(report["calibration"]["sources"], sources);
    // A named file, at a commit, together with a local one; token ids.
    workspace.write("local.jsonl", &json_lines(&all[20..]));
    let line = format!(
        "{PRUNE} org/several@{}:a/train.jsonl local.jsonl --draw stream",
        commit(2)
    );
    run(&workspace, &server, &line);
    let one = workspace.read("out/model.safetensors");
    workspace.write("all.jsonl", &json_lines(&all));
    workspace.succeed(&format!("{PRUNE} all.jsonl --draw stream"));
    assert!(workspace.read("out/model.safetensors") == one);
    let ids = run(
        &workspace,
        &server,
        "eval --data org/several:c/ids.safetensors --max-windows 2",
    );
    let local = workspace.json("eval --data ids.safetensors --max-windows 2");
    assert_eq!(ids["mean_nll"], local["mean_nll"]);

    for (name, words) in [
        (
            "org/several",
            &["`a/train.jsonl`", "not clear", "`org/several:a/train.jsonl`"][..],
        ),
        ("org/code", &["org/code", "train split", "`code.py`"]),
        ("org/several:a/x.jsonl", &["`a/x.jsonl`", "404"]),
        ("org/none", &["org/none", "401"]),
        ("org/parts@v2", &["`v2`", "404"]),
        ("nowhere.txt", &["nowhere.txt", "`wikitext2`", "ORG/NAME"]),
        ("data/nowhere.jsonl", &["data/nowhere.jsonl"]),
        ("wikitext", &["`wikitext`", "`wikitext2`"]),
        ("c4=nowhere.gz", &["nowhere.gz"]),
    ] {
        let line = format!("{PRUNE} {name}");
        online(&workspace, &server, &line, None).check_failure(&line, words);
    }
    // In the cache is the test split alone, and of the train split nothing: it is not taken for the other.
    drop(server);
    let line = format!("{PRUNE} org/script");
    workspace
        .run(&line)
        .check_failure(&line, &["org/script", "HF_HUB_OFFLINE"]);
    assert_eq!(workspace.json(&format!("{EVAL} org/parts"))["mean_nll"], expected);
    // Half of a split is not the split.
    let snapshot = workspace.path(&format!(
        "tmp/hf/hub/datasets--org--parts/snapshots/{}",
        commit(1)
    ));
    std::fs::remove_file(snapshot.join("data/test-00001-of-00002.parquet")).unwrap();
    let line = format!("{EVAL} org/parts");
    workspace
        .run(&line)
        .check_failure(&line, &["1 of 2 parts", "HF_HUB_OFFLINE"]);
}

/// A folder with the demo model and a chat template.
pub(crate) fn chat_model(workspace: &Workspace, to: &str) {
    std::fs::create_dir(workspace.path(to)).unwrap();
    for (name, bytes) in folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/opt-mini")) {
        workspace.write(&format!("{to}/{name}"), &bytes);
    }
    let template = "{{ bos_token }}{% for message in messages %}{{ message['role'] }}: {{ message.content.strip() }}\n{% endfor %}";
    workspace.set_json(
        &format!("{to}/tokenizer_config.json"),
        "chat_template",
        json!(template),
    );
}

/// What the chat template writes is tokenised as it stands: the same ids as those of the same text by hand, to which the
/// tokenizer adds the leading token that the template wrote before.
#[test]
fn conversations() {
    let workspace = Workspace::new();
    chat_model(&workspace, "chat");
    let (mut lines, mut texts) = (Vec::new(), Vec::new());
    for pair in rows().chunks_exact(2) {
        let messages =
            json!([{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]);
        lines.push(json!({ "messages": messages }).to_string());
        texts.push(format!(
            "user: {}\nassistant: {}\n",
            pair[0].trim(),
            pair[1].trim()
        ));
    }
    workspace.write("chat.jsonl", lines.join("\n").as_bytes());
    workspace.write(
        "same.jsonl",
        &json_lines(&texts.iter().map(String::as_str).collect::<Vec<_>>()),
    );
    let weights = |data: &str| {
        workspace.succeed(&format!("{PRUNE} {data} --model chat"));
        workspace.read("out/model.safetensors")
    };
    let chat = weights("chat.jsonl");
    let protocol = workspace.read_json("out/pruning_report.json")["calibration"]["protocol"].clone();
    let said = format!("{} conversations", lines.len());
    assert!(protocol.as_str().unwrap().contains(&said), "{protocol}");
    assert!(chat == weights("same.jsonl"));
    assert!(names(&workspace.path("out")).contains(&"tokenizer_config.json".to_owned()));
    // With a field of another name, among others, and to evaluate.
    let renamed: Vec<String> = lines
        .iter()
        .map(|l| l.replace("{\"messages\"", "{\"text\": \"x\", \"talk\""))
        .collect();
    workspace.write("talk.jsonl", renamed.join("\n").as_bytes());
    assert!(chat == weights("talk.jsonl --text-field talk"));
    weights("chat.jsonl same.jsonl");
    workspace.json("eval --model chat --data chat.jsonl --seq-len 32 --max-windows 2");

    // The demo has no template; a template may refuse.
    let line = format!("{PRUNE} chat.jsonl");
    workspace
        .run(&line)
        .check_failure(&line, &["no chat template", "hint:"]);
    let refusing = "{{ raise_exception('Only one message, please') }}";
    workspace.set_json("chat/tokenizer_config.json", "chat_template", json!(refusing));
    let line = format!("{PRUNE} chat.jsonl --model chat");
    workspace
        .run(&line)
        .check_failure(&line, &["tokenizer_config.json", "Only one message, please"]);
}

/// What is asked for and what a file of token ids holds agree, or it is an error.
#[test]
fn token_ids_are_used_as_they_are() {
    let workspace = Workspace::with("smollm2-style");
    let prune = "prune --model model --method magnitude --calibration ids.safetensors";
    let report = workspace.json(&format!("{prune} --output all"));
    assert_eq!(report["calibration"]["windows"], 4);
    let report = workspace.json(&format!("{prune} --output two --samples 2 --seq-len 32"));
    assert_eq!(report["calibration"]["windows"], 2);
    assert!(
        report["calibration"]["protocol"]
            .as_str()
            .unwrap()
            .contains("the first 2 of them")
    );
    for (line, words) in [
        (
            format!("{prune} --output out --samples 5"),
            ["--samples", "5", "4 windows"],
        ),
        (
            format!("{prune} --output out --samples 0"),
            ["--samples", "at least 1", ""],
        ),
        (
            format!("{prune} --output out --seq-len 16"),
            ["--seq-len", "16", "32 tokens"],
        ),
        (
            "eval --model model --data ids.safetensors --seq-len 16".into(),
            ["--seq-len", "16", "32 tokens"],
        ),
    ] {
        workspace.refuse(&line, &words);
    }
    workspace.json("eval --model model --data ids.safetensors --seq-len 32 --max-windows 9");
}
