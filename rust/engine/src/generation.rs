//! One completion in progress: what comes out of the sampler becomes text, until something ends it.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tracing::debug_span;

use crate::cache::Reuse;
use crate::completion::{Chunk, Completion, StopReason, Timings, TokenLogprob, Usage};
use crate::conversation::Turn;
use crate::loader::Phi3Model;
use crate::overflow::{self, OnOverflow, Script, Shortened};
use crate::sampling::{Sampler, SamplingOptions};
use crate::stop::{FinishReason, StopStrings};
use crate::tokenizer::{StreamDecoder, Tokenizer};
use crate::{Error, Result, options};

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
    /// Texts that end the generation; they are not part of its text. A control token ends it where it is drawn, if its text
    /// is one of them.
    pub stop: Vec<String>,
    /// Token ids that end the generation besides the model's own.
    pub stop_token_ids: Vec<u32>,
    /// Report each token's log-probability, and this many of the most likely tokens beside it.
    pub logprobs: Option<usize>,
    /// Go on past the model's end tokens.
    pub ignore_eos: bool,
    /// Let the text begin with the prompt's, and report the log-probabilities of both.
    pub echo: bool,
    /// What to do where the context is full.
    pub on_overflow: OnOverflow,
}

impl GenerationOptions {
    /// Checks every option against its range, and token ids against a vocabulary of `vocabulary_size`.
    ///
    /// # Errors
    /// [`InvalidOption`](crate::ErrorKind::InvalidOption) naming the option, its range and what was found.
    pub fn validate(&self, vocabulary_size: usize) -> Result<()> {
        self.validate_without_model()?;
        let biased = self.sampling.logit_bias.iter().map(|(id, _)| ("logit_bias", id));
        let stopping = self.stop_token_ids.iter().map(|id| ("stop_token_ids", id));
        for (option, id) in biased.chain(stopping) {
            if *id as usize >= vocabulary_size {
                return Err(Error::invalid_option(
                    option,
                    format_args!(
                        "must have token ids below {vocabulary_size}, the size of the vocabulary, got {id}"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Checks every option against its range, except for what depends on the model.
    ///
    /// # Errors
    /// As for [`validate`](Self::validate).
    pub fn validate_without_model(&self) -> Result<()> {
        self.sampling.validate()?;
        for (name, count) in
            [("max_tokens", self.max_tokens), ("min_tokens", Some(self.min_tokens)), ("logprobs", self.logprobs)]
        {
            count.map_or(Ok(()), |count| options::check(name, count))?;
        }
        if let Some(max_tokens) = self.max_tokens.filter(|max_tokens| *max_tokens < self.min_tokens) {
            return Err(Error::invalid_option(
                "min_tokens",
                format_args!("must be at most {max_tokens}, the most tokens to generate, got {}", self.min_tokens),
            ));
        }
        StopStrings::new(&self.stop)?;
        Ok(())
    }

    /// Whether the log-probabilities of the prompt are to be reported, for which all of it must be computed.
    pub(crate) fn wants_prompt_logprobs(&self) -> bool {
        self.echo && self.logprobs.is_some()
    }
}

/// What a generation begins with.
pub(crate) struct Prompt {
    pub(crate) tokens: Vec<u32>,
    /// As it was written, where it was.
    pub(crate) text: Option<String>,
    /// A chat's messages and the answer to them, which become the session's conversation.
    pub(crate) turn: Option<Turn>,
    /// A chat's messages, of which the oldest can be left out.
    pub(crate) script: Option<Script>,
}

impl Prompt {
    /// Tokens as they are.
    pub(crate) fn raw(tokens: Vec<u32>) -> Self {
        Self { tokens, text: None, turn: None, script: None }
    }

    /// Leaves out the oldest if there is no space for an answer otherwise; see [`overflow::shorten_prompt`].
    pub(crate) fn leave_out_oldest(
        &mut self,
        model: &Phi3Model,
        n_ctx: usize,
        options: &GenerationOptions,
    ) -> Result<usize> {
        let script = self.script.as_mut();
        let left_out = overflow::shorten_prompt(&mut self.tokens, script, model, n_ctx, options.max_tokens)?;
        if left_out > 0 {
            self.text = None;
        }
        Ok(left_out)
    }
}

/// Logits on their way from the forward pass to the draw.
struct Drawing {
    /// The model's own. (vocabulary,)
    own: Vec<f32>,
    /// With penalties and bias. (vocabulary,)
    adjusted: Vec<f32>,
    /// Whether the caller may have edited them.
    is_edited: bool,
}

/// One completion in progress; see [`Session::start`](crate::Session::start).
///
/// Dropping it gives it up: the session is free for the next one.
pub struct Generation {
    ticket: Arc<()>,
    /// What the model reads: the prompt and what was generated behind it, without what was left out.
    pub(crate) sequence: Vec<u32>,
    /// How much of the sequence is the prompt.
    prompt_len: usize,
    prompt: Vec<u32>,
    /// The prompt's text, until it was given out.
    echo: Option<String>,
    /// How much of the completion's text is the prompt's.
    echo_bytes: usize,
    /// What of a chat becomes the session's conversation, together with the answer.
    turn: Option<Turn>,
    script: Option<Script>,
    on_overflow: OnOverflow,
    /// Whether it does so only with [`Session::commit`](crate::Session::commit).
    commits_later: bool,
    /// Whether an answer that was cut short is said all the same.
    is_kept: bool,
    max_tokens: usize,
    min_tokens: usize,
    timeout: Option<Duration>,
    end_ids: Vec<u32>,
    logprobs_top: Option<usize>,
    wants_prompt_logprobs: bool,
    drawing: Option<Drawing>,
    sampler: Sampler,
    decoder: StreamDecoder,
    stop_strings: StopStrings,
    /// Control tokens that end the generation because a stop string is their text.
    stop_controls: Vec<(u32, String)>,
    started: Option<Instant>,
    completion: Completion,
}

impl Generation {
    pub(crate) fn new(
        model: &Phi3Model,
        prompt: Prompt,
        reuse: Reuse,
        options: &GenerationOptions,
    ) -> Result<Self> {
        let tokenizer = model.tokenizer();
        let Prompt { tokens, text, turn, script } = prompt;
        let echo = match text {
            _ if !options.echo => None,
            Some(text) => Some(text),
            None => Some(tokenizer.decode(&tokens, false)?),
        };
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
            prompt_logprobs: Vec::new(),
            truncated_messages: script.as_ref().map_or_else(Vec::new, Script::left_out),
            usage: Usage {
                prompt_tokens: tokens.len(),
                cached_tokens: reuse.cached,
                recomputed_tokens: reuse.recomputed,
                ..Usage::default()
            },
            timings: Timings { load: model.load_time(), ..Timings::default() },
        };
        let decoder = tokenizer.decoder_behind(&tokens);
        Ok(Self {
            ticket: Arc::new(()),
            sequence: tokens.clone(),
            prompt_len: tokens.len(),
            prompt: tokens,
            echo,
            echo_bytes: 0,
            turn,
            script,
            on_overflow: options.on_overflow,
            commits_later: false,
            is_kept: false,
            max_tokens: options.max_tokens.unwrap_or(usize::MAX),
            min_tokens: options.min_tokens,
            timeout: options.timeout,
            end_ids,
            logprobs_top: options.logprobs,
            wants_prompt_logprobs: options.wants_prompt_logprobs(),
            drawing: None,
            sampler,
            decoder,
            stop_strings: StopStrings::new(&options.stop)?,
            stop_controls: stop_controls(tokenizer, &options.stop)?,
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

    /// Ends the generation here, as [`cancel`](Self::cancel), because its reader has enough: what there is of a chat's
    /// answer counts as said once [`Session::commit`](crate::Session::commit) is called. Without a token, nothing was said.
    pub fn keep(&mut self) -> Option<Chunk> {
        if self.is_finished() {
            return None;
        }
        let held_back = self.cancel();
        self.is_kept = self.turn.is_some() && self.has_tokens();
        held_back
    }

    /// Whether [`keep`](Self::keep) cut a chat's answer short that counts as said.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.is_kept
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

    /// Ends the generation before it begins, because its prompt does not fit.
    pub(crate) fn does_not_fit(&mut self) {
        self.completion.finish_reason = Some(FinishReason::Length);
    }

    /// The text without the prompt's.
    pub(crate) fn answer(&self) -> &str {
        self.completion.text.get(self.echo_bytes..).unwrap_or_default()
    }

    /// The tokens of the prompt and the answer: the drawn ids that stand for text, cut where the text was cut.
    pub(crate) fn said_tokens(&self, tokenizer: &Tokenizer) -> Vec<u32> {
        let (prompt, drawn) = self.sequence.split_at(self.prompt_len.min(self.sequence.len()));
        let all = &self.completion.tokens;
        if drawn.len() < all.len() {
            // The oldest of the answer itself was truncated: what is left is what the model read last.
            return self.sequence.clone();
        }
        let answer = tokenizer.cut_to(all, self.answer(), &self.prompt);
        // A text that cannot be encoded can be read all the same: the next turn renders it.
        let answer = answer.unwrap_or_else(|_| drawn.to_vec());
        [prompt, answer.as_slice()].concat()
    }

    /// The turn, if the generation is a chat's and its answer ended by itself or at its length, or was kept.
    pub(crate) fn said(&mut self) -> Option<Turn> {
        let ended = matches!(self.completion.finish_reason, Some(FinishReason::Stop | FinishReason::Length));
        let first_left = self.script.as_ref().map_or(0, Script::first);
        let turn = self.turn.take_if(|_| ended || self.is_kept);
        turn.map(|turn| turn.without_what_is_before(first_left))
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

    /// Leaves out the oldest of the full context, where the options say so; see [`overflow::shorten_sequence`]. Returns
    /// whether the answer can continue.
    pub(crate) fn leave_out_oldest(&mut self, model: &Phi3Model, n_ctx: usize) -> Result<bool> {
        if self.on_overflow != OnOverflow::TruncateOldest {
            return Ok(false);
        }
        let script = self.script.as_mut();
        let Shortened { left_out, has_space } =
            overflow::shorten_sequence(&mut self.sequence, &mut self.prompt_len, script, model, n_ctx)?;
        self.add_truncated(left_out);
        Ok(has_space)
    }

    pub(crate) fn add_truncated(&mut self, tokens: usize) {
        self.completion.usage.truncated_tokens += tokens;
        self.completion.truncated_messages = self.script.as_ref().map_or_else(Vec::new, Script::left_out);
    }

    /// The prompt's text as the first chunk, once, where it is echoed.
    pub(crate) fn give_echo(&mut self) -> Option<Chunk> {
        let text = self.echo.take().filter(|text| !text.is_empty())?;
        self.echo_bytes = text.len();
        self.completion.text.push_str(&text);
        Some(Chunk { text, token_id: None, logprob: None })
    }

    /// For how many tokens the log-probabilities of the prompt are wanted, until they are there.
    pub(crate) fn wants_prompt_logprobs(&self) -> Option<usize> {
        self.logprobs_top.filter(|_| self.wants_prompt_logprobs)
    }

    pub(crate) fn set_prompt_logprobs(&mut self, logprobs: Vec<TokenLogprob>) {
        self.completion.prompt_logprobs = logprobs;
        self.wants_prompt_logprobs = false;
    }

    /// The prompt and all tokens that were generated so far, those that were left out of the context included.
    #[must_use]
    pub fn tokens(&self) -> Vec<u32> {
        [self.prompt.as_slice(), &self.completion.tokens].concat()
    }

    /// The logits between the two halves of a step, with penalties and bias: what is done to them here counts. Those of
    /// tokens that cannot be drawn are minus infinity and stay so.
    #[must_use]
    pub fn logits_mut(&mut self) -> Option<&mut [f32]> {
        let drawing = self.drawing.as_mut()?;
        drawing.is_edited = true;
        Some(&mut drawing.adjusted)
    }

    /// Takes the logits of the next token.
    pub(crate) fn take_logits(&mut self, own: Vec<f32>) -> Result<()> {
        let adjusted = self.sampler.adjusted(&own, &self.completion.tokens, self.forbidden())?;
        self.drawing = Some(Drawing { own, adjusted, is_edited: false });
        Ok(())
    }

    /// Tokens that may not come yet.
    fn forbidden(&self) -> &[u32] {
        if self.completion.tokens.len() < self.min_tokens { &self.end_ids } else { &[] }
    }

    pub(crate) fn drop_logits(&mut self) {
        self.drawing = None;
    }

    /// Draws the next token from the logits and takes it in.
    pub(crate) fn draw(&mut self) -> Result<Option<Chunk>> {
        let Some(Drawing { own: logits, mut adjusted, is_edited }) = self.drawing.take() else {
            return Err(Error::inference("no logits were computed for the next token; begin the step first"));
        };
        if is_edited {
            self.sampler.check_edited(&mut adjusted, self.forbidden())?;
        }
        let token = debug_span!("sample").in_scope(|| self.sampler.draw(adjusted))?;
        if let (Some(started), true) = (self.started, self.completion.timings.time_to_first_token.is_zero()) {
            self.completion.timings.time_to_first_token = started.elapsed();
        }
        if self.end_ids.contains(&token) {
            return Ok(self.finish(FinishReason::Stop, Some(StopReason::Token(token)), None));
        }
        let logprob = self.logprobs_top.map(|count| TokenLogprob::of(token, &logits, count));
        self.completion.tokens.push(token);
        self.completion.usage.completion_tokens += 1;
        self.completion.logprobs.extend(logprob.clone());
        self.sequence.push(token);
        if let Some((_, stop)) = self.stop_controls.iter().find(|(id, _)| *id == token) {
            let stop = stop.clone();
            let chunk = Chunk { text: String::new(), token_id: Some(token), logprob };
            return Ok(self.finish(FinishReason::Stop, Some(StopReason::String(stop)), Some(chunk)));
        }
        let text = debug_span!("detokenize").in_scope(|| self.decoder.push(token))?;
        let outcome = self.stop_strings.push(&text);
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
        // After a stop string nothing is held back, and the same string is reported again.
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
        self.completion.text.push_str(&chunk.text);
        (chunk.token_id.is_some() || !chunk.text.is_empty()).then_some(chunk)
    }
}

/// The control tokens that are stop strings. As text they are searched for like any other stop string.
///
/// # Errors
/// [`InvalidOption`](crate::ErrorKind::InvalidOption) for a stop string of a control token and other text: a control token
/// has no text in an answer, so this string would never be found.
fn stop_controls(tokenizer: &Tokenizer, stops: &[String]) -> Result<Vec<(u32, String)>> {
    let mut found = Vec::new();
    for stop in stops {
        if let Some((id, _)) = tokenizer.control(stop) {
            found.push((id, stop.clone()));
            continue;
        }
        let controls = tokenizer.control_ids().iter().filter_map(|id| Some((*id, tokenizer.token_text(*id)?)));
        let inside = controls.filter(|(_, text)| !text.is_empty() && stop.contains(text));
        if let Some((id, text)) = inside.max_by_key(|(_, text)| text.len()) {
            return Err(Error::invalid_option(
                "stop",
                format_args!(
                    "must not mix the control token {text} with other text, got {stop:?}; set stop to {text:?} alone, or \
                     stop_token_ids to {id}"
                ),
            ));
        }
    }
    Ok(found)
}
