//! `solve`: the same matrix alone gives what it gave in its model.

use crate::command::{Weights, Workspace};
use fista_pruner::config::Method;
use safetensors::Dtype;

/// f32 weights, so that what `prune` stores is what was solved.
const MODEL: &str = "smollm2-style";

/// Every setting spelled out: without a model, `solve` cannot take the family's.
fn settings(method: &str) -> String {
    format!("--method {method} --warm-start wanda --epsilon 1e-3 --sparsity 0.5")
}

#[test]
fn an_operator_alone_gives_what_it_gave_in_its_model() {
    let workspace = Workspace::with(MODEL);
    for (method, _) in Method::ALL {
        let settings = settings(method);
        let report = workspace.json(&format!(
            "prune --model model --output out --overwrite --calibration ids.safetensors --save-statistics saved {settings}"
        ));
        let pruned = workspace.weights("out");
        for (operator, layer) in [
            // The first group sees the dense input; the others have a cross term.
            ("model.layers.0.self_attn.q_proj", 0),
            ("model.layers.1.self_attn.o_proj", 1),
            ("model.layers.2.mlp.down_proj", 2),
        ] {
            let line = format!(
                "solve --statistics saved/layer-00{layer}.safetensors --operator {operator} {settings}"
            );
            let file = format!("{method}-{layer}.safetensors");
            let solved = workspace.json(&format!("{line} --output {file}"));
            let reported = report["operators"].as_array().unwrap();
            let reported = reported.iter().find(|o| o["name"] == operator).unwrap();
            let of = |value: &serde_json::Value| value["relative_error"].as_f64().unwrap();
            let (alone, there) = (of(&solved), of(reported));
            // A few conjugate-gradient steps on 128 tokens have not converged, and show how statistics were rounded.
            assert!(
                (alone - there).abs() <= 1e-3 * there,
                "{method} {operator}: {alone} {there}"
            );
            assert_eq!(solved["sparsity"], reported["sparsity"]);
            assert_eq!(solved["zeros"], reported["zeros"]);
            let name = format!("{operator}.weight");
            let written = Weights::open(&workspace.path(&file));
            assert_eq!(written.shape(&name), pruned.shape(&name));
            assert!(
                written.zeros(&name) == pruned.zeros(&name),
                "{method} {operator}: other zeros"
            );
        }
    }
}

/// Statistics from elsewhere: a diagonal Gram matrix, whose best mask and error can be written down.
fn diagonal(workspace: &Workspace) {
    let weight: [f32; 8] = [1.0, 2.0, 3.0, 4.0, 4.0, 3.0, 2.0, 1.0];
    let gram: Vec<f32> = (0..16).map(|k| if k % 5 == 0 { 1.0 } else { 0.0 }).collect();
    let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let mut weights = Weights::default();
    weights
        .0
        .insert("fc.weight".into(), (Dtype::F32, vec![2, 4], bytes(&weight)));
    weights
        .0
        .insert("fc.gram".into(), (Dtype::F32, vec![4, 4], bytes(&gram)));
    weights.save(&workspace.path("diagonal.safetensors"));
}

#[test]
fn a_diagonal_problem() {
    let workspace = Workspace::new();
    diagonal(&workspace);
    for (method, _) in Method::ALL {
        for sparsity in ["2:4", "0.5"] {
            let file = format!("{method}-{}.safetensors", sparsity.replace(':', "of"));
            let solved = workspace.json(&format!(
                "solve --statistics diagonal.safetensors --operator fc --method {method} --sparsity {sparsity} --output {file}"
            ));
            let zeros = Weights::open(&workspace.path(&file)).zeros("fc.weight");
            assert_eq!(
                zeros,
                [true, true, false, false, false, false, true, true],
                "{method} {sparsity}"
            );
            // (1² + 2²) / (1² + 2² + 3² + 4²), where nothing can be made up for.
            let error = solved["relative_error"].as_f64().unwrap();
            assert!((error - 5.0 / 30.0).abs() < 1e-5, "{method} {sparsity}: {error}");
            assert_eq!(solved["sparsity"], 0.5);
            assert!(
                solved["iterations"].is_u64()
                    && solved["stop_reason"].is_string()
                    && solved["seconds"].is_f64()
            );
        }
    }
    let text = workspace
        .succeed("solve --statistics diagonal.safetensors --operator fc")
        .stdout;
    assert!(text.contains("fc 2x4: relative error 0.1666"), "{text}");
}

#[test]
fn statistics_that_cannot_be_used() {
    let workspace = Workspace::new();
    diagonal(&workspace);
    let line = "solve --statistics diagonal.safetensors --operator fc";
    workspace.refuse(&line.replace("diagonal", "nothing"), &["nothing.safetensors"]);
    workspace.refuse(
        &line.replace("--operator fc", "--operator fd"),
        &["diagonal.safetensors", "`fd.weight`", "fc"],
    );
    workspace.refuse(
        &format!("{line} --sparsity 2:3"),
        &["`fc`", "4 inputs", "2:3", "hint:"],
    );
    workspace.refuse(
        &format!("{line} --output diagonal.safetensors"),
        &["diagonal.safetensors", "which this command reads"],
    );
    workspace.refuse(
        &format!("{line} --output no/where.safetensors"),
        &["no", "No such file"],
    );
    workspace.edit("diagonal.safetensors", |weights| {
        weights.set("fc.gram", [5], f32::NAN)
    });
    workspace.refuse(line, &["`fc.gram`", "finite", "5"]);
    workspace.edit("diagonal.safetensors", |weights| {
        weights.set("fc.gram", [5], 1.0);
        weights.0.get_mut("fc.gram").unwrap().1 = vec![2, 8];
    });
    workspace.refuse(line, &["`fc.gram`", "[2, 8]"]);
    workspace.edit("diagonal.safetensors", |weights| {
        weights.0.remove("fc.gram").unwrap();
    });
    workspace.refuse(line, &["`fc.gram`"]);
    let ids = line
        .replace("diagonal", "ids")
        .replace("--operator fc", "--operator input_ids");
    workspace.refuse(&ids, &["ids.safetensors", "input_ids.weight"]);
}
