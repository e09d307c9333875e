//! The one error type of the engine.
//!
//! A message says what was expected, what was found and what to do about it. [`ErrorKind`] is what
//! callers branch on; the bindings map every kind to one Python exception.

use std::borrow::Cow;
use std::fmt;

use crate::visible::visible;

/// `Result` with the engine's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

type Source = Box<dyn std::error::Error + Send + Sync + 'static>;

/// An error of the engine: a kind to branch on, a message for a person and, where there is one, the cause.
pub struct Error {
    kind: ErrorKind,
    option: Option<&'static str>,
    message: String,
    source: Option<Source>,
}

/// What kind of failure an [`Error`] is.
///
/// Exhaustive on purpose: a new kind must break the build of everything that maps kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// There is no model file at the path.
    ModelNotFound,
    /// The file is damaged, truncated, contradicts itself, or is no GGUF file at all.
    InvalidModel,
    /// The file is well-formed, but of an architecture, tensor type or tokenizer this engine does not run.
    UnsupportedModel,
    /// The device does not exist, is not compiled in, or failed.
    Device,
    /// An option or argument is out of its range.
    InvalidOption,
    /// The prompt does not fit into the context.
    ContextLength {
        /// Tokens that the prompt has.
        prompt_tokens: usize,
        /// Tokens that the session's context holds.
        context_length: usize,
    },
    /// The session was closed.
    SessionClosed,
    /// The session has another generation in progress.
    SessionBusy,
    /// A download from the hub failed, or offline mode forbids it.
    Download,
    /// There is no file of a saved conversation at the path.
    ConversationNotFound,
    /// A conversation cannot be written to the path, or read from it: the system refuses.
    ConversationFile,
    /// The file was read, and holds no conversation that can go on in this session.
    SavedConversation(Refusal),
    /// The machine has not as much memory to give as is needed.
    InsufficientMemory {
        /// Bytes that are needed.
        needed_bytes: u64,
        /// Bytes that can be had.
        available_bytes: u64,
    },
    /// The computation failed.
    Inference,
    /// The work was cancelled through a [`CancelToken`](crate::CancelToken).
    Cancelled,
}

/// Why a saved conversation is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is a file of another kind.
    NotAConversation,
    /// A newer version of this software wrote it.
    NewerVersion,
    /// It is cut short, or what is in it does not agree with its checksums or with itself.
    Damaged,
    /// It was said with another model, or with the same one under another window or vocabulary.
    OtherModel,
    /// Its keys and values are of another type than the session's.
    OtherKvDtype,
    /// It is longer than the session's context.
    TooLong,
}

impl Refusal {
    /// A name for programs, such as `"other_model"`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotAConversation => "not_a_conversation",
            Self::NewerVersion => "newer_version",
            Self::Damaged => "damaged",
            Self::OtherModel => "other_model",
            Self::OtherKvDtype => "other_kv_dtype",
            Self::TooLong => "too_long",
        }
    }
}

