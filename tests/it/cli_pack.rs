//! `pack` and `unpack` of pruned models, and every command on packed folders.

use crate::cli_prune::torch;
use crate::command::{Workspace, names, same_trees, tree_of};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

const PACK: &str = "pack --model out --output packed";
const UNPACK: &str = "unpack --model packed --output unpacked";

/// The small checkpoint `model` in `out`, pruned quickly.
fn pruned(model: &str, sparsity: &str) -> Workspace {
    let workspace = Workspace::with(model);
    workspace.write("model/tokenizer_config.json", b"{ }\n");
    workspace.succeed(&format!(
        "prune --model model --output out --calibration ids.safetensors --method magnitude --sparsity {sparsity}"
    ));
    workspace
}

/// A result without what differs from run to run and from folder to folder.
fn comparable(mut result: Value) -> Value {
    let fields = result.as_object_mut().unwrap();
    for name in ["model", "seconds", "peak_host_bytes"] {
        fields.remove(name);
    }
    result
}

/// Most that 16-bit operators may come to, as a share of what they were.
fn bound(sparsity: &str) -> f64 {
    match sparsity {
        "0.5" | "2:4" => 0.57,
        "0.6" => 0.47,
        "0.7" => 0.37,
        _ => 1.0,
    }
}

#[test]
fn every_file_comes_back_and_every_result_is_the_same() {
    for (model, sparsity) in [
        ("llama1-style", "0.5"),
        ("llama1-style", "2:4"),
        ("llama3.1-style", "0.6"),
        ("mistral-style", "0.7"),
        ("qwen2-style", "2:4"),
        ("opt-125m-style", "4:8"),
        ("smollm2-style", "5:16"),
        ("qwen3-style", "1:2"),
    ] {
        let workspace = pruned(model, sparsity);
        let summary = workspace.json(PACK);
        let operators = workspace.weights("out").operators();
        let packed = &summary["packed_tensors"];
        assert_eq!(packed["count"], operators.len(), "{model} {sparsity}");
        let (plain_bytes, bytes) = (
            packed["plain_bytes"].as_f64().unwrap(),
            packed["packed_bytes"].as_f64().unwrap(),
        );
        let halves = workspace.weights("out").0.values().all(|t| t.0 != Dtype::F32);
        assert!(
            bytes < plain_bytes * if halves { bound(sparsity) } else { 0.6 },
            "{model} {sparsity}: {packed}"
        );
        if sparsity.contains(':') {
            assert!(summary["by_encoding"].get(sparsity).is_some(), "{summary}");
        }
        check_sizes(&workspace, &summary);
        for line in ["eval --data ids.safetensors", "inspect"] {
            let [a, b] = ["out", "packed"]
                .map(|folder| comparable(workspace.json(&format!("{line} --model {folder}"))));
            assert_eq!(a, b, "{model} {sparsity} {line}");
        }
        workspace.succeed(UNPACK);
        came_back(&workspace, model);
    }
}

/// What was unpacked is what was packed, byte for byte.
fn came_back(workspace: &Workspace, what: &str) {
    let [packed, unpacked] = ["out", "unpacked"].map(|folder| tree_of(&workspace.path(folder)));
    same_trees(&packed, &unpacked, what);
}

/// The sizes told are those of the files.
fn check_sizes(workspace: &Workspace, summary: &Value) {
    let bytes = |folder: &str| {
        let weights = names(&workspace.path(folder))
            .into_iter()
            .filter(|name| name.ends_with(".safetensors"));
        weights
            .map(|name| workspace.read(&format!("{folder}/{name}")).len())
            .sum::<usize>()
    };
    assert_eq!(summary["weight_files"]["plain_bytes"], bytes("out"));
    assert_eq!(summary["weight_files"]["packed_bytes"], bytes("packed"));
    assert!(!workspace.path("packed/model.safetensors").exists());
}

