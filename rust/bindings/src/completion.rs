//! What a generation gives, as Python reads it.

use candle_phi_engine as engine;
use pyo3::prelude::*;

use crate::options::{Pair, pairs};

/// A token, its log-probability, and the likeliest in its place.
type Logprob = (u32, f32, Vec<(u32, f32)>);

fn logprob(logprob: engine::TokenLogprob) -> Logprob {
    (logprob.token_id, logprob.logprob, logprob.top)
}

/// A token and the text that became certain with it.
#[pyclass(frozen, get_all, module = "candle_phi._native")]
pub(crate) struct Chunk {
    text: String,
    token_id: Option<u32>,
    logprob: Option<Logprob>,
}

impl From<engine::Chunk> for Chunk {
    fn from(chunk: engine::Chunk) -> Self {
        Self { text: chunk.text, token_id: chunk.token_id, logprob: chunk.logprob.map(logprob) }
    }
}

/// An end token's id, or a stop string.
#[derive(Clone, IntoPyObject, IntoPyObjectRef)]
enum StopReason {
    Token(u32),
    String(String),
}

/// What a generation gave.
#[pyclass(frozen, get_all, module = "candle_phi._native")]
pub(crate) struct Completion {
    text: String,
    tokens: Vec<u32>,
    finish_reason: Option<&'static str>,
    stop_reason: Option<StopReason>,
    seed: u64,
    logprobs: Vec<Logprob>,
    prompt_logprobs: Vec<Logprob>,
    truncated_messages: Vec<Pair>,
    prompt_tokens: usize,
    completion_tokens: usize,
    cached_tokens: usize,
    recomputed_tokens: usize,
    truncated_tokens: usize,
    load_seconds: f64,
    prefill_seconds: f64,
    decode_seconds: f64,
    time_to_first_token_seconds: f64,
    prefill_tokens: usize,
    decode_tokens: usize,
}

impl From<&engine::Completion> for Completion {
    fn from(completion: &engine::Completion) -> Self {
        let timings = &completion.timings;
        Self {
            text: completion.text.clone(),
            tokens: completion.tokens.clone(),
            finish_reason: completion.finish_reason.map(engine::FinishReason::as_str),
            stop_reason: completion.stop_reason.clone().map(|reason| match reason {
                engine::StopReason::Token(token) => StopReason::Token(token),
                engine::StopReason::String(text) => StopReason::String(text),
            }),
            seed: completion.seed,
            logprobs: completion.logprobs.iter().cloned().map(logprob).collect(),
            prompt_logprobs: completion.prompt_logprobs.iter().cloned().map(logprob).collect(),
            truncated_messages: pairs(&completion.truncated_messages),
            prompt_tokens: completion.usage.prompt_tokens,
            completion_tokens: completion.usage.completion_tokens,
            cached_tokens: completion.usage.cached_tokens,
            recomputed_tokens: completion.usage.recomputed_tokens,
            truncated_tokens: completion.usage.truncated_tokens,
            load_seconds: timings.load.as_secs_f64(),
            prefill_seconds: timings.prefill.as_secs_f64(),
            decode_seconds: timings.decode.as_secs_f64(),
            time_to_first_token_seconds: timings.time_to_first_token.as_secs_f64(),
            prefill_tokens: timings.prefill_tokens,
            decode_tokens: timings.decode_tokens,
        }
    }
}
