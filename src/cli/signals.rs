//! What happens when the process is told to stop: what it has begun is removed, what was there before stays, and the exit
//! code says which signal it was. A second signal ends it at once.

use super::{log, progress};
use crate::system::cleanup;
use std::fmt::Write;

/// The exit codes are 128 and the signal's number, as shells have it: 130 for SIGINT, 143 for SIGTERM.
#[cfg(unix)]
pub(super) fn watch() -> std::io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    let mut watched = vec![SIGINT, SIGTERM];
    // `nohup` has it ignored, and that must stay so.
    if !is_ignored(SIGHUP) {
        watched.push(SIGHUP);
    }
    let stopping = Arc::new(AtomicBool::new(false));
    for signal in &watched {
        // In this order: the first signal finds the flag down and raises it, the second finds it up.
        signal_hook::flag::register_conditional_shutdown(*signal, 128 + signal, Arc::clone(&stopping))?;
        signal_hook::flag::register(*signal, Arc::clone(&stopping))?;
    }
    let mut signals = Signals::new(watched)?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            if let Some(signal) = signals.forever().next() {
                let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
                // Without the hooks that run at exit: other threads are still at work in what those would take down.
                signal_hook::low_level::exit(stop(name, 128 + signal));
            }
        })?;
    Ok(())
}

/// Ctrl-C and its like, which all are 130 here. A second one while the first is worked on does nothing.
#[cfg(not(unix))]
pub(super) fn watch() -> std::io::Result<()> {
    ctrlc::set_handler(|| std::process::exit(stop("Ctrl-C", 130))).map_err(std::io::Error::other)
}

/// Removes what was begun, says so, and gives the exit code. What it locks stays locked: nobody else finishes anything, or
/// ends the process with another code.
fn stop(signal: &str, code: i32) -> i32 {
    progress::clear();
    let mut hold = cleanup::hold();
    let left = hold.remove_all();
    std::mem::forget(hold);
    let mut message = format!("interrupted by {signal}");
    for folder in left {
        let _ = write!(message, "; `{}` could not be removed", folder.display());
    }
    log::interrupted(&message, signal);
    progress::end(code);
    code
}

/// Whether the process was started with a signal ignored; where that cannot be told, it is taken to be.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let mask = || {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    mask().is_none_or(|mask| (mask >> (signal - 1)) & 1 == 1)
}
