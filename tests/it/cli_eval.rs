//! `eval`, `inspect` and `generate`, and the commands of the README on the model that the program carries.

use crate::command::{Outcome, Workspace};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::process::Command;

fn number(value: &Value, field: &str) -> f64 {
    value[field]
        .as_f64()
        .unwrap_or_else(|| panic!("no {field} in {value}"))
}

#[test]
fn eval_of_a_pruned_model_twice() {
    let workspace = Workspace::with("opt-350m-style");
    workspace.succeed(
        "prune --model model --output out --calibration ids.safetensors --method wanda --sparsity 2:4",
    );
    let eval = |model: &str| workspace.json(&format!("eval --model {model} --data ids.safetensors"));
    let (dense, first, second) = (eval("model"), eval("out"), eval("out"));
    for field in ["perplexity", "mean_nll", "window_nll", "data_sha256"] {
        assert_eq!(first[field], second[field], "{field}");
    }
    assert_ne!(first["mean_nll"], dense["mean_nll"]);
    let nll = number(&first, "mean_nll");
    assert!((number(&first, "perplexity") - nll.exp()).abs() < 1e-9 * nll.exp());
    let sizes = ["tokens", "windows", "seq_len", "targets"].map(|field| first[field].clone());
    assert_eq!(sizes, [128, 4, 32, 124].map(Value::from));
    let sha256 = format!("{:x}", Sha256::digest(workspace.read("ids.safetensors")));
    assert_eq!(first["data_sha256"], sha256);
    // The mean is that of the windows, which are independent of each other.
    let windows: Vec<f64> = first["window_nll"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_f64)
        .collect();
    assert!((windows.iter().sum::<f64>() / 4.0 - nll).abs() < 1e-12);
    let some = workspace.json("eval --model out --data ids.safetensors --max-windows 2");
    assert_eq!((&some["windows"], &some["tokens"]), (&json!(2), &json!(64)));
    for (window, expected) in some["window_nll"].as_array().unwrap().iter().zip(&windows) {
        assert!((window.as_f64().unwrap() - expected).abs() < 1e-5);
    }
    assert!(some["protocol"].as_str().unwrap().contains("first 2"));
}

/// Against the uniform distribution, whose perplexity is the vocabulary: a head of zeros.
#[test]
fn eval_of_a_model_that_knows_nothing() {
    let workspace = Workspace::with("qwen3-style");
    workspace.edit("model/model.safetensors", |weights| {
        weights.fill("lm_head.weight", 0.0)
    });
    let perplexity = number(
        &workspace.json("eval --model model --data ids.safetensors"),
        "perplexity",
    );
    assert!((perplexity - 320.0).abs() < 1e-3, "{perplexity}");
}

#[test]
fn inspect_names_the_pattern() {
    let workspace = Workspace::with("qwen2-style");
    let dense = workspace.json("inspect --model model");
    assert_eq!(number(&dense, "sparsity"), 0.0);
    for (sparsity, named) in [
        ("2:4", json!("2:4")),
        ("4:8", json!("4:8")),
        ("1:4", json!("1:4")),
        ("3:4", json!("3:4")),
        ("0.5", Value::Null),
    ] {
        workspace.succeed(&format!(
            "prune --model model --output out --overwrite --calibration ids.safetensors --method magnitude \
             --sparsity {sparsity} --ignore v_proj"
        ));
        let inspected = workspace.json("inspect --model out");
        let weights = workspace.weights("out");
        let mut zeros = 0;
        for operator in inspected["operators"].as_array().unwrap() {
            let name = operator["name"].as_str().unwrap();
            let expected = if name.contains("v_proj") {
                &Value::Null
            } else {
                &named
            };
            assert_eq!(&operator["n_of_m"], expected, "{name}");
            let tensor = format!("{name}.weight");
            assert_eq!(operator["shape"], json!(weights.shape(&tensor)));
            let count = weights.zeros(&tensor).into_iter().filter(|zero| *zero).count();
            assert_eq!(operator["zeros"], count, "{name}");
            let share = count as f64 / weights.values(&tensor).len() as f64;
            assert_eq!(number(operator, "sparsity"), share, "{name}");
            zeros += count;
        }
        assert_eq!(
            inspected["operators"].as_array().unwrap().len(),
            weights.operators().len()
        );
        let all: usize = weights
            .operators()
            .iter()
            .map(|o| weights.values(&format!("{o}.weight")).len())
            .sum();
        assert!((number(&inspected, "sparsity") - zeros as f64 / all as f64).abs() < 1e-12);
        let text = workspace.succeed("inspect --model out").stdout;
        assert!(
            text.contains("q_proj") && text.contains("over 21 linear layers"),
            "{text}"
        );
        assert!(named.as_str().is_none_or(|named| text.contains(named)), "{text}");
    }
}

