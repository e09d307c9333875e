//! Memory that is about to be taken, held against what the system can give.

use super::available::available_bytes;
use crate::size::size_text;
use crate::{Error, Result};

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
                "{what} needs {} more memory, but only {} is available; {remedy}",
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
        format!("{what} needs {} more memory, which the system refused; {remedy}", size_text(needed)),
    )
}

/// What helps a session whose cache cannot grow.
pub(crate) const REMEDY: &str = "the session is unchanged: close other programs, undo turns, or open a session with a smaller \
                                 n_ctx or a smaller kv_dtype";
/// What a session has no memory for when its cache cannot grow.
pub(crate) const NEXT_TOKENS: &str = "the next part of the context";
