//! The solver against scikit-learn, and against the official codes on a real layer.

use crate::common::{Device, fixture, matrix, values};
use fista_pruner::config::{FistaConfig, Method, SolverConfig, WarmStart};
use fista_pruner::pattern::Pattern;
use fista_pruner::solver::reference::{self, Matrix};
use fista_pruner::solver::{LayerProblem, fista, solve};
use safetensors::SafeTensors;
use std::path::PathBuf;

fn reference_matrix(file: &SafeTensors<'_>, name: &str) -> Matrix {
    let (shape, values) = values(file, name);
    Matrix::new(shape[0], shape[1], values)
}

/// scikit-learn's coordinate descent solved the same problem to 1e-13.
#[test]
fn fista_reaches_the_lasso_objective() {
    let bytes = std::fs::read(fixture("solver/lasso.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let weight = reference_matrix(&file, "weight");
    let real = reference_matrix(&file, "x_pruned");
    let target = weight.times(&reference_matrix(&file, "x_dense"));
    let gram = reference_matrix(&file, "gram");
    let cross = reference_matrix(&file, "cross");
    let lipschitz = values(&file, "lipschitz").1[0];

    let device = Default::default();
    let device_weight = matrix::<Device>(&file, "weight", &device);
    let device_gram = matrix::<Device>(&file, "gram", &device);
    let mut problem = LayerProblem::new("lasso", device_weight.clone(), device_gram.clone());
    problem.drift = Some(device_weight.matmul(device_gram) - matrix::<Device>(&file, "cross", &device));
    let bound = fista::lipschitz(&problem).unwrap();
    assert!(
        bound >= lipschitz * (1.0 - 1e-5) && bound <= lipschitz * 1.01,
        "{bound} {lipschitz}"
    );

    for (k, restart) in [(0, false), (1, false), (2, false), (0, true), (2, true)] {
        let lambda = values(&file, &format!("lambda.{k}")).1[0];
        let expected = values(&file, &format!("objective.{k}")).1[0];
        let exact = reference::fista(&weight, &gram, &cross, lambda, lipschitz, 5000);
        let found = reference::objective(&exact, &real, &target, lambda);
        assert!(
            (found / expected - 1.0).abs() < 1e-6,
            "f64, λ {lambda}: {found} {expected}"
        );

        let run = fista::Run {
            lambda,
            lipschitz: bound,
            iterations: 5000,
            tolerance: 0.0,
            restart,
        };
        let minimum = fista::minimise(&problem, problem.weight.clone(), run).unwrap();
        let point: Vec<f64> = minimum.point.into_data().iter::<f64>().collect();
        let point = Matrix::new(weight.rows, weight.columns, point);
        let found = reference::objective(&point, &real, &target, lambda);
        assert!(
            (found / expected - 1.0).abs() < 1e-4,
            "device, λ {lambda}: {found} {expected}"
        );
    }
}

struct Row {
    operator: String,
    pattern: Pattern,
    expected: serde_json::Value,
}

fn rows() -> Vec<Row> {
    let text = std::fs::read_to_string(fixture("solver/smollm2-layer10.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    json["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| Row {
            operator: row["operator"].as_str().unwrap().to_owned(),
            pattern: row["pattern"].as_str().unwrap().parse().unwrap(),
            expected: row["relative_error"].clone(),
        })
        .collect()
}

/// The repository carries two operators of the layer; a folder with all four may be named.
fn layer_file() -> PathBuf {
    match std::env::var_os("FISTA_PRUNER_SOLVER_FIXTURE") {
        Some(file) => file.into(),
        None => fixture("solver/smollm2-layer10.safetensors"),
    }
}

fn relative_error(problem: &LayerProblem<Device>, pattern: Pattern, config: &SolverConfig) -> f64 {
    let solution = solve(problem, pattern, config).unwrap();
    let (m, n) = problem.shape();
    let zeros = solution.keep.iter().filter(|k| !**k).count();
    assert_eq!(
        zeros,
        pattern.zeros(m, n),
        "{} {pattern} {:?}",
        problem.name,
        config.method
    );
    pattern.check(&problem.name, &solution.values, m, n).unwrap();
    let data = burn::tensor::TensorData::new(solution.values, [m, n]);
    let v = burn::tensor::Tensor::from_data(data, &problem.weight.device());
    problem.relative(problem.squared_error(v))
}

#[test]
fn a_real_layer_gives_the_official_codes_errors() {
    let bytes = std::fs::read(layer_file()).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let device = Default::default();
    let mut checked = 0;
    for row in rows() {
        if file.tensor(&format!("{}.weight", row.operator)).is_err() {
            continue;
        }
        let problem = LayerProblem::new(
            row.operator.as_str(),
            matrix::<Device>(&file, &format!("{}.weight", row.operator), &device),
            matrix::<Device>(&file, &format!("{}.gram", row.operator), &device),
        );
        let config = |method, search| SolverConfig {
            method,
            warm_start: WarmStart::SparseGpt,
            // With no limit, ε = 1e-6 goes on for hundreds of rounds; ten are below the listed values already.
            fista: FistaConfig {
                search,
                max_rounds: Some(10),
                ..FistaConfig::paper_opt()
            },
            ..SolverConfig::paper(None)
        };
        use fista_pruner::config::LambdaSearch::{Bisect, Expand};
        let error = |method, search| relative_error(&problem, row.pattern, &config(method, search));
        let expected = |key: &str| row.expected[key].as_f64().unwrap();
        let found = [
            ("magnitude", error(Method::Magnitude, Expand), 0.005),
            ("wanda", error(Method::Wanda, Expand), 0.005),
            ("sparsegpt", error(Method::SparseGpt, Expand), 0.02),
        ];
        for (name, found, tolerance) in found {
            let expected = expected(name);
            let deviation = found / expected - 1.0;
            assert!(
                deviation.abs() < tolerance,
                "{} {} {name}: {found} {expected}",
                row.operator,
                row.pattern
            );
        }
        let listed = expected("fista_paper_sparsegpt_start");
        let paper = error(Method::Fista, Expand);
        // The listed value has five decimals.
        assert!(
            paper <= listed + 5e-6,
            "{} {}: {paper} {listed}",
            row.operator,
            row.pattern
        );
        let literal = error(Method::Fista, Bisect);
        let warm = found[2].1;
        assert!(
            literal <= warm,
            "{} {}: {literal} {warm}",
            row.operator,
            row.pattern
        );
        checked += 1;
    }
    assert!(checked >= 6, "{checked} rows");
}
