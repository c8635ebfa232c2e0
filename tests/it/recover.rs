//! `recover`: every method makes the loss smaller and leaves every zero, and an interrupted run goes on where it was.

use crate::command::{Workspace, same_trees, tree_of};
use crate::common::Device;
use fista_pruner::checkpoint::Model;
use fista_pruner::error::{Error, Result};
use fista_pruner::progress::Event;
use fista_pruner::prune::WeightSink;
use fista_pruner::recover::{
    BlockConfig, DistillConfig, MezoConfig, RecoverJob, Recovered, Recovery, SppConfig, SubzeroConfig,
    recover,
};
use fista_pruner::report::OperatorReport;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// A few steps of each method on a small model.
fn methods() -> [Recovery; 5] {
    let zeroth = MezoConfig {
        steps: 14,
        batch: 2,
        ..MezoConfig::default()
    };
    [
        Recovery::Block(BlockConfig {
            epochs: 2,
            batch: 2,
            ..BlockConfig::default()
        }),
        Recovery::Distill(DistillConfig {
            epochs: 7,
            batch: 2,
            ..DistillConfig::default()
        }),
        Recovery::Spp(SppConfig {
            epochs: 7,
            batch: 2,
            ..SppConfig::default()
        }),
        Recovery::Mezo(zeroth),
        Recovery::Subzero(SubzeroConfig {
            steps: zeroth,
            rank: 4,
            refresh: 5,
        }),
    ]
}

/// Weights by name.
#[derive(Default)]
struct Collect {
    weights: BTreeMap<String, Vec<u32>>,
    /// Refuses the layer of that number.
    fails_at: Option<usize>,
}

impl WeightSink for Collect {
    fn weight(&mut self, name: &str, values: &[f32], keep: &[bool]) -> Result<()> {
        let kept = values
            .iter()
            .zip(keep)
            .map(|(v, keep)| if *keep { v.to_bits() } else { 0 });
        assert!(
            self.weights.insert(name.to_owned(), kept.collect()).is_none(),
            "{name}"
        );
        Ok(())
    }

    fn layer_done(&mut self, layer: usize, _: &[OperatorReport]) -> Result<()> {
        match self.fails_at {
            Some(at) if at == layer => Err(Error::internal("a full disk")),
            _ => Ok(()),
        }
    }
}

/// A pruned small checkpoint in `out`, its dense one in `model`.
fn pruned(model: &str, arguments: &str) -> Workspace {
    let workspace = Workspace::with(model);
    workspace.succeed(&format!(
        "prune --model model --output out --calibration ids.safetensors --preset fast {arguments}"
    ));
    workspace
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// Runs a method; calls `at` with the number of each step that is over.
fn run(
    workspace: &Workspace,
    recovery: &Recovery,
    checkpoints: Option<&Path>,
    sink: &mut Collect,
    mut at: impl FnMut(usize),
) -> Result<Recovered> {
    let (sparse, dense) = (
        Model::open(&workspace.path("out")).unwrap(),
        Model::open(&workspace.path("model")).unwrap(),
    );
    let windows: Vec<Vec<u32>> = (0..4u32)
        .map(|w| (0..32).map(|t| (w * 89 + t * 37 + t * t * 5) % 320).collect())
        .collect();
    let job = RecoverJob {
        pruned: &sparse,
        dense: matches!(recovery, Recovery::Block(_) | Recovery::Distill(_)).then_some(&dense),
        kept_layers: None,
        windows: &windows,
        recovery,
        checkpoints,
    };
    let mut steps = 0;
    let mut observer = |event: Event<'_>| {
        if matches!(event, Event::Step) {
            steps += 1;
            at(steps);
        }
    };
    recover::<Device>(job, &Default::default(), sink, &mut observer)
}

/// The losses of a run, but not its seconds.
fn losses(recovered: &Recovered) -> Vec<(u64, Vec<u64>, u64)> {
    let curves = recovered.curves.iter();
    curves
        .map(|curve| {
            let steps = curve.steps.iter().map(|loss| loss.to_bits()).collect();
            (curve.before.to_bits(), steps, curve.after.to_bits())
        })
        .collect()
}

/// Interrupted at any of several places and run again: the same weights and losses, to the last bit.
#[test]
fn interrupted_runs_go_on_where_they_were() {
    let workspace = pruned("smollm2-style", "--sparsity 2:4");
    for recovery in methods() {
        let name = recovery.name();
        let whole = workspace.path(&format!("{name}-whole"));
        let mut expected = Collect::default();
        let mut copies = Vec::new();
        let result = run(&workspace, &recovery, Some(&whole), &mut expected, |step| {
            if [2, 10, 14].contains(&step) {
                let to = workspace.path(&format!("{name}-{step}"));
                copy(&whole, &to);
                copies.push(to);
            }
        })
        .unwrap();
        assert_eq!(result.resumed, 0, "{name}");
        assert!(!copies.is_empty(), "{name}");
        for folder in copies {
            let mut found = Collect::default();
            let again = run(&workspace, &recovery, Some(&folder), &mut found, |_| {}).unwrap();
            assert!(again.resumed > 0 || ["spp", "distill"].contains(&name), "{name}");
            assert_eq!(losses(&again), losses(&result), "{name}");
            assert!(found.weights == expected.weights, "{name}");
        }
        // Without checkpoints too.
        let mut found = Collect::default();
        let again = run(&workspace, &recovery, None, &mut found, |_| {}).unwrap();
        assert_eq!(losses(&again), losses(&result), "{name}");
        assert!(found.weights == expected.weights, "{name}");
    }
}

