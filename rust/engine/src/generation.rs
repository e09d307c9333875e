//! One completion in progress: what comes out of the sampler becomes text, until something ends it.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::conversation::Turn;
use crate::loader::Phi3Model;
use crate::sampling::{Sampler, SamplingOptions, log_softmax, most_likely};
use crate::session::Reuse;
use crate::stop::{FinishReason, StopStrings};
use crate::tokenizer::StreamDecoder;
use crate::{Error, Result};

/// What to generate and when to stop.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationOptions {
    /// Most tokens to generate; `None` goes on until an end token or until the context is full.
    pub max_tokens: Option<usize>,
    /// End tokens are not drawn before this many tokens.
    pub min_tokens: usize,
    /// How long after its first step began it ends as it is, whatever the caller does meanwhile. `None` sets no limit.
    pub timeout: Option<Duration>,
    /// How tokens are chosen.
    pub sampling: SamplingOptions,
    /// Texts that end the generation; they are not part of its text.
    pub stop: Vec<String>,
    /// Token ids that end the generation besides the model's own.
    pub stop_token_ids: Vec<u32>,
    /// Report each token's log-probability, and this many of the most likely tokens beside it.
    pub logprobs: Option<usize>,
    /// Go on past the model's end tokens.
    pub ignore_eos: bool,
}

impl GenerationOptions {
    /// Checks every option against its range, token ids against a vocabulary of `vocabulary_size`.
    ///
    /// # Errors
    /// [`InvalidOption`](crate::ErrorKind::InvalidOption) naming the option, its range and what was found.
    pub fn validate(&self, vocabulary_size: usize) -> Result<()> {
        self.sampling.validate()?;
        if self.max_tokens == Some(0) {
            return Err(Error::invalid_option("max_tokens: expected 1 or more, or none for no limit, found 0"));
        }
        if let Some(max_tokens) = self.max_tokens.filter(|max_tokens| *max_tokens < self.min_tokens) {
            return Err(Error::invalid_option(format!(
                "min_tokens: expected at most max_tokens, which is {max_tokens}, found {}",
                self.min_tokens
            )));
        }
        let biased = self.sampling.logit_bias.iter().map(|(id, _)| ("logit_bias", id));
        let stopping = self.stop_token_ids.iter().map(|id| ("stop_token_ids", id));
        for (option, id) in biased.chain(stopping) {
            if *id as usize >= vocabulary_size {
                return Err(Error::invalid_option(format!(
                    "{option}: expected token ids below {vocabulary_size}, found {id}"
                )));
            }
        }
        Ok(())
    }
}

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
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens that were generated, an end token not counted.
    pub completion_tokens: usize,
    /// Tokens of the prompt that were in the session's cache already.
    pub cached_tokens: usize,
    /// Tokens that were in the cache, and were computed again all the same: the sequence crossed the boundary between
    /// LongRoPE's factors, or went back behind what a sliding window had dropped.
    pub recomputed_tokens: usize,
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
    /// The text: all chunks joined.
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
    /// Token counts.
    pub usage: Usage,
    /// Times.
    pub timings: Timings,
}

/// One completion in progress; see [`Session::start`](crate::Session::start).
///
/// Dropping it gives it up: the session is free for the next one.
pub struct Generation {
    ticket: Arc<()>,
    /// The prompt and what was generated behind it.
    pub(crate) sequence: Vec<u32>,
    /// What of a chat becomes the session's conversation, together with the answer.
    turn: Option<Turn>,
    /// Whether it does so only with [`Session::commit`](crate::Session::commit).
    commits_later: bool,
    max_tokens: usize,
    min_tokens: usize,
    timeout: Option<Duration>,
    end_ids: Vec<u32>,
    logprobs_top: Option<usize>,
    sampler: Sampler,
    decoder: StreamDecoder,
    stop_strings: StopStrings,
    started: Option<Instant>,
    completion: Completion,
}

impl Generation {
    pub(crate) fn new(
        model: &Phi3Model,
        prompt: Vec<u32>,
        turn: Option<Turn>,
        reuse: Reuse,
        options: &GenerationOptions,
    ) -> Result<Self> {
        let tokenizer = model.tokenizer();
        let mut end_ids = options.stop_token_ids.clone();
        if !options.ignore_eos {
            end_ids.extend_from_slice(tokenizer.end_ids());
        }
        let sampler = Sampler::new(&options.sampling, model.masked_ids().to_vec())?;
        let completion = Completion {
            text: String::new(),
            tokens: Vec::new(),
            finish_reason: None,
            stop_reason: None,
            seed: sampler.seed(),
            logprobs: Vec::new(),
            usage: Usage {
                prompt_tokens: prompt.len(),
                completion_tokens: 0,
                cached_tokens: reuse.cached,
                recomputed_tokens: reuse.recomputed,
            },
            timings: Timings { load: model.load_time(), ..Timings::default() },
        };
        let decoder = tokenizer.decoder_behind(&prompt);
        Ok(Self {
            ticket: Arc::new(()),
            sequence: prompt,
            turn,
            commits_later: false,
            max_tokens: options.max_tokens.unwrap_or(usize::MAX),
            min_tokens: options.min_tokens,
            timeout: options.timeout,
            end_ids,
            logprobs_top: options.logprobs,
            sampler,
            decoder,
            stop_strings: StopStrings::new(&options.stop)?,
            started: None,
            completion,
        })
    }

    /// The completion so far.
    #[must_use]
    pub fn completion(&self) -> &Completion {
        &self.completion
    }

    /// Leaves it to the caller when a chat's turn is said: the session is busy with the generation, ended or not, until
    /// [`Session::commit`](crate::Session::commit), or until it is dropped, and then nothing was said.
    pub fn commit_later(&mut self) {
        self.commits_later = true;
    }

