//! `prune` of every small checkpoint, checked from the written files alone.

use crate::command::{MODELS, Outcome, Weights, Workspace, names};
use fista_pruner::config::{Method, Propagation, WarmStart};
use fista_pruner::report::Report;
use safetensors::SafeTensors;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

const PRUNE: &str = "prune --model model --output out --calibration ids.safetensors";

/// A fista that ends soon, also where the statistics do not determine the weights.
const SHORT_FISTA: &str = "--method fista --epsilon 3e-2";

/// `n` of `m`, or a share of zeros: what a test asks for, read without the program's own parser.
enum Zeros {
    Share(f64),
    Group(usize, usize),
}

impl Zeros {
    fn parse(text: &str) -> Self {
        match text.split_once(':') {
            Some((n, m)) => Self::Group(n.parse().unwrap(), m.parse().unwrap()),
            None => Self::Share(text.parse().unwrap()),
        }
    }

    /// `values` is `[out, in]`, row-major, and `inputs` a multiple of the group. A solver may find a weight that it could
    /// keep to be best at zero; methods that only choose make no zero more than was asked for.
    fn check(&self, name: &str, values: &[f64], inputs: usize, exactly: bool) {
        let check = |values: &[f64], wanted: usize| {
            let found = values.iter().filter(|v| **v == 0.0).count();
            assert!(
                found == wanted || (!exactly && found > wanted),
                "{name}: {found} zeros, not {wanted}"
            );
        };
        match *self {
            Self::Share(share) => check(values, (share * values.len() as f64 + 1e-6) as usize),
            Self::Group(n, m) => {
                assert_eq!(inputs % m, 0, "{name}");
                values.chunks(m).for_each(|group| check(group, m - n));
            }
        }
        assert!(values.iter().all(|v| v.is_finite()), "{name}");
        let negative = values.iter().any(|v| *v == 0.0 && v.is_sign_negative());
        assert!(!negative, "{name} holds -0.0");
    }
}

/// Compares the folder `out` with `model`: the operators of the report have the pattern, everything else is as it was.
fn check_output(workspace: &Workspace, sparsity: &str) -> Report {
    let report: Report = serde_json::from_slice(&workspace.read("out/pruning_report.json")).unwrap();
    let mut expected = names(&workspace.path("model"));
    expected.extend(["pruning_report.json".into(), "report.html".into()]);
    expected.sort();
    assert_eq!(names(&workspace.path("out")), expected);
    let mut found = BTreeSet::new();
    for name in names(&workspace.path("model")) {
        if name.ends_with(".safetensors") {
            found.extend(check_shard(workspace, &name, &report, sparsity));
        } else {
            let (before, after) = (
                workspace.read(&format!("model/{name}")),
                workspace.read(&format!("out/{name}")),
            );
            assert_eq!(before, after, "{name}");
        }
    }
    let reported: BTreeSet<String> = report.operators.iter().map(|o| o.name.clone()).collect();
    assert_eq!(found, reported);
    assert_eq!(report.operators.len(), reported.len());
    let all = |f: fn(&[usize; 2]) -> usize| report.operators.iter().map(|o| f(&o.shape)).sum::<usize>();
    let weights = all(|[rows, columns]| rows * columns) as f64;
    let zeros: usize = report.operators.iter().map(|o| o.zeros).sum();
    assert!((report.sparsity - zeros as f64 / weights).abs() < 1e-12);
    report
}

/// One weight file before and after. Gives the operators that it holds.
fn check_shard(workspace: &Workspace, name: &str, report: &Report, sparsity: &str) -> Vec<String> {
    let bytes = workspace.read(&format!("out/{name}"));
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(header.metadata().as_ref().unwrap()["format"], "pt", "{name}");
    let before = Weights::open(&workspace.path("model").join(name));
    let after = Weights::open(&workspace.path("out").join(name));
    assert!(before.0.keys().eq(after.0.keys()), "{name}");
    let mut operators = Vec::new();
    for (tensor, (dtype, shape, bytes)) in &before.0 {
        let (dtype_after, shape_after, bytes_after) = &after.0[tensor];
        assert_eq!((dtype, shape), (dtype_after, shape_after), "{tensor}");
        let operator = report
            .operators
            .iter()
            .find(|o| tensor.strip_suffix(".weight") == Some(&o.name));
        let Some(operator) = operator else {
            assert!(bytes == bytes_after, "{tensor} was not to change");
            continue;
        };
        let values = after.values(tensor);
        let method = &report.settings["solver"]["method"];
        let chooses_only = ["wanda", "magnitude"].iter().any(|name| method == name);
        Zeros::parse(sparsity).check(tensor, &values, shape[1], chooses_only);
        assert_eq!(operator.shape.as_slice(), shape.as_slice());
        assert_eq!(
            operator.zeros,
            values.iter().filter(|v| **v == 0.0).count(),
            "{tensor}"
        );
        // Methods that make up for what they remove do better than removing everything.
        let bound = if chooses_only { f64::INFINITY } else { 1.0 };
        let error = operator.relative_error;
        assert!((0.0..bound).contains(&error), "{tensor}: {error}");
        operators.push(operator.name.clone());
    }
    operators
}

