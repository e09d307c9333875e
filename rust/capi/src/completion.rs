//! What a generation gave.

use std::mem::offset_of;
use std::ptr;

use candle_phi_engine as engine;

use crate::pointers::{self, Grows};
use crate::status::{Status, answer, quietly};
use crate::text::Str;

/// What a generation gave. It never changes.
pub struct Completion(pub(crate) engine::Completion);

/// Why a generation ended.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended its answer, or one of the stop texts or stop tokens came.
    Stop = 1,
    /// `max_tokens` were generated, or the context is full.
    Length = 2,
    /// A token or a callback cancelled it.
    Cancelled = 3,
    /// Its time was over.
    Timeout = 4,
}

impl From<engine::FinishReason> for FinishReason {
    fn from(reason: engine::FinishReason) -> Self {
        match reason {
            engine::FinishReason::Stop => Self::Stop,
            engine::FinishReason::Length => Self::Length,
            engine::FinishReason::Cancelled => Self::Cancelled,
            engine::FinishReason::Timeout => Self::Timeout,
        }
    }
}

/// Facts about a completion. The text is the completion's, and good for as long as it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CompletionInfo {
    /// Why it ended: a CandlePhiFinishReason.
    pub finish_reason: i32,
    /// Not 0 where it ended at a token: an end token of the model, or one of `stop_token_ids`.
    pub has_stop_token: i32,
    /// That token.
    pub stop_token: u32,
    /// Always 0.
    pub reserved: u32,
    /// The stop text that it ended at; empty where it did not.
    pub stop_text: Str,
    /// The seed that was given or drawn: with it the same call gives the same tokens again.
    pub seed: u64,
    /// Tokens of the prompt, what was said before included.
    pub prompt_tokens: u64,
    /// Tokens that were generated.
    pub completion_tokens: u64,
    /// Tokens of the prompt that were computed before, and not again.
    pub cached_tokens: u64,
    /// Time for the prompt.
    pub prefill_s: f64,
    /// Time to the first token.
    pub time_to_first_token_s: f64,
    /// Time for the tokens behind the first.
    pub decode_s: f64,
}

const _: () = assert!(offset_of!(CompletionInfo, decode_s) + 8 == size_of::<CompletionInfo>());
// SAFETY: numbers and pointers, of which any bytes are a value, and no padding at the end, by the line above.
unsafe impl Grows for CompletionInfo {}

/// The text of a completion; empty for NULL. It is the completion's, and good for as long as it.
///
/// Threads: any, at any time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn candle_phi_completion_text(completion: *const Completion) -> Str {
    quietly(Str::EMPTY, || {
        // SAFETY: the caller promises a completion that was not freed, or NULL.
        let completion = unsafe { pointers::borrow(completion, "completion") };
        completion.map_or(Str::EMPTY, |completion| Str::of(&completion.0.text))
    })
}

/// The generated token ids, and how many there are in `n_tokens`, unless that is NULL. NULL where there are none. They are
/// the completion's, and good for as long as it.
///
/// Threads: any, at any time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn candle_phi_completion_tokens(
    completion: *const Completion,
    n_tokens: *mut usize,
) -> *const u32 {
    quietly(ptr::null(), || {
        // SAFETY: the caller promises a completion that was not freed, or NULL.
        let completion = unsafe { pointers::borrow(completion, "completion") };
        let tokens = completion.map_or(&[][..], |completion| completion.0.tokens.as_slice());
        if !n_tokens.is_null() && n_tokens.is_aligned() {
            // SAFETY: the caller promises that a pointer that is not NULL is one to write to.
            unsafe { n_tokens.write(tokens.len()) };
        }
        if tokens.is_empty() { ptr::null() } else { tokens.as_ptr() }
    })
}

/// Writes facts about a completion to `info`. `size` is sizeof(CandlePhiCompletionInfo).
///
/// Threads: any, at any time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn candle_phi_completion_info(
    completion: *const Completion,
    info: *mut CompletionInfo,
    size: usize,
) -> Status {
    answer(|| {
        // SAFETY: the caller promises a completion that was not freed, or NULL.
        let engine::Completion { finish_reason, stop_reason, seed, usage, timings, .. } =
            &unsafe { pointers::borrow(completion, "completion") }?.0;
        let (stop_token, stop_text) = match stop_reason {
            Some(engine::StopReason::Token(id)) => (Some(*id), Str::EMPTY),
            Some(engine::StopReason::String(text)) => (None, Str::of(text)),
            None => (None, Str::EMPTY),
        };
        let written = CompletionInfo {
            finish_reason: finish_reason.map_or(0, |reason| FinishReason::from(reason) as i32),
            has_stop_token: stop_token.is_some().into(),
            stop_token: stop_token.unwrap_or_default(),
            reserved: 0,
            stop_text,
            seed: *seed,
            prompt_tokens: usage.prompt_tokens as u64,
            completion_tokens: usage.completion_tokens as u64,
            cached_tokens: usage.cached_tokens as u64,
            prefill_s: timings.prefill.as_secs_f64(),
            time_to_first_token_s: timings.time_to_first_token.as_secs_f64(),
            decode_s: timings.decode.as_secs_f64(),
        };
        // SAFETY: the caller promises `size` bytes to write to, or NULL.
        unsafe { pointers::write_sized(written, info, size, "info") }
    })
}

/// Frees the completion; NULL is left as it is.
///
/// Threads: any, where no other uses the completion.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn candle_phi_completion_free(completion: *mut Completion) {
    quietly((), || {
        if !completion.is_null() {
            // SAFETY: the caller promises a completion of this library that was not freed.
            drop(unsafe { Box::from_raw(completion) });
        }
    });
}
