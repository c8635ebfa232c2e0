//! `--progress`, `-v`, `-q` and `RUST_LOG`: what a run writes to stderr where that is no terminal.

use crate::command::Workspace;
use fista_pruner::report::Report;
use serde_json::Value;

const PRUNE: &str = "prune --model model --output out --overwrite --calibration ids.safetensors";

/// stderr as JSON lines, each with what all of them have.
fn events(stderr: &str) -> Vec<Value> {
    let mut last = 0.0;
    let parse = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        assert_eq!(event["version"], 1, "{line}");
        let time = event["time"].as_f64().unwrap();
        assert!(time >= last, "{line}: time runs backwards");
        last = time;
        event
    };
    stderr.lines().map(parse).collect()
}

fn of_kind<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["event"] == kind).collect()
}

#[test]
fn json_lines_tell_what_the_report_tells() {
    let workspace = Workspace::with("smollm2-style");
    let outcome = workspace.succeed(&format!("{PRUNE} --progress jsonl"));
    let events = events(&outcome.stderr);
    assert_eq!(events[0]["event"], "start");
    assert_eq!(events[0]["command"], "prune");
    let end = &events[events.len() - 1];
    assert_eq!((&end["event"], &end["exit_code"]), (&"end".into(), &0.into()));

    let report: Report = serde_json::from_slice(&workspace.read("out/pruning_report.json")).unwrap();
    let operators = of_kind(&events, "operator");
    assert_eq!(operators.len(), report.operators.len());
    assert_eq!(of_kind(&events, "solving").len(), operators.len());
    let mut sum = 0.0;
    for (k, (event, reported)) in operators.iter().zip(&report.operators).enumerate() {
        assert_eq!(event["operator"], reported.name.as_str());
        assert_eq!(event["layer"], reported.layer);
        assert_eq!(event["relative_error"], reported.relative_error);
        assert_eq!(event["sparsity"], reported.sparsity);
        assert!((event["seconds"].as_f64().unwrap() - reported.seconds).abs() <= 5.1e-4);
        assert!(event["eta_seconds"].as_f64().unwrap() >= 0.0);
        sum += reported.relative_error;
        let mean = event["mean_relative_error"].as_f64().unwrap();
        assert!((mean - sum / (k + 1) as f64).abs() < 1e-12);
        assert_eq!(event.get("branch"), None);
        if cfg!(target_os = "linux") {
            let [now, peak] = ["rss_bytes", "peak_rss_bytes"].map(|key| event[key].as_u64().unwrap());
            assert!(now > 1_000_000 && now <= peak);
            // The kernel counts in batches.
            assert!(peak as f64 <= 1.1 * report.peak_host_bytes.unwrap() as f64);
        }
    }
    let steps: Vec<_> = of_kind(&events, "step")
        .iter()
        .map(|e| e["step"].as_u64())
        .collect();
    assert_eq!(steps, [Some(1), Some(2), Some(3)]);
    let layers = of_kind(&events, "layer");
    assert_eq!(layers.len(), 3);
    assert!(
        layers
            .iter()
            .all(|event| event["layers"] == 3 && event["stage"] == "layers")
    );
}

