//! What of this machine is put to use.

use candle_phi_kernels::Isa;

/// How many threads compute on the CPU: Candle's number, which the environment fixes for the whole process.
#[must_use]
pub fn thread_count() -> usize {
    candle_core::utils::get_num_threads()
}

/// The highest instruction set level of this machine that there are loops for, found at run time.
#[must_use]
pub fn instruction_set() -> &'static str {
    Isa::detect().name()
}
