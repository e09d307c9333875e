//! What of this machine is put to use.

/// How many threads compute on the CPU: Candle's number, which the environment fixes for the whole process.
#[must_use]
pub fn thread_count() -> usize {
    candle_core::utils::get_num_threads()
}

/// The instructions that the CPU's fastest loops use here, as Candle chooses them when it runs.
#[must_use]
pub fn instruction_set() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") { "avx2" } else { "sse2" }
    }
    #[cfg(target_arch = "aarch64")]
    {
        if std::arch::is_aarch64_feature_detected!("dotprod") { "neon+dotprod" } else { "neon" }
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        "scalar"
    }
}
