//! How much memory is needed, held against how much there is.
//!
//! The weights are pages of their file, which the system drops and reads again as it must; they are never in the way. Keys and
//! values, and what a forward pass computes with, are memory that must be there. What is certain not to fit is refused with the
//! numbers, before the system ends the process: when a session is made, and again when its cache grows. The two can be far
//! apart in time, and others take memory too.

mod available;
mod estimate;

use crate::cache::PageCache;
use crate::config::PhiConfig;
use crate::size::size_text;
use crate::{Error, KvDtype, Result};

pub(crate) use available::available_bytes;
pub use estimate::MemoryEstimate;
pub(crate) use estimate::{cache_bytes, candle_pass_bytes, pass_bytes};

/// Fails where a session whose context was asked for cannot have it, with `working` bytes to compute with.
///
/// # Errors
/// [`InsufficientMemory`](crate::ErrorKind::InsufficientMemory), which says how long a context can be.
pub(crate) fn check_session(
    config: &PhiConfig,
    pages: &PageCache,
    kv_dtype: KvDtype,
    n_ctx: usize,
    prefill_chunk: usize,
    working: u64,
) -> Result<()> {
    let cache = cache_bytes(config, pages, n_ctx, prefill_chunk);
    let needed = cache.saturating_add(working);
    let Some(available) = available_bytes().filter(|available| *available < needed) else { return Ok(()) };
    let fitting = pages.positions_in(available.saturating_sub(working));
    let shorter =
        if fitting > 0 { format!("set n_ctx to {fitting} or less") } else { "use a smaller model".to_owned() };
    let narrower = match kv_dtype {
        KvDtype::F32 => ", set kv_dtype to \"f16\" or \"q8_0\" for a half or a good quarter of it",
        KvDtype::F16 => ", set kv_dtype to \"q8_0\" for a good half of it",
        KvDtype::Q8_0 => "",
    };
    Err(Error::insufficient_memory(
        needed,
        available,
        format!(
            "a context of {n_ctx} tokens needs {} of memory when it is full ({} for keys and values in {kv_dtype}, {} \
             to compute with), and the system has {} to give; {shorter}{narrower}, or end other programs that use memory",
            size_text(needed),
            size_text(cache),
            size_text(working),
            size_text(available)
        ),
    ))
}

/// Fails where the system has no `needed` bytes to give for `what`.
///
/// # Errors
/// [`InsufficientMemory`](crate::ErrorKind::InsufficientMemory)
pub(crate) fn check(needed: u64, what: &str, remedy: &str) -> Result<()> {
    match available_bytes() {
        Some(available) if available < needed => Err(Error::insufficient_memory(
            needed,
            available,
            format!(
                "{what} needs {} more memory, and the system has {} to give; {remedy}",
                size_text(needed),
                size_text(available)
            ),
        )),
        _ => Ok(()),
    }
}

/// The error where the system gave no `needed` bytes for `what`, whatever it had said.
pub(crate) fn refused_by_the_system(needed: u64, what: &str, remedy: &str) -> Error {
    Error::insufficient_memory(
        needed,
        available_bytes().unwrap_or(0).min(needed),
        format!("{what} needs {} more memory, which the system did not give; {remedy}", size_text(needed)),
    )
}

/// What helps a session whose cache cannot grow.
pub(crate) const REMEDY: &str = "the session is as it was before: end what else takes memory, take turns back, or begin anew \
                                 in a session with a smaller n_ctx or another kv_dtype";
