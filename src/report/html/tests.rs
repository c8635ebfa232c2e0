//! The page of reports made by hand; `tests/it/report.rs` has those of real runs.

use super::*;
use crate::config::{ComparisonGroup, Method, Pattern, SolverConfig, WarmStart};
use crate::report::{LayerSeconds, ModelReport, OperatorReport, StageSeconds, VERSION};
use crate::solver::{Round, SolveInfo, StopReason};

const HOSTILE: &str = "<script>alert('x')</script>\"onload=\"&amp;";

fn operator(layer: usize, kind: &str, error: f64) -> OperatorReport {
    OperatorReport {
        name: format!("model.layers.{layer}.mlp.{kind}"),
        layer,
        shape: [4, 8],
        dtype: "F32".into(),
        pattern: Pattern::Unstructured(0.5),
        tokens: 64,
        relative_error: error,
        zeros: 16,
        sparsity: 0.5,
        solver: SolveInfo {
            iterations: 3,
            stop_reason: StopReason::Direct,
            warm_start_error: None,
            rounds: Vec::new(),
            damping: Some(0.01),
            damping_raised: false,
            polish_iterations: 2,
        },
        seconds: 0.25,
    }
}

fn round(iterations: usize, rounded_error: f64) -> Round {
    Round {
        lambda: 1.0,
        iterations,
        continuous_error: 0.0,
        rounded_error,
        accepted: true,
    }
}

fn windows() -> WindowsSummary {
    WindowsSummary {
        windows: 2,
        seq_len: 32,
        tokens: 64,
        total_tokens: 64,
        sources: vec![HOSTILE.into()],
        sha256: "ab".repeat(32),
        protocol: HOSTILE.into(),
    }
}

fn report(operators: Vec<OperatorReport>) -> Report {
    Report {
        report_version: VERSION,
        program: "fista-pruner 0".into(),
        model: ModelReport {
            path: format!("/models/{HOSTILE}"),
            family: HOSTILE.into(),
            fingerprint: HOSTILE.into(),
        },
        output: HOSTILE.into(),
        device: HOSTILE.into(),
        settings: serde_json::json!({ "targets": HOSTILE, HOSTILE: { HOSTILE: [HOSTILE] } }),
        calibration: windows(),
        evaluation: Some(EvaluationReport {
            data: windows(),
            dense: Score::of(&[2.0]),
            pruned: Score::of(&[f64::NAN]),
        }),
        sparsity: 0.5,
        seconds: 2.0,
        resumed_layers: 0,
        stage_seconds: StageSeconds::default(),
        layer_seconds: vec![LayerSeconds::default()],
        peak_host_bytes: None,
        left_out: vec![HOSTILE.into()],
        structure: None,
        uncut: None,
        tried_allocations: Vec::new(),
        operators,
    }
}

/// Text from outside stays text, wherever it is shown.
#[test]
fn hostile_names_are_escaped() {
    let mut report = report(vec![operator(0, "up_proj", 0.1)]);
    report.operators[0].name = format!("layer.{HOSTILE}");
    report.operators[0].dtype = HOSTILE.into();
    let page = page(&report);
    assert_eq!(page.matches("<script>").count(), 1);
    assert_eq!(page.matches("</script>").count(), 1);
    assert!(!page.contains("\"onload"), "an attribute was closed");
    let escaped = page.matches("&lt;script&gt;alert('x')&lt;/script&gt;&quot;onload=&quot;&amp;amp;");
    // Title, heading, paths, family, fingerprint, device, settings, data, files left out, the operator in its tables.
    assert!(escaped.count() > 20);
}

