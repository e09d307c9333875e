//! What the engine tells of itself by `tracing`: events go to Python's `logging`, spans into a trace while one is
//! written. A span that nobody records costs a comparison.

use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{Interest, set_global_default};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::{log, trace};

/// Begins to listen to the engine. This library's copy of `tracing` is its own, so nobody else's listener is replaced.
pub(crate) fn listen() {
    // Fails when it listens already.
    drop(set_global_default(Listener));
}

struct Listener;

impl Subscriber for Listener {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) { Interest::always() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(if trace::is_on() { LevelFilter::TRACE } else { LevelFilter::DEBUG })
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        if metadata.is_span() {
            // Candle's spans too. Those of libraries beneath are not about computing.
            return trace::is_on() && target.starts_with("candle");
        }
        // A library beneath the engine is its own business, unless it warns.
        *metadata.level() <= if target.starts_with("candle_phi") { Level::DEBUG } else { Level::WARN }
    }

    fn event(&self, event: &Event<'_>) {
        log::queue(event);
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        trace::open(span)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        trace::add(span, values);
    }

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn enter(&self, span: &Id) {
        trace::enter(span);
    }

    fn exit(&self, span: &Id) {
        trace::exit(span);
    }

    fn clone_span(&self, span: &Id) -> Id {
        trace::share(span);
        span.clone()
    }

    fn try_close(&self, span: Id) -> bool {
        trace::close(&span)
    }
}
