//! What of this machine is put to use.

use std::sync::atomic::{AtomicU32, Ordering};

use candle_phi_kernels::Isa;

use crate::{Error, Result};

/// How many threads compute on the CPU: Candle's number, which the environment fixes for the whole process.
#[must_use]
pub fn thread_count() -> usize {
    candle_core::utils::get_num_threads()
}

/// The highest instruction set level of this machine, found at run time.
#[must_use]
pub fn instruction_set() -> &'static str {
    Isa::detect().name()
}

/// The process that Candle's threads were started in; 0 before.
static COMPUTING_PROCESS: AtomicU32 = AtomicU32::new(0);

/// An error in a process that was forked after the engine had computed: a fork has the memory of the threads that
/// compute and not the threads, and would wait for them without end.
pub(crate) fn refuse_after_fork() -> Result<()> {
    let process = std::process::id();
    match COMPUTING_PROCESS.compare_exchange(0, process, Ordering::Relaxed, Ordering::Relaxed) {
        Err(other) if other != process => Err(Error::inference(
            "this process was forked from one that had computed already, and the threads that compute are not copied; \
             fork before the first prompt, or start processes with multiprocessing's \"spawn\" or \"forkserver\"",
        )),
        _ => Ok(()),
    }
}
