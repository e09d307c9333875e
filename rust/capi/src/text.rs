//! Text and token ids that go in and out.

use std::ffi::{CStr, c_char};
use std::ptr;

use crate::pointers;
use crate::status::{Fault, Result, quietly};

/// UTF-8 that belongs to somebody else: a caller's argument, or a part of a handle. It need not end with NUL.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Str {
    /// The first byte; may be NULL where `len` is 0.
    pub data: *const c_char,
    /// How many bytes.
    pub len: usize,
}

impl Str {
    /// No text.
    pub(crate) const EMPTY: Self = Self { data: ptr::null(), len: 0 };

    /// A text to look at for as long as `text` lives.
    pub(crate) fn of(text: &str) -> Self {
        Self { data: text.as_ptr().cast(), len: text.len() }
    }

    /// The caller's text.
    ///
    /// # Safety
    /// It points to `len` bytes that live for `'a` and that nobody writes to meanwhile.
    pub(crate) unsafe fn read<'a>(self, name: &str) -> Result<&'a str> {
        // SAFETY: the caller's promise.
        let bytes = unsafe { pointers::slice(self.data.cast::<u8>(), self.len, name) }?;
        std::str::from_utf8(bytes).map_err(|error| {
            Fault::argument(format!("{name} must be UTF-8, got other bytes at byte {}", error.valid_up_to()))
        })
    }

    /// The caller's text, or nothing where it is empty.
    ///
    /// # Safety
    /// As for [`read`](Self::read).
    pub(crate) unsafe fn read_unless_empty<'a>(self, name: &str) -> Result<Option<&'a str>> {
        // SAFETY: the caller's promise.
        Ok(Some(unsafe { self.read(name) }?).filter(|text| !text.is_empty()))
    }
}

/// UTF-8 that a function gave to its caller, who frees it with candle_phi_text_free and changes nothing in it.
#[repr(C)]
pub struct Text {
    /// The first byte; NULL where nothing was given. A NUL follows behind the last one.
    pub data: *mut c_char,
    /// How many bytes, without that NUL.
    pub len: usize,
}

impl Text {
    pub(crate) const EMPTY: Self = Self { data: ptr::null_mut(), len: 0 };

    pub(crate) fn new(text: String) -> Self {
        let len = text.len();
        let bytes = (text + "\0").into_bytes().into_boxed_slice();
        Self { data: Box::into_raw(bytes).cast(), len }
    }
}

/// Token ids that a function gave to its caller, who frees them with candle_phi_tokens_free and keeps `len` as it is.
#[repr(C)]
pub struct Tokens {
    /// The first id; NULL where there are none.
    pub data: *mut u32,
    /// How many.
    pub len: usize,
}

impl Tokens {
    pub(crate) const EMPTY: Self = Self { data: ptr::null_mut(), len: 0 };

    pub(crate) fn new(tokens: Vec<u32>) -> Self {
        let len = tokens.len();
        if len == 0 {
            return Self::EMPTY;
        }
        Self { data: Box::into_raw(tokens.into_boxed_slice()).cast(), len }
    }
}

/// A text that ends with NUL, for the functions that take one with its length. Empty for NULL. Nothing is copied.
///
/// Threads: any, at any time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn candle_phi_str(text: *const c_char) -> Str {
    if text.is_null() {
        return Str::EMPTY;
    }
    // SAFETY: the caller promises a text that ends with NUL.
    Str { data: text, len: unsafe { CStr::from_ptr(text) }.count_bytes() }
}

/// Frees a text and makes it empty, so that the same struct may be freed again. NULL and an empty one are left as they are.
///
/// Threads: any, where no other uses the struct.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn candle_phi_text_free(text: *mut Text) {
    quietly((), || {
        // SAFETY: the caller promises a struct that is its own, or NULL.
        let Some(text) = (unsafe { text.as_mut() }) else { return };
        let Text { data, len } = std::mem::replace(text, Text::EMPTY);
        if !data.is_null() {
            // SAFETY: it comes from `Text::new`, which made one byte more than `len`, and the caller changed nothing.
            drop(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(data.cast::<u8>(), len.wrapping_add(1))) });
        }
    });
}

/// Frees token ids and makes the struct empty, so that it may be freed again. NULL and an empty one are left as they are.
///
/// Threads: any, where no other uses the struct.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn candle_phi_tokens_free(tokens: *mut Tokens) {
    quietly((), || {
        // SAFETY: the caller promises a struct that is its own, or NULL.
        let Some(tokens) = (unsafe { tokens.as_mut() }) else { return };
        let Tokens { data, len } = std::mem::replace(tokens, Tokens::EMPTY);
        if !data.is_null() {
            // SAFETY: it comes from `Tokens::new`, and the caller changed nothing.
            drop(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(data, len)) });
        }
    });
}