/// The built-in model has a tokenizer, so that text can be continued.
#[test]
fn the_same_text_is_generated() {
    let workspace = Workspace::new();
    workspace.succeed("prune --output out --method magnitude --sparsity 0.3 --samples 2 --seq-len 64");
    let outcome = workspace.succeed(PACK);
    for word in ["tensors as mask", "36", "weight files", "wrote packed"] {
        assert!(outcome.stdout.contains(word), "{}", outcome.stdout);
    }
    for arguments in ["", "--temperature 0.8 --seed 3"] {
        let [a, b] = ["out", "packed"].map(|folder| {
            let line = format!("generate --model {folder} --prompt Once --max-new-tokens 24 {arguments}");
            comparable(workspace.json(&line))
        });
        assert_eq!(a, b);
    }
    let evaluate = |folder: &str| {
        comparable(workspace.json(&format!("eval --model {folder} --seq-len 128 --max-windows 2")))
    };
    assert_eq!(evaluate("out"), evaluate("packed"));
    workspace.succeed(UNPACK);
    came_back(&workspace, "unpack");
}

/// Pruning a packed model further is pruning the model.
#[test]
fn a_packed_model_can_be_pruned() {
    let workspace = pruned("llama1-style", "0.5");
    workspace.succeed(PACK);
    let prune = "--calibration ids.safetensors --method sparsegpt --sparsity 0.7";
    for folder in ["out", "packed"] {
        workspace.succeed(&format!("prune --model {folder} --output from-{folder} {prune}"));
    }
    let (mut a, mut b) = (
        tree_of(&workspace.path("from-out")),
        tree_of(&workspace.path("from-packed")),
    );
    let fingerprint = |folder: &str| {
        workspace.read_json(&format!("{folder}/pruning_report.json"))["model"]["fingerprint"].take()
    };
    assert_eq!(fingerprint("from-out"), fingerprint("from-packed"));
    for tree in [&mut a, &mut b] {
        tree.retain(|path, _| !path.ends_with("pruning_report.json") && !path.ends_with("report.html"));
    }
    same_trees(&a, &b, "prune of a packed model");
}

/// A checkpoint of torch is packed as the safetensors file that a conversion gives.
#[test]
fn a_torch_checkpoint_is_converted() {
    let workspace = pruned("opt-125m-style", "0.5");
    let bytes = torch::state_dict(&workspace.weights("out"));
    std::fs::remove_file(workspace.path("out/model.safetensors")).unwrap();
    workspace.write("out/pytorch_model.bin", &bytes);
    let outcome = workspace.succeed(PACK);
    assert!(outcome.stdout.contains("torch's format"), "{}", outcome.stdout);
    workspace.succeed(UNPACK);
    assert!(!workspace.path("unpacked/pytorch_model.bin").exists());
    std::fs::remove_file(workspace.path("out/pytorch_model.bin")).unwrap();
    let report = workspace.json("verify --model unpacked");
    assert_eq!(report["problems"], json!([]));
    workspace.write("out/pytorch_model.bin", &bytes);
    let compared = workspace.json("verify --model packed --source out");
    assert_eq!(
        (&compared["problems"], &compared["ok"]),
        (&json!([]), &json!(true))
    );
}

/// −0, a matrix of zeros, rows of zeros, and a dense matrix.
#[test]
fn odd_weights_come_back() {
    let workspace = pruned("mistral-style", "0.5");
    workspace.edit("out/model.safetensors", |weights| {
        weights.set("model.layers.0.self_attn.q_proj.weight", 0..100, -0.0);
        weights.fill("model.layers.0.mlp.up_proj.weight", 0.0);
        weights.fill("model.layers.1.mlp.up_proj.weight", -0.0);
        weights.set("model.layers.0.self_attn.k_proj.weight", 64..128, 0.0);
        weights.fill("model.layers.0.self_attn.v_proj.weight", 0.25);
        weights.fill("model.norm.weight", 0.0);
    });
    workspace.succeed(PACK);
    workspace.succeed(UNPACK);
    came_back(&workspace, "unpack");
}