/// Prunes `model` to `out` and checks everything about it.
fn prune_and_check(workspace: &Workspace, sparsity: &str, arguments: &str) -> Report {
    let line = format!("{PRUNE} --overwrite --sparsity {sparsity} {arguments}");
    let printed = workspace.json(&line);
    assert_eq!(printed, workspace.read_json("out/pruning_report.json"), "{line}");
    check_output(workspace, sparsity)
}

#[test]
fn every_model_at_half_and_two_of_four() {
    for model in MODELS {
        let workspace = Workspace::with(model);
        let operators = workspace.weights("model").operators();
        for (sparsity, arguments) in [("0.5", SHORT_FISTA), ("2:4", "--method wanda")] {
            let report = prune_and_check(&workspace, sparsity, arguments);
            let pruned: BTreeSet<String> = report.operators.iter().map(|o| o.name.clone()).collect();
            assert_eq!(pruned, operators, "{model}");
            assert_eq!(report.left_out, Vec::<String>::new(), "{model}");
        }
    }
}

#[test]
fn every_pattern_and_method() {
    let workspace = Workspace::with("llama3.1-style");
    for (method, _) in Method::ALL {
        let arguments = format!("--method {method} --epsilon 1e-3");
        for sparsity in ["0.7", "4:8", "1:4", "3:4"] {
            prune_and_check(&workspace, sparsity, &arguments);
        }
    }
}

/// Methods that only choose leave the weights that they keep as they are; without zeros, all of them.
#[test]
fn kept_weights_are_not_touched_by_methods_that_only_choose() {
    let workspace = Workspace::with("mistral-style");
    for (method, sparsity) in [("wanda", "0.5"), ("magnitude", "2:4"), ("magnitude", "0")] {
        let report = prune_and_check(&workspace, sparsity, &format!("--method {method} --polish 0"));
        let (before, after) = (workspace.weights("model"), workspace.weights("out"));
        for operator in &report.operators {
            let name = format!("{}.weight", operator.name);
            let pairs = before.values(&name).into_iter().zip(after.values(&name));
            assert!(
                pairs.into_iter().all(|(b, a)| a == 0.0 || a == b),
                "{method} {name}"
            );
        }
    }
    assert_eq!(
        workspace.read("model/model.safetensors"),
        workspace.read("out/model.safetensors")
    );
    let half = prune_and_check(&workspace, "0.5", "--method wanda");
    let line = format!("{PRUNE} --overwrite --sparsity 50% --method wanda");
    assert_eq!(workspace.json(&line)["sparsity"], json!(half.sparsity));
}

#[test]
fn a_torch_checkpoint_gives_the_weights_of_its_safetensors_twin() {
    let workspace = Workspace::with("opt-125m-style");
    prune_and_check(&workspace, "0.5", "--method wanda");
    let twin = workspace.weights("out");
    let bytes = torch::state_dict(&workspace.weights("model"));
    std::fs::remove_file(workspace.path("model/model.safetensors")).unwrap();
    workspace.write("model/pytorch_model.bin", &bytes);
    workspace.succeed(&format!("{PRUNE} --overwrite --method wanda --sparsity 0.5"));
    assert_eq!(
        names(&workspace.path("out")),
        [
            "config.json",
            "model.safetensors",
            "pruning_report.json",
            "report.html"
        ]
    );
    assert!(workspace.weights("out").0 == twin.0);
}

