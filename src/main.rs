//! The program: parse, run, map an error to the exit code. Everything else is in the library.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Lets freed memory stay with the process. A layer's tensors come and go by the hundred; with the default of 10 ms most
/// of a run's pages are given back and faulted in again, which takes up to a third of its time. The environment variable
/// `MIMALLOC_PURGE_DELAY` has the last word.
fn keep_freed_memory() {
    /// `mi_option_purge_delay` of mimalloc.h, in milliseconds.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    const NEVER: std::ffi::c_long = -1;
    #[expect(unsafe_code, reason = "an option of the allocator is a call into C")]
    // SAFETY: sets a number in a table of the allocator; no other thread runs yet.
    unsafe {
        libmimalloc_sys::mi_option_set_default(PURGE_DELAY, NEVER);
    }
}

fn main() -> ExitCode {
    keep_freed_memory();
    fista_pruner::cli::main()
}
