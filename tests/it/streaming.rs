//! Where hidden states wait, how many devices there are, and how much memory: nothing of that changes a weight.

use crate::command::{Workspace, names};
use serde_json::Value;

const PRUNE: &str = "prune --model model --calibration ids.safetensors --overwrite";

fn pruned(workspace: &Workspace, line: &str) -> Vec<u8> {
    workspace.succeed(line);
    let entries = names(&workspace.path("out"));
    assert!(!entries.iter().any(|name| name.starts_with('.')), "{entries:?}");
    workspace.read("out/model.safetensors")
}

#[test]
fn states_weights_and_gram_matrices_may_wait_anywhere() {
    for model in ["llama3.1-style", "opt-350m-style"] {
        let workspace = Workspace::with(model);
        for propagate in ["intra", "none", "full", "sequential", "refreshed", "partial"] {
            let line = format!("{PRUNE} --output out --propagate {propagate} --data ids.safetensors");
            let report = |extra: &str| {
                let weights = pruned(&workspace, &format!("{line} {extra}"));
                let report = workspace.read_json("out/pruning_report.json");
                (weights, report["evaluation"].clone())
            };
            let expected = report("");
            for way in [
                "--activations device",
                "--activations host",
                "--activations disk",
                "--offload",
                "--offload --activations disk --method sparsegpt",
            ] {
                let expected = match way.split_once("--method") {
                    Some((_, method)) => report(&format!("--method {method}")),
                    None => expected.clone(),
                };
                assert!(report(way) == expected, "{model} {propagate} {way}");
            }
        }
    }
}

#[test]
fn several_devices_give_the_bytes_of_one() {
    let workspace = Workspace::with("qwen3-style");
    for propagate in ["intra", "none", "input=dense,within=corrected,target=current"] {
        let line = format!("{PRUNE} --output out --propagate {propagate} --data ids.safetensors");
        let one = pruned(&workspace, &format!("{line} --device flex"));
        let alone = workspace.read_json("out/pruning_report.json");
        for devices in ["flex,flex", "flex,flex,flex,flex,flex --offload"] {
            let several = pruned(
                &workspace,
                &format!("{line} --device {devices} --save-statistics saved"),
            );
            assert!(one == several, "{propagate} {devices}");
            let report = workspace.read_json("out/pruning_report.json");
            assert_eq!(report["device"], devices.trim_end_matches(" --offload"));
            assert_eq!(report["evaluation"], alone["evaluation"]);
            let names = |report: &Value| -> Vec<String> {
                let operators = report["operators"].as_array().unwrap().iter();
                operators
                    .map(|o| o["name"].as_str().unwrap().to_owned())
                    .collect()
            };
            assert_eq!(names(&report), names(&alone));
        }
    }
    // The files of statistics are those of one device, too, wherever the matrices wait.
    let several = crate::command::tree_of(&workspace.path("saved"));
    let line = format!("{PRUNE} --output out --propagate input=dense,within=corrected,target=current");
    workspace.succeed(&format!("{line} --save-statistics alone --offload"));
    crate::command::same_trees(
        &several,
        &crate::command::tree_of(&workspace.path("alone")),
        "statistics",
    );
}

#[test]
fn a_failure_on_one_of_several_devices_ends_the_run() {
    let workspace = Workspace::with("smollm2-style");
    workspace.edit("model/model.safetensors", |weights| {
        weights.set("model.layers.1.mlp.down_proj.weight", [5], f32::INFINITY);
    });
    let line = format!("{PRUNE} --output out --device flex,flex");
    workspace.refuse(&line, &["model.layers.1.mlp.down_proj"]);
}

#[test]
fn devices_that_cannot_share_a_run_are_refused() {
    let workspace = Workspace::with("smollm2-style");
    for propagate in ["full", "sequential", "refreshed", "partial"] {
        let line = format!("{PRUNE} --output out --device flex,flex --propagate {propagate}");
        workspace.refuse(&line, &["--device", "input=dense"]);
    }
    workspace.refuse(
        "eval --model model --data ids.safetensors --device flex,flex",
        &["--device", "`prune`"],
    );
}