/// Few tokens for many inputs, inputs that are always zero, and a matrix of zeros.
#[test]
fn degenerate_problems() {
    for model in ["smollm2-style", "opt-125m-style"] {
        let workspace = Workspace::with(model);
        workspace.ids("ids.safetensors", 1, 16);
        workspace.edit("model/model.safetensors", |weights| degrade(model, weights));
        for (method, _) in Method::ALL {
            for sparsity in ["0.5", "2:4"] {
                degenerate_run(&workspace, sparsity, &format!("--method {method} --epsilon 3e-2"));
            }
        }
        for (warm_start, _) in WarmStart::ALL {
            let arguments = format!("--method fista --warm-start {warm_start} --epsilon 3e-2");
            degenerate_run(&workspace, "0.5", &arguments);
        }
    }
}

/// Makes inputs 3 and 40 of the first attention always zero, and a whole matrix of the second layer; in the LLaMA all
/// inputs of the last attention, too.
fn degrade(model: &str, weights: &mut Weights) {
    if model == "opt-125m-style" {
        for part in ["weight", "bias"] {
            weights.set(
                &format!("model.decoder.layers.0.self_attn_layer_norm.{part}"),
                [3, 40],
                0.0,
            );
        }
        weights.fill("model.decoder.layers.1.self_attn.q_proj.weight", 0.0);
        weights.fill("model.decoder.layers.1.fc1.weight", 0.0);
    } else {
        weights.set("model.layers.0.input_layernorm.weight", [3, 40], 0.0);
        weights.fill("model.layers.2.input_layernorm.weight", 0.0);
        weights.fill("model.layers.1.self_attn.q_proj.weight", 0.0);
        weights.fill("model.layers.1.mlp.up_proj.weight", 0.0);
    }
}

/// As good a result as any other, but for the matrices of zeros, which have more zeros than were asked for.
fn degenerate_run(workspace: &Workspace, sparsity: &str, arguments: &str) {
    // So few tokens would hold the weights so strongly that the polish gives up some of the error.
    let line = format!("{PRUNE} --overwrite --ridge 0.005 --sparsity {sparsity} {arguments}");
    workspace.succeed(&line);
    let report: Report = serde_json::from_slice(&workspace.read("out/pruning_report.json")).unwrap();
    let (dense, pruned) = (workspace.weights("model"), workspace.weights("out"));
    for operator in &report.operators {
        let name = format!("{}.weight", operator.name);
        let values = pruned.values(&name);
        if dense.zeros(&name).iter().all(|zero| *zero) {
            assert!(values.iter().all(|v| *v == 0.0), "{line}: {name}");
            assert_eq!(operator.relative_error, 0.0, "{line}: {name}");
        } else {
            Zeros::parse(sparsity).check(&name, &values, operator.shape[1], false);
            assert!(
                operator.relative_error < 1.0,
                "{line}: {name} {}",
                operator.relative_error
            );
        }
        // Rounding to f16 counts where the error itself is next to nothing.
        if let Some(start) = operator.solver.warm_start_error {
            let error = operator.relative_error;
            assert!(error <= start * 1.001 + 1e-6, "{line}: {name} {error} {start}");
        }
    }
}

/// Algorithm 1 keeps its best round and begins with the warm start.
#[test]
fn fista_is_never_worse_than_its_warm_start() {
    // An error is known to f32's digits, and f16 rounds the stored weight after the error of the warm start was taken.
    for (model, allowance) in [("qwen3-style", 1e-6), ("llama1-style", 1e-3)] {
        let workspace = Workspace::with(model);
        for (warm_start, kind) in WarmStart::ALL {
            let report = prune_and_check(
                &workspace,
                "0.5",
                &format!("{SHORT_FISTA} --warm-start {warm_start}"),
            );
            let mut better = 0;
            for operator in &report.operators {
                let Some(start) = operator.solver.warm_start_error else {
                    assert_eq!(kind, WarmStart::Dense, "{}", operator.name);
                    continue;
                };
                let error = operator.relative_error;
                assert!(
                    error <= start * (1.0 + allowance),
                    "{} {error} {start}",
                    operator.name
                );
                better += usize::from(error < 0.99 * start);
            }
            // What ℓ0 splitting found leaves little to gain.
            let hard = matches!(kind, WarmStart::Dense | WarmStart::Admm);
            assert!(hard || better > 0, "{model} {warm_start}");
        }
    }
}