    /// Whether [`commit_later`](Self::commit_later) was called.
    #[must_use]
    pub fn commits_later(&self) -> bool {
        self.commits_later
    }

    /// Whether the generation has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.completion.finish_reason.is_some()
    }

    /// Ends the generation here, with the text that there is; returns what of it was held back.
    pub fn cancel(&mut self) -> Option<Chunk> {
        self.stop_here(FinishReason::Cancelled)
    }

    /// Ends the generation because its time is over.
    pub(crate) fn time_is_over(&mut self) -> Option<Chunk> {
        self.stop_here(FinishReason::Timeout)
    }

    fn stop_here(&mut self, reason: FinishReason) -> Option<Chunk> {
        if self.is_finished() {
            return None;
        }
        let rest = self.decoder.finish();
        let text = self.stop_strings.push(&rest).text + &self.stop_strings.finish();
        self.completion.text.push_str(&text);
        self.completion.finish_reason = Some(reason);
        (!text.is_empty()).then_some(Chunk { text, token_id: None, logprob: None })
    }

    /// The turn, if the generation is a chat's and its answer ended by itself or at its length.
    pub(crate) fn said(&mut self) -> Option<Turn> {
        let ended = matches!(self.completion.finish_reason, Some(FinishReason::Stop | FinishReason::Length));
        self.turn.take_if(|_| ended)
    }

    /// A handle by which the session knows whether this generation still lives.
    pub(crate) fn ticket(&self) -> Weak<()> {
        Arc::downgrade(&self.ticket)
    }

    pub(crate) fn has_ticket(&self, ticket: &Weak<()>) -> bool {
        std::ptr::eq(ticket.as_ptr(), Arc::as_ptr(&self.ticket))
    }

    /// Whether anything was generated yet.
    pub(crate) fn has_tokens(&self) -> bool {
        !self.completion.tokens.is_empty()
    }

    /// Notes when the first step began, and returns when the last one must end.
    pub(crate) fn mark_started(&mut self) -> Option<Instant> {
        let started = *self.started.get_or_insert_with(Instant::now);
        self.timeout.and_then(|timeout| started.checked_add(timeout))
    }

    pub(crate) fn add_prefill_time(&mut self, tokens: usize, time: Duration) {
        self.completion.timings.prefill_tokens += tokens;
        self.completion.timings.prefill += time;
    }

    pub(crate) fn add_recomputed(&mut self, tokens: usize) {
        self.completion.usage.recomputed_tokens += tokens;
    }

    pub(crate) fn add_decode_time(&mut self, time: Duration) {
        self.completion.timings.decode_tokens += 1;
        self.completion.timings.decode += time;
    }

    /// Draws the next token from `logits` and takes it in.
    pub(crate) fn accept(&mut self, logits: &[f32]) -> Result<Option<Chunk>> {
        let too_early = self.completion.tokens.len() < self.min_tokens;
        let forbidden = if too_early { self.end_ids.as_slice() } else { &[] };
        let token = self.sampler.sample(logits, &self.completion.tokens, forbidden)?;
        if let (Some(started), true) = (self.started, self.completion.timings.time_to_first_token.is_zero()) {
            self.completion.timings.time_to_first_token = started.elapsed();
        }
        if self.end_ids.contains(&token) {
            return Ok(self.finish(FinishReason::Stop, Some(StopReason::Token(token)), None));
        }
        let logprob = self.logprobs_top.map(|count| {
            let log_probability = log_softmax(logits);
            let top = most_likely(logits, count).into_iter().map(|id| (id, log_probability(id))).collect();
            TokenLogprob { token_id: token, logprob: log_probability(token), top }
        });
        self.completion.tokens.push(token);
        self.completion.usage.completion_tokens += 1;
        self.completion.logprobs.extend(logprob.clone());
        self.sequence.push(token);
        let outcome = self.stop_strings.push(&self.decoder.push(token)?);
        let chunk = Chunk { text: outcome.text, token_id: Some(token), logprob };
        if let Some(stop) = outcome.matched {
            return Ok(self.finish(FinishReason::Stop, Some(StopReason::String(stop)), Some(chunk)));
        }
        if self.completion.tokens.len() >= self.max_tokens {
            return Ok(self.finish(FinishReason::Length, None, Some(chunk)));
        }
        self.completion.text.push_str(&chunk.text);
        Ok(Some(chunk))
    }

    /// Ends the generation because the context has no place for another token.
    pub(crate) fn context_is_full(&mut self) -> Option<Chunk> {
        self.finish(FinishReason::Length, None, None)
    }

    /// Ends the generation and lets out what was held back, with the last token's chunk if there is one.
    fn finish(
        &mut self,
        reason: FinishReason,
        stop_reason: Option<StopReason>,
        chunk: Option<Chunk>,
    ) -> Option<Chunk> {
        self.completion.finish_reason = Some(reason);
        self.completion.stop_reason = stop_reason;
        let mut chunk = chunk.unwrap_or(Chunk { text: String::new(), token_id: None, logprob: None });
        if !matches!(self.completion.stop_reason, Some(StopReason::String(_))) {
            let rest = self.decoder.finish();
            let outcome = self.stop_strings.push(&rest);
            chunk.text.push_str(&outcome.text);
            match outcome.matched {
                Some(stop) => {
                    self.completion.finish_reason = Some(FinishReason::Stop);
                    self.completion.stop_reason = Some(StopReason::String(stop));
                }
                None => chunk.text.push_str(&self.stop_strings.finish()),
            }
        }
        self.completion.text.push_str(&chunk.text);
        (chunk.token_id.is_some() || !chunk.text.is_empty()).then_some(chunk)
    }
}
