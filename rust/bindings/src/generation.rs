//! A generation under way.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use candle_phi_engine as engine;
use candle_phi_engine::{CancelToken, Error, ErrorKind, Result};
use pyo3::prelude::*;

use crate::completion::{Chunk, Completion};
use crate::runtime;
use crate::session::SharedSession;

/// A generation under way.
#[pyclass(frozen, module = "candle_phi._native")]
pub(crate) struct Generation {
    session: Arc<SharedSession>,
    state: Mutex<State>,
    cancel: CancelToken,
    /// Microseconds that the last step took. At first, when the prompt is to be read, as many as there are.
    last_step_us: AtomicU64,
}

/// While the engine's generation lives and has not ended, its session is busy.
enum State {
    Running(Box<engine::Generation>),
    /// With the text that was held back, if a step has still to give it out.
    Ended(Box<engine::Completion>, Option<engine::Chunk>),
}

#[pymethods]
impl Generation {
    /// Whether it is at its end.
    #[getter]
    fn finished(&self) -> bool {
        match self.state.try_lock().as_deref() {
            Ok(State::Ended(..)) => true,
            Ok(State::Running(generation)) => generation.is_finished(),
            Err(_) => false,
        }
    }

    /// Leaves it to `commit` when a chat's turn is said; until then the session is busy.
    fn commit_later(&self) {
        if let State::Running(generation) = &mut *self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            generation.commit_later();
        }
    }

    /// Counts what has ended as said, and frees the session.
    fn commit(&self, py: Python<'_>) -> PyResult<()> {
        runtime::enter_briefly(py, || {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if let State::Running(generation) = &mut *state
                && generation.is_finished()
            {
                self.session.lend_to_generation(&CancelToken::new(), |session| {
                    session.commit(generation);
                    Ok(())
                })?;
                state.end();
            }
            Ok(())
        })
    }

    /// The next chunk, or None at the end.
    fn step(&self, py: Python<'_>) -> PyResult<Option<Chunk>> {
        let last_step = Duration::from_micros(self.last_step_us.load(Ordering::Relaxed));
        let outcome = runtime::enter_again(py, &self.cancel, last_step, || {
            let started = Instant::now();
            let chunk = self.advance();
            self.last_step_us.store(started.elapsed().as_micros() as u64, Ordering::Relaxed);
            chunk
        });
        if outcome.is_err() && self.cancel.is_cancelled() {
            // Interrupted just when the step was done: the stream ends as if it had been in the middle.
            self.close(py)?;
        }
        Ok(outcome?.map(Chunk::from))
    }

    /// All the rest, at once.
    fn run(&self, py: Python<'_>) -> PyResult<Completion> {
        runtime::enter(py, &self.cancel, || {
            while self.advance()?.is_some() {}
            Ok(self.so_far())
        })
    }

    /// What there is so far.
    fn completion(&self, py: Python<'_>) -> PyResult<Completion> {
        runtime::enter_briefly(py, || Ok(self.so_far()))
    }

    /// Asks it to end, from any thread.
    fn cancel(&self) {
        self.cancel.cancel();
        // Nobody is in a step: the session is free at once, and not when the next step notices.
        if let Ok(mut state) = self.state.try_lock()
            && let Some(text) = state.end()
            && let State::Ended(_, held_back) = &mut *state
        {
            *held_back = Some(text);
        }
    }

    /// Ends it and frees the session.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.cancel.cancel();
        runtime::enter_briefly(py, || {
            self.state.lock().unwrap_or_else(PoisonError::into_inner).end();
            Ok(())
        })
    }
}

impl Generation {
    pub(crate) fn new(session: Arc<SharedSession>, generation: engine::Generation, cancel: CancelToken) -> Self {
        Self {
            session,
            state: Mutex::new(State::Running(Box::new(generation))),
            cancel,
            last_step_us: AtomicU64::new(u64::MAX),
        }
    }

    /// One step of the engine. Any failure is the end; a cancelled generation ends without one.
    fn advance(&self) -> Result<Option<engine::Chunk>> {
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(error)) => error.into_inner(),
            Err(TryLockError::WouldBlock) => {
                return Err(Error::session_busy("another thread is reading this stream"));
            }
        };
        let generation = match &mut *state {
            State::Running(generation) => generation,
            State::Ended(_, held_back) => return Ok(held_back.take()),
        };
        let outcome =
            self.session.lend_to_generation(&self.cancel, |session| session.step(generation, &self.cancel));
        match outcome {
            Ok(chunk) => {
                if generation.is_finished() && !generation.commits_later() {
                    state.end();
                }
                Ok(chunk)
            }
            Err(error) => {
                let held_back = state.end();
                if error.kind() == ErrorKind::Cancelled { Ok(held_back) } else { Err(error) }
            }
        }
    }

    fn so_far(&self) -> Completion {
        match &*self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Running(generation) => Completion::from(generation.completion()),
            State::Ended(completion, _) => Completion::from(&**completion),
        }
    }
}

impl State {
    /// Lets go of the engine's generation, and returns the text that it held back, if it had not ended.
    fn end(&mut self) -> Option<engine::Chunk> {
        let Self::Running(generation) = self else {
            return None;
        };
        let held_back = generation.cancel();
        *self = Self::Ended(Box::new(generation.completion().clone()), None);
        held_back
    }
}