#[test]
fn a_budget_decides_where_hidden_states_wait() {
    let workspace = Workspace::with("smollm2-style");
    workspace.ids("many.safetensors", 400, 64);
    let line = PRUNE.replace("ids.", "many.") + " --output out --method magnitude";
    let plan = |extra: &str| workspace.json(&format!("{line} --dry-run {extra}"));
    let bytes = |plan: &Value| plan["device_bytes"].as_u64().unwrap();
    let free = plan("");
    assert_eq!(free["activations"], "device");
    assert_eq!(free["activation_disk_bytes"], 0);
    let disk = plan("--activations disk");
    assert!(bytes(&disk) < bytes(&free));
    assert!(disk["activation_disk_bytes"].as_u64().unwrap() > 0);
    // Room for everything, for all but the states, for a smaller batch only, and for nothing.
    assert_eq!(
        plan(&format!("--memory-budget {}", bytes(&free)))["activations"],
        "device"
    );
    let tight = plan(&format!("--memory-budget {}", bytes(&free) - 1));
    assert!(tight["activations"] == "disk" || tight["batch_tokens"].as_u64() < free["batch_tokens"].as_u64());
    let tighter = plan(&format!("--memory-budget {}", bytes(&disk) - 1));
    assert!(tighter["batch_tokens"].as_u64() < free["batch_tokens"].as_u64());
    assert!(bytes(&tighter) < bytes(&disk));
    // The last resort.
    let offloaded = plan("--activations disk --offload");
    assert!(bytes(&offloaded) < bytes(&disk));
    assert_eq!(offloaded["offload"], true);
    let least = plan(&format!(
        "--memory-budget {}",
        bytes(&tighter).min(bytes(&offloaded))
    ));
    assert_eq!(least["offload"], bytes(&offloaded) < bytes(&tighter));
    workspace.refuse(
        &format!("{line} --memory-budget 1MB"),
        &["--memory-budget", "at least"],
    );
    workspace.succeed(&format!("{line} --memory-budget {}", bytes(&tighter)));
    for wrong in ["lots", "0", "-1GB", "3 parsecs", "12XB"] {
        let mut command = workspace.command(&line);
        command.args(["--memory-budget", wrong]);
        assert_eq!(crate::command::Outcome::of(command).code, 2, "{wrong}");
    }
}

/// Little RAM moves hidden states to the disk, computes as many tokens at once as ever, and gives the same bytes.
#[test]
fn little_ram_changes_no_byte() {
    let workspace = Workspace::with("smollm2-style");
    workspace.ids("many.safetensors", 400, 64);
    let line = PRUNE.replace("ids.", "many.") + " --output out --preset fast";
    let plan = |extra: &str| workspace.json(&format!("{line} --dry-run {extra}"));
    let (free, disk) = (plan(""), plan("--activations disk"));
    let bytes = disk["host_bytes"].as_u64().unwrap();
    assert!(bytes < free["host_bytes"].as_u64().unwrap());
    for budget in ["", "--memory-budget 100GB", "--memory-budget 100GB --offload"] {
        let small = plan(&format!("--host-memory {bytes} {budget}"));
        assert_eq!(small["activations"], "disk", "{budget}");
        assert_eq!(small["batch_tokens"], free["batch_tokens"], "{budget}");
        // It was asked for, not found.
        assert_eq!(small["free_host_bytes"], Value::Null);
    }
    let expected = pruned(&workspace, &line);
    let settings = workspace.read_json("out/pruning_report.json")["settings"].clone();
    assert!(pruned(&workspace, &format!("{line} --host-memory {bytes}")) == expected);
    assert_eq!(
        workspace.read_json("out/pruning_report.json")["settings"],
        settings
    );
    workspace.refuse(
        &format!("{line} --host-memory 1MB"),
        &["--host-memory", "at least", "of RAM"],
    );
}

/// What a run on the host reports of its memory is what its plan said.
#[test]
#[cfg(target_os = "linux")]
fn the_plan_knows_the_memory() {
    let workspace = Workspace::new();
    for extra in [
        "--samples 16",
        "--samples 64",
        "--samples 64 --activations disk",
        "--samples 32 --propagate full --sparsity 2:4",
    ] {
        let line = format!("prune --preset fast --output out --overwrite --device flex {extra}");
        let planned = workspace.json(&format!("{line} --dry-run"))["host_bytes"]
            .as_f64()
            .unwrap();
        let peak = workspace.json(&line)["peak_host_bytes"].as_f64().unwrap();
        assert!(
            planned > 0.75 * peak && planned < 1.25 * peak,
            "{extra}: planned {planned:e}, was {peak:e}"
        );
    }
}

