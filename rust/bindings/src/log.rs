//! What the engine logs, on its way to Python's `logging`.
//!
//! The engine runs detached from the interpreter, so its records are queued here, and passed on by whoever is
//! attached next.

use std::collections::VecDeque;
use std::fmt::{Debug, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Records that wait; the oldest go when nobody comes for them.
const CAPACITY: usize = 1000;

static QUEUE: Mutex<VecDeque<(Level, String)>> = Mutex::new(VecDeque::new());
static IS_WAITING: AtomicBool = AtomicBool::new(false);

/// Begins to listen to the engine. This library's copy of `tracing` is its own, so nobody else's listener is replaced.
pub(crate) fn listen() {
    // Fails when it listens already.
    drop(tracing::subscriber::set_global_default(Listener));
}

/// Gives the records that wait to the logger "candle_phi".
pub(crate) fn pass_on(py: Python<'_>) -> PyResult<()> {
    if !IS_WAITING.swap(false, Ordering::Relaxed) {
        return Ok(());
    }
    let records = std::mem::take(&mut *QUEUE.lock().unwrap_or_else(PoisonError::into_inner));
    let logger = py.import("logging")?.call_method1("getLogger", ("candle_phi",))?;
    for (level, message) in records {
        // The numbers of Python's levels.
        let level = match level {
            Level::ERROR => 40,
            Level::WARN => 30,
            Level::INFO => 20,
            Level::DEBUG | Level::TRACE => 10,
        };
        logger.call_method1("log", (level, "%s", message))?;
    }
    Ok(())
}

struct Listener;

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // A library beneath the engine is its own business, unless it warns.
        let is_ours = metadata.target().starts_with("candle_phi");
        metadata.is_event() && *metadata.level() <= if is_ours { Level::DEBUG } else { Level::WARN }
    }

    fn event(&self, event: &Event<'_>) {
        let mut message = Message::default();
        event.record(&mut message);
        let mut queue = QUEUE.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.len() == CAPACITY {
            queue.pop_front();
        }
        queue.push_back((*event.metadata().level(), message.text + &message.fields));
        IS_WAITING.store(true, Ordering::Relaxed);
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
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
