//! The report for programs and for people: against the schema, and the page against the report.

use crate::command::Workspace;
use fista_pruner::report::Report;
use serde_json::Value;
use std::path::Path;

const PRUNE: &str = "prune --model model --output out --calibration ids.safetensors --overwrite";

/// Validates against `docs/report.schema.json`.
fn validate(report: &Value) -> Result<(), String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/report.schema.json");
    let schema: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut compiler = boon::Compiler::new();
    compiler.set_default_draft(boon::Draft::V2020_12);
    compiler.add_resource("report.schema.json", schema).unwrap();
    let mut schemas = boon::Schemas::new();
    let index = compiler.compile("report.schema.json", &mut schemas).unwrap();
    schemas.validate(report, index).map_err(|e| format!("{e:#}"))
}

#[test]
fn real_reports_follow_the_schema() {
    let workspace = Workspace::with("smollm2-style");
    workspace.write("rates.json", br#"{".*q_proj": 0.7, ".*k_proj": "2:4"}"#);
    for arguments in [
        "--method fista --max-rounds 3 --data ids.safetensors",
        "--preset fast --sparsity 2:4",
        "--method wanda --sparsity 0.7 --allocation error --targets mlp",
        "--method magnitude --propagate input=pruned,within=corrected,target=dense",
        "--method fista --preset paper --max-rounds 2 --propagate refreshed --ridge 0.02",
        "--method wanda --polish 0 --threshold matrix --propagate sequential --allocation owl",
        "--method sparsegpt --allocation rates.json --seed 3",
    ] {
        let report = workspace.json(&format!("{PRUNE} {arguments}"));
        validate(&report).unwrap_or_else(|e| panic!("{arguments}: {e}"));
    }
}

/// A schema that takes everything would say nothing.
#[test]
fn the_schema_refuses_what_is_no_report() {
    let workspace = Workspace::with("opt-125m-style");
    let report = workspace.json(&format!("{PRUNE} --method magnitude"));
    validate(&report).unwrap();
    let changes: [(&str, Value); 8] = [
        ("/report_version", 1.into()),
        ("/sparsity", 1.5.into()),
        ("/seconds", "long".into()),
        ("/operators/0/shape", serde_json::json!([1, 2, 3])),
        ("/operators/0/solver/stop_reason", "bored".into()),
        ("/calibration/sha256", "abc".into()),
        ("/settings/solver/method", "guess".into()),
        ("/stage_seconds/solver", Value::Null),
    ];
    for (place, value) in changes {
        let mut changed = report.clone();
        *changed.pointer_mut(place).unwrap() = value;
        assert!(validate(&changed).is_err(), "{place}");
    }
    for field in report.as_object().unwrap().keys() {
        let mut changed = report.clone();
        changed.as_object_mut().unwrap().remove(field);
        assert!(validate(&changed).is_err(), "without {field}");
    }
    let mut more = report.clone();
    more["more"] = Value::Null;
    assert!(validate(&more).is_err());
}

/// What is measured on the way is what `eval` measures alone, and costs nobody a weight.
#[test]
fn perplexity_before_and_after_is_that_of_eval() {
    for (model, propagate) in [
        ("opt-125m-style", "intra"),
        ("qwen3-style", "sequential"),
        ("llama1-style", "none"),
    ] {
        let workspace = Workspace::with(model);
        workspace.ids("text.safetensors", 5, 24);
        let line = format!("{PRUNE} --preset fast --propagate {propagate}");
        let without = workspace.json(&line);
        assert_eq!(without["evaluation"], Value::Null);
        let weights = workspace.weights("out").0;
        let report = workspace.json(&format!("{line} --data text.safetensors --max-windows 3"));
        assert!(workspace.weights("out").0 == weights, "{model}");
        for (path, score) in [("model", "dense"), ("out", "pruned")] {
            let alone = workspace.json(&format!(
                "eval --model {path} --data text.safetensors --max-windows 3"
            ));
            let score = &report["evaluation"][score];
            for field in ["perplexity", "mean_nll", "window_nll"] {
                assert_eq!(score[field], alone[field], "{model} {path} {field}");
            }
            assert_eq!(report["evaluation"]["data"]["sha256"], alone["data_sha256"]);
            assert_eq!(report["evaluation"]["data"]["protocol"], alone["protocol"]);
        }
    }
}

/// The plan has what the evaluation holds in memory.
#[test]
fn a_dry_run_counts_the_evaluation() {
    let workspace = Workspace::with("opt-125m-style");
    let without = workspace.json(&format!("{PRUNE} --dry-run"));
    let line = format!("{PRUNE} --dry-run --data ids.safetensors --max-windows 2");
    let with = workspace.json(&line);
    assert_eq!(without["evaluation_tokens"], 0);
    let tokens = with["evaluation_tokens"].as_u64().unwrap();
    let hidden = workspace.read_json("model/config.json")["hidden_size"]
        .as_u64()
        .unwrap();
    let bytes = |plan: &Value| plan["device_bytes"].as_u64().unwrap();
    // Dense and pruned, in f32, and what the allocator may hold besides.
    let states = 2 * 4 * tokens * hidden;
    let more = bytes(&with) - bytes(&without);
    assert!((states..=states + states / 3).contains(&more), "{more} {states}");
    let text = workspace.succeed(&line).stdout;
    assert!(
        text.contains(&format!("{tokens} to measure perplexity on")),
        "{text}"
    );
}

#[test]
fn evaluation_that_cannot_be_is_refused_before_any_work() {
    let workspace = Workspace::with("opt-125m-style");
    workspace.ids("one.safetensors", 3, 1);
    let prune = "prune --model model --output out --calibration ids.safetensors";
    workspace.refuse(&format!("{prune} --data none.safetensors"), &["none.safetensors"]);
    workspace.refuse(
        &format!("{prune} --data one.safetensors"),
        &["1 is not between 2 and"],
    );
    workspace.refuse(&format!("{prune} --max-windows 3"), &["--eval-data"]);
}

/// Every stage is there, no second is counted twice, and layers add up to their stages.
#[test]
fn seconds_by_stage_add_up() {
    let workspace = Workspace::with("smollm2-style");
    let json = workspace.json(&format!(
        "{PRUNE} --preset fast --allocation error --data ids.safetensors --save-statistics statistics"
    ));
    let report: Report = serde_json::from_value(json).unwrap();
    let stages = report.stage_seconds.named();
    for (name, seconds) in stages {
        assert!(seconds > 0.0, "{name}");
    }
    let sum: f64 = stages.iter().map(|(_, seconds)| seconds).sum();
    assert!(sum <= report.seconds, "{sum} of {}", report.seconds);
    assert!(sum > 0.5 * report.seconds, "{sum} of {}", report.seconds);
    let numbers: Vec<usize> = report.layer_seconds.iter().map(|layer| layer.layer).collect();
    assert_eq!(numbers, [0, 1, 2]);
    let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
    let layers = &report.layer_seconds;
    let solver: f64 = layers.iter().map(|layer| layer.solver).sum();
    let statistics: f64 = layers.iter().map(|layer| layer.statistics).sum();
    assert!(close(solver, report.stage_seconds.solver));
    assert!(close(statistics, report.stage_seconds.statistics));
    // An operator's own seconds include the writing of its weight and statistics.
    let operators: f64 = report.operators.iter().map(|operator| operator.seconds).sum();
    let writing: f64 = layers.iter().map(|layer| layer.writing).sum();
    assert!(solver <= operators && operators <= solver + writing + 1e-9);
}

/// The page of a run: whole, with everything in it, and nothing from anywhere else.
#[test]
fn the_page_has_every_operator_and_fetches_nothing() {
    let workspace = Workspace::with("llama3.1-style");
    for arguments in [
        "--method fista --max-rounds 4 --data ids.safetensors",
        "--preset fast",
        "--method wanda --sparsity 2:4",
    ] {
        let report = workspace.json(&format!("{PRUNE} {arguments}"));
        let page = String::from_utf8(workspace.read("out/report.html")).unwrap();
        assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>"));
        for operator in report["operators"].as_array().unwrap() {
            let name = format!("title=\"{}\"><code>", operator["name"].as_str().unwrap());
            assert!(page.contains(&name), "{name}");
            let exact = format!("{} %", operator["relative_error"].as_f64().unwrap() * 100.0);
            assert!(page.contains(&exact), "{exact}");
        }
        for hash in [&report["calibration"]["sha256"], &report["model"]["fingerprint"]] {
            assert!(page.contains(hash.as_str().unwrap()));
        }
        for outside in [
            "http:", "https:", "src=", "href=", "url(", "@import", "<link", "<iframe", "<img", "fetch(", "//",
        ] {
            // The script's own comments begin with two slashes.
            let found = page
                .lines()
                .filter(|line| line.contains(outside) && !line.trim_start().starts_with("//"))
                .count();
            assert_eq!(found, 0, "{outside} with {arguments}");
        }
        assert!(page.contains("default-src 'none'"));
        assert_eq!(
            page.contains("Error against iterations"),
            arguments.contains("fista")
        );
        assert_eq!(
            page.contains("Perplexity before and after"),
            arguments.contains("--data")
        );
    }
}

#[test]
fn a_hostile_folder_is_shown_as_text() {
    let workspace = Workspace::new();
    let hostile = "<script>alert(1)<\"img\"onerror='x'>&";
    workspace.copy_model("opt-125m-style", hostile);
    let line =
        format!("prune --model {hostile} --output out<b> --calibration ids.safetensors --method magnitude");
    workspace.succeed(&line);
    let page = String::from_utf8(workspace.read("out<b>/report.html")).unwrap();
    assert!(page.contains("&lt;script&gt;alert(1)&lt;&quot;img&quot;onerror='x'&gt;&amp;"));
    assert_eq!(page.matches("<script").count(), 1);
    assert!(!page.contains("alert(1)<") && !page.contains("out<b>"));
}

/// `report` gives the same page again, and refuses what is no report.
#[test]
fn the_page_is_made_again_from_the_json() {
    let workspace = Workspace::with("opt-125m-style");
    workspace.succeed(&format!(
        "{PRUNE} --method fista --max-rounds 2 --data ids.safetensors"
    ));
    let page = workspace.read("out/report.html");
    std::fs::remove_file(workspace.path("out/report.html")).unwrap();
    let outcome = workspace.json("report --input out");
    assert_eq!(outcome["output"], "out/report.html");
    assert!(workspace.read("out/report.html") == page);
    workspace.succeed("report --input out/pruning_report.json --output other.html");
    workspace.refuse(
        "report --input out --output other.html",
        &["exists already", "--overwrite"],
    );
    workspace.succeed("report --input out --output other.html --overwrite");
    assert!(workspace.read("other.html") == page);

    workspace.refuse("report --input model", &["pruning_report.json", "cannot read"]);
    workspace.refuse("report --input model/config.json", &["report_version", "hint:"]);
    workspace.refuse("report --input ids.safetensors", &["no JSON"]);
    workspace.refuse(
        "report --input out --output out/model.safetensors --overwrite",
        &["which this command reads"],
    );
    workspace.refuse(
        "report --input out --output ids.safetensors --overwrite",
        &["no HTML page"],
    );
    workspace.refuse("report --input out --output nowhere/page.html", &["nowhere"]);
    workspace.set_json("out/pruning_report.json", "report_version", 1.into());
    workspace.refuse("report --input out", &["version 1", "version 2"]);
    workspace.set_json("out/pruning_report.json", "report_version", 2.into());
    workspace.set_json("out/pruning_report.json", "operators", "none".into());
    workspace.refuse("report --input out", &["cannot be used as a report"]);
}
