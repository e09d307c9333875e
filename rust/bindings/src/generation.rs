//! A generation under way.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use candle_phi_engine as engine;
use candle_phi_engine::{CancelToken, Error, ErrorKind, HalfStep, Result};
use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;

use crate::completion::{Chunk, Completion};
use crate::door;
use crate::hook::{self, Hook};
use crate::runtime;
use crate::session::SharedSession;

/// A generation under way.
#[pyclass(frozen, module = "candle_phi._native")]
pub(crate) struct Generation {
    session: Arc<SharedSession>,
    /// Locked while the engine works on it, and not while `hook` does.
    state: Mutex<State>,
    cancel: CancelToken,
    /// The tokens of the prompt that the cache does not have, once for each layer.
    prefill: usize,
    /// How many layers the model has.
    layers: usize,
    /// What of Python's edits the logits of each token.
    hook: Hook,
    /// Whether somebody is in a step.
    is_stepping: AtomicBool,
    /// Microseconds that the last step took. At first, when the prompt is to be read, as many as there are.
    last_step_us: AtomicU64,
}

/// While the engine's generation lives and has not ended, its session is busy.
enum State {
    Running(Box<engine::Generation>),
    /// With the text that was held back, if a step has still to give it out.
    Ended(Box<engine::Completion>, Option<engine::Chunk>),
}

/// Lets others step when it is dropped.
struct Stepping<'a>(&'a AtomicBool);

