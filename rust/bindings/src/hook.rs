//! A function of the caller's that edits the logits of each token before it is drawn.

use std::sync::{Mutex, PoisonError};

use pyo3::PyTraverseError;
use pyo3::exceptions::{PyBufferError, PyRuntimeError, PyStopAsyncIteration, PyStopIteration, PyTypeError};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyMemoryView};

const NAME: &str = "logits_processor";

/// The function of one generation, until that has ended.
pub(crate) struct Hook(Mutex<Option<Py<PyAny>>>);

impl Hook {
    pub(crate) fn new(function: Option<Py<PyAny>>) -> Self {
        Self(Mutex::new(function))
    }

    /// The function, if there is one.
    pub(crate) fn get<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|function| function.bind(py).clone())
    }

    /// Lets go of the function: it may refer to the generation, which refers to it.
    pub(crate) fn clear(&self) {
        // Dropped after the lock is: what it refers to may run code of its own.
        let _function = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Shows the garbage collector what it holds. Where the lock is taken somebody is about to use it.
    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.0.try_lock() {
            Ok(function) => function.as_ref().map_or(Ok(()), |function| visit.call(function)),
            Err(_) => Ok(()),
        }
    }
}

/// Calls the function with the tokens so far and the logits of the next one, and returns the logits as it left them.
///
/// It edits memory of Python's, a copy: what it keeps of that beyond the call may be read and written, and does nothing.
pub(crate) fn call(function: &Bound<'_, PyAny>, tokens: Vec<u32>, logits: &[f32]) -> PyResult<Vec<f32>> {
    let py = function.py();
    let buffer = PyByteArray::new_with(py, size_of_val(logits), |bytes| {
        for (bytes, logit) in bytes.chunks_exact_mut(size_of::<f32>()).zip(logits) {
            bytes.copy_from_slice(&logit.to_ne_bytes());
        }
        Ok(())
    })?;
    let bytes = PyMemoryView::from(&buffer)?;
    let view = bytes.call_method1("cast", ("f",))?;
    let outcome = function.call1((tokens, &view));
    for view in [view.as_any(), bytes.as_any()] {
        match view.call_method0("release") {
            // Somebody kept an array on it, which is why it can't be released, and need not be.
            Err(error) if error.is_instance_of::<PyBufferError>(py) => {}
            released => drop(released?),
        }
    }
    let returned = outcome.map_err(|error| visible(py, error))?;
    if !returned.is_none() {
        return Err(PyTypeError::new_err(format!(
            "{NAME} must edit the logits in place and return None, got {}",
            returned.get_type().name()?
        )));
    }
    let edited = buffer.to_vec();
    if edited.len() != size_of_val(logits) {
        return Err(PyTypeError::new_err(format!(
            "{NAME} must keep the length of the logits' buffer, {} bytes, got {}",
            size_of_val(logits),
            edited.len()
        )));
    }
    let number = |bytes: &[u8]| bytes.try_into().map_or(f32::NAN, f32::from_ne_bytes);
    Ok(edited.chunks_exact(size_of::<f32>()).map(number).collect())
}

/// The exception, but for those that end an iterator in silence: `RuntimeError` as in Python's generators.
fn visible(py: Python<'_>, error: PyErr) -> PyErr {
    let ends_iterators =
        error.is_instance_of::<PyStopIteration>(py) || error.is_instance_of::<PyStopAsyncIteration>(py);
    if !ends_iterators {
        return error;
    }
    let raised = PyRuntimeError::new_err(format!(
        "{NAME} must not raise {}, which ends a stream without an error; cancel the generation instead",
        error.get_type(py)
    ));
    raised.set_cause(py, Some(error));
    raised
}