#[test]
fn branches_have_names_and_stages_follow_each_other() {
    let workspace = Workspace::with("smollm2-style");
    let line = "compare --model model --calibration ids.safetensors --methods wanda,magnitude --sparsity 0.5,0.6 \
                --progress jsonl";
    let events = events(&workspace.succeed(line).stderr);
    let mut branches: Vec<_> = of_kind(&events, "operator")
        .iter()
        .map(|event| event["branch"].as_str().unwrap().to_owned())
        .collect();
    let count = branches.len();
    branches.sort();
    branches.dedup();
    assert_eq!(
        branches,
        ["magnitude 0.5", "magnitude 0.6", "wanda 0.5", "wanda 0.6"]
    );
    assert_eq!(count, 4 * 21);
    // A way's own error is what its row says.
    let table = workspace.json(line);
    for (row, pattern) in table["rows"]
        .as_array()
        .unwrap()
        .iter()
        .zip(["0.5", "0.5", "0.6", "0.6"])
    {
        let name = format!("{} {pattern}", row["method"].as_str().unwrap());
        let mut of_branch = of_kind(&events, "operator")
            .into_iter()
            .filter(|e| e["branch"] == name.as_str());
        let last = of_branch.next_back().unwrap()["mean_relative_error"]
            .as_f64()
            .unwrap();
        assert!(
            (last - row["mean_error"].as_f64().unwrap()).abs() < 1e-9,
            "{name}"
        );
    }

    let line = format!("{PRUNE} --progress jsonl --allocation owl");
    let found = self::events(&workspace.succeed(&line).stderr);
    let stages: Vec<_> = of_kind(&found, "stage")
        .iter()
        .map(|e| e["stage"].clone())
        .collect();
    assert_eq!(stages, ["survey of the dense layers", "layers"]);
    assert_eq!(of_kind(&found, "done").len(), 2);
}

#[test]
fn errors_and_logs_are_json_lines_too() {
    let workspace = Workspace::with("smollm2-style");
    let outcome = workspace.run("prune --model nowhere --output out --progress jsonl");
    let events = events(&outcome.stderr);
    assert_eq!(outcome.code, 1);
    let error = of_kind(&events, "error")[0];
    assert!(error["message"].as_str().unwrap().contains("nowhere"));
    assert!(events[events.len() - 1]["exit_code"] == 1);
    let outcome = workspace.succeed(&format!("{PRUNE} --progress jsonl -v"));
    let events = self::events(&outcome.stderr);
    let logs = of_kind(&events, "log");
    assert_eq!(logs.len(), 21);
    assert!(
        logs.iter()
            .all(|e| e["level"] == "INFO" && e["message"].as_str().unwrap().starts_with("model."))
    );
}

#[test]
fn a_line_a_step_for_logs() {
    let workspace = Workspace::with("smollm2-style");
    for flags in ["--progress plain", "--progress bar", "--progress plain --quiet"] {
        let stderr = workspace.succeed(&format!("{PRUNE} {flags}")).stderr;
        let lines: Vec<_> = stderr.lines().collect();
        assert_eq!(lines.len(), 3, "{flags}\n{stderr}");
        for (k, line) in lines.iter().enumerate() {
            assert!(line.starts_with(&format!("layers {}/3: ", k + 1)), "{line}");
            assert!(
                line.contains(", mean error 0.") && line.contains(" s elapsed, "),
                "{line}"
            );
        }
        assert!(lines[2].contains(", 0 s left"), "{stderr}");
    }
    let line =
        "compare --model model --calibration ids.safetensors --methods wanda,magnitude --progress plain";
    let stderr = workspace.succeed(line).stderr;
    assert!(
        stderr
            .lines()
            .all(|line| line.contains("wanda 0.5 0.") && line.contains("magnitude 0.5 0.")),
        "{stderr}"
    );
    let stderr = workspace
        .succeed("eval --model model --data ids.safetensors --progress plain")
        .stderr;
    assert_eq!(stderr.lines().count(), 4, "{stderr}");
}

#[test]
fn how_much_is_said() {
    let workspace = Workspace::with("smollm2-style");
    let said = |flags: &str, rust_log: Option<&str>| {
        let mut command = workspace.command(&format!("{PRUNE} {flags}"));
        command.envs(rust_log.map(|level| ("RUST_LOG", level)));
        let outcome = crate::command::Outcome::of(command).success(flags);
        assert!(
            outcome
                .stderr
                .lines()
                .all(|line| line.trim_start().starts_with("INFO")),
            "{}",
            outcome.stderr
        );
        outcome.stderr.lines().count()
    };
    assert_eq!(said("", None), 0);
    assert_eq!(said("-v", None), 21);
    assert_eq!(said("-vq", None), 0);
    assert_eq!(said("", Some("fista_pruner=info")), 21);
    assert_eq!(said("-v", Some("off")), 0);
    assert_eq!(said("-q", Some("fista_pruner=info")), 21);
}

