//! `compare` agrees with the runs that it stands for, and allocations keep the budget.

use crate::command::Workspace;
use serde_json::Value;

const DATA: &str = "--calibration ids.safetensors";

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("{key} in {value}"))
}

/// Branches that share a pass over the model do not touch each other: every row is what `prune` and `eval` give alone.
#[test]
fn every_row_is_a_run_of_its_own() {
    let workspace = Workspace::with("llama3.1-style");
    let table = workspace.json(&format!(
        "compare --model model {DATA} --data ids.safetensors --sparsity 0.5,2:4 --max-rounds 2 \
         --methods wanda,paper@wanda/full,fast,fast/sequential,fast/refreshed,fast/none"
    ));
    let dense = workspace.json("eval --model model --data ids.safetensors");
    assert_eq!(number(&table, "dense_perplexity"), number(&dense, "perplexity"));
    let runs = [
        ("wanda", "--preset paper --method wanda"),
        (
            "paper@wanda/full",
            "--preset paper --warm-start wanda --max-rounds 2 --propagate full",
        ),
        ("fast", "--preset fast"),
        ("fast/sequential", "--preset fast --propagate sequential"),
        ("fast/refreshed", "--preset fast --propagate refreshed"),
        ("fast/none", "--preset fast --propagate none"),
    ];
    let rows = table["rows"].as_array().unwrap();
    for pattern in ["0.5", "2:4"] {
        for (name, arguments) in runs {
            let row = rows
                .iter()
                .find(|row| row["method"] == name && row["pattern"] == pattern)
                .unwrap();
            let report = workspace.json(&format!(
                "prune --model model --output out --overwrite {DATA} --sparsity {pattern} {arguments}"
            ));
            let operators = report["operators"].as_array().unwrap();
            let errors: Vec<f64> = operators.iter().map(|o| number(o, "relative_error")).collect();
            let mean = errors.iter().sum::<f64>() / errors.len() as f64;
            // The rounding of a mean depends on how it is summed.
            let deviation = number(row, "mean_error") / mean - 1.0;
            assert!(deviation.abs() < 1e-12, "{name} {pattern}: {deviation}");
            assert_eq!(
                number(row, "sparsity"),
                number(&report, "sparsity"),
                "{name} {pattern}"
            );
            let alone = workspace.json("eval --model out --data ids.safetensors");
            assert_eq!(
                number(row, "perplexity"),
                number(&alone, "perplexity"),
                "{name} {pattern}"
            );
        }
    }
}

#[test]
fn tables_for_people() {
    let workspace = Workspace::with("opt-125m-style");
    let line = format!("compare --model model {DATA} --sparsity 0.5 --methods magnitude,fast");
    let text = workspace.succeed(&line).stdout;
    assert!(
        text.starts_with("method ") && text.contains("magnitude") && text.contains("mean error"),
        "{text}"
    );
    let markdown = workspace.succeed(&format!("{line} --format markdown")).stdout;
    let rows: Vec<&str> = markdown
        .lines()
        .take_while(|line| line.starts_with('|'))
        .collect();
    assert_eq!(rows.len(), 4, "{markdown}");
    let cells = |row: &str| row.matches('|').count();
    assert!(rows.iter().all(|row| cells(row) == cells(rows[0])), "{markdown}");
    workspace.refuse(
        "inspect --model model --format markdown",
        &["--format", "compare"],
    );
    workspace.refuse(&format!("{line},obs"), &["--methods", "`obs`", "sparsegpt"]);
    workspace.refuse(&format!("{line},fast/up"), &["--methods", "`up`", "sequential"]);
}

/// Zeros of a run's operators, by name.
fn zeros(workspace: &Workspace, arguments: &str) -> Vec<(String, u64)> {
    let report = workspace.json(&format!(
        "prune --model model --output out --overwrite {DATA} --preset fast {arguments}"
    ));
    let operators = report["operators"].as_array().unwrap();
    operators
        .iter()
        .map(|o| {
            (
                o["name"].as_str().unwrap().to_owned(),
                o["zeros"].as_u64().unwrap(),
            )
        })
        .collect()
}

#[test]
fn allocations_keep_the_budget() {
    let workspace = Workspace::with("qwen3-style");
    let total = |zeros: &[(String, u64)]| zeros.iter().map(|(_, zeros)| zeros).sum::<u64>();
    let uniform = zeros(&workspace, "--sparsity 0.6");
    for rule in ["owl", "error", "kl"] {
        let moved = zeros(&workspace, &format!("--sparsity 0.6 --allocation {rule}"));
        assert_eq!(total(&moved), total(&uniform), "{rule}");
        assert!(moved != uniform, "{rule} moved nothing");
    }
    workspace.refuse(
        &format!("prune --model model --output no {DATA} --sparsity 2:4 --allocation owl"),
        &["--allocation", "2:4"],
    );
}

#[test]
fn a_table_names_rates_and_patterns() {
    let workspace = Workspace::with("smollm2-style");
    workspace.write(
        "table.json",
        br#"{".*mlp.*": "2:4", "model.layers.0.mlp.down_proj": 0, ".*self_attn.[qk]_proj": 0.25}"#,
    );
    let run = format!("prune --model model --output out --overwrite {DATA} --preset fast --allocation");
    let report = workspace.json(&format!("{run} table.json"));
    for operator in report["operators"].as_array().unwrap() {
        let name = operator["name"].as_str().unwrap();
        let expected = match name {
            "model.layers.0.mlp.down_proj" => "0",
            name if name.contains("mlp") => "2:4",
            name if name.ends_with("q_proj") || name.ends_with("k_proj") => "0.25",
            _ => "0.5",
        };
        assert_eq!(operator["pattern"], expected, "{name}");
    }
    for (table, words) in [
        ("{\"nothing\": 0.5}", &["`nothing`", "no operator"][..]),
        (
            "{\".*mlp.*\": 0.5, \".*up_proj\": 0.6}",
            &["up_proj", "matched by"][..],
        ),
        ("{\".*mlp.*\": 1.5}", &["1.5"][..]),
        ("{\".*mlp.*\": []}", &["neither a rate nor a pattern"][..]),
        ("[0.5]", &["JSON object"][..]),
    ] {
        workspace.write("bad.json", table.as_bytes());
        workspace.refuse(&format!("{} bad.json", run.replace(" out ", " no ")), words);
    }
    workspace.refuse(
        &format!("{} no.json", run.replace(" out ", " no ")),
        &["no.json", "uniform"],
    );
}
