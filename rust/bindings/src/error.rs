//! From the engine's errors to the exceptions of `candle_phi.exceptions`.

use candle_phi_engine::{Error, ErrorKind};
use pyo3::PyErr;
use pyo3::import_exception;

import_exception!(candle_phi.exceptions, ContextLengthError);
import_exception!(candle_phi.exceptions, ConversationFileError);
import_exception!(candle_phi.exceptions, ConversationNotFoundError);
import_exception!(candle_phi.exceptions, DeviceError);
import_exception!(candle_phi.exceptions, DownloadError);
import_exception!(candle_phi.exceptions, InferenceError);
import_exception!(candle_phi.exceptions, InsufficientMemoryError);
import_exception!(candle_phi.exceptions, InvalidModelError);
import_exception!(candle_phi.exceptions, InvalidOptionError);
import_exception!(candle_phi.exceptions, ModelNotFoundError);
import_exception!(candle_phi.exceptions, SavedConversationError);
import_exception!(candle_phi.exceptions, SessionBusyError);
import_exception!(candle_phi.exceptions, SessionClosedError);
import_exception!(candle_phi.exceptions, UnsupportedModelError);

/// The exception for an error of the engine. A new kind must get a line here, so there is no wildcard.
pub(crate) fn exception(error: &Error) -> PyErr {
    let message = error.to_string();
    match error.kind() {
        ErrorKind::ModelNotFound => ModelNotFoundError::new_err(message),
        ErrorKind::InvalidModel => InvalidModelError::new_err(message),
        ErrorKind::UnsupportedModel => UnsupportedModelError::new_err(message),
        ErrorKind::Device => DeviceError::new_err(message),
        ErrorKind::InvalidOption => InvalidOptionError::new_err((message, error.option())),
        ErrorKind::ContextLength { prompt_tokens, context_length } => {
            ContextLengthError::new_err((message, prompt_tokens, context_length))
        }
        ErrorKind::SessionClosed => SessionClosedError::new_err(message),
        ErrorKind::SessionBusy => SessionBusyError::new_err(message),
        ErrorKind::Download => DownloadError::new_err(message),
        ErrorKind::ConversationNotFound => ConversationNotFoundError::new_err(message),
        ErrorKind::ConversationFile => ConversationFileError::new_err(message),
        ErrorKind::SavedConversation(refusal) => SavedConversationError::new_err((message, refusal.as_str())),
        ErrorKind::InsufficientMemory { needed_bytes, available_bytes } => {
            InsufficientMemoryError::new_err((message, needed_bytes, available_bytes))
        }
        // Generations end with the finish reason "cancelled"; what has no such end was stopped in the middle.
        ErrorKind::Inference | ErrorKind::Cancelled => InferenceError::new_err(message),
    }
}