/// A run that fails at the very end leaves its checkpoints, and the next one only writes.
#[test]
fn a_failed_output_costs_no_work() {
    let workspace = pruned("smollm2-style", "--sparsity 0.5");
    for recovery in methods() {
        let name = recovery.name();
        let folder = workspace.path(&format!("{name}-failed"));
        let mut sink = Collect {
            fails_at: Some(2),
            ..Collect::default()
        };
        run(&workspace, &recovery, Some(&folder), &mut sink, |_| {}).unwrap_err();
        let mut sink = Collect::default();
        let again = run(&workspace, &recovery, Some(&folder), &mut sink, |_| {}).unwrap();
        let expected = if name == "block" { 2 } else { 14 };
        assert_eq!(again.resumed, expected, "{name}");
        assert_eq!(sink.weights.len(), 21);
    }
}

/// Another text, other settings, another model: not the same run.
#[test]
fn checkpoints_belong_to_one_run() {
    let workspace = pruned("smollm2-style", "--sparsity 2:4");
    let recover = |arguments: &str| {
        format!(
            "recover --model out --output back --calibration ids.safetensors --checkpoints steps --overwrite {arguments}"
        )
    };
    // The folder of an interrupted run.
    let (whole, at) = (workspace.path("all"), workspace.path("steps"));
    let mezo = Recovery::Mezo(MezoConfig {
        steps: 4,
        ..MezoConfig::default()
    });
    run(&workspace, &mezo, Some(&whole), &mut Collect::default(), |step| {
        if step == 3 {
            copy(&whole, &at);
        }
    })
    .unwrap();
    workspace.refuse(
        &recover("--method mezo --steps 4"),
        &["steps", "other models, text or settings"],
    );
    assert!(!workspace.path("back").exists());
    std::fs::write(at.join("recovery_state.json"), "{").unwrap();
    workspace.refuse(&recover("--method mezo --steps 4"), &["cannot be parsed"]);
    std::fs::remove_dir_all(&at).unwrap();
    workspace.succeed(&recover("--method mezo --steps 4"));
    assert!(!at.exists(), "a finished run takes its checkpoints away");
}

/// A dense model with the same shapes and other numbers is another model.
#[test]
fn checkpoints_belong_to_one_dense_model() {
    let workspace = pruned("smollm2-style", "--sparsity 2:4");
    let block = methods()
        .into_iter()
        .find(|recovery| recovery.name() == "block")
        .unwrap();
    let folder = workspace.path("steps");
    let mut sink = Collect {
        fails_at: Some(2),
        ..Collect::default()
    };
    run(&workspace, &block, Some(&folder), &mut sink, |_| {}).unwrap_err();
    workspace.edit("model/model.safetensors", |weights| {
        weights.set("model.layers.1.mlp.up_proj.weight", 0..512, 0.5);
    });
    let mut sink = Collect::default();
    let error = run(&workspace, &block, Some(&folder), &mut sink, |_| {}).unwrap_err();
    assert!(error.to_string().contains("other models"), "{error}");
}

fn curves(report: &Value) -> Vec<(f64, f64)> {
    let curves = report["curves"].as_array().unwrap().iter();
    curves
        .map(|curve| {
            (
                curve["before"].as_f64().unwrap(),
                curve["after"].as_f64().unwrap(),
            )
        })
        .collect()
}

