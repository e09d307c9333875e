//! A conversation with a model.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::Duration;

use candle_phi_engine as engine;
use candle_phi_engine::{CancelToken, Error, ErrorKind, GenerationOptions, Result};
use pyo3::prelude::*;
use pyo3::types::PyByteArray;

use crate::generation::Generation;
use crate::hook::Hook;
use crate::model::Model;
use crate::options::{self, GenerationConfig, Message, Prompt, SessionConfig};
use crate::runtime;

/// How often a generation looks again whether another thread's call, which fails at once, has left the session.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// A conversation with a model: cache and history.
#[pyclass(frozen, name = "Phi3Session", module = "candle_phi._native")]
pub(crate) struct Session {
    shared: Arc<SharedSession>,
    n_ctx: usize,
    n_threads: usize,
    isa: &'static str,
}

#[pymethods]
impl Session {
    #[new]
    fn new(py: Python<'_>, model: &Bound<'_, Model>, config: SessionConfig) -> PyResult<Self> {
        let model = Arc::clone(&model.get().0);
        runtime::enter_briefly(py, || {
            let options = engine::SessionOptions::try_from(config)?;
            let session = engine::Session::new(Arc::clone(&model), &options)?;
            let (n_ctx, n_threads, isa) = (session.n_ctx(), session.n_threads(), session.isa());
            Ok(Self { shared: Arc::new(SharedSession::new(session, model, options)), n_ctx, n_threads, isa })
        })
    }

    /// The length of the context in tokens.
    #[getter]
    fn n_ctx(&self) -> usize {
        self.n_ctx
    }

    /// How many threads compute.
    #[getter]
    fn n_threads(&self) -> usize {
        self.n_threads
    }

    /// The instruction set level that computes.
    #[getter]
    fn isa(&self) -> &'static str {
        self.isa
    }

    /// Whether it was closed.
    #[getter]
    fn closed(&self) -> bool {
        self.shared.is_closed()
    }

    /// Begins a generation from a raw prompt; nothing is computed yet.
    fn start(&self, py: Python<'_>, prompt: Prompt, config: GenerationConfig) -> PyResult<Generation> {
        self.begin(py, config, |session, options| match prompt {
            Prompt::Text(text) => session.start_text(&text, options),
            Prompt::Tokens(tokens) => session.start(&tokens, options),
        })
    }

    /// Begins a turn of the conversation, or of a new one in its place; nothing is computed yet.
    fn start_chat(
        &self,
        py: Python<'_>,
        messages: Vec<Message>,
        replace: bool,
        continue_final_message: bool,
        config: GenerationConfig,
    ) -> PyResult<Generation> {
        self.begin(py, config, |session, options| {
            let messages = options::messages(messages)?;
            if continue_final_message {
                session.complete_chat(&messages, options)
            } else if replace {
                session.start_chat(&messages, options)
            } else {
                session.continue_chat(&messages, options)
            }
        })
    }

    /// The log-probability of each token but the first.
    fn score(&self, py: Python<'_>, tokens: Vec<u32>) -> PyResult<Vec<f32>> {
        let cancel = CancelToken::new();
        runtime::enter(py, &cancel, || self.shared.lend(&cancel, |session| session.score(&tokens, &cancel)))
    }

    /// The logits of the next token, float32 in native byte order.
    fn logits<'py>(&self, py: Python<'py>, tokens: Vec<u32>) -> PyResult<Bound<'py, PyByteArray>> {
        let cancel = CancelToken::new();
        let logits =
            runtime::enter(py, &cancel, || self.shared.lend(&cancel, |session| session.logits(&tokens, &cancel)))?;
        PyByteArray::new_with(py, size_of::<f32>() * logits.len(), |bytes| {
            for (bytes, logit) in bytes.chunks_exact_mut(size_of::<f32>()).zip(logits) {
                bytes.copy_from_slice(&logit.to_ne_bytes());
            }
            Ok(())
        })
    }

    /// A session that goes its own way from here.
    fn fork(&self, py: Python<'_>) -> PyResult<Self> {
        runtime::enter_briefly(py, || {
            let session = self.shared.lend_briefly(|session| session.fork())?;
            let (model, options) = (Arc::clone(&self.shared.model), self.shared.options.clone());
            Ok(Self { shared: Arc::new(SharedSession::new(session, model, options)), ..*self })
        })
    }

    /// Takes turns of the conversation back, and returns their messages as pairs of role and content.
    fn rewind(&self, py: Python<'_>, turns: usize) -> PyResult<Vec<options::Pair>> {
        runtime::enter_briefly(py, || {
            self.shared.lend_briefly(|session| Ok(options::pairs(&session.rewind(turns)?)))
        })
    }

    /// The conversation's messages, as pairs of role and content, and its token ids.
    fn conversation(&self, py: Python<'_>) -> PyResult<(Vec<options::Pair>, Vec<u32>)> {
        runtime::enter_briefly(py, || {
            self.shared.lend_briefly(|session| {
                Ok((options::pairs(session.history()), session.conversation_tokens().to_vec()))
            })
        })
    }

    /// Writes the conversation and what was computed of it to a file.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        let cancel = CancelToken::new();
        runtime::enter(py, &cancel, || self.shared.lend(&cancel, |session| session.save(&path, &cancel)))
    }

    /// Takes up a conversation from a file.
    fn load(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        let cancel = CancelToken::new();
        runtime::enter(py, &cancel, || self.shared.lend(&cancel, |session| session.load(&path, &cancel)))
    }

    /// Asks what is under way to end, from any thread.
    fn cancel(&self) {
        self.shared.cancel();
    }

    /// Forgets the conversation.
    fn reset(&self, py: Python<'_>) -> PyResult<()> {
        runtime::enter_briefly(py, || {
            self.shared.lend_briefly(|session| {
                session.reset();
                Ok(())
            })
        })
    }

    /// Stops what is under way and frees the cache.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        runtime::enter_briefly(py, || {
            self.shared.close();
            Ok(())
        })
    }
}

