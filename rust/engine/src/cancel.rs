//! What the thread that works shares with the one that waits: a flag and a deadline that stop the work between layers,
//! tokens and downloaded pieces, and a count of what is done.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use crate::{Error, Result};

/// A flag shared between the thread that computes and the one that wants it to stop, with a deadline if there is one.
///
/// Clones share the flag and the count. Work checks it between layers and returns
/// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled); the session it ran in stays usable.
#[derive(Clone, Debug, Default)]
pub struct CancelToken {
    flag: Arc<AtomicBool>,
    deadline: Option<Instant>,
    /// Tokens, once for each layer that they went through.
    computed: Arc<AtomicUsize>,
}

impl CancelToken {
    /// A token that is not cancelled.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A token with the same flag and count that is cancelled from `deadline` on too.
    #[must_use]
    pub fn until(&self, deadline: Option<Instant>) -> Self {
        Self { deadline, ..self.clone() }
    }

    /// Asks the work to stop at its next check.
    pub fn cancel(&self) {
        self.flag.store(true, Ordering::Relaxed);
    }

    /// Makes the token usable again.
    pub fn reset(&self) {
        self.flag.store(false, Ordering::Relaxed);
    }

    /// Whether the work should stop: [`cancel`](Self::cancel) was called, or the deadline has come.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.flag.load(Ordering::Relaxed) || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Fails with [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled) once cancelled.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::cancelled()) } else { Ok(()) }
    }

    /// Notes that some tokens went through a layer.
    pub(crate) fn count_layer(&self, tokens: usize) {
        self.computed.fetch_add(tokens, Ordering::Relaxed);
    }

    /// How far the work is, from any thread: the tokens of all forward passes under this token, once for each layer that
    /// they went through. Divided by the model's number of layers, it is a number of tokens.
    #[must_use]
    pub fn computed(&self) -> usize {
        self.computed.load(Ordering::Relaxed)
    }
}
