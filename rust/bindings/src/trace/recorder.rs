//! Spans of the engine in a file of the format that chrome://tracing and Perfetto read.
//!
//! The file is whole JSON at any time: each write ends with what closes it, and the next one begins there. So what a
//! process leaves that is killed can be looked at too.

use std::collections::HashMap;
use std::fmt::Debug;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tracing::Metadata;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};

use super::track;

const TAIL: &[u8] = b"\n]}\n";
/// How much waits at most for the next write, and for how long while spans end.
const BUFFER_BYTES: usize = 1 << 16;
const BUFFER_TIME: Duration = Duration::from_secs(1);

static TRACE: Mutex<Option<Trace>> = Mutex::new(None);
/// The process that writes a trace, 0 for none. One that was forked has the same file open, and leaves it alone.
static PROCESS: AtomicU32 = AtomicU32::new(0);
/// The next span's number. They go on from trace to trace: the end of a span of the last one belongs to nothing.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// Whether a trace is being written.
pub(crate) fn is_on() -> bool {
    PROCESS.load(Ordering::Relaxed) != 0
}

/// Why there is no trace, or not all of it.
pub(crate) enum Failure {
    /// This one is being written already.
    Busy(PathBuf),
    /// The file cannot be written.
    File(PathBuf, io::Error),
}

/// Begins a trace.
pub(crate) fn start(path: &Path) -> Result<(), Failure> {
    let mut trace = TRACE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(other) = &*trace {
        return Err(Failure::Busy(other.path.clone()));
    }
    *trace = Some(Trace::create(path).map_err(|error| Failure::File(path.to_owned(), error))?);
    PROCESS.store(process::id(), Ordering::Relaxed);
    drop(trace);
    tracing::callsite::rebuild_interest_cache();
    Ok(())
}

/// Ends the trace, if one is being written; spans that are open end here. Fails if not all of it could be written.
pub(crate) fn stop() -> Result<(), Failure> {
    PROCESS.store(0, Ordering::Relaxed);
    let trace = TRACE.lock().unwrap_or_else(PoisonError::into_inner).take();
    tracing::callsite::rebuild_interest_cache();
    trace.map_or(Ok(()), Trace::finish)
}

/// A new span.
pub(crate) fn open(span: &Attributes<'_>) -> Id {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    with(|trace| {
        let mut arguments = Arguments::default();
        span.record(&mut arguments);
        let arguments = arguments.0;
        trace.open.insert(number, Span { metadata: span.metadata(), arguments, owners: 1, entered: Vec::new() });
    });
    Id::from_u64(number)
}

/// More fields of a span.
pub(crate) fn add(span: &Id, values: &Record<'_>) {
    with(|trace| {
        if let Some(span) = trace.open.get_mut(&span.into_u64()) {
            let mut arguments = Arguments(std::mem::take(&mut span.arguments));
            values.record(&mut arguments);
            span.arguments = arguments.0;
        }
    });
}

/// One more owner of a span.
pub(crate) fn share(span: &Id) {
    with(|trace| {
        if let Some(span) = trace.open.get_mut(&span.into_u64()) {
            span.owners += 1;
        }
    });
}

/// One owner less; whether that was the last.
pub(crate) fn close(span: &Id) -> bool {
    let mut was_last = false;
    with(|trace| {
        if let Some(open) = trace.open.get_mut(&span.into_u64()) {
            open.owners -= 1;
            was_last = open.owners == 0;
        }
        if was_last {
            trace.open.remove(&span.into_u64());
        }
    });
    was_last
}

/// This thread begins to work in a span.
pub(crate) fn enter(span: &Id) {
    let track = track::of_this_thread();
    with(|trace| {
        let since = trace.began.elapsed();
        if let Some(span) = trace.open.get_mut(&span.into_u64()) {
            span.entered.push(Entered { track, since });
        }
    });
}

/// This thread leaves a span: it is written.
pub(crate) fn exit(span: &Id) {
    let track = track::of_this_thread();
    with(|trace| {
        let Some(span) = trace.open.get_mut(&span.into_u64()) else { return };
        let Some(index) = span.entered.iter().rposition(|entered| entered.track == track) else { return };
        let entered = span.entered.swap_remove(index);
        let event = span.event(&entered, trace.began.elapsed(), false);
        trace.name_track(track);
        trace.write(&event);
    });
}