/// The first line of a kind.
#[cfg(target_os = "linux")]
fn first(stderr: &str, kind: &str) -> String {
    let is_kind = |line: &&str| serde_json::from_str::<Value>(line).unwrap()["event"] == kind;
    let line = stderr.lines().find(is_kind);
    line.unwrap_or_else(|| panic!("no {kind} in {stderr}")).to_owned()
}

/// A line of every kind, from runs that bring it.
#[cfg(target_os = "linux")]
fn examples() -> Vec<String> {
    let workspace = Workspace::with("smollm2-style");
    let said = |line: &str| workspace.run(&format!("{line} --progress jsonl")).stderr;
    let pruned = said(&format!("{PRUNE} -v"));
    let compared = said("compare --model model --calibration ids.safetensors --methods wanda,best");
    let evaluated = said("eval --model model --data ids.safetensors");
    let failed = said("prune --model nowhere --output out");
    let line = "prune --output out --overwrite --progress jsonl";
    let begun = |event: &Value| event["event"] == "stage";
    let (_, interrupted) = crate::signals::interrupt(&workspace, line, rustix::process::Signal::INT, begun);
    let sources = [
        ("start", &pruned),
        ("stage", &pruned),
        ("layer", &pruned),
        ("solving", &pruned),
        ("operator", &pruned),
        ("operator", &compared),
        ("step", &pruned),
        ("working", &evaluated),
        ("done", &pruned),
        ("log", &pruned),
        ("error", &failed),
        ("interrupted", &interrupted),
        ("end", &pruned),
    ];
    for stderr in [&pruned, &compared, &evaluated, &failed, &interrupted] {
        for event in events(stderr) {
            let kind = event["event"].as_str().unwrap();
            assert!(
                sources.iter().any(|(known, _)| *known == kind),
                "{kind} is not documented"
            );
        }
    }
    sources.map(|(kind, stderr)| first(stderr, kind)).to_vec()
}

/// What of an event is the same on every machine: numbers are only numbers, in messages too.
#[cfg(target_os = "linux")]
fn lasting(event: &Value) -> Value {
    let Value::Object(fields) = event else {
        panic!("{event} is no object");
    };
    let digits = regex::Regex::new("[0-9][0-9.]*").unwrap();
    let kept = fields.iter().map(|(key, value)| {
        let value = match value {
            Value::Number(_) if !["version", "layer", "layers", "exit_code"].contains(&key.as_str()) => {
                "a number".into()
            }
            Value::String(text) if key == "message" => digits.replace_all(text, "#").into_owned().into(),
            other => other.clone(),
        };
        (key.clone(), value)
    });
    Value::Object(kept.collect())
}

/// To write new examples into the document: FISTA_PRUNER_UPDATE_DOCS=1 cargo test --release documented
#[test]
#[cfg(target_os = "linux")]
fn the_documented_events_are_those_written() {
    const FENCE: &str = "```jsonl\n";
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/progress.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (head, rest) = text.split_once(FENCE).unwrap();
    let (documented, tail) = rest.split_once("```").unwrap();
    let written = examples();
    if std::env::var_os("FISTA_PRUNER_UPDATE_DOCS").is_some() {
        let lines = written.join("\n");
        std::fs::write(&path, format!("{head}{FENCE}{lines}\n```{tail}")).unwrap();
        return;
    }
    assert_eq!(documented.lines().count(), written.len());
    for (documented, written) in documented.lines().zip(&written) {
        let [documented, written]: [Value; 2] =
            [documented, written].map(|line| serde_json::from_str(line).unwrap());
        assert_eq!(lasting(&documented), lasting(&written));
        for key in written.as_object().unwrap().keys() {
            assert!(
                head.contains(&format!("| `{key}` |")),
                "the table of fields has no `{key}`"
            );
        }
        let kind = written["event"].as_str().unwrap();
        assert!(
            head.contains(&format!("| `{kind}` |")),
            "the table of events has no `{kind}`"
        );
    }
}
