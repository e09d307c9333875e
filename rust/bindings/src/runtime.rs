//! The one door from Python into the engine.
//!
//! Whatever computes, reads or waits runs detached from the interpreter, so other Python threads go on. On the main
//! thread, the only one on which Python handles signals, the work runs on a thread of its own, and the calling one
//! looks for signals meanwhile: Ctrl-C cancels the work and raises `KeyboardInterrupt`. A panic is an `InferenceError`.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use candle_phi_engine::{CancelToken, Error, Result, catch_panic};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::error::exception;
use crate::{door, log, trace};

/// How often signals are looked for: far below what a person notices, far above what it costs.
const POLL: Duration = Duration::from_millis(20);
/// As much as the main thread has on Linux.
const STACK_BYTES: usize = 8 << 20;

/// What the thread that works tells the one that waits.
enum Report<T, E> {
    Event(E),
    Done(Result<T>),
}

/// What to do with an event; an exception cancels the work.
type Listener<'a, E> = &'a mut (dyn FnMut(Python<'_>, E) -> PyResult<()> + Send);

/// Runs work that may take long. Signals are handled meanwhile; one that raises sets `cancel`.
pub(crate) fn enter<T: Send>(
    py: Python<'_>,
    cancel: &CancelToken,
    work: impl FnOnce() -> Result<T> + Send,
) -> PyResult<T> {
    if is_main_thread(py)? {
        return supervise::<T, ()>(py, cancel, |_| work(), None);
    }
    enter_briefly(py, work)
}

/// Runs work that took `last` the time before. What is done before signals would be looked for stays on the calling
/// thread: waking another one for each token of a small model takes longer than the token.
pub(crate) fn enter_again<T: Send>(
    py: Python<'_>,
    cancel: &CancelToken,
    last: Duration,
    work: impl FnOnce() -> Result<T> + Send,
) -> PyResult<T> {
    if last >= POLL {
        return enter(py, cancel, work);
    }
    let outcome = enter_briefly(py, work);
    py.check_signals().inspect_err(|_| cancel.cancel())?;
    outcome
}

/// Runs work that tells of events, which the calling thread passes on to Python.
pub(crate) fn enter_listening<T: Send, E: Send>(
    py: Python<'_>,
    cancel: &CancelToken,
    work: impl FnOnce(&mut (dyn FnMut(E) + Send)) -> Result<T> + Send,
    listener: Listener<'_, E>,
) -> PyResult<T> {
    supervise(py, cancel, work, Some(listener))
}

/// Runs work that is done in no time, or that nobody could stop anyway, on the calling thread.
pub(crate) fn enter_briefly<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T> + Send) -> PyResult<T> {
    let outcome = py.detach(|| catch_panic(work).and_then(|outcome| outcome));
    log::pass_on(py)?;
    outcome.map_err(|error| exception(&error))
}

/// Runs `work` on a thread of its own while this one handles signals and events.
fn supervise<T: Send, E: Send>(
    py: Python<'_>,
    cancel: &CancelToken,
    work: impl FnOnce(&mut (dyn FnMut(E) + Send)) -> Result<T> + Send,
    listener: Option<Listener<'_, E>>,
) -> PyResult<T> {
    let (outcome, raised) = py.detach(|| {
        thread::scope(|scope| {
            let (sender, reports) = channel();
            let worker = thread::Builder::new()
                .name("candle-phi".to_owned())
                .stack_size(STACK_BYTES)
                .spawn_scoped(scope, move || {
                    // Nobody to hear a report is no reason to stop: the one who listened has set `cancel`.
                    let mut tell = |event| drop(sender.send(Report::Event(event)));
                    let outcome = catch_panic(|| work(&mut tell)).and_then(|outcome| outcome);
                    trace::leave();
                    drop(sender.send(Report::Done(outcome)));
                });
            match worker {
                Ok(_joined_by_the_scope) => wait(&reports, cancel, listener),
                Err(error) => {
                    (Err(Error::inference(format!("the system cannot start another thread: {error}"))), None)
                }
            }
        })
    });
    log::pass_on(py)?;
    if let Some(raised) = raised {
        return Err(raised);
    }
    // A signal that came since the last look is handled here too, not somewhere in the caller's code.
    py.check_signals().inspect_err(|_| cancel.cancel())?;
    outcome.map_err(|error| exception(&error))
}

/// Waits for the end of the work; returns it with what a signal handler or the listener raised, which came first.
fn wait<T, E>(
    reports: &Receiver<Report<T, E>>,
    cancel: &CancelToken,
    mut listener: Option<Listener<'_, E>>,
) -> (Result<T>, Option<PyErr>) {
    let mut raised: Option<PyErr> = None;
    loop {
        let event = match reports.recv_timeout(POLL) {
            Ok(Report::Done(outcome)) => return (outcome, raised),
            Ok(Report::Event(event)) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                return (
                    Err(Error::inference(
                        "internal error: the worker thread ended without a result; please report it with the output of `candle-phi doctor`",
                    )),
                    raised,
                );
            }
        };
        if raised.is_some() {
            continue;
        }
        // `None` if the interpreter ends under a thread that it does not wait for.
        let heard = door::enter().and_then(|_inside| {
            Python::try_attach(|py| {
                if let (Some(event), Some(listener)) = (event, listener.as_mut()) {
                    listener(py, event)?;
                }
                log::pass_on(py)?;
                py.check_signals()
            })
        });
        match heard {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                raised = Some(error);
                cancel.cancel();
            }
            None => cancel.cancel(),
        }
    }
}

static THREADING: PyOnceLock<Py<PyModule>> = PyOnceLock::new();

/// Imports what is needed at any time: at the interpreter's exit, as in a `__del__`, nothing can be imported.
pub(crate) fn prepare(py: Python<'_>) -> PyResult<()> {
    THREADING.get_or_try_init(py, || py.import("threading").map(Bound::unbind)).map(drop)
}

fn is_main_thread(py: Python<'_>) -> PyResult<bool> {
    prepare(py)?;
    let ask = |threading: &Bound<'_, PyModule>| -> PyResult<bool> {
        let main = threading.call_method0("main_thread")?;
        Ok(threading.call_method0("current_thread")?.is(&main))
    };
    match THREADING.get(py).map(|threading| ask(threading.bind(py))) {
        // Late in the exit the module is emptied. No signal is handled then, and the work stays on this thread.
        Some(Err(_)) if door::is_ending() => Ok(false),
        Some(answer) => answer,
        None => Ok(false),
    }
}
