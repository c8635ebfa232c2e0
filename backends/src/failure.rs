//! What a device's own threads fail at.
//!
//! burn computes on a GPU by threads of its own. What they panic with, such as memory that is not there or a kernel that does
//! not compile, burn catches and drops: the work goes on with buffers that nothing was written to. Here the first of these
//! panics is kept, so that whoever reads a result can ask whether it is one.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, Once, PoisonError};

/// What the names of burn's device threads begin with: the queue's and the server's.
const THREADS: [&str; 2] = ["DSU-", "DSD-"];

/// The first failure that nobody has taken yet.
static FIRST: Mutex<Option<String>> = Mutex::new(None);

/// Which of a thread's panics are printed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Printed {
    All,
    /// Those that are not what a device's failure made of the work.
    Own,
    /// None: they are somebody's to report.
    None,
}

thread_local! {
    static PRINTED: Cell<Printed> = const { Cell::new(Printed::All) };
}

/// Keeps failures of device threads from now on. They are not printed; other threads' panics go the way they went.
pub(crate) fn watch() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let name = std::thread::current().name().unwrap_or_default().to_owned();
            if THREADS.iter().any(|of_device| name.starts_with(of_device)) {
                let text = panic.payload_as_str().unwrap_or("it panicked").to_owned();
                slot().get_or_insert(text);
                return;
            }
            let printed = match PRINTED.get() {
                Printed::All => true,
                Printed::Own => slot().is_none(),
                Printed::None => false,
            };
            if printed {
                before(panic);
            }
        }));
    });
}

/// Why a device of this process no longer computes what it was asked for; `None` where all is well.
///
/// What was read from a device is a result only if this is `None` afterwards.
pub fn device_failure() -> Option<String> {
    slot().as_deref().map(reason)
}

/// The failure, which is reported now and no longer anybody else's.
pub(crate) fn take() -> Option<String> {
    slot().take().as_deref().map(reason)
}

/// What `f` gives, or the message of its panic, which nobody sees.
pub(crate) fn quietly<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    caught(Printed::None, f)
}

/// What `f` gives, or the message of its panic. A panic that a device's failure made is not printed, as that is reported.
pub(crate) fn at_work<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    caught(Printed::Own, f)
}

fn caught<T>(printed: Printed, f: impl FnOnce() -> T) -> Result<T, String> {
    let before = PRINTED.replace(printed);
    let outcome = catch_unwind(AssertUnwindSafe(f));
    PRINTED.set(before);
    outcome.map_err(|panic| panic_text(panic.as_ref()))
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
        .unwrap_or_else(|| "it panicked".to_owned())
}

fn slot() -> std::sync::MutexGuard<'static, Option<String>> {
    FIRST.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A message for people, from a panic's first lines: some have a backtrace, or a kernel's whole source.
fn reason(text: &str) -> String {
    let memory = [
        "BufferTooBig",
        "OUT_OF_MEMORY",
        "OutOfMemory",
        "Out of Memory",
        "out of memory",
        "the maximum buffer size",
        "can't allocate",
        "buffer_binding_size",
    ];
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let start = lines.take(4).collect::<Vec<_>>().join("; ");
    let start: String = start.chars().take(300).collect();
    if memory.iter().any(|sign| text.contains(sign)) {
        format!("its memory does not suffice ({start})")
    } else {
        start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_not_there_is_said_as_such() {
        let text = "called `Result::unwrap()` on an `Err` value: BufferTooBig { size: 7 }";
        assert_eq!(reason(text), format!("its memory does not suffice ({text})"));
        let long = format!("a kernel does not compile\n\n  {}", "source\n".repeat(1000));
        assert_eq!(reason(&long), "a kernel does not compile; source; source; source");
    }

    #[test]
    fn a_quiet_panic_is_its_message() {
        watch();
        assert_eq!(quietly(|| 7), Ok(7));
        assert_eq!(
            quietly(|| panic!("no driver")),
            Err::<(), _>("no driver".to_owned())
        );
    }
}