/// Whoever opens a damaged folder is told so, and nothing is written.
#[test]
fn damaged_files_are_refused() {
    let workspace = pruned("mistral-style", "2:4");
    workspace.succeed(PACK);
    let name = "packed/model.packed.safetensors";
    let good = workspace.read(name);
    let file = SafeTensors::deserialize(&good).unwrap();
    let place = |tensor: &str| {
        let data = file.tensor(tensor).unwrap().data();
        data.as_ptr() as usize - good.as_ptr() as usize + data.len() / 2
    };
    let operator = "model.layers.2.mlp.down_proj.weight";
    let places = ["#2:4", "#values"].map(|part| place(&format!("{operator}{part}")));
    let embedding = place("model.embed_tokens.weight");
    for position in places.into_iter().chain([embedding, 4000]) {
        let mut bad = good.clone();
        bad[position] ^= 0x10;
        workspace.write(name, &bad);
        for line in [
            "eval --model packed --data ids.safetensors",
            UNPACK,
            "pack --model packed --output again",
            "prune --model packed --output again --calibration ids.safetensors --method magnitude",
        ] {
            workspace.refuse(line, &["model.packed.safetensors"]);
        }
        let verified = workspace.run("verify --model packed --format json");
        assert_eq!((verified.code, &verified.json()["ok"]), (1, &json!(false)));
    }
    for length in [good.len() - 1, 5000, 100, 8, 0] {
        workspace.write(name, &good[..length]);
        for line in ["inspect --model packed", UNPACK] {
            workspace.refuse(line, &["model.packed.safetensors", "hint:"]);
        }
    }
}

#[test]
fn what_is_asked_for_wrongly() {
    let workspace = pruned("mistral-style", "2:4");
    workspace.refuse(
        "unpack --model out --output unpacked",
        &["is not packed", "hint:"],
    );
    workspace.refuse(
        "pack --model out --output model",
        &["exists already", "--overwrite"],
    );
    workspace.refuse("pack --model out --output out/packed", &["overlap"]);
    workspace.refuse(
        "pack --model model --output packed --container compressed-tensors",
        &["no operator", "zeros"],
    );
    workspace.succeed(PACK);
    let before = tree_of(&workspace.path("packed"));
    workspace.succeed(&format!("{PACK} --overwrite"));
    same_trees(&before, &tree_of(&workspace.path("packed")), "packing again");
    // Weights in other formats would still be dense.
    workspace.write("out/model.gguf", b"dense");
    let summary = workspace.json(&format!("{PACK} --overwrite"));
    assert_eq!(summary["left_out"], json!(["model.gguf"]));
    same_trees(
        &before,
        &tree_of(&workspace.path("packed")),
        "packing without the other format",
    );
}

/// The layout that compressed-tensors reads, decoded here; `tests/interop` has the package itself do it.
#[test]
fn sparse_formats_of_compressed_tensors() {
    for (model, sparsity, format) in [
        ("llama1-style", "0.5", "sparse-bitmask"),
        ("llama1-style", "2:4", "sparse-24-bitmask"),
        ("opt-350m-style", "1:4", "sparse-24-bitmask"),
    ] {
        let workspace = pruned(model, sparsity);
        let summary = workspace.json("pack --model out --output sparse --container compressed-tensors");
        assert_eq!(summary["sparse_format"], format);
        let sparsity_config =
            &workspace.read_json("sparse/config.json")["quantization_config"]["sparsity_config"];
        assert_eq!(sparsity_config["format"], format);
        let (plain, sparse) = (workspace.weights("out"), workspace.weights("sparse"));
        for name in plain.operators() {
            let (dtype, shape, bytes) = &plain.0[&format!("{name}.weight")];
            let width = bytes.len() / (shape[0] * shape[1]);
            let (values_dtype, _, values) = &sparse.0[&format!("{name}.compressed")];
            assert_eq!(values_dtype, dtype);
            let (_, _, bits) = &sparse.0[&format!("{name}.bitmask")];
            let mut values = values.chunks(width);
            let zero = vec![0; width];
            let decoded: Vec<u8> = (0..shape[0] * shape[1])
                .flat_map(|i| {
                    let (row, column) = (i / shape[1], i % shape[1]);
                    let byte = bits[row * shape[1].div_ceil(8) + column / 8];
                    if byte >> (column % 8) & 1 == 1 {
                        values.next().unwrap()
                    } else {
                        &zero
                    }
                    .to_vec()
                })
                .collect();
            assert!(decoded == *bytes && values.next().is_none(), "{model} {name}");
        }
        workspace.refuse(
            "eval --model sparse --data ids.safetensors",
            &["quantization_config"],
        );
    }
}