impl Error {
    /// An error of `kind` with a message for a person. Control characters in it, which a quoted name or text may have,
    /// are escaped: a message is shown on terminals and written to logs.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let message = message.into();
        let message = match visible(&message) {
            Cow::Borrowed(_) => message,
            Cow::Owned(escaped) => escaped,
        };
        Self { kind, option: None, message, source: None }
    }

    /// The same error with its cause attached; the cause's text is not repeated in the message.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same error with the name of the option or argument that it is about.
    #[must_use]
    pub fn about(mut self, option: &'static str) -> Self {
        self.option = Some(option);
        self
    }

    /// The option or argument that the error is about, such as `"top_p"`. The message is complete without it.
    #[must_use]
    pub fn option(&self) -> Option<&'static str> {
        self.option
    }

    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// [`ErrorKind::ModelNotFound`]
    pub fn model_not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::ModelNotFound, message)
    }

    /// [`ErrorKind::InvalidModel`]
    pub fn invalid_model(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidModel, message)
    }

    /// [`ErrorKind::UnsupportedModel`]
    pub fn unsupported_model(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::UnsupportedModel, message)
    }

    /// [`ErrorKind::Device`]
    pub fn device(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Device, message)
    }

    /// [`ErrorKind::InvalidOption`] about one option or argument. The message is its name and the `problem`:
    /// `Error::invalid_option("top_p", "must be above 0 and at most 1, got 2")`.
    pub fn invalid_option(option: &'static str, problem: impl fmt::Display) -> Self {
        Self::new(ErrorKind::InvalidOption, format!("{option} {problem}")).about(option)
    }

    /// [`ErrorKind::InvalidOption`] with a message that does not begin with the name of an option.
    pub fn invalid_input(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidOption, message)
    }

    /// [`ErrorKind::ContextLength`]
    pub fn context_length(prompt_tokens: usize, context_length: usize, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::ContextLength { prompt_tokens, context_length }, message)
    }

    /// [`ErrorKind::SessionBusy`]
    pub fn session_busy(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::SessionBusy, message)
    }

    /// [`ErrorKind::Download`]
    pub fn download(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Download, message)
    }

    /// [`ErrorKind::ConversationNotFound`]
    pub fn conversation_not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::ConversationNotFound, message)
    }

    /// [`ErrorKind::ConversationFile`]
    pub fn conversation_file(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::ConversationFile, message)
    }

    /// [`ErrorKind::SavedConversation`]
    pub fn saved_conversation(refusal: Refusal, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::SavedConversation(refusal), message)
    }

    /// [`ErrorKind::InsufficientMemory`]
    pub fn insufficient_memory(needed_bytes: u64, available_bytes: u64, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InsufficientMemory { needed_bytes, available_bytes }, message)
    }

    /// [`ErrorKind::Inference`]
    pub fn inference(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Inference, message)
    }

    /// [`ErrorKind::Inference`] for a mistake of this software, where going on would compute wrong results.
    #[must_use]
    pub(crate) fn internal(what: impl fmt::Display) -> Self {
        Self::inference(format!("internal error: {what}; please report it with the output of `candle-phi doctor`"))
    }

    /// [`ErrorKind::Cancelled`]
    #[must_use]
    pub fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, "cancelled")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.kind)
            .field("option", &self.option)
            .field("message", &self.message)
            .field("source", &self.source)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}

/// First line of a Candle error: with `RUST_BACKTRACE` set Candle appends a backtrace, which is no message for a person.
fn candle_message(error: &candle_core::Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}

/// Whether a Candle error says that a device has no more memory: CUDA's name for it, cuBLAS's, and Candle's for a
/// buffer that Metal does not give.
fn is_out_of_memory(message: &str) -> bool {
    ["CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED", "Failed to create metal resource: Buffer"]
        .iter()
        .any(|name| message.contains(name))
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        let message = candle_message(&error);
        let told = if is_out_of_memory(&message) {
            Self::device(format!(
                "the device is out of memory ({message}); set n_ctx lower, close other sessions and programs that use the \
                 device, use a smaller quantization of the model, or set device to \"cpu\""
            ))
        } else {
            Self::inference(format!("the computation failed in Candle: {message}"))
        };
        told.with_source(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_option_names_the_option_in_a_field_and_in_the_message() {
        let error = Error::invalid_option("top_p", format_args!("must be at most 1, got {}", 2));
        assert_eq!((error.kind(), error.option()), (ErrorKind::InvalidOption, Some("top_p")));
        assert_eq!(error.to_string(), "top_p must be at most 1, got 2");
        assert_eq!(Error::invalid_input("no message").option(), None);
        assert_eq!(Error::device("no device").about("device").option(), Some("device"));
    }

    #[test]
    fn a_device_without_memory_is_an_error_of_the_device_that_says_what_to_do() {
        for message in [
            "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")",
            "CublasError(CUBLAS_STATUS_ALLOC_FAILED)",
            "Metal error Failed to create metal resource: Buffer",
        ] {
            let error = Error::from(candle_core::Error::Msg(message.to_owned()));
            assert_eq!(error.kind(), ErrorKind::Device, "{message}");
            assert!(error.to_string().contains("n_ctx"), "{error}");
        }
        let other = Error::from(candle_core::Error::Msg("shape mismatch".to_owned()));
        assert_eq!(
            (other.kind(), other.to_string().as_str()),
            (ErrorKind::Inference, "the computation failed in Candle: shape mismatch",)
        );
    }
}
