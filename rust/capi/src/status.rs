//! How a call ends: a status, and for this thread a text that goes with it.

use std::cell::RefCell;
use std::ffi::c_char;
use std::sync::Once;

use candle_phi_engine::{Error, ErrorKind, catch_panic, keep_panics_quiet};

/// How a call ended. Numbers keep their meaning from version to version; new ones may come.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It did what it should.
    Ok = 0,
    /// NULL where something must be, text that is not UTF-8, a pointer that is not aligned, or a size that no version of
    /// the struct has. A mistake in the program.
    InvalidArgument = 1,
    /// There is no model file at the path.
    ModelNotFound = 2,
    /// The file is damaged, cut short, contradicts itself, or is no GGUF file.
    InvalidModel = 3,
    /// The file is whole, but of a kind that this engine does not run.
    UnsupportedModel = 4,
    /// The device does not exist, is not compiled in, or failed.
    Device = 5,
    /// An option is out of its range.
    InvalidOption = 6,
    /// The prompt does not fit into the context.
    ContextLength = 7,
    /// The session was closed. No function of this version ends with it.
    SessionClosed = 8,
    /// Another call is using the session: on another thread, or the one whose callback this is.
    SessionBusy = 9,
    /// A download failed. No function of this version ends with it.
    Download = 10,
    /// The computation failed, or the engine has a bug: the text says which.
    Inference = 11,
    /// Loading was cancelled. A generation that is cancelled ends with CANDLE_PHI_STATUS_OK and its finish reason.
    Cancelled = 12,
    /// The machine has not as much memory to give as is needed: take a smaller `n_ctx`, or another `kv_dtype`.
    InsufficientMemory = 13,
    /// There is no saved conversation at the path. No function of this version ends with it.
    ConversationNotFound = 14,
    /// A conversation cannot be written to a file, or read from it. No function of this version ends with it.
    ConversationFile = 15,
    /// A saved conversation cannot go on in the session. No function of this version ends with it.
    SavedConversation = 16,
}

/// Why a call failed.
#[derive(Debug)]
pub(crate) struct Fault {
    status: Status,
    message: String,
    option: Option<&'static str>,
}

pub(crate) type Result<T> = std::result::Result<T, Fault>;

impl Fault {
    /// A mistake in the calling program.
    pub(crate) fn argument(message: impl Into<String>) -> Self {
        Self { status: Status::InvalidArgument, message: message.into(), option: None }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        // A new kind must get a number here, so there is no wildcard.
        let status = match error.kind() {
            ErrorKind::ModelNotFound => Status::ModelNotFound,
            ErrorKind::InvalidModel => Status::InvalidModel,
            ErrorKind::UnsupportedModel => Status::UnsupportedModel,
            ErrorKind::Device => Status::Device,
            ErrorKind::InvalidOption => Status::InvalidOption,
            ErrorKind::ContextLength { .. } => Status::ContextLength,
            ErrorKind::SessionClosed => Status::SessionClosed,
            ErrorKind::SessionBusy => Status::SessionBusy,
            ErrorKind::Download => Status::Download,
            ErrorKind::Inference => Status::Inference,
            ErrorKind::Cancelled => Status::Cancelled,
            ErrorKind::InsufficientMemory { .. } => Status::InsufficientMemory,
            ErrorKind::ConversationNotFound => Status::ConversationNotFound,
            ErrorKind::ConversationFile => Status::ConversationFile,
            ErrorKind::SavedConversation(_) => Status::SavedConversation,
        };
        Self { status, message: error.to_string(), option: error.option() }
    }
}

/// How this thread's last call ended. The texts end with NUL, or are empty.
struct Last {
    status: Status,
    text: String,
    option: String,
}

thread_local! {
    static LAST: RefCell<Last> = const { RefCell::new(Last { status: Status::Ok, text: String::new(), option: String::new() }) };
}

/// The one door: runs what a function does, catches its panics, and keeps how it ended for this thread.
pub(crate) fn answer(work: impl FnOnce() -> Result<()>) -> Status {
    static QUIET: Once = Once::new();
    QUIET.call_once(keep_panics_quiet);
    let outcome = catch_panic(work).unwrap_or_else(|panic| Err(Fault::from(panic)));
    let (status, message, option) = match outcome {
        Ok(()) => (Status::Ok, None, None),
        Err(fault) => (fault.status, Some(fault.message), fault.option),
    };
    // A thread that ends may have let go of its text already; the status is returned all the same.
    let _ = LAST.try_with(|last| {
        let mut last = last.borrow_mut();
        last.status = status;
        last.text = message.map_or_else(String::new, |message| message + "\0");
        last.option = option.map_or_else(String::new, |option| format!("{option}\0"));
    });
    status
}