/// Reports that no one meets every day still give a page without an empty chart or a number that is none.
#[test]
fn odd_reports_have_a_page() {
    let round = |rounded_error, accepted| Round {
        accepted,
        ..round(5, rounded_error)
    };
    let mut all_zero = operator(0, "fc1", 0.0);
    all_zero.seconds = 0.0;
    let mut dense_start = operator(0, "fc1", 0.1);
    dense_start.solver.rounds = vec![round(0.2, true), round(0.3, false), round(0.1, true)];
    let mut exact = operator(1, "fc1", 0.0);
    exact.solver.warm_start_error = Some(0.0);
    exact.solver.rounds = vec![round(0.0, false)];
    for operators in [
        vec![],
        vec![all_zero],
        vec![operator(0, "fc1", 1e-30), operator(7, "fc2", 3.0)],
        vec![dense_start.clone()],
        vec![dense_start, exact.clone()],
        vec![exact],
        vec![operator(0, "expert", 0.1), operator(0, "expert", 0.3)],
    ] {
        let page = page(&report(operators.clone()));
        for word in [">NaN", "NaN ", "NaN%", "inf%", "inf ", ">inf", "\"inf"] {
            assert!(!page.contains(word), "{word} in the page of {operators:#?}");
        }
        assert!(operators.iter().all(|o| page.contains(&o.name)));
    }
}

#[test]
fn the_best_round_so_far_is_kept() {
    let mut operator = operator(0, "fc1", 0.1);
    let errors = [0.5, 0.2, 0.3];
    operator.solver.rounds = errors.iter().map(|error| round(1, *error)).collect();
    assert_eq!(charts::best_so_far(&operator), [1.0, 0.4, 0.4]);
    operator.solver.warm_start_error = Some(0.4);
    assert_eq!(charts::best_so_far(&operator), [1.0, 1.0, 0.5, 0.5]);
}

/// Operators that stop after different numbers of iterations keep their best until the last one has stopped.
#[test]
fn a_curve_is_the_mean_over_a_kinds_operators() {
    let solved = |layer, rounds: &[(usize, f64)]| {
        let mut operator = operator(layer, "fc1", 0.1);
        operator.solver.warm_start_error = Some(1.0);
        operator.solver.rounds = rounds
            .iter()
            .map(|(iterations, error)| round(*iterations, *error))
            .collect();
        operator
    };
    let operators = [solved(0, &[(20, 0.5), (10, 0.25)]), solved(1, &[(20, 0.75)])];
    let curve = vec![(0, 1.0), (20, 0.625), (30, 0.5)];
    assert_eq!(charts::curves(&operators), [("fc1", curve)]);
    let many: Vec<(usize, f64)> = (0..1000).map(|n| (7, 1.0 / f64::from(n + 2))).collect();
    let operators = [solved(0, &many)];
    let curve = &charts::curves(&operators)[0].1;
    assert!(curve.len() <= 66, "{}", curve.len());
    assert_eq!(
        (curve[0], curve[curve.len() - 1]),
        ((0, 1.0), (7000, 1.0 / 1001.0))
    );
}