/// The same command, and the same with another number of threads.
#[test]
fn the_same_command_gives_the_same_bytes() {
    let workspace = Workspace::with("qwen2-style");
    for (method, _) in Method::ALL {
        let run = |output: &str, threads: &str| {
            let line = format!("{PRUNE} --method {method} --epsilon 1e-3")
                .replace("--output out", &format!("--output {output}"));
            let mut command = workspace.command(&line);
            Outcome::of({
                command.env("RAYON_NUM_THREADS", threads);
                command
            })
            .success(&line);
            workspace.read(&format!("{output}/model.safetensors"))
        };
        let first = run(&format!("{method}-1"), "2");
        assert!(run(&format!("{method}-2"), "2") == first, "{method}");
        assert!(
            run(&format!("{method}-3"), "1") == first,
            "{method} on one thread"
        );
        assert!(
            run(&format!("{method}-4"), "5") == first,
            "{method} on five threads"
        );
    }
}

#[test]
fn targets_and_ignore() {
    let workspace = Workspace::with("smollm2-style");
    let names = |arguments: &str| -> Vec<String> {
        let report = prune_and_check(&workspace, "0.5", &format!("--method wanda {arguments}"));
        report.operators.into_iter().map(|o| o.name).collect()
    };
    assert_eq!(
        names("--targets layers.1.self_attn --ignore [kv]_proj$"),
        [
            "model.layers.1.self_attn.q_proj",
            "model.layers.1.self_attn.o_proj"
        ]
    );
    assert_eq!(
        names("--ignore ^model.layers.[12]|mlp|[qko]_proj"),
        ["model.layers.0.self_attn.v_proj"]
    );
    // What stays dense changes neither statistics nor results of what comes before it.
    let v_proj = "model.layers.0.self_attn.v_proj.weight";
    let alone = workspace.weights("out").values(v_proj);
    assert_eq!(names("").len(), 21);
    assert_eq!(workspace.weights("out").values(v_proj), alone);
}

#[test]
fn propagation_by_name_and_by_switches() {
    let workspace = Workspace::with("smollm2-style");
    let run = |propagate: &str| {
        let arguments = format!("--method fista --epsilon 1e-2 --propagate {propagate}");
        let report = prune_and_check(&workspace, "0.5", &arguments);
        let weights = workspace.read("out/model.safetensors");
        (weights, report.settings["propagate"].clone())
    };
    let switches = [
        ("intra", "input=dense,within=corrected,target=dense"),
        ("none", "input=dense,within=uncorrected,target=dense"),
        ("full", "input=pruned,within=corrected,target=dense"),
        ("sequential", "input=pruned,within=uncorrected,target=current"),
        ("refreshed", "input=pruned,within=corrected,target=current"),
        ("partial", "input=pruned,within=corrected,target=0.25"),
    ];
    assert!(
        switches
            .iter()
            .map(|s| s.0)
            .eq(Propagation::NAMED.iter().map(|n| n.0))
    );
    let mut different = BTreeSet::new();
    for (name, switches) in switches {
        let (weights, reported) = run(name);
        assert_eq!(reported, name);
        assert!(run(switches) == (weights.clone(), json!(name)), "{name}");
        different.insert(weights);
    }
    assert_eq!(different.len(), 6);
    let (other, reported) = run("input=pruned,within=uncorrected,target=dense");
    assert!(!different.contains(&other));
    assert_eq!(reported, Value::Null);
}

/// A layer's result does not depend on the layers before it where its input is the dense model's.
#[test]
fn dense_layer_inputs_make_layers_independent() {
    let workspace = Workspace::with("qwen3-style");
    let line = format!("{PRUNE} {SHORT_FISTA} --propagate intra");
    workspace.succeed(&line);
    workspace.succeed(&line.replace("--output out", "--output alone --targets layers.2."));
    let (all, alone) = (workspace.weights("out"), workspace.weights("alone"));
    for name in all.0.keys().filter(|name| name.contains("layers.2.")) {
        assert!(all.0[name] == alone.0[name], "{name}");
    }
}