/// `line` may not hold blanks inside an argument; a prompt does.
fn generate(workspace: &Workspace, arguments: &str) -> Outcome {
    let mut command = workspace.command(&format!("generate {arguments}"));
    command.args(["--prompt", "Once upon a time"]);
    Outcome::of(command).success(arguments)
}

#[test]
fn generate_is_deterministic_and_draws_depend_on_the_seed() {
    let workspace = Workspace::new();
    let json = |arguments: &str| {
        generate(
            &workspace,
            &format!("--max-new-tokens 12 {arguments} --format json"),
        )
        .json()
    };
    let greedy = json("");
    for field in ["prompt", "text", "prompt_tokens", "new_tokens", "ids", "seconds"] {
        assert!(!greedy[field].is_null(), "{field}");
    }
    assert_eq!(greedy["ids"].as_array().unwrap().len(), 12);
    assert_eq!(json("")["ids"], greedy["ids"]);
    assert_eq!(json("--seed 5")["ids"], greedy["ids"]);
    assert_eq!(json("--temperature 1 --top-k 1")["ids"], greedy["ids"]);
    let drawn = json("--temperature 1 --seed 1");
    assert_eq!(json("--temperature 1 --seed 1")["ids"], drawn["ids"]);
    assert_ne!(json("--temperature 1 --seed 2")["ids"], drawn["ids"]);
    // For people: the prompt and what follows it, then how long it took.
    let text = generate(&workspace, "--max-new-tokens 12").stdout;
    let told = format!(
        "Once upon a time{}\n\n12 tokens in ",
        greedy["text"].as_str().unwrap()
    );
    assert!(text.starts_with(&told), "{text}");
    assert!(
        generate(&workspace, "--max-new-tokens 0")
            .stdout
            .starts_with("Once upon a time\n\n0 tokens")
    );
}

#[test]
fn generate_refuses() {
    let workspace = Workspace::new();
    for (arguments, word) in [
        ("--prompt x --temperature=-1", "--temperature"),
        ("--prompt x --temperature nan", "--temperature"),
        ("--prompt x --top-p 0", "--top-p"),
        ("--prompt x --top-p 1.5", "--top-p"),
    ] {
        workspace.refuse(&format!("generate {arguments}"), &[word]);
    }
    let mut long = workspace.command("generate");
    long.args(["--prompt", &"word ".repeat(600)]);
    Outcome::of(long).check_failure("a long prompt", &["--prompt", "tokens", "511"]);
}

/// Prunes and evaluates the demo as the README does, with less data. The bands are wide around what was measured:
/// 31.66 dense and 36.09 pruned, on the first four windows.
#[test]
fn the_demo() {
    let workspace = Workspace::new();
    // A folder of that name is not meant by the built-in text's; this project has one.
    std::fs::create_dir(workspace.path("demo")).unwrap();
    let eval = |model: &str| {
        number(
            &workspace.json(&format!("eval --max-windows 4 {model}")),
            "perplexity",
        )
    };
    let pruned = workspace
        .json("prune --calibration demo --output out --method wanda --polish 0 --samples 16 --seq-len 128");
    assert_eq!(number(&pruned, "sparsity"), 0.5);
    assert_eq!(pruned["operators"].as_array().unwrap().len(), 36);
    let (dense, sparse) = (eval(""), eval("--model out"));
    assert!((31.0..32.5).contains(&dense), "{dense}");
    assert!(
        (1.05 * dense..1.3 * dense).contains(&sparse),
        "{sparse} after {dense}"
    );
    // The pruned folder is a model like any other: it has its tokenizer.
    let mut speak = workspace.command("generate --model out --max-new-tokens 4 --format json");
    speak.args(["--prompt", "Once upon a time"]);
    assert_eq!(Outcome::of(speak).success("generate").json()["new_tokens"], 4);
    assert_eq!(number(&workspace.json("inspect --model out"), "sparsity"), 0.5);
}