#[test]
fn axes_have_round_numbers_within() {
    use charts::{Axis, Scale};
    let ticks = |low, high, scale| Axis::new(low, high, scale).ticks();
    assert_eq!(ticks(0.0, 10.0, Scale::Linear), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
    assert_eq!(ticks(0.0, 2.0, Scale::Whole), [0.0, 1.0, 2.0]);
    assert_eq!(ticks(1.0, 1000.0, Scale::Logarithmic), [1.0, 10.0, 100.0, 1000.0]);
    for (low, high) in [(1e-9, 1e9), (0.03, 0.031), (2.0, 2.0), (0.5, 7.0), (1e-30, 1e-29)] {
        for scale in [Scale::Linear, Scale::Logarithmic] {
            let ticks = ticks(low, high, scale);
            assert!(
                (1..=20).contains(&ticks.len()),
                "{low} {high} {scale:?}: {ticks:?}"
            );
            assert!(ticks.iter().all(|tick| tick.is_finite()));
        }
    }
}

#[test]
fn a_model_is_called_by_its_last_part() {
    let shown = ["/a/b/", "b", "the demo (opt)", "..", "/", r"c:\d\e"].map(model_name);
    assert_eq!(shown, ["b", "b", "the demo (opt)", "..", "/", "e"]);
    let commit = "27dcfa74d334bc871f3234de431e71c6eeba5dd6";
    assert_eq!(model_name(&format!("facebook/opt-125m@{commit}")), "opt-125m");
    assert_eq!(model_name("runs/a@b"), "a@b");
}

fn with_solver(config: &SolverConfig) -> Report {
    let mut report = report(vec![operator(0, "up_proj", 0.1)]);
    report.settings = serde_json::json!({ "sparsity": "0.5", "solver": config, "statistics": "per token" });
    report
}

/// The page shows what shaped the result, and nothing of the other methods. The report itself stays whole.
#[test]
fn settings_of_unused_methods_are_hidden() {
    let names = [
        "rho",
        "lambda-max",
        "warm-start",
        "block-size",
        "ridge",
        "comparison-group",
    ];
    let shown = |config: SolverConfig| {
        let report = with_solver(&config);
        assert!(report.settings["solver"]["fista"]["lambda_max"].is_number());
        let page = page(&report);
        assert!(!page.contains("per token"));
        names.map(|name| page.contains(&format!("<dt>{name}</dt>")))
    };
    let [no, yes] = [false, true];
    let best = SolverConfig::best(None);
    assert_eq!(shown(best.clone()), [yes, no, no, no, yes, yes]);
    let paper = SolverConfig::paper(None);
    assert_eq!(shown(paper.clone()), [no, yes, yes, yes, no, yes]);
    let from_wanda = SolverConfig {
        warm_start: WarmStart::Wanda,
        polish: 3,
        ..paper.clone()
    };
    assert_eq!(shown(from_wanda), [no, yes, yes, no, yes, yes]);
    let from_admm = SolverConfig {
        warm_start: WarmStart::Admm,
        ..paper
    };
    assert_eq!(shown(from_admm), [yes, yes, yes, no, yes, yes]);
    let with = |method, polish| SolverConfig {
        method,
        polish,
        ..best.clone()
    };
    assert_eq!(shown(with(Method::SparseGpt, 12)), [no, no, no, yes, yes, no]);
    assert_eq!(shown(with(Method::SparseGpt, 0)), [no, no, no, yes, no, no]);
    assert_eq!(shown(with(Method::Wanda, 0)), [no, no, no, no, no, yes]);
}

#[test]
fn settings_have_the_names_of_the_command_line() {
    let mut config = SolverConfig::best(None);
    config.threshold = Some(ComparisonGroup::Row);
    let mut report = with_solver(&config);
    report.settings["propagate"] = "refreshed".into();
    report.settings["targets"] = "row".into();
    report.device = "flex,flex".into();
    let page = page(&report);
    for (name, value) in [
        ("method", "admm"),
        ("refit-steps", "12"),
        ("comparison-group", "output"),
        ("propagate", "true-sequential"),
        ("targets", "row"),
    ] {
        assert!(
            page.contains(&format!("<dt>{name}</dt><dd>{value}</dd>")),
            "{name}"
        );
    }
    assert!(page.contains("ADMM (operator splitting)") && page.contains("cpu,cpu"));
}

/// One number needs no map.
#[test]
fn equal_rates_are_one_sentence() {
    let mut operators = vec![operator(0, "up_proj", 0.1), operator(1, "up_proj", 0.2)];
    let sentence = "Every linear layer has 50.0 % zeros.";
    let even = page(&report(operators.clone()));
    assert!(even.contains(sentence) && !even.contains("Sparsity by layer"));
    operators[1].sparsity = 0.25;
    let uneven = page(&report(operators));
    assert!(!uneven.contains(sentence) && uneven.contains("Sparsity by layer"));
    for page in [even, uneven] {
        assert!(page.contains("How to read the errors") && page.contains("1 % (0.01 in the JSON)"));
    }
}
