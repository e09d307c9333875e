//! Which version this is.

use std::ffi::{CStr, c_char};

const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => c"",
};

/// The version of the library, such as "0.1.0". It ends with NUL and is never freed.
///
/// Threads: any, at any time.
#[unsafe(no_mangle)]
pub extern "C" fn candle_phi_version() -> *const c_char {
    VERSION.as_ptr()
}