/// The program on every kind of small model: the loss falls, zeros and everything that is no operator stay, the same run
/// gives the same bytes.
#[test]
fn every_method_keeps_what_it_must_keep() {
    for (model, sparsity) in [
        ("smollm2-style", "2:4"),
        ("opt-350m-style", "0.5"),
        ("qwen3-style", "4:8"),
    ] {
        let workspace = pruned(model, &format!("--sparsity {sparsity} --ignore k_proj"));
        let before = workspace.weights("out");
        for (method, settings, sure) in [
            ("block", "--dense model --epochs 2 --batch 2", true),
            ("distill", "--dense model --epochs 6 --batch 2", true),
            ("spp", "--epochs 6 --batch 2", true),
            ("mezo", "--steps 12 --batch 4", false),
            ("subzero", "--steps 12 --batch 4 --rank 4", false),
        ] {
            let line = format!(
                "recover --model out --output {method} --method {method} --calibration ids.safetensors {settings}"
            );
            let report = workspace.json(&line);
            assert_eq!(report["settings"]["method"], method);
            assert_eq!(
                report,
                workspace.read_json(&format!("{method}/recovery_report.json"))
            );
            let falls = curves(&report)
                .iter()
                .filter(|(before, after)| after < before)
                .count();
            // Random weights and text: a dozen random directions may all lead nowhere. The built-in model has slopes.
            let kept_old = !sure && report["curves"][0]["kept_old"] == true;
            assert!(falls > 0 || kept_old, "{model} {method}: {report}");
            let after = workspace.weights(method);
            let operators = before.operators();
            let mut changed = 0;
            for (name, (_, _, bytes)) in &before.0 {
                if name
                    .strip_suffix(".weight")
                    .is_some_and(|n| operators.contains(n))
                {
                    assert_eq!(before.zeros(name), after.zeros(name), "{model} {method} {name}");
                    changed += usize::from(*bytes != after.0[name].2);
                } else {
                    assert!(*bytes == after.0[name].2, "{model} {method} {name}");
                }
            }
            let least = if kept_old { 0 } else { operators.len() / 3 };
            assert!(changed >= least, "{model} {method}: {changed}");
            assert!(!workspace.path(&format!("{method}/report.html")).exists());
            workspace.succeed(&format!("verify --model {method} --source model"));
            workspace.succeed(&line.replace("--output ", "--output again-"));
            let mut trees = [
                tree_of(&workspace.path(method)),
                tree_of(&workspace.path(&format!("again-{method}"))),
            ];
            for tree in &mut trees {
                tree.remove(Path::new("recovery_report.json"));
            }
            let [first, second] = trees;
            same_trees(&first, &second, method);
        }
    }
}

/// The built-in model and text: every method lowers the loss that it is made for, those with gradients the perplexity on other
/// text too.
#[test]
fn the_demo_gets_better() {
    let workspace = Workspace::new();
    workspace
        .succeed("prune --output out --samples 8 --seq-len 128 --preset fast --sparsity 2:4 --max-windows 1");
    let recover = |method: &str, settings: &str| {
        workspace.json(&format!(
            "recover --model out --output {method} --method {method} --calibration demo --samples 8 --seq-len 128 \
             --data demo --eval-seq-len 128 --max-windows 8 {settings}"
        ))
    };
    let perplexity = |report: &Value| {
        let of = |which: &str| report["evaluation"][which]["perplexity"].as_f64().unwrap();
        (of("pruned"), of("recovered"))
    };
    // The built-in model itself, which has no name.
    workspace.succeed("prune --output dense --samples 2 --seq-len 64 --method magnitude --polish 0 --sparsity 0 --max-windows 1");
    for (method, settings) in [
        ("block", "--dense dense --epochs 4 --batch 2"),
        ("distill", "--dense dense --epochs 6 --batch 2"),
        ("spp", "--epochs 6 --batch 2"),
    ] {
        let report = recover(method, settings);
        let (before, after) = perplexity(&report);
        assert!(after < before, "{method}: {before} {after}");
        workspace.succeed(&format!("verify --model {method} --sparsity 2:4"));
    }
    for method in ["mezo", "subzero"] {
        let report = recover(method, "--steps 40 --batch 2");
        let (before, after) = curves(&report)[0];
        assert!(after < before, "{method}: {before} {after}");
        assert_eq!(report["curves"][0]["kept_old"], false, "{method}");
    }
}

#[test]
fn what_cannot_be_recovered() {
    let workspace = pruned("smollm2-style", "--sparsity 0.5");
    workspace.copy_model("opt-350m-style", "other");
    let refuse = |arguments: &str, words: &[&str]| {
        let line = format!("recover --model out --output back --calibration ids.safetensors {arguments}");
        workspace.refuse(&line, words);
        assert!(!workspace.path("back").exists(), "{arguments}");
    };
    refuse("--method block", &["--dense", "dense model"]);
    refuse(
        "--method block --dense other",
        &["--dense", "`other`", "`out`", "family `opt`"],
    );
    workspace.refuse(
        "recover --model model --output back --calibration ids.safetensors --method mezo",
        &["--model", "no operator", "zero"],
    );
    refuse("--method mezo --dense model", &["--dense", "mezo"]);
    refuse("--method mezo --epochs 3", &["--epochs", "mezo"]);
    refuse("--method distill", &["--dense", "dense model"]);
    refuse("--method distill --dense model --rank 3", &["--rank", "distill"]);
    refuse("--method spp --steps 3", &["--steps", "spp"]);
    refuse("--method block --dense model --rank 3", &["--rank", "block"]);
    refuse("--method subzero --rank 0", &["--rank", "at least 1"]);
    refuse("--method mezo --epsilon 0", &["--perturbation", "positive"]);
    refuse(
        "--method spp --learning-rate=-1",
        &["--learning-rate", "positive"],
    );
    refuse("--method spp --learning-rate 1e30", &["not finite"]);
}