/// Lets the trace of this process take something in, if there is one.
fn with(record: impl FnOnce(&mut Trace)) {
    if PROCESS.load(Ordering::Relaxed) != process::id() {
        return;
    }
    if let Some(trace) = &mut *TRACE.lock().unwrap_or_else(PoisonError::into_inner) {
        record(trace);
    }
}

struct Trace {
    path: PathBuf,
    file: File,
    /// Where `TAIL` is in the file.
    tail_at: u64,
    /// Events that wait for the next write.
    buffer: Vec<u8>,
    written_at: Instant,
    began: Instant,
    open: HashMap<u64, Span>,
    /// Tracks that have their name.
    named: Vec<u32>,
    /// The first write that failed; nothing is written after it.
    failure: Option<io::Error>,
}

/// A span that was opened and not closed.
struct Span {
    metadata: &'static Metadata<'static>,
    arguments: Map<String, Value>,
    owners: usize,
    entered: Vec<Entered>,
}

/// A thread that is in a span.
struct Entered {
    track: u32,
    /// Since when, from the trace's beginning.
    since: Duration,
}

impl Span {
    /// A complete event: name, begin and length.
    fn event(&self, entered: &Entered, now: Duration, is_unfinished: bool) -> Value {
        let mut arguments = self.arguments.clone();
        if is_unfinished {
            arguments.insert("unfinished".to_owned(), Value::Bool(true));
        }
        json!({
            "name": self.metadata.name(),
            "cat": self.metadata.target(),
            "ph": "X",
            "ts": microseconds(entered.since),
            "dur": microseconds(now.saturating_sub(entered.since)),
            "pid": process::id(),
            "tid": entered.track,
            "args": arguments,
        })
    }
}

impl Trace {
    fn create(path: &Path) -> io::Result<Self> {
        let mut file = File::create(path)?;
        let process = json!({
            "name": "process_name",
            "ph": "M",
            "pid": process::id(),
            "tid": 0,
            "args": {"name": concat!("candle-phi ", env!("CARGO_PKG_VERSION"))},
        });
        let head = format!("{{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n{process}");
        file.write_all(head.as_bytes())?;
        file.write_all(TAIL)?;
        let now = Instant::now();
        Ok(Self {
            path: path.to_owned(),
            file,
            tail_at: head.len() as u64,
            buffer: Vec::new(),
            written_at: now,
            began: now,
            open: HashMap::new(),
            named: Vec::new(),
            failure: None,
        })
    }

    /// Gives a thread's track its name, once.
    fn name_track(&mut self, track: u32) {
        if self.named.contains(&track) {
            return;
        }
        self.named.push(track);
        self.write(&json!({
            "name": "thread_name",
            "ph": "M",
            "pid": process::id(),
            "tid": track,
            "args": {"name": track::name_of_this_thread()},
        }));
    }

    fn write(&mut self, event: &Value) {
        if self.failure.is_some() {
            return;
        }
        self.buffer.extend_from_slice(b",\n");
        self.buffer.extend_from_slice(event.to_string().as_bytes());
        if self.buffer.len() >= BUFFER_BYTES || self.written_at.elapsed() >= BUFFER_TIME {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let events = self.buffer.len() as u64;
        self.buffer.extend_from_slice(TAIL);
        let written =
            self.file.seek(SeekFrom::Start(self.tail_at)).and_then(|_| self.file.write_all(&self.buffer));
        self.buffer.clear();
        match written {
            Ok(()) => self.tail_at += events,
            Err(error) => self.failure = Some(error),
        }
        self.written_at = Instant::now();
    }

    fn finish(mut self) -> Result<(), Failure> {
        let now = self.began.elapsed();
        let open = std::mem::take(&mut self.open);
        for span in open.values() {
            for entered in &span.entered {
                self.write(&span.event(entered, now, true));
            }
        }
        self.flush();
        match self.failure {
            None => Ok(()),
            Some(error) => Err(Failure::File(self.path, error)),
        }
    }
}

fn microseconds(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1000.0
}

/// A span's fields as JSON.
#[derive(Default)]
struct Arguments(Map<String, Value>);

impl Visit for Arguments {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}").into());
    }
}
