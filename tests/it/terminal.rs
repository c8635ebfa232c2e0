//! The program on a pseudo-terminal: the live view, and colours.

use crate::command::Workspace;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

/// What a command wrote to a terminal of 120 columns on its stderr, and to a pipe on its stdout.
struct Shown {
    code: Option<i32>,
    stdout: String,
    terminal: String,
}

fn on_terminal(mut command: Command) -> Shown {
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&controller).unwrap();
    unlockpt(&controller).unwrap();
    let size = Winsize {
        ws_row: 30,
        ws_col: 120,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&controller, size).unwrap();
    let name = ptsname(&controller, Vec::new()).unwrap();
    let terminal = OpenOptions::new()
        .read(true)
        .write(true)
        .open(std::ffi::OsStr::from_bytes(name.as_bytes()))
        .unwrap();
    let mut child = command.stderr(terminal).stdout(Stdio::piped()).spawn().unwrap();
    // It holds the terminal open, which then would never end.
    drop(command);
    let mut reader = File::from(controller);
    let shown = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // Linux says "input/output error" where the last writer has gone.
        let _ = reader.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let mut stdout = String::new();
    child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    Shown {
        code: child.wait().unwrap().code(),
        stdout,
        terminal: shown.join().unwrap(),
    }
}

/// A command whose environment says nothing of colours, on a terminal that has them.
fn plain(workspace: &Workspace, line: &str) -> Command {
    let mut command = workspace.command(line);
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI"] {
        command.env_remove(name);
    }
    command.env("TERM", "xterm-256color");
    command
}

const PRUNE: &str = "prune --model model --output out --overwrite --calibration ids.safetensors";

#[test]
fn the_view_shows_layers_operators_errors_times_and_memory() {
    let workspace = Workspace::with("smollm2-style");
    // Enough data that the view is drawn more than once.
    workspace.ids("ids.safetensors", 64, 128);
    let shown = on_terminal(plain(&workspace, PRUNE));
    assert_eq!(shown.code, Some(0), "{}", shown.terminal);
    assert!(shown.stdout.contains("wrote out"), "{}", shown.stdout);
    let mut words = vec![
        "layers ",
        "/3 [",
        "elapsed",
        " left",
        "layer 2 of 3",
        "model.layers.",
        "last ",
        ", mean 0.",
    ];
    if cfg!(target_os = "linux") {
        words.extend(["memory ", "(peak "]);
    }
    for word in words {
        assert!(
            shown.terminal.contains(word),
            "no `{word}` in\n{}",
            shown.terminal
        );
    }
    // It goes when the work is done: the last thing written erases a line.
    let last_word = shown.terminal.rfind("elapsed").unwrap();
    assert!(
        shown.terminal[last_word..].contains("\u{1b}[2K"),
        "{:?}",
        &shown.terminal[last_word..]
    );

    let line = "compare --model model --calibration ids.safetensors --methods wanda,magnitude --data ids.safetensors";
    let shown = on_terminal(plain(&workspace, line));
    assert_eq!(shown.code, Some(0), "{}", shown.terminal);
    for branch in ["wanda 0.5", "magnitude 0.5"] {
        assert!(
            shown.terminal.contains(branch),
            "no `{branch}` in\n{}",
            shown.terminal
        );
    }
    let shown = on_terminal(plain(&workspace, "eval --model model --data ids.safetensors"));
    assert!(shown.terminal.contains("layer 3 of 3"), "{}", shown.terminal);
}

#[test]
fn no_view_where_none_is_wanted() {
    let workspace = Workspace::with("smollm2-style");
    for flags in ["--quiet", "--progress none", "--progress bar -q"] {
        let shown = on_terminal(plain(&workspace, &format!("{PRUNE} {flags}")));
        assert_eq!((shown.code, shown.terminal.as_str()), (Some(0), ""), "{flags}");
    }
    let mut dumb = plain(&workspace, PRUNE);
    dumb.env("TERM", "dumb");
    assert_eq!(on_terminal(dumb).terminal, "");
    assert_eq!(workspace.succeed(PRUNE).stderr, "");
}

#[test]
fn messages_pass_the_view_whole() {
    let workspace = Workspace::with("smollm2-style");
    workspace.ids("ids.safetensors", 64, 128);
    let shown = on_terminal(plain(&workspace, &format!("{PRUNE} -v")));
    let lines = shown.terminal.lines().filter(|line| line.contains("INFO"));
    let whole = lines.filter(|line| line.contains("sparsity 0.5") && line.trim_end().ends_with(" s"));
    assert_eq!(whole.count(), 21, "{}", shown.terminal);
}

#[test]
fn colours_on_a_terminal_only_and_as_the_environment_says() {
    let workspace = Workspace::new();
    let coloured = |terminal: bool, variables: &[(&str, &str)]| {
        let mut command = plain(&workspace, "inspect --model nowhere");
        command.envs(variables.iter().copied());
        let (code, text) = if terminal {
            let shown = on_terminal(command);
            (shown.code, shown.terminal)
        } else {
            let output = command.output().unwrap();
            (output.status.code(), String::from_utf8(output.stderr).unwrap())
        };
        assert_eq!(code, Some(1));
        assert!(text.contains("error:") && text.contains("nowhere"), "{text}");
        text.contains('\u{1b}')
    };
    assert!(coloured(true, &[]));
    assert!(coloured(true, &[("NO_COLOR", "")]));
    assert!(!coloured(true, &[("NO_COLOR", "1")]));
    assert!(!coloured(true, &[("CLICOLOR", "0")]));
    assert!(!coloured(true, &[("TERM", "dumb")]));
    assert!(!coloured(false, &[]));
    assert!(!coloured(false, &[("CLICOLOR_FORCE", "0")]));
    assert!(coloured(false, &[("CLICOLOR_FORCE", "1")]));
    assert!(!coloured(false, &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
}