#[test]
fn a_dry_run_writes_nothing() {
    let workspace = Workspace::with("opt-125m-style");
    let before = workspace.tree();
    for extra in ["--dry-run", "--dry-run --save-statistics statistics"] {
        let text = workspace.succeed(&format!("{PRUNE} {extra}")).stdout;
        assert!(text.contains("18 linear layers in 3 decoder layers"), "{text}");
        let plan = workspace.json(&format!("{PRUNE} {extra}"));
        assert_eq!(plan["operators"].as_array().unwrap().len(), 18);
        assert_eq!(
            plan["operators"][0]["name"],
            "model.decoder.layers.0.self_attn.q_proj"
        );
        assert_eq!(plan["operators"][0]["zeros"], 2048);
        crate::command::same_trees(&before, &workspace.tree(), extra);
    }
}

/// What scripts read from `prune --format json`; the paths, the device and the settings that a person looks up later.
#[test]
fn the_report_has_what_scripts_read() {
    let workspace = Workspace::with("smollm2-style");
    let report = workspace.json(&format!("{PRUNE} {SHORT_FISTA} --seed 7 --device cpu"));
    assert_eq!(report["output"], "out");
    assert_eq!(report["report_version"], 2);
    assert!(report["sparsity"].is_f64() && report["seconds"].is_f64());
    assert!(report["peak_host_bytes"].is_u64() || !cfg!(target_os = "linux"));
    assert_eq!(report["device"], "flex");
    assert_eq!(report["model"]["family"], "llama");
    assert_eq!(report["settings"]["seed"], 7);
    assert_eq!(report["calibration"]["tokens"], 4 * 32);
    let operators = report["operators"].as_array().unwrap();
    assert_eq!(operators.len(), 21);
    for operator in operators {
        assert!(operator["name"].is_string());
        for field in ["relative_error", "sparsity", "seconds"] {
            assert!(operator[field].is_f64(), "{field}");
        }
        assert_eq!(operator["tokens"], 4 * 32);
    }
}

/// For people: a line a layer, and where it went. Nothing on stderr where it is no terminal.
#[test]
fn text_for_people() {
    let workspace = Workspace::with("smollm2-style");
    let outcome = workspace.succeed(&format!("{PRUNE} --method magnitude"));
    assert_eq!(outcome.stderr, "");
    for word in [
        "layer   2",
        "down_proj",
        "sparsity 0.5000 over 21 linear layers",
        "wrote out",
    ] {
        assert!(
            outcome.stdout.contains(word),
            "no `{word}` in\n{}",
            outcome.stdout
        );
    }
    for advice in [
        "pack --model out --output out-packed",
        "eval --model out --data wikitext2",
        "out/report.html",
    ] {
        assert!(
            outcome.stdout.contains(advice),
            "no `{advice}` in\n{}",
            outcome.stdout
        );
    }
    let told = workspace.succeed(&format!("{PRUNE} --method magnitude --overwrite -v"));
    assert!(
        told.stderr.contains("model.layers.2.mlp.down_proj: error"),
        "{}",
        told.stderr
    );
    let quiet = workspace.succeed(&format!("{PRUNE} --method magnitude --overwrite --quiet"));
    assert_eq!(quiet.stderr, "");
    assert!(!quiet.stdout.contains("Next:"), "{}", quiet.stdout);
}

/// Side files are copied, other forms of the weights are named and left out.
#[test]
fn side_files() {
    let workspace = Workspace::with("smollm2-style");
    workspace.write("model/tokenizer.model", b"\0\x01 as it is");
    workspace.write("model/generation_config.json", b"{}\n\n");
    workspace.write("model/pytorch_model.bin", b"the dense weights");
    std::fs::create_dir(workspace.path("model/onnx")).unwrap();
    let report = workspace.json(&format!("{PRUNE} --method wanda"));
    assert_eq!(report["left_out"], json!(["onnx/", "pytorch_model.bin"]));
    for name in ["tokenizer.model", "generation_config.json", "config.json"] {
        assert_eq!(
            workspace.read(&format!("model/{name}")),
            workspace.read(&format!("out/{name}"))
        );
    }
    assert!(!workspace.path("out/pytorch_model.bin").exists() && !workspace.path("out/onnx").exists());
    let again = workspace.succeed(&format!("{PRUNE} --method wanda --overwrite"));
    assert!(again.stdout.contains("pytorch_model.bin"), "{}", again.stdout);
}

