//! A trace of what the engine does, written to a file while a program wants one.

mod recorder;
mod track;

use std::io;
use std::path::PathBuf;

use candle_phi_engine::Error;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

use crate::runtime;
use recorder::Failure;
pub(crate) use recorder::{add, close, enter, exit, is_on, open, share};
pub(crate) use track::leave;

/// Begins to write a trace.
#[pyfunction]
pub(crate) fn start_trace(py: Python<'_>, path: PathBuf) -> PyResult<()> {
    runtime::enter_briefly(py, || Ok(recorder::start(&path)))?.map_err(|failure| exception(py, failure))
}

/// Ends the trace that is being written; without one it does nothing.
#[pyfunction]
pub(crate) fn stop_trace(py: Python<'_>) -> PyResult<()> {
    runtime::enter_briefly(py, || Ok(recorder::stop()))?.map_err(|failure| exception(py, failure))
}

fn exception(py: Python<'_>, failure: Failure) -> PyErr {
    match failure {
        Failure::Busy(other) => crate::error::exception(&Error::invalid_input(format!(
            "a trace is already being written to {}, and a process can write only one at a time; end it first",
            other.display()
        ))),
        Failure::File(path, error) => os_error(py, path, &error),
    }
}

/// The same as Python's own `open` would raise.
fn os_error(py: Python<'_>, path: PathBuf, error: &io::Error) -> PyErr {
    let Some(code) = error.raw_os_error() else {
        return PyOSError::new_err(format!("{}: {error}", path.display()));
    };
    let text = py.import("os").and_then(|os| os.call_method1("strerror", (code,))?.extract::<String>());
    match text {
        Ok(text) => PyOSError::new_err((code, text, path.into_os_string())),
        Err(raised) => raised,
    }
}
