//! What the engine logs, on its way to Python's `logging`.
//!
//! The engine runs detached from the interpreter, so its records are queued here, and passed on by whoever is
//! attached next. A record's logger is named after the room of the engine that it is from: "candle_phi.hub.transfer".

use std::collections::VecDeque;
use std::fmt::{Debug, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata};

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
    queue.push_back(Queued { metadata: event.metadata(), message: message.text + &message.fields });
    IS_WAITING.store(true, Ordering::Relaxed);
}

/// Gives the records that wait to their loggers.
pub(crate) fn pass_on(py: Python<'_>) -> PyResult<()> {
    if !IS_WAITING.swap(false, Ordering::Relaxed) {
        return Ok(());
    }
    let records = std::mem::take(&mut *QUEUE.lock().unwrap_or_else(PoisonError::into_inner));
    let logging = py.import("logging")?;
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