/// The plan of LLaMA-3-70B on a GPU, from a checkpoint that has its shapes and holes for weights.
#[test]
#[cfg(unix)]
fn a_layer_of_70b_fits_a_40_gb_device() {
    use fista_pruner::checkpoint::Model;
    use fista_pruner::config::{Pattern, PruneConfig, SolverConfig};
    use fista_pruner::prune::plan::{Room, StatePlace, plan};
    use serde_json::json;
    use std::io::Write;

    const LAYERS: usize = 80;
    let workspace = Workspace::new();
    std::fs::create_dir(workspace.path("model")).unwrap();
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": LAYERS,
        "num_attention_heads": 64, "num_key_value_heads": 8, "rms_norm_eps": 1e-5,
        "rope_theta": 500_000.0, "vocab_size": 128_256, "max_position_embeddings": 8192,
        "tie_word_embeddings": false, "attention_bias": false, "mlp_bias": false,
    });
    workspace.write("model/config.json", config.to_string().as_bytes());
    let mut tensors = vec![
        ("model.embed_tokens.weight".to_owned(), vec![128_256, 8192]),
        ("lm_head.weight".to_owned(), vec![128_256, 8192]),
        ("model.norm.weight".to_owned(), vec![8192]),
    ];
    for layer in 0..LAYERS {
        for (name, shape) in [
            ("self_attn.q_proj", vec![8192, 8192]),
            ("self_attn.k_proj", vec![1024, 8192]),
            ("self_attn.v_proj", vec![1024, 8192]),
            ("self_attn.o_proj", vec![8192, 8192]),
            ("mlp.gate_proj", vec![28672, 8192]),
            ("mlp.up_proj", vec![28672, 8192]),
            ("mlp.down_proj", vec![8192, 28672]),
            ("input_layernorm", vec![8192]),
            ("post_attention_layernorm", vec![8192]),
        ] {
            tensors.push((format!("model.layers.{layer}.{name}.weight"), shape));
        }
    }
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".into(), json!({ "format": "pt" }));
    let mut end = 0u64;
    for (name, shape) in tensors {
        let start = end;
        end += 2 * shape.iter().product::<u64>();
        header.insert(
            name,
            json!({ "dtype": "BF16", "shape": shape, "data_offsets": [start, end] }),
        );
    }
    let header = serde_json::Value::from(header).to_string();
    let mut file = std::fs::File::create(workspace.path("model/model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    // No bytes on the disk, only a length.
    file.set_len(8 + header.len() as u64 + end).unwrap();

    let model = Model::open(&workspace.path("model")).unwrap();
    let config = PruneConfig::new(Pattern::unstructured(0.5).unwrap(), SolverConfig::best(None));
    let on = |devices: usize, states: StatePlace, offload: bool| {
        let room = Room {
            tokens: 128 * 2048,
            evaluation_tokens: 0,
            window: 2048,
            layers: 0..LAYERS,
            devices,
            device_is_host: false,
            states,
            offload,
        };
        plan(&model.checkpoint, &model.decoder, &config, &room).unwrap()
    };
    let at = |states, offload| on(1, states, offload);
    let (device, host, disk) = (
        at(StatePlace::Device, false),
        at(StatePlace::Host, false),
        at(StatePlace::Disk, false),
    );
    let offloaded = at(StatePlace::Host, true);
    assert!(
        offloaded.device_bytes < 24_000_000_000,
        "{:e}",
        offloaded.device_bytes
    );
    assert!(host.device_bytes < 40_000_000_000, "{:e}", host.device_bytes);
    assert_eq!(host.device_bytes, disk.device_bytes);
    // Two paths of the widest input and the residual, in f32.
    assert_eq!(disk.activation_disk_bytes, 4 * 2 * 128 * 2048 * (28672 + 8192));
    // The first of several devices also takes the windows through the dense model; what enters a layer waits on the host.
    let two = on(2, StatePlace::Disk, false);
    let hidden = 4 * 128 * 2048 * 8192;
    assert!(
        two.device_bytes > disk.device_bytes + hidden,
        "{:e}",
        two.device_bytes
    );
    assert_eq!(two.host_bytes, disk.host_bytes + 5 * hidden);
    assert!(device.device_bytes > host.device_bytes + disk.activation_disk_bytes / 2);
}