/// The door of functions that return no status: a panic leaves `otherwise`.
pub(crate) fn quietly<T>(otherwise: T, work: impl FnOnce() -> T) -> T {
    catch_panic(work).unwrap_or(otherwise)
}

/// How this thread's last call that returned a status ended: the same status.
///
/// Threads: any; each has its own.
#[unsafe(no_mangle)]
pub extern "C" fn candle_phi_last_error() -> Status {
    LAST.try_with(|last| last.borrow().status).unwrap_or(Status::Ok)
}

/// What went wrong in this thread's last call that returned a status, in words: what was expected, what was found, and
/// what to do. Empty where nothing did. UTF-8 that ends with NUL and is good until the thread's next such call; where
/// `len` is not NULL, the number of bytes in front of the NUL is written there.
///
/// Threads: any; each has its own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn candle_phi_last_error_message(len: *mut usize) -> *const c_char {
    // SAFETY: the caller's promise.
    unsafe { text_of_last(|last| &last.text, len) }
}

/// The option or argument that this thread's last call failed about, such as "top_p": the name of a field or of a parameter.
/// Empty where it is about none, or did not fail. Otherwise as candle_phi_last_error_message.
///
/// Threads: any; each has its own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn candle_phi_last_error_option(len: *mut usize) -> *const c_char {
    // SAFETY: the caller's promise.
    unsafe { text_of_last(|last| &last.option, len) }
}

/// One of the texts of this thread's last call, and its length.
///
/// # Safety
/// `len` is NULL, or a place to write to.
unsafe fn text_of_last(of: impl FnOnce(&Last) -> &str, len: *mut usize) -> *const c_char {
    let (text, bytes) = LAST
        .try_with(|last| {
            let last = last.borrow();
            let text = of(&last);
            if text.is_empty() { (c"".as_ptr(), 0) } else { (text.as_ptr().cast(), text.len() - 1) }
        })
        .unwrap_or((c"".as_ptr(), 0));
    if !len.is_null() && len.is_aligned() {
        // SAFETY: the caller promises that a pointer that is not NULL is one to write to.
        unsafe { len.write(bytes) };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    fn read(text: unsafe extern "C" fn(*mut usize) -> *const c_char) -> String {
        let mut len = 0;
        // SAFETY: the length is a variable of this function, and the text is good until the next call.
        let text = unsafe { CStr::from_ptr(text(&raw mut len)) };
        assert_eq!(len, text.to_bytes().len());
        text.to_str().unwrap().to_owned()
    }

    fn message() -> String {
        read(candle_phi_last_error_message)
    }

    fn option() -> String {
        read(candle_phi_last_error_option)
    }

    #[test]
    fn the_option_that_a_call_failed_about_is_named_until_the_next_call() {
        let failed = || Err(Fault::from(Error::invalid_option("top_p", "must be at most 1, got 2")));
        assert_eq!(answer(failed), Status::InvalidOption);
        assert_eq!((option().as_str(), message().as_str()), ("top_p", "top_p must be at most 1, got 2"));
        assert_eq!(answer(|| Err(Fault::argument("NULL"))), Status::InvalidArgument);
        assert_eq!(option(), "");
    }

    #[test]
    fn a_panic_is_a_status_and_a_text_and_the_next_call_clears_both() {
        assert_eq!(answer(|| panic!("out of cheese")), Status::Inference);
        assert_eq!(candle_phi_last_error(), Status::Inference);
        assert!(message().contains("out of cheese"), "{}", message());
        assert!(message().contains("status.rs"), "{}", message());
        assert_eq!(answer(|| Ok(())), Status::Ok);
        assert_eq!(candle_phi_last_error(), Status::Ok);
        assert_eq!(message(), "");
    }

    #[test]
    fn a_function_without_a_status_lets_no_panic_out_either() {
        assert_eq!(quietly(7, || panic!("out of cheese")), 7);
    }

    #[test]
    fn each_thread_has_an_error_of_its_own() {
        assert_eq!(answer(|| Err(Fault::argument("mine"))), Status::InvalidArgument);
        std::thread::spawn(|| {
            assert_eq!(candle_phi_last_error(), Status::Ok);
            assert_eq!(answer(|| Err(Fault::from(Error::device("theirs")))), Status::Device);
            assert_eq!(message(), "theirs");
        })
        .join()
        .unwrap();
        assert_eq!(message(), "mine");
    }
}