/// A pruned checkpoint can be pruned again, further.
#[test]
fn pruning_twice() {
    let workspace = Workspace::with("smollm2-style");
    workspace.succeed(&format!("{PRUNE} --method wanda --sparsity 2:4"));
    workspace.succeed(
        &format!("{PRUNE} --method wanda --sparsity 1:4")
            .replace("--model model --output out", "--model out --output twice"),
    );
    let (once, twice) = (workspace.weights("out"), workspace.weights("twice"));
    for operator in once.operators() {
        let name = format!("{operator}.weight");
        let still = once
            .zeros(&name)
            .into_iter()
            .zip(twice.zeros(&name))
            .all(|(a, b)| b || !a);
        assert!(still, "{name}");
        Zeros::Group(1, 4).check(&name, &twice.values(&name), once.shape(&name)[1], true);
    }
    assert!(Path::new(&workspace.path("twice/pruning_report.json")).exists());
}

/// Writes what `torch.save(model.state_dict(), …)` does since torch 1.6.
pub(crate) mod torch {
    use super::Weights;
    use flate2::Crc;
    use safetensors::Dtype;

    /// A zip archive with a pickle that describes the tensors, and one entry of raw numbers for each.
    pub(crate) fn state_dict(weights: &Weights) -> Vec<u8> {
        let mut pickle = b"\x80\x02ccollections\nOrderedDict\n)R(".to_vec();
        let mut entries = Vec::new();
        for (key, (name, (dtype, shape, bytes))) in weights.0.iter().enumerate() {
            let storage = match dtype {
                Dtype::F16 => "HalfStorage",
                Dtype::BF16 => "BFloat16Storage",
                Dtype::F32 => "FloatStorage",
                other => panic!("{name} is stored as {other:?}"),
            };
            let elements: usize = shape.iter().product();
            let strides: Vec<usize> = (0..shape.len())
                .map(|axis| shape[axis + 1..].iter().product())
                .collect();
            text(&mut pickle, name);
            pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
            text(&mut pickle, "storage");
            pickle.extend(format!("ctorch\n{storage}\n").bytes());
            text(&mut pickle, &key.to_string());
            text(&mut pickle, "cpu");
            number(&mut pickle, elements);
            pickle.extend(b"tQK\0(");
            shape.iter().for_each(|n| number(&mut pickle, *n));
            pickle.extend(b"t(");
            strides.iter().for_each(|n| number(&mut pickle, *n));
            pickle.extend(b"t\x89ccollections\nOrderedDict\n)RtR");
            entries.push((format!("archive/data/{key}"), bytes.clone()));
        }
        pickle.extend(b"u.");
        entries.insert(0, ("archive/data.pkl".to_owned(), pickle));
        entries.push(("archive/version".to_owned(), b"3\n".to_vec()));
        zip(&entries)
    }

    fn text(pickle: &mut Vec<u8>, text: &str) {
        pickle.push(b'X');
        pickle.extend((text.len() as u32).to_le_bytes());
        pickle.extend(text.bytes());
    }

    fn number(pickle: &mut Vec<u8>, number: usize) {
        pickle.push(b'J');
        pickle.extend((number as i32).to_le_bytes());
    }

    fn zip(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
        let (mut archive, mut directory) = (Vec::new(), Vec::new());
        for (name, bytes) in entries {
            let mut crc = Crc::new();
            crc.update(bytes);
            let size = (bytes.len() as u32).to_le_bytes();
            // Version, flags, stored, time and date of nothing.
            let common = [
                &[20, 0, 0, 0, 0, 0, 0, 0, 0x21, 0][..],
                &crc.sum().to_le_bytes(),
                &size,
                &size,
                &(name.len() as u16).to_le_bytes(),
                &[0, 0],
            ]
            .concat();
            directory.extend(
                [
                    &b"PK\x01\x02\x14\0"[..],
                    &common,
                    &[0; 10],
                    &(archive.len() as u32).to_le_bytes(),
                ]
                .concat(),
            );
            directory.extend(name.bytes());
            archive.extend([b"PK\x03\x04", &common[..], name.as_bytes(), bytes].concat());
        }
        let count = (entries.len() as u16).to_le_bytes();
        let end = [
            b"PK\x05\x06\0\0\0\0",
            &count[..],
            &count,
            &(directory.len() as u32).to_le_bytes(),
            &(archive.len() as u32).to_le_bytes(),
            &[0, 0],
        ]
        .concat();
        [archive, directory, end].concat()
    }
}
