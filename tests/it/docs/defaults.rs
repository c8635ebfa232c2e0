//! Defaults that tables of the pages state: those of flags are the ones that `--help` states, which come from the code, and those
//! of presets are the presets' own.

use super::{COMMANDS, flags, pages, read};
use crate::command::Workspace;
use fista_pruner::config::SolverConfig;
use std::collections::BTreeMap;

/// The rows of every table with its header, cell by cell.
fn tables(text: &str) -> Vec<Vec<Vec<String>>> {
    let cells = |line: &str| {
        line.trim_matches('|')
            .split(" |")
            .map(|cell| cell.trim().to_owned())
            .collect()
    };
    let mut tables = vec![Vec::new()];
    for line in text.lines() {
        match line.strip_prefix('|') {
            Some(rest) if rest.starts_with("---") => {}
            Some(_) => tables.last_mut().unwrap().push(cells(line)),
            None => tables.push(Vec::new()),
        }
    }
    tables.retain(|table: &Vec<Vec<String>>| table.len() > 1);
    tables
}

fn numbers(text: &str) -> Vec<f64> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || ".-".contains(c)));
    words
        .filter_map(|word| word.trim_end_matches(['.', '-']).parse().ok())
        .filter(|n: &f64| n.is_finite())
        .collect()
}

/// The numbers behind "Default:" in the help of each flag, of all commands together.
fn defaults_in_help() -> BTreeMap<String, Vec<f64>> {
    let workspace = Workspace::new();
    let mut found: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for command in COMMANDS {
        let help = workspace.succeed(&format!("{command} --help")).stdout;
        let mut flag = String::new();
        let mut texts: BTreeMap<String, String> = BTreeMap::new();
        for line in help.lines() {
            if line.trim_start().starts_with('-') {
                flag = flags(line).into_iter().next().unwrap_or_default();
            }
            *texts.entry(flag.clone()).or_default() += &format!(" {}", line.trim());
        }
        for (flag, text) in texts {
            let stated = text
                .split_once("Default:")
                .or_else(|| text.split_once("[default:"));
            found
                .entry(flag)
                .or_default()
                .extend(numbers(stated.map_or("", |(_, stated)| stated)));
        }
    }
    found
}

#[test]
fn tables_of_defaults_are_right() {
    let known = defaults_in_help();
    let mut checked = 0;
    for page in pages() {
        for table in tables(&read(&page)) {
            let Some(column) = table[0]
                .iter()
                .position(|cell| cell.eq_ignore_ascii_case("default"))
            else {
                continue;
            };
            let mut flag = None;
            for row in &table[1..] {
                // A row without a flag goes on with the one before.
                flag = flags(&row.join(" | ")).into_iter().next().or(flag);
                let Some(flag) = &flag else { continue };
                for number in numbers(row.get(column).map_or("", String::as_str)) {
                    let known = known
                        .get(flag)
                        .unwrap_or_else(|| panic!("{page}: what is the default of {flag}?"));
                    assert!(
                        known.contains(&number),
                        "{page}: {flag} has no default {number}, but {known:?}"
                    );
                    checked += 1;
                }
            }
        }
    }
    assert!(checked > 0, "no page has a table of defaults");
}

#[test]
fn tables_of_presets_are_right() {
    let presets = [
        ("`best`", SolverConfig::best(None)),
        ("`fast`", SolverConfig::fast(None)),
    ];
    let mut checked = 0;
    for page in pages() {
        for table in tables(&read(&page))
            .iter()
            .filter(|table| table[0].iter().any(|cell| cell == "ρ₀"))
        {
            for row in &table[1..] {
                let Some((name, preset)) = presets
                    .iter()
                    .find(|(name, _)| row.iter().any(|cell| cell.contains(name)))
                else {
                    continue;
                };
                for (header, cell) in table[0].iter().zip(row) {
                    let expected = match header.as_str() {
                        "steps" => preset.l0.steps as f64,
                        "ρ₀" => preset.l0.rho,
                        "growth" => preset.l0.growth,
                        "polish" | "refit" | "refit steps" => preset.polish as f64,
                        _ => continue,
                    };
                    assert_eq!(numbers(cell), [expected], "{page}: {header} of {name}");
                    checked += 1;
                }
            }
        }
    }
    assert!(checked > 0, "no page has a table of the presets");
}
