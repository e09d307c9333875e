//! The one door from Rust into Python's code: functions of the caller and handlers of `logging`.
//!
//! CPython ends a daemon thread at the exit of the interpreter by unwinding its stack when it next waits for the
//! interpreter's lock. Inside a callback the unwinding meets Rust's frames, which aborts the process. So the door counts
//! the threads in it, closes at exit, and the exit waits for those that are inside.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

/// How long the exit waits for callbacks. One that takes longer most likely takes longer than the exit too.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// The thread on which the interpreter ends, once it does. That one may still call Python.
static ENDING: OnceLock<ThreadId> = OnceLock::new();
/// The process in the upper half, and how many of its threads are inside in the lower one: a forked process has none of
/// the threads that its parent had.
static INSIDE: AtomicU64 = AtomicU64::new(0);

/// A thread's stay in Python's code, counted until it is dropped.
pub(crate) struct Inside {
    process: u32,
}

/// Lets this thread into Python's code; `None` once the interpreter ends on another thread.
///
/// It may be called with or without the interpreter's lock.
pub(crate) fn enter() -> Option<Inside> {
    let process = std::process::id();
    count(process, |threads| threads.saturating_add(1));
    // Counted first: the exit sees it, or it sees the exit.
    let inside = Inside { process };
    (!is_closed()).then_some(inside)
}

/// Whether the interpreter ends, on this thread or another one.
pub(crate) fn is_ending() -> bool {
    ENDING.get().is_some()
}

fn is_closed() -> bool {
    ENDING.get().is_some_and(|thread| *thread != thread::current().id())
}

impl Drop for Inside {
    fn drop(&mut self) {
        // A process that was forked in a callback has not counted this thread.
        if self.process == std::process::id() {
            count(self.process, |threads| threads.saturating_sub(1));
        }
    }
}

fn count(process: u32, change: impl Fn(u32) -> u32) {
    let _ = INSIDE.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |inside| {
        Some(u64::from(process) << u32::BITS | u64::from(change(threads_of(process, inside))))
    });
}

fn threads_of(process: u32, inside: u64) -> u32 {
    if inside >> u32::BITS == u64::from(process) { inside as u32 } else { 0 }
}

/// Closes the door, and waits until the threads in it have left.
#[pyfunction]
pub(crate) fn close_door(py: Python<'_>) {
    let _ = ENDING.set(thread::current().id());
    py.detach(|| {
        let began = Instant::now();
        let process = std::process::id();
        while threads_of(process, INSIDE.load(Ordering::SeqCst)) > 0 && began.elapsed() < PATIENCE {
            thread::sleep(LOOK_EVERY);
        }
    });
}
