//! Libraries that panic where they should refuse. In: a call of one. Out: what it gives, or that it panicked.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static GUARDED: Cell<usize> = const { Cell::new(0) };
}

/// The library's panic, in its own words.
#[derive(Debug)]
pub(crate) struct Panicked(pub(crate) String);

/// Calls a library. What it has in hand when it panics is lost, so it must be nothing that is used afterwards.
///
/// # Errors
/// When it panics.
pub(crate) fn guarded<T>(call: impl FnOnce() -> T) -> Result<T, Panicked> {
    GUARDED.with(|depth| depth.set(depth.get() + 1));
    let outcome = catch_unwind(AssertUnwindSafe(call));
    GUARDED.with(|depth| depth.set(depth.get() - 1));
    outcome.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Panicked(text.unwrap_or("it broke off").to_owned())
    })
}

/// Whether a panic of this thread becomes an error, so that nobody needs to hear of it.
pub(crate) fn is_guarded() -> bool {
    GUARDED.with(|depth| depth.get() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error() {
        assert_eq!(guarded(|| 3).unwrap(), 3);
        assert!(!is_guarded());
        assert!(guarded(is_guarded).unwrap());
        let Panicked(text) = guarded(|| panic!("page {}", 7)).unwrap_err();
        assert_eq!(text, "page 7");
        assert!(!is_guarded());
    }
}
