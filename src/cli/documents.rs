//! `completions` and `man`: what the command line says of itself, for shells and for `man`.

use super::help::{HEADINGS, MODEL};
use super::show;
use crate::error::{ConfigError, Error, Result};
use crate::system::{AtomicFile, Destination};
use clap::{Args, Command};
use std::path::PathBuf;

const NAME: &str = "fista-pruner";

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The subcommand. Default: the whole program.
    #[arg(value_name = "SUBCOMMAND", conflicts_with = "output")]
    page: Option<String>,
    /// Write all pages into this folder. It is created if it does not exist.
    #[arg(long, value_name = "DIR", help_heading = MODEL)]
    output: Option<PathBuf>,
    /// Replace pages that exist.
    #[arg(long, requires = "output", help_heading = MODEL)]
    overwrite: bool,
}

pub(crate) fn completions(args: &CompletionsArgs, mut program: Command) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut program, NAME, &mut script);
    let script = String::from_utf8_lossy(&script);
    // clap_complete 4.6 takes a hyphen in the program's name for a subcommand in half of its bash script.
    show::print(&script.replace("fista__subcmd__pruner", "fista__pruner"))
}

pub(crate) fn man(args: &ManArgs, program: Command) -> Result<()> {
    let pages = pages(program);
    if let Some(folder) = &args.output {
        return write(&pages, &Destination::new(folder, args.overwrite));
    }
    let wanted = match &args.page {
        None => NAME.to_owned(),
        Some(page) => format!("{NAME}-{page}"),
    };
    match pages.iter().find(|page| page.name == wanted) {
        Some(page) => show::print(&page.text),
        None => {
            let known = pages
                .iter()
                .filter_map(|page| page.name.strip_prefix(NAME)?.strip_prefix('-'));
            Err(Error::from(ConfigError::Setting {
                setting: "man",
                reason: format!(
                    "there is no subcommand `{}`; there are {}",
                    args.page.as_deref().unwrap_or_default(),
                    known.collect::<Vec<_>>().join(", ")
                ),
            }))
        }
    }
}

/// A manual page in roff.
struct Page {
    /// The program's name, or with the subcommand's after a hyphen.
    name: String,
    text: String,
}

/// The program's page and one a subcommand.
fn pages(program: Command) -> Vec<Page> {
    let mut program = program.disable_help_subcommand(true);
    program.build();
    let subcommands = program.get_subcommands().filter(|command| !command.is_hide_set());
    std::iter::once(&program).chain(subcommands).map(page).collect()
}

fn page(command: &Command) -> Page {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let page = clap_mangen::Man::new(command.clone())
        .title(name.to_uppercase())
        // Left out, what follows would stand in its place.
        .date(" ")
        .source(format!("{NAME} {}", env!("CARGO_PKG_VERSION")))
        .manual("User Commands");
    let mut text = Vec::new();
    // Writing to memory cannot fail.
    let _ = page.render(&mut text);
    Page {
        name: name.to_owned(),
        text: one_options_section(&String::from_utf8_lossy(&text)),
    }
}

/// Makes the sections that headings of flags have become parts of one section, which readers of manual pages look for.
fn one_options_section(page: &str) -> String {
    const OPTIONS: &str = ".SH OPTIONS";
    let mut lines: Vec<String> = Vec::new();
    for line in page.lines() {
        let title = line.strip_prefix(".SH ").map(|title| title.trim_matches('"'));
        let heading = HEADINGS
            .iter()
            .find(|heading| title == Some(&*heading.to_uppercase()));
        match heading {
            Some(heading) => {
                if !lines.iter().any(|line| line == OPTIONS) {
                    lines.push(OPTIONS.to_owned());
                }
                lines.push(format!(".SS \"{heading}\""));
            }
            None => lines.push(line.to_owned()),
        }
    }
    lines.join("\n")
}

/// Writes the pages, each of which appears whole.
fn write(pages: &[Page], folder: &Destination) -> Result<()> {
    let file = |page: &Page| format!("{}.1", page.name);
    let folder = folder.shared_folder(pages.iter().map(file))?;
    std::fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
    let _hold = crate::system::cleanup::hold();
    for page in pages {
        let mut file = AtomicFile::create(&folder.join(file(page)))?;
        file.write(page.text.as_bytes())?;
        file.finish()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::command::program;

    #[test]
    fn the_overview_has_every_subcommand_and_every_global_flag() {
        let overview = include_str!("../../docs/cli.md");
        let program = program();
        for command in program.get_subcommands() {
            let name = command.get_name();
            assert!(
                overview.contains(&format!("| `{name}` |")),
                "docs/cli.md has no `{name}`"
            );
        }
        let mut flags = 0;
        for argument in program
            .get_arguments()
            .filter(|argument| argument.is_global_set())
        {
            let long = argument.get_long().unwrap();
            let short = argument
                .get_short()
                .map(|short| format!("`-{short}`, "))
                .unwrap_or_default();
            let flag = format!("| {short}`--{long}");
            assert!(overview.contains(&flag), "docs/cli.md has no {flag}");
            flags += 1;
        }
        assert!(flags >= 5, "only {flags} global flags were found");
    }

    #[test]
    fn one_page_a_subcommand() {
        let pages = pages(program());
        assert_eq!(pages.len(), 1 + program().get_subcommands().count());
        for page in pages {
            let header = format!(".TH {} 1", page.name.to_uppercase());
            assert!(page.text.contains(&header), "{}", page.text);
            assert!(page.text.contains(".SH OPTIONS"), "{}", page.name);
        }
    }
}
