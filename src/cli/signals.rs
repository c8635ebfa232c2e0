//! What happens when the process is told to stop: what it has begun is removed, what was there before stays, and the exit
//! code says which signal it was. A second signal ends it at once. The same is done where the system gives no more memory.

use super::{log, progress};
use crate::system::cleanup;
use bytesize::ByteSize;
use std::cell::Cell;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Bytes that the system did not give; 0 while it gives all.
static REFUSED: AtomicUsize = AtomicUsize::new(0);

/// Whether there is a thread that can end the process in order.
static WATCHED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Whether this thread is the one that ends the process.
    static ENDS: Cell<bool> = const { Cell::new(false) };
}

/// What memory runs out with: the thread that waits for signals has what it needs to end the process in order, and the one that
/// was refused memory may hold any lock. Batch systems send it too, some time before they kill a job.
#[cfg(unix)]
const STOP: i32 = signal_hook::consts::SIGUSR1;

/// For the program's allocator, which the system has refused memory: ends the process in order, with a sentence.
pub fn out_of_memory(bytes: usize) {
    /// How long that may take: folders are removed.
    const PATIENCE: Duration = Duration::from_secs(20);
    let first = REFUSED.compare_exchange(0, bytes.max(1), Ordering::SeqCst, Ordering::SeqCst);
    #[cfg(unix)]
    if WATCHED.load(Ordering::SeqCst)
        && !ENDS.get()
        && (first.is_err() || signal_hook::low_level::raise(STOP).is_ok())
    {
        std::thread::sleep(PATIENCE);
    }
    // Nothing from here on takes memory.
    let _ = std::io::stderr().write_all(b"error: not enough memory\n");
    #[cfg(unix)]
    signal_hook::low_level::exit(1);
    #[cfg(not(unix))]
    let _ = (first, PATIENCE);
}

/// The exit codes are 128 and the signal's number, as shells have it: 130 for SIGINT, 143 for SIGTERM.
#[cfg(unix)]
pub(super) fn watch() -> std::io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR2, SIGXCPU, SIGXFSZ};
    use signal_hook::iterator::Signals;
    use std::sync::Arc;

    let mut watched = vec![SIGINT, SIGTERM, SIGQUIT, SIGXCPU, SIGUSR2, STOP];
    // `nohup` has it ignored, and that must stay so.
    if !is_ignored(SIGHUP) {
        watched.push(SIGHUP);
    }
    // A file that may grow no more is then an error of whoever writes it, as a full disk is.
    signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
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
            ENDS.set(true);
            if let Some(signal) = signals.forever().next() {
                let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
                // Without the hooks that run at exit: other threads are still at work in what those would take down.
                signal_hook::low_level::exit(stop(name, 128 + signal));
            }
        })?;
    WATCHED.store(true, Ordering::SeqCst);
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
    let refused = REFUSED.load(Ordering::SeqCst);
    let mut message = match refused {
        0 => format!("interrupted by {signal}"),
        bytes => format!(
            "not enough memory: the system refused {} more",
            ByteSize::b(bytes as u64).display().si()
        ),
    };
    for folder in left {
        let _ = write!(message, "; `{}` could not be removed", folder.display());
    }
    let code = if refused == 0 {
        log::interrupted(&message, signal);
        code
    } else {
        let hint = "a limit of the shell (`ulimit -v`), a container or a batch job is too low for this work: raise it, or pass a smaller --samples or --seq-len";
        log::ended(&message, hint);
        1
    };
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
