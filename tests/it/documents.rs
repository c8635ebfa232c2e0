//! `completions` and `man`, read by the programs that they are for where those are installed.
#![allow(clippy::print_stdout, reason = "a test that skips something says so")]

use crate::command::{Workspace, names};
use std::collections::BTreeSet;
use std::process::Command;

/// The subcommands that `--help` lists.
fn subcommands(workspace: &Workspace) -> BTreeSet<String> {
    let help = workspace.succeed("--help").stdout;
    let (_, listed) = help.split_once("Commands:\n").unwrap();
    let (listed, _) = listed.split_once("\n\n").unwrap();
    listed
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn shells_complete_every_subcommand() {
    let workspace = Workspace::new();
    let commands = subcommands(&workspace);
    assert!(
        commands.contains("prune") && commands.contains("man"),
        "{commands:?}"
    );
    let check = |shell: &str, script: &str| -> Option<bool> {
        let arguments = if shell == "fish" { "--no-execute" } else { "-n" };
        workspace.write(shell, script.as_bytes());
        let mut program = Command::new(shell);
        let status = program.arg(arguments).arg(workspace.path(shell)).status();
        status.ok().map(|status| status.success())
    };
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = workspace.succeed(&format!("completions {shell}")).stdout;
        for command in &commands {
            assert!(
                script.contains(command.as_str()),
                "{shell} does not know {command}"
            );
        }
        assert!(script.contains("save-statistics"), "{shell}");
        match check(shell, &script) {
            Some(parses) if ["bash", "zsh", "fish"].contains(&shell) => {
                assert!(parses, "{shell} does not read its script");
            }
            _ => println!("no {shell} here to read its script"),
        }
    }
    assert_eq!(workspace.run("completions tcsh").code, 2);
}

/// What bash would offer for a line.
#[test]
fn bash_offers_what_fits() {
    let workspace = Workspace::new();
    workspace.write(
        "complete.bash",
        workspace.succeed("completions bash").stdout.as_bytes(),
    );
    let offers = |words: &[&str]| -> Option<Vec<String>> {
        let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
        let script = format!(
            "source ./complete.bash; named=$(complete -p fista-pruner); named=${{named##*-F }}; \
             COMP_WORDS=({}); COMP_CWORD={}; ${{named%% *}} fista-pruner '{}' '{}'; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            quoted.join(" "),
            words.len() - 1,
            words[words.len() - 1],
            words[words.len() - 2],
        );
        let mut bash = Command::new("bash");
        workspace.prepare(&mut bash);
        let output = bash.arg("-c").arg(script).output().ok()?;
        let text = String::from_utf8(output.stdout).unwrap();
        Some(text.lines().map(str::to_owned).collect())
    };
    let Some(offered) = offers(&["fista-pruner", "pr"]) else {
        println!("no bash here");
        return;
    };
    assert_eq!(offered, ["prune"]);
    assert_eq!(
        offers(&["fista-pruner", "prune", "--save"]).unwrap(),
        ["--save-statistics"]
    );
    let styles = offers(&["fista-pruner", "eval", "--progress", "j"]).unwrap();
    assert_eq!(styles, ["jsonl"]);
}

#[test]
fn a_manual_page_for_every_subcommand() {
    let workspace = Workspace::new();
    workspace.succeed("man --output share/man/man1");
    let expected: BTreeSet<String> = subcommands(&workspace)
        .iter()
        .map(|name| format!("fista-pruner-{name}.1"))
        .chain(["fista-pruner.1".to_owned()])
        .collect();
    let written = names(&workspace.path("share/man/man1"));
    assert_eq!(written.iter().cloned().collect::<BTreeSet<_>>(), expected);
    for name in &written {
        let page = String::from_utf8(workspace.read(&format!("share/man/man1/{name}"))).unwrap();
        let title = name.trim_end_matches(".1").to_uppercase();
        let header = page.lines().find(|line| line.starts_with(".TH "));
        assert!(header.is_some_and(|header| header.contains(&title)), "{page}");
        for section in [".SH NAME", ".SH SYNOPSIS", ".SH OPTIONS"] {
            assert!(page.contains(section), "{name} has no {section}");
        }
    }
    let prune = workspace.succeed("man prune").stdout;
    assert_eq!(
        prune.trim_end().as_bytes(),
        workspace
            .read("share/man/man1/fista-pruner-prune.1")
            .trim_ascii_end()
    );
    assert!(prune.contains("sparsity"));
    let overview = workspace.succeed("man").stdout.replace("\\-", "-");
    assert!(overview.contains("fista-pruner-prune(1)"), "{overview}");
    workspace.refuse("man prime", &["prime", "prune"]);
    assert_eq!(workspace.run("man prune --output x").code, 2);
}

#[test]
fn groff_reads_the_pages() {
    let workspace = Workspace::new();
    workspace.succeed("man --output man");
    for name in names(&workspace.path("man")) {
        let mut groff = Command::new("groff");
        let output = groff
            .args(["-man", "-Tutf8", "-ww"])
            .arg(workspace.path("man").join(&name))
            .output();
        let Ok(output) = output else {
            println!("no groff here");
            return;
        };
        // Where groff shows bold letters as ones struck twice, every second one goes.
        let shown = String::from_utf8_lossy(&output.stdout);
        let struck: Vec<char> = shown.chars().collect();
        let shown: String = (0..struck.len())
            .filter(|i| struck[*i] != '\u{8}' && struck.get(i + 1) != Some(&'\u{8}'))
            .map(|i| struck[i])
            .collect();
        assert!(
            output.status.success() && shown.contains("SYNOPSIS"),
            "{name}: {shown}"
        );
    }
}
