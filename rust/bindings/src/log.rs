//! What the engine logs, on its way to Python's `logging`.
//!
//! The engine runs detached from the interpreter, so its records are queued here, and passed on by whoever is
//! attached next. A record's logger is named after the room of the engine that it is from: "candle_phi.hub.transfer".

use std::collections::VecDeque;
use std::fmt::{Debug, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use candle_phi_engine::visible;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata};

use crate::door;

/// Records that wait; the oldest go when nobody comes for them.
const CAPACITY: usize = 1000;

static QUEUE: Mutex<VecDeque<Queued>> = Mutex::new(VecDeque::new());
static IS_WAITING: AtomicBool = AtomicBool::new(false);

struct Queued {
    metadata: &'static Metadata<'static>,
    message: String,
}

/// Takes in a record of the engine.
pub(crate) fn queue(event: &Event<'_>) {
    let mut message = Message::default();
    event.record(&mut message);
    let mut queue = QUEUE.lock().unwrap_or_else(PoisonError::into_inner);
    if queue.len() == CAPACITY {
        queue.pop_front();
    }
    queue.push_back(Queued {
        metadata: event.metadata(),
        message: visible(&(message.text + &message.fields)).into_owned(),
    });
    IS_WAITING.store(true, Ordering::Relaxed);
}

static LOGGING: PyOnceLock<Py<PyModule>> = PyOnceLock::new();

/// Imports what is needed at any time: at the interpreter's exit nothing can be imported.
pub(crate) fn prepare(py: Python<'_>) -> PyResult<()> {
    LOGGING.get_or_try_init(py, || py.import("logging").map(Bound::unbind)).map(drop)
}

/// Gives the records that wait to their loggers.
pub(crate) fn pass_on(py: Python<'_>) -> PyResult<()> {
    if !IS_WAITING.load(Ordering::Relaxed) {
        return Ok(());
    }
    // No record is worth an error, or an abort, at the end of the interpreter.
    let Some(_inside) = door::enter() else { return Ok(()) };
    let passed_on = pass_on_all(py);
    if door::is_ending() { Ok(()) } else { passed_on }
}

fn pass_on_all(py: Python<'_>) -> PyResult<()> {
    IS_WAITING.store(false, Ordering::Relaxed);
    let records = std::mem::take(&mut *QUEUE.lock().unwrap_or_else(PoisonError::into_inner));
    prepare(py)?;
    let Some(logging) = LOGGING.get(py).map(|logging| logging.bind(py)) else { return Ok(()) };
    for Queued { metadata, message } in records {
        // The numbers of Python's levels.
        let level = match *metadata.level() {
            Level::ERROR => 40,
            Level::WARN => 30,
            Level::INFO => 20,
            Level::DEBUG | Level::TRACE => 10,
        };
        let logger = logging.call_method1("getLogger", (logger_name(metadata.target()),))?;
        logger.call_method1("log", (level, "%s", message))?;
    }
    Ok(())
}

/// The logger of a Rust module: the engine is the package, whatever is beneath it has a name below the package's.
fn logger_name(target: &str) -> String {
    let path = target.replace("::", ".");
    match path.strip_prefix("candle_phi_engine") {
        Some(room) => format!("candle_phi{room}"),
        None => format!("candle_phi.{}", path.strip_prefix("candle_phi_").unwrap_or(&path)),
    }
}

/// An event's text, and its other fields behind it.
#[derive(Default)]
struct Message {
    text: String,
    fields: String,
}

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.text, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
