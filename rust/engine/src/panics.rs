//! Panics as errors, for the borders to other languages, which no panic may cross.

use std::any::Any;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::{Error, Result};

/// Where the latest panic was; the payload that `catch_unwind` returns does not say.
static PANICKED_AT: Mutex<String> = Mutex::new(String::new());

/// Runs work, and turns a panic into an [`Inference`](crate::ErrorKind::Inference) error. What the work had borrowed may be
/// in any state then.
pub fn catch_panic<T>(work: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| panic_error(payload.as_ref()))
}

/// Makes a panic report itself in the error of [`catch_panic`] alone, and not on stderr. This is for a library with a
/// standard library of its own: the hook is that one's, and a Rust program that links this crate has its own hook.
pub fn keep_panics_quiet() {
    std::panic::set_hook(Box::new(|info: &PanicHookInfo<'_>| {
        let place = info.location().map_or_else(String::new, |location| {
            let file = Path::new(location.file()).file_name().unwrap_or_default();
            format!(" at {}:{}", file.display(), location.line())
        });
        *PANICKED_AT.lock().unwrap_or_else(PoisonError::into_inner) = place;
    }));
}

fn panic_error(payload: &(dyn Any + Send)) -> Error {
    let reason = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .and_then(|reason| reason.lines().next())
        .unwrap_or("unknown");
    let place = PANICKED_AT.lock().unwrap_or_else(PoisonError::into_inner);
    Error::inference(format!(
        "internal error{place}: {reason}; please report it with the output of `candle-phi doctor`"
    ))
}