/// The text inside the program suits the demo model, pruned or not; for any other model its use is announced.
#[test]
fn the_text_inside_the_program_is_for_the_demo() {
    let workspace = Workspace::with("smollm2-style");
    workspace.succeed("prune --output out --method magnitude --samples 2 --seq-len 24 --eval-samples 1 --targets layers.0.fc1");
    let demo = workspace.succeed("eval --model out --eval-samples 1 --seq-len 32");
    assert_eq!(demo.stderr, "");
    assert!(
        demo.stdout.contains("Lower perplexity is better"),
        "{}",
        demo.stdout
    );
    // Another configuration, and so another model.
    workspace.set_json("out/config.json", "transformers_version", "4.0.0".into());
    let other = workspace.succeed("eval --model out --eval-samples 1 --seq-len 32");
    assert!(
        other.stderr.contains("DO NOT compare") && other.stderr.contains("--data wikitext2"),
        "{}",
        other.stderr
    );
    let named = workspace.succeed("eval --model model --data ids.safetensors");
    assert_eq!(named.stderr, "");
}

/// Calibration windows follow the seed, and the text wherever it comes from.
#[test]
fn the_calibration_text_and_its_seed() {
    let workspace = Workspace::new();
    let prune = |arguments: &str| {
        workspace.succeed(&format!(
            "prune --output out --overwrite --method wanda --samples 4 --seq-len 32 --targets layers.0 {arguments}"
        ));
        let report = workspace.read_json("out/pruning_report.json");
        (
            workspace.read("out/model.safetensors"),
            report["calibration"]["sha256"].clone(),
        )
    };
    let first = prune("--seed 1");
    assert!(prune("--seed 1") == first);
    let other = prune("--seed 2");
    assert!(other.0 != first.0 && other.1 == first.1);
    let text = include_str!("../../demo/calibration.txt");
    workspace.write("text.txt", text.as_bytes());
    assert!(prune("--seed 1 --calibration text.txt") == first);
    assert!(prune("--seed 1 --calibration demo") == first);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, text.as_bytes()).unwrap();
    workspace.write("text.txt.gz", &gzip.finish().unwrap());
    assert!(prune("--seed 1 --calibration text.txt.gz --draw stream").0 == first.0);
    let lines: Vec<String> = text
        .lines()
        .map(|line| json!({ "body": line }).to_string())
        .collect();
    workspace.write("text.jsonl", lines.join("\n").as_bytes());
    prune("--seed 1 --calibration text.jsonl --text-field body");
    prune("--seed 1 --calibration text.jsonl text.txt --text-field body");
}

/// Results that cannot be written are an error, not a panic; a reader that has seen enough is none.
#[cfg(target_os = "linux")]
#[test]
fn a_stdout_that_is_full_or_closed() {
    let workspace = Workspace::new();
    for line in [
        "inspect",
        "inspect --format json",
        "generate --prompt Once",
        "prune --output out --dry-run",
    ] {
        let mut command = workspace.command(line);
        command.stdout(std::fs::File::options().write(true).open("/dev/full").unwrap());
        let outcome = Outcome::of(command);
        outcome.check_failure(line, &["standard output", "space"]);
        let mut shell = Command::new("sh");
        shell.args(["-c", "\"$0\" \"$@\" | true", env!("CARGO_BIN_EXE_fista-pruner")]);
        shell.args(line.split_whitespace());
        workspace.prepare(&mut shell);
        assert_eq!(Outcome::of(shell).stderr, "", "{line}");
    }
}

/// The demo model is unpacked where temporary files go, and mended where somebody damaged it.
#[test]
fn the_unpacked_demo() {
    let workspace = Workspace::new();
    let first = workspace.json("inspect");
    let folder = crate::command::names(&workspace.path("tmp"));
    assert_eq!(folder.len(), 1, "{folder:?}");
    workspace.write(&format!("tmp/{}/model.safetensors", folder[0]), b"");
    assert_eq!(workspace.json("inspect"), first);
    assert_eq!(crate::command::names(&workspace.path("tmp")), folder);
    let mut nowhere = workspace.command("inspect");
    nowhere.env("TMPDIR", workspace.path("nowhere"));
    Outcome::of(nowhere).check_failure("no folder for temporary files", &["nowhere"]);
}
