//! What stops a call from another thread.

use std::ptr;

use candle_phi_engine as engine;

use crate::pointers;
use crate::status::{Result, quietly};

/// Stops the calls that it was given to, from any thread. Once cancelled it stays so, and also stops a call that begins
/// later; candle_phi_cancel_token_reset makes it good for the next.
pub struct CancelToken(engine::CancelToken);

/// The flag of a caller's token, which the token may be freed before; one of its own for NULL.
///
/// # Safety
/// It is NULL, or a token that was not freed.
pub(crate) unsafe fn flag(token: *const CancelToken) -> Result<engine::CancelToken> {
    if token.is_null() {
        return Ok(engine::CancelToken::new());
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { pointers::borrow(token, "cancel") }?.0.clone())
}

/// A token that is not cancelled, to be freed with candle_phi_cancel_token_free.
///
/// Threads: any, at any time.
#[unsafe(no_mangle)]
pub extern "C" fn candle_phi_cancel_token_new() -> *mut CancelToken {
    quietly(ptr::null_mut(), || Box::into_raw(Box::new(CancelToken(engine::CancelToken::new()))))
}

/// Asks the calls that have the token to end: they look for it at least between any two layers. Returns at once. NULL is
/// left as it is.
///
/// Threads: any, at any time, also while a call has the token, and within a callback.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn candle_phi_cancel_token_cancel(token: *mut CancelToken) {
    quietly((), || {
        // SAFETY: the caller promises a token that was not freed, or NULL.
        if let Ok(token) = unsafe { pointers::borrow(token, "token") } {
            token.0.cancel();
        }
    });
}

/// Makes the token good for the next call. NULL is left as it is.
///
/// Threads: any, at any time; a call that has the token and did not see that it was cancelled goes on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn candle_phi_cancel_token_reset(token: *mut CancelToken) {
    quietly((), || {
        // SAFETY: the caller promises a token that was not freed, or NULL.
        if let Ok(token) = unsafe { pointers::borrow(token, "token") } {
            token.0.reset();
        }
    });
}

/// Frees the token; NULL is left as it is. A call that has it goes on, and can no longer be cancelled by it.
///
/// Threads: any, where no other is about to use the token, or in one of its functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn candle_phi_cancel_token_free(token: *mut CancelToken) {
    quietly((), || {
        if !token.is_null() {
            // SAFETY: the caller promises a token of `candle_phi_cancel_token_new` that was not freed.
            drop(unsafe { Box::from_raw(token) });
        }
    });
}