impl Drop for Stepping<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
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

    /// How much of the prompt is computed, in tokens, and how much there is to compute. Waits for nobody.
    #[getter]
    fn prefill_progress(&self) -> (usize, usize) {
        (self.cancel.computed().min(self.prefill) / self.layers, self.prefill / self.layers)
    }

    /// Leaves it to `commit` when a chat's turn is said; until then the session is busy.
    fn commit_later(&self) {
        if let State::Running(generation) = &mut *self.lock() {
            generation.commit_later();
        }
    }

    /// Counts what has ended as said, and frees the session.
    fn commit(&self, py: Python<'_>) -> PyResult<()> {
        runtime::enter_briefly(py, || {
            let mut state = self.lock();
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
        let _stepping = self.begin_stepping(py)?;
        let outcome = match self.hook.get(py) {
            Some(function) => self.step_through(py, &function),
            None => self.timed(py, || self.advance(|session, it| session.step(it, &self.cancel)).map(flat)),
        };
        Ok(self.tidied(py, outcome)?.map(Chunk::from))
    }

    /// All the rest, at once.
    fn run(&self, py: Python<'_>) -> PyResult<Completion> {
        let _stepping = self.begin_stepping(py)?;
        if let Some(function) = self.hook.get(py) {
            while self.tidied(py, self.step_through(py, &function))?.is_some() {}
            return self.completion(py);
        }
        runtime::enter(py, &self.cancel, || {
            while flat(self.advance(|session, it| session.step(it, &self.cancel))?).is_some() {}
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

    /// Ends it, and counts what there is of a chat's answer as said; whether there is any.
    fn keep(&self, py: Python<'_>) -> PyResult<bool> {
        runtime::enter_briefly(py, || {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let State::Running(generation) = &mut *state else { return Ok(false) };
            let held_back = generation.keep();
            let is_kept = generation.is_kept();
            self.session.lend_to_generation(&CancelToken::new(), |session| {
                session.commit(generation);
                Ok(())
            })?;
            state.end();
            if let State::Ended(_, last) = &mut *state {
                *last = held_back;
            }
            Ok(is_kept)
        })
    }

    /// Ends it and frees the session.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.cancel.cancel();
        self.hook.clear();
        runtime::enter_briefly(py, || {
            self.lock().end();
            Ok(())
        })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> std::result::Result<(), PyTraverseError> {
        self.hook.traverse(&visit)
    }

    fn __clear__(&self) {
        self.hook.clear();
    }
}

impl Generation {
    pub(crate) fn new(
        session: Arc<SharedSession>,
        generation: engine::Generation,
        layers: usize,
        cancel: CancelToken,
        hook: Hook,
    ) -> Self {
        let usage = &generation.completion().usage;
        let layers = layers.max(1);
        Self {
            session,
            prefill: usage.prompt_tokens.saturating_sub(usage.cached_tokens) * layers,
            layers,
            state: Mutex::new(State::Running(Box::new(generation))),
            cancel,
            hook,
            is_stepping: AtomicBool::new(false),
            last_step_us: AtomicU64::new(u64::MAX),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps others from stepping meanwhile, the hook included.
    fn begin_stepping(&self, py: Python<'_>) -> PyResult<Stepping<'_>> {
        runtime::enter_briefly(py, || {
            if self.is_stepping.swap(true, Ordering::Acquire) {
                return Err(Error::session_busy(
                    "another thread is reading this stream, or its own logits_processor is; read it from one thread at a time",
                ));
            }
            Ok(Stepping(&self.is_stepping))
        })
    }

    /// Computes in the engine; how long that takes decides how the next one is waited for.
    fn timed<T: Send>(&self, py: Python<'_>, work: impl FnOnce() -> Result<T> + Send) -> PyResult<T> {
        let last_step = Duration::from_micros(self.last_step_us.load(Ordering::Relaxed));
        runtime::enter_again(py, &self.cancel, last_step, || {
            let started = Instant::now();
            let outcome = work();
            self.last_step_us.store(started.elapsed().as_micros() as u64, Ordering::Relaxed);
            outcome
        })
    }

    /// A step in halves, with the hook between them, on the calling thread and attached to the interpreter.
    fn step_through(&self, py: Python<'_>, function: &Bound<'_, PyAny>) -> PyResult<Option<engine::Chunk>> {
        let half = self.timed(py, || {
            self.advance(|session, it| {
                Ok(match session.begin_step(it, &self.cancel)? {
                    HalfStep::Whole(chunk) => ControlFlow::Break(chunk),
                    HalfStep::Logits => {
                        let logits = it.logits_mut().unwrap_or_default().to_vec();
                        ControlFlow::Continue((it.tokens(), logits))
                    }
                })
            })
        })?;
        let (tokens, logits) = match half {
            ControlFlow::Continue(ControlFlow::Continue(both)) => both,
            ControlFlow::Break(chunk) | ControlFlow::Continue(ControlFlow::Break(chunk)) => return Ok(chunk),
        };
        let Some(inside) = door::enter() else {
            // The interpreter ends, and calls no function on this thread: the generation ends as a cancelled one.
            self.cancel.cancel();
            return runtime::enter_briefly(py, || Ok(self.lock().end()));
        };
        let edited = hook::call(function, tokens, &logits).inspect_err(|_| self.cancel.cancel())?;
        drop(inside);
        runtime::enter_briefly(py, || {
            let outcome = self.advance(|session, it| {
                if let Some(logits) = it.logits_mut() {
                    logits.copy_from_slice(&edited);
                }
                session.finish_step(it, &self.cancel)
            });
            outcome.map(flat)
        })
    }

    /// The outcome of a step. What was interrupted, by a signal or out of the hook, has ended; so has the hook's work.
    fn tidied(&self, py: Python<'_>, outcome: PyResult<Option<engine::Chunk>>) -> PyResult<Option<engine::Chunk>> {
        match &outcome {
            Err(_) if self.cancel.is_cancelled() => self.close(py)?,
            Err(_) | Ok(None) => self.hook.clear(),
            Ok(Some(_)) => {}
        }
        outcome
    }

    /// Works on the generation, unless it has ended. Any failure is the end; a cancelled generation ends without one.
    /// Breaks with the text that was held back.
    fn advance<T>(
        &self,
        work: impl FnOnce(&mut engine::Session, &mut engine::Generation) -> Result<T>,
    ) -> Result<ControlFlow<Option<engine::Chunk>, T>> {
        let mut state = self.lock();
        let generation = match &mut *state {
            State::Running(generation) => generation,
            State::Ended(_, held_back) => return Ok(ControlFlow::Break(held_back.take())),
        };
        let outcome = self.session.lend_to_generation(&self.cancel, |session| work(session, generation));
        match outcome {
            Ok(outcome) => {
                if generation.is_finished() && !generation.commits_later() {
                    state.end();
                }
                Ok(ControlFlow::Continue(outcome))
            }
            Err(error) => {
                let held_back = state.end();
                if error.kind() == ErrorKind::Cancelled { Ok(ControlFlow::Break(held_back)) } else { Err(error) }
            }
        }
    }

    fn so_far(&self) -> Completion {
        match &*self.lock() {
            State::Running(generation) => Completion::from(generation.completion()),
            State::Ended(completion, _) => Completion::from(&**completion),
        }
    }
}

/// The chunk of a step, whichever way it came.
fn flat(step: ControlFlow<Option<engine::Chunk>, Option<engine::Chunk>>) -> Option<engine::Chunk> {
    match step {
        ControlFlow::Break(chunk) | ControlFlow::Continue(chunk) => chunk,
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
