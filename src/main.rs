//! The program: parse, run, map an error to the exit code. Everything else is in the library.

use fista_pruner::cli;
use mimalloc::MiMalloc;
use std::alloc::{GlobalAlloc, Layout};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// mimalloc, with a sentence where the system gives no more memory: Rust itself ends the process there and then.
struct Allocator;

fn told(memory: *mut u8, bytes: usize) -> *mut u8 {
    if memory.is_null() {
        cli::out_of_memory(bytes);
    }
    memory
}

#[expect(unsafe_code, reason = "the trait of allocators is unsafe")]
// SAFETY: everything is mimalloc's own; what is told afterwards changes nothing.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        told(unsafe { MiMalloc.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        told(unsafe { MiMalloc.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        told(unsafe { MiMalloc.realloc(memory, layout, bytes) }, bytes)
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { MiMalloc.dealloc(memory, layout) }
    }
}

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
    cli::main()
}
