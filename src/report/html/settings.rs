//! The settings that shape a result, in the words of the command line. In: the report's settings, which hold those of every
//! method. Out: a list without those that were not used. `mod.rs` shows it.

use super::format::plain;
use crate::config::{Method, SolverConfig, WarmStart};
use maud::{Markup, html};
use serde_json::Value;

pub(super) fn section(settings: &Value) -> Markup {
    html! {
        section aria-labelledby="settings" {
            h2 #settings { "Settings" }
            p.note {
                "The settings that shape this result; " code { "pruning_report.json" } " has those of the other methods too. The same \
                 settings, data and kind of device give the same weights."
            }
            (list(&used(settings)))
        }
    }
}

/// A method as people call it.
pub(super) fn method(name: &str) -> &str {
    match name {
        "l0" => "ADMM (operator splitting)",
        "fista" => "FISTAPruner",
        "sparsegpt" => "SparseGPT",
        "wanda" => "Wanda",
        "magnitude" => "magnitude",
        other => other,
    }
}

/// A value as the command line spells it.
pub(super) fn value(key: &str, value: &Value) -> String {
    match (key, value.as_str()) {
        ("method" | "warm_start", Some("l0")) => "admm".to_owned(),
        ("propagate", Some("refreshed")) => "true-sequential".to_owned(),
        ("threshold", Some("matrix")) => "layer".to_owned(),
        ("threshold", Some("row")) => "output".to_owned(),
        ("threshold", None) => "the method's own".to_owned(),
        _ => plain(value),
    }
}

/// A setting's name as the command line spells it.
fn name(key: &str) -> String {
    let name = match key {
        "l0" => "admm",
        "polish" => "refit-steps",
        "threshold" => "comparison-group",
        "block" => "block-size",
        other => other,
    };
    name.replace('_', "-")
}

/// The settings without those that had nothing to do.
fn used(settings: &Value) -> Value {
    let mut used = settings.clone();
    let Some(object) = used.as_object_mut() else {
        return used;
    };
    // The same in every run.
    object.remove("statistics");
    let solver = object.get("solver").cloned().unwrap_or_default();
    let parsed: Option<SolverConfig> = serde_json::from_value(solver).ok();
    if let (Some(config), Some(Value::Object(solver))) = (parsed, object.get_mut("solver")) {
        for key in unused(&config) {
            solver.remove(key);
        }
    }
    used
}

/// The solver's settings that its method never reads, by their names in the JSON.
fn unused(config: &SolverConfig) -> Vec<&'static str> {
    let fista = config.method == Method::Fista;
    let starts_from = |start| fista && config.warm_start == start;
    let l0 = config.method == Method::Admm || starts_from(WarmStart::Admm);
    let sparsegpt = config.method == Method::SparseGpt || starts_from(WarmStart::SparseGpt);
    let read = [
        ("fista", fista),
        ("warm_start", fista),
        ("l0", l0),
        ("sparsegpt", sparsegpt),
        ("threshold", config.method != Method::SparseGpt),
        ("ridge", l0 || config.polish > 0),
    ];
    let unused = read.into_iter().filter(|(_, is_read)| !is_read);
    unused.map(|(key, _)| key).collect()
}

/// Plain values as a list, objects folded below it.
fn list(settings: &Value) -> Markup {
    let Some(object) = settings.as_object() else {
        return html! { p { (plain(settings)) } };
    };
    let (nested, flat): (Vec<_>, Vec<_>) = object.iter().partition(|(_, value)| value.is_object());
    html! {
        dl.facts {
            @for (key, given) in flat { dt { (name(key)) } dd { (value(key, given)) } }
        }
        @for (key, given) in nested {
            details open[key == "solver"] {
                summary { (name(key)) }
                (list(given))
            }
        }
    }
}
