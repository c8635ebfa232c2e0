//! The whole program on the devices that `FISTA_PRUNER_DEVICES` names (`wgpu,cuda:1`, …), beside Flex.

use crate::command::Workspace;
use crate::common::values;
use safetensors::SafeTensors;
use serde_json::Value;

/// The devices to test; a run without any says so.
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
fn devices() -> Vec<String> {
    let names = std::env::var("FISTA_PRUNER_DEVICES").unwrap_or_default();
    let names: Vec<String> = names
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect();
    if names.is_empty() {
        eprintln!("skipped: FISTA_PRUNER_DEVICES names no device");
    }
    names
}

/// Prunes the built-in demo on a device into a folder of that name and gives the summary.
fn prune(workspace: &Workspace, device: &str, arguments: &str) -> Value {
    workspace.json(&format!(
        "prune --device {device} --output {device} --overwrite --samples 8 --seq-len 128 {arguments}"
    ))
}

/// The share of the pruned weights that are zero in both outputs or in neither.
fn alike(workspace: &Workspace, summary: &Value, folders: [&str; 2]) -> f64 {
    let files = folders.map(|folder| workspace.read(&format!("{folder}/model.safetensors")));
    let [a, b] = [0, 1].map(|i| SafeTensors::deserialize(&files[i]).unwrap());
    let (mut same, mut all) = (0, 0);
    for operator in summary["operators"].as_array().unwrap() {
        let name = format!("{}.weight", operator["name"].as_str().unwrap());
        let ((_, a), (_, b)) = (values(&a, &name), values(&b, &name));
        same += a
            .iter()
            .zip(&b)
            .filter(|(a, b)| (**a == 0.0) == (**b == 0.0))
            .count();
        all += a.len();
    }
    same as f64 / all as f64
}

/// Devices differ in the last digits only, so that near ties are all that can fall otherwise: 98 of 100 entries have one fate,
/// an operator's error is the same to 2 %, and the perplexity to 1 %.
#[test]
fn a_pruned_demo_is_that_of_flex() {
    for device in devices() {
        for arguments in [
            "--preset fast --sparsity 0.5",
            "--preset fast --sparsity 2:4",
            "--method fista --sparsity 0.5 --targets layers.0",
        ] {
            let workspace = Workspace::new();
            let [expected, found] = ["flex", &device].map(|device| prune(&workspace, device, arguments));
            assert_eq!(found["sparsity"], expected["sparsity"], "{arguments}");
            let [expected_operators, operators] =
                [&expected, &found].map(|summary| summary["operators"].as_array().unwrap());
            assert_eq!(operators.len(), expected_operators.len());
            for (found, expected) in operators.iter().zip(expected_operators) {
                assert_eq!(found["name"], expected["name"]);
                assert_eq!(found["sparsity"], expected["sparsity"]);
                let [found, expected] = [found, expected].map(|o| o["relative_error"].as_f64().unwrap());
                assert!(
                    (found - expected).abs() <= 0.02 * expected,
                    "{arguments} on {device}: an error of {found}, on flex {expected}"
                );
            }
            let alike = alike(&workspace, &found, ["flex", &device]);
            assert!(
                alike >= 0.98,
                "{arguments} on {device}: {alike} of the mask is that of flex"
            );
            if arguments.contains("0.5") {
                continue;
            }
            // The sparse model has the same perplexity wherever it is evaluated and wherever it was pruned.
            let perplexity = |model: &str, device: &str| {
                let line = format!("eval --model {model} --device {device} --max-windows 2");
                workspace.json(&line)["perplexity"].as_f64().unwrap()
            };
            let expected = perplexity("flex", "flex");
            let evaluated = perplexity("flex", &device);
            assert!(
                (evaluated - expected).abs() <= 1e-4 * expected,
                "{evaluated} {expected}"
            );
            let pruned = perplexity(&device, &device);
            assert!(
                (pruned - expected).abs() <= 0.01 * expected,
                "{pruned} {expected}"
            );
        }
    }
}
