//! What a generation gives: text, tokens, and what they took.

use std::time::Duration;

use crate::chat::Message;
use crate::sampling::{log_softmax, most_likely};
use crate::stop::FinishReason;

/// A piece of a completion: the text that became certain with a token.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunk {
    /// New text; empty while a character is incomplete or a stop string may have begun.
    pub text: String,
    /// The token; none for text that was held back until the end.
    pub token_id: Option<u32>,
    /// The token's log-probability, if asked for.
    pub logprob: Option<TokenLogprob>,
}

/// How likely a token was, before any sampling option.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub token_id: u32,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The most likely tokens and their log-probabilities, most likely first.
    pub top: Vec<(u32, f32)>,
}

impl TokenLogprob {
    /// That of `token_id`, and of the `count` most likely tokens. `logits`: (vocabulary,)
    pub(crate) fn of(token_id: u32, logits: &[f32], count: usize) -> Self {
        let log_probability = log_softmax(logits);
        let top = most_likely(logits, count).into_iter().map(|id| (id, log_probability(id))).collect();
        Self { token_id, logprob: log_probability(token_id), top }
    }
}

/// What a generation ended at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// An end token of the model, or one of `stop_token_ids`.
    Token(u32),
    /// One of the stop strings.
    String(String),
}

/// How many tokens a completion took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt, without what was left out of it at the beginning.
    pub prompt_tokens: usize,
    /// Tokens that were generated, an end token not counted.
    pub completion_tokens: usize,
    /// Tokens of the prompt that were in the session's cache already.
    pub cached_tokens: usize,
    /// Tokens that were in the cache, and were computed again all the same: the sequence crossed the boundary between
    /// LongRoPE's factors, went back behind what a sliding window had dropped, moved when the oldest was left out, or
    /// the log-probabilities of a prompt were asked for.
    pub recomputed_tokens: usize,
    /// Tokens that were left out because the context was full, of the prompt and of the answer.
    pub truncated_tokens: usize,
}

/// How long a completion took. Time between two steps, when a caller does something else, is not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// Loading the model.
    pub load: Duration,
    /// Computing the prompt.
    pub prefill: Duration,
    /// Tokens that were computed in that time.
    pub prefill_tokens: usize,
    /// From the first step to the first token.
    pub time_to_first_token: Duration,
    /// Computing the tokens after the first.
    pub decode: Duration,
    /// Tokens that were computed in that time.
    pub decode_tokens: usize,
}

/// A completion: finished, or what there is of it so far.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// The text: all chunks joined. Begins with the prompt's where it was echoed.
    pub text: String,
    /// The generated tokens, without the end token.
    pub tokens: Vec<u32>,
    /// Why the generation ended; none while it hasn't.
    pub finish_reason: Option<FinishReason>,
    /// What it ended at, where the reason is [`FinishReason::Stop`].
    pub stop_reason: Option<StopReason>,
    /// The seed that was given or chosen.
    pub seed: u64,
    /// One for each token, if asked for.
    pub logprobs: Vec<TokenLogprob>,
    /// One for each token of the prompt but the first, where it was echoed and they were asked for.
    pub prompt_logprobs: Vec<TokenLogprob>,
    /// The messages of a chat that were left out because the context was full, the oldest first.
    pub truncated_messages: Vec<Message>,
    /// Token counts.
    pub usage: Usage,
    /// Times.
    pub timings: Timings,
}