impl Session {
    fn begin(
        &self,
        py: Python<'_>,
        mut config: GenerationConfig,
        start: impl FnOnce(&mut engine::Session, &GenerationOptions) -> Result<engine::Generation> + Send,
    ) -> PyResult<Generation> {
        let cancel = CancelToken::new();
        let hook = Hook::new(config.logits_processor.take());
        let (generation, layers) = runtime::enter_briefly(py, || {
            let options = GenerationOptions::try_from(config)?;
            self.shared
                .lend(&cancel, |session| Ok((start(session, &options)?, session.model().config().block_count)))
        })?;
        Ok(Generation::new(Arc::clone(&self.shared), generation, layers, cancel, hook))
    }
}

/// The engine's session, as the session's and its generations' Python objects share it.
pub(crate) struct SharedSession {
    /// `None` once closed.
    session: Mutex<Option<engine::Session>>,
    /// Stops the call that has the session.
    running: Mutex<CancelToken>,
    is_closed: AtomicBool,
    model: Arc<engine::Phi3Model>,
    options: engine::SessionOptions,
}

impl SharedSession {
    fn new(session: engine::Session, model: Arc<engine::Phi3Model>, options: engine::SessionOptions) -> Self {
        Self {
            session: Mutex::new(Some(session)),
            running: Mutex::default(),
            is_closed: AtomicBool::new(false),
            model,
            options,
        }
    }

    fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }

    /// Lends the session to a call, unless another thread has it.
    fn lend<T>(&self, cancel: &CancelToken, work: impl FnOnce(&mut engine::Session) -> Result<T>) -> Result<T> {
        self.run(self.lock_unless_used()?, cancel, work)
    }

    /// Lends the session to a call that computes nothing: what [`cancel`](Self::cancel) stops stays as it was.
    fn lend_briefly<T>(&self, work: impl FnOnce(&mut engine::Session) -> Result<T>) -> Result<T> {
        self.work_on(self.lock_unless_used()?, work)
    }

    fn lock_unless_used(&self) -> Result<MutexGuard<'_, Option<engine::Session>>> {
        self.try_lock().ok_or_else(|| {
            // `close` has the lock, or waits for it.
            if self.is_closed() {
                return closed();
            }
            Error::session_busy(
                "another thread or task is using the session; wait for it, or give each its own session on the same \
                 model",
            )
        })
    }

    /// Lends the session to the generation that it is busy with. Whoever else has it will be sent away at once.
    pub(crate) fn lend_to_generation<T>(
        &self,
        cancel: &CancelToken,
        work: impl FnOnce(&mut engine::Session) -> Result<T>,
    ) -> Result<T> {
        loop {
            if let Some(session) = self.try_lock() {
                return self.run(session, cancel, work);
            }
            cancel.check()?;
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// Asks the call that has the session, or else the generation that was begun last, to end.
    fn cancel(&self) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).cancel();
    }

    /// Stops the call that has the session, waits for its end and frees the session.
    fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        self.cancel();
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn try_lock(&self) -> Option<MutexGuard<'_, Option<engine::Session>>> {
        match self.session.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn run<T>(
        &self,
        guard: MutexGuard<'_, Option<engine::Session>>,
        cancel: &CancelToken,
        work: impl FnOnce(&mut engine::Session) -> Result<T>,
    ) -> Result<T> {
        let running = || self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *running(), cancel.clone());
        let outcome = self.work_on(guard, work);
        if matches!(&outcome, Err(error) if error.kind() == ErrorKind::SessionBusy) {
            // The call was refused, and the generation that the session is busy with can still be cancelled.
            if cancel.is_cancelled() {
                before.cancel();
            }
            *running() = before;
        }
        outcome
    }

    fn work_on<T>(
        &self,
        mut guard: MutexGuard<'_, Option<engine::Session>>,
        work: impl FnOnce(&mut engine::Session) -> Result<T>,
    ) -> Result<T> {
        // `close` sets its mark first and cancels then, so it is seen here or it cancels.
        let Some(session) = guard.as_mut().filter(|_| !self.is_closed()) else {
            return Err(closed());
        };
        match candle_phi_engine::catch_panic(|| work(session)) {
            Ok(Err(error)) if error.kind() == ErrorKind::Cancelled && self.is_closed() => Err(closed()),
            Ok(outcome) => outcome,
            Err(panic) => {
                // The old one may be in any state. A new one can't fail, the options being the same, unless memory has become
                // short; then there is none, as after `close`.
                *guard = engine::Session::new(Arc::clone(&self.model), &self.options).ok();
                Err(Error::inference(format!("{panic}; the session was reset and its conversation is lost")))
            }
        }
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::SessionClosed, "the session is closed; open a new one")
}
