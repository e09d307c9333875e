//! Sessions: one conversation each on a shared model.

use std::sync::{Arc, Weak};
use std::time::Instant;

use crate::cache::{KvCache, KvDtype};
use crate::chat::Message;
use crate::generation::{Chunk, Generation, GenerationOptions};
use crate::loader::Phi3Model;
use crate::model::Logits;
use crate::sampling::log_softmax;
use crate::stop::FinishReason;
use crate::{CancelToken, Error, Result};

/// The largest context that a session has without being asked for one.
const DEFAULT_MAX_N_CTX: usize = 4096;

/// How to make a session.
#[derive(Clone, Debug, Default)]
pub struct SessionOptions {
    /// Positions that the context holds; `None` takes the model's, at most 4,096.
    pub n_ctx: Option<usize>,
    /// The type that the cache keeps keys and values in.
    pub kv_dtype: KvDtype,
    /// How many tokens of a prompt go through the model at once. `None` chooses: many on a GPU; on a CPU as few as
    /// it takes for a cancelled prompt to stop soon.
    pub prefill_chunk: Option<usize>,
}

/// One conversation: the key-value cache of what was computed, and the tokens of the conversation so far.
pub struct Session {
    model: Arc<Phi3Model>,
    cache: KvCache,
    /// The tokens whose keys and values are in the cache.
    cached: Vec<u32>,
    /// The conversation as token ids, each turn closed; it is never tokenized again.
    conversation: Vec<u32>,
    n_ctx: usize,
    kv_dtype: KvDtype,
    prefill_chunk: usize,
    /// The generation that was started last; dead once it was dropped.
    active: Weak<()>,
}

impl Session {
    /// A session with an empty context.
    ///
    /// # Errors
    /// [`InvalidOption`](crate::ErrorKind::InvalidOption) for a context longer than the model's.
    pub fn new(model: Arc<Phi3Model>, options: &SessionOptions) -> Result<Self> {
        let longest = model.config().max_context_length();
        let n_ctx = options.n_ctx.unwrap_or(longest.min(DEFAULT_MAX_N_CTX));
        if n_ctx == 0 || n_ctx > longest {
            let reason = if longest < model.config().context_length {
                format!(
                    "; the file says {}, but beyond its original context of {longest} LongRoPE's long factors are \
                     needed, which are not supported yet",
                    model.config().context_length
                )
            } else {
                String::new()
            };
            return Err(Error::invalid_option(format!(
                "n_ctx: expected 1 to {longest}, the context length of the model, found {n_ctx}{reason}"
            )));
        }
        if options.prefill_chunk == Some(0) {
            return Err(Error::invalid_option(
                "prefill_chunk: expected 1 or more tokens, or none to choose, found 0",
            ));
        }
        let prefill_chunk = options.prefill_chunk.unwrap_or_else(|| model.prefill_chunk());
        let cache = model.new_cache(n_ctx, options.kv_dtype);
        Ok(Self {
            model,
            cache,
            cached: Vec::new(),
            conversation: Vec::new(),
            n_ctx,
            kv_dtype: options.kv_dtype,
            prefill_chunk,
            active: Weak::new(),
        })
    }

    /// The model that the session runs on.
    #[must_use]
    pub fn model(&self) -> &Arc<Phi3Model> {
        &self.model
    }

    /// Positions that the context holds.
    #[must_use]
    pub fn n_ctx(&self) -> usize {
        self.n_ctx
    }

    /// The type that the cache keeps keys and values in.
    #[must_use]
    pub fn kv_dtype(&self) -> KvDtype {
        self.kv_dtype
    }

    /// The tokens whose keys and values are in the cache.
    #[must_use]
    pub fn cached_tokens(&self) -> &[u32] {
        &self.cached
    }

    /// The conversation so far as token ids.
    #[must_use]
    pub fn conversation_tokens(&self) -> &[u32] {
        &self.conversation
    }

    /// Begins a completion of `prompt`. Nothing is computed before the first [`step`](Self::step).
    ///
    /// The part of the prompt that the cache holds already is not computed again.
    ///
    /// # Errors
    /// [`SessionBusy`](crate::ErrorKind::SessionBusy) while another generation lives and has not ended,
    /// [`ContextLength`](crate::ErrorKind::ContextLength) for a prompt longer than the context,
    /// [`InvalidOption`](crate::ErrorKind::InvalidOption) for options out of range or tokens out of the vocabulary.
    pub fn start(&mut self, prompt: &[u32], options: &GenerationOptions) -> Result<Generation> {
        self.begin(prompt.to_vec(), false, options)
    }

    /// Begins the answer to `messages`, the whole of a new conversation.
    ///
    /// When the generation ends by itself, messages and answer become the session's conversation.
    pub fn start_chat(&mut self, messages: &[Message], options: &GenerationOptions) -> Result<Generation> {
        let format = self.model.chat_format()?;
        let prompt = format.encode(self.model.tokenizer(), messages, true, false)?;
        self.begin(prompt, true, options)
    }

    /// Begins the answer to `messages`, which continue the session's conversation.
    pub fn continue_chat(&mut self, messages: &[Message], options: &GenerationOptions) -> Result<Generation> {
        let first = self.conversation.is_empty();
        let turn = self.model.chat_format()?.encode_turn(self.model.tokenizer(), messages, first)?;
        let mut prompt = self.conversation.clone();
        prompt.extend(turn);
        self.begin(prompt, true, options)
    }

    fn begin(&mut self, prompt: Vec<u32>, is_chat: bool, options: &GenerationOptions) -> Result<Generation> {
        self.refuse_while_busy()?;
        options.validate(self.model.config().vocabulary_size)?;
        self.check_tokens(&prompt)?;
        let reused = self.reusable(&prompt);
        let generation = Generation::new(&self.model, prompt, is_chat, reused, options)?;
        self.active = generation.ticket();
        Ok(generation)
    }

    /// Computes the next token. The first step computes the prompt.
    ///
    /// Returns `None` when the generation has ended; its [`completion`](Generation::completion) is whole then.
    ///
    /// # Errors
    /// [`Cancelled`](crate::ErrorKind::Cancelled) once `cancel` is set. The generation can be continued with another
    /// step, or dropped; either way the session stays usable.
    pub fn step(&mut self, generation: &mut Generation, cancel: &CancelToken) -> Result<Option<Chunk>> {
        if generation.is_finished() {
            return Ok(None);
        }
        if !generation.has_ticket(&self.active) {
            return Err(Error::session_busy(
                "this generation belongs to another session, or the session was reset or has begun another one since",
            ));
        }
        generation.mark_started();
        let chunk = match generation.pending {
            None => {
                let logits = self.prefill(generation, cancel)?;
                generation.accept(&logits)?
            }
            Some(_) if self.cached.len() >= self.n_ctx => generation.context_is_full(),
            Some(token) => {
                let started = Instant::now();
                let logits = self.forward(&[token], Logits::Last, cancel)?;
                generation.add_decode_time(started.elapsed());
                generation.accept(&logits)?
            }
        };
        self.commit_when_finished(generation)?;
        Ok(chunk)
    }

    /// Steps until the generation has ended.
    pub fn run(&mut self, generation: &mut Generation, cancel: &CancelToken) -> Result<()> {
        while !generation.is_finished() {
            self.step(generation, cancel)?;
        }
        Ok(())
    }

    /// Natural logarithms of the probabilities of `tokens[1..]`, each given all tokens before it.
    ///
    /// Uses a cache of its own: the session's conversation and cache stay as they are.
    pub fn score(&mut self, tokens: &[u32], cancel: &CancelToken) -> Result<Vec<f32>> {
        self.refuse_while_busy()?;
        self.check_tokens(tokens)?;
        let mut cache = self.model.new_cache(self.n_ctx, self.kv_dtype);
        let mut scores = Vec::with_capacity(tokens.len().saturating_sub(1));
        for chunk in tokens.chunks(self.prefill_chunk) {
            let targets = tokens.iter().skip(cache.len() + 1);
            let logits = self.model.forward(chunk, &mut cache, Logits::All, cancel)?; // (chunk, vocabulary)
            let rows = logits.chunks_exact(self.model.config().vocabulary_size);
            scores.extend(rows.zip(targets).map(|(row, target)| log_softmax(row)(*target)));
        }
        Ok(scores)
    }

    /// Logits of the token that follows `tokens`, one for each token of the vocabulary.
    ///
    /// The part of `tokens` that the cache holds already is not computed again.
    pub fn logits(&mut self, tokens: &[u32], cancel: &CancelToken) -> Result<Vec<f32>> {
        self.refuse_while_busy()?;
        self.check_tokens(tokens)?;
        self.compute(tokens, cancel)
    }

    /// Forgets the conversation and gives the cache's memory back.
    ///
    /// A generation that lives ends with this: its next step is an error.
    pub fn reset(&mut self) {
        self.cache.clear();
        self.cached.clear();
        self.conversation.clear();
        self.active = Weak::new();
    }

    fn refuse_while_busy(&self) -> Result<()> {
        if self.active.strong_count() == 0 {
            return Ok(());
        }
        Err(Error::session_busy(
            "the session has a generation in progress; finish it, close it, or use another session on the same model",
        ))
    }

    fn check_tokens(&self, tokens: &[u32]) -> Result<()> {
        if tokens.is_empty() {
            return Err(Error::invalid_option("prompt: expected at least one token, found none"));
        }
        let vocabulary_size = self.model.config().vocabulary_size;
        if let Some(token) = tokens.iter().find(|token| **token as usize >= vocabulary_size) {
            return Err(Error::invalid_option(format!(
                "prompt: expected token ids below {vocabulary_size}, found {token}"
            )));
        }
        if tokens.len() > self.n_ctx {
            return Err(Error::context_length(
                tokens.len(),
                self.n_ctx,
                format!(
                    "the prompt has {} tokens, but the context holds {}; shorten it, or make the session with a larger \
                     n_ctx (the model allows {})",
                    tokens.len(),
                    self.n_ctx,
                    self.model.config().max_context_length()
                ),
            ));
        }
        Ok(())
    }

    /// How many tokens from the start on the cache shares with `tokens`; the last token is always computed.
    fn reusable(&self, tokens: &[u32]) -> usize {
        let shared = self.cached.iter().zip(tokens).take_while(|(cached, token)| cached == token).count();
        shared.min(tokens.len().saturating_sub(1))
    }

    /// Computes a prompt and returns the logits behind it.
    fn prefill(&mut self, generation: &mut Generation, cancel: &CancelToken) -> Result<Vec<f32>> {
        let started = Instant::now();
        let prompt = std::mem::take(&mut generation.prompt);
        let already_cached = self.reusable(&prompt);
        let logits = self.compute(&prompt, cancel);
        let computed = prompt.len().min(self.cached.len()).saturating_sub(already_cached);
        generation.add_prefill_time(computed, started.elapsed());
        generation.prompt = prompt;
        logits
    }

    /// Brings the cache to hold exactly `tokens` and returns the logits behind the last.
    fn compute(&mut self, tokens: &[u32], cancel: &CancelToken) -> Result<Vec<f32>> {
        let reused = self.reusable(tokens);
        self.cache.truncate(reused);
        self.cached.truncate(reused);
        let mut rest = tokens.get(reused..).unwrap_or_default();
        while rest.len() > self.prefill_chunk {
            let (chunk, behind) = rest.split_at(self.prefill_chunk);
            self.forward(chunk, Logits::None, cancel)?;
            rest = behind;
        }
        self.forward(rest, Logits::Last, cancel)
    }

    fn forward(&mut self, tokens: &[u32], logits: Logits, cancel: &CancelToken) -> Result<Vec<f32>> {
        let logits = self.model.forward(tokens, &mut self.cache, logits, cancel)?;
        self.cached.extend_from_slice(tokens);
        Ok(logits)
    }

    /// A chat's turn becomes part of the conversation when its answer ended by itself.
    fn commit_when_finished(&mut self, generation: &Generation) -> Result<()> {
        let completion = generation.completion();
        match completion.finish_reason {
            None => return Ok(()),
            Some(FinishReason::Stop | FinishReason::Length) if generation.is_chat => {
                let mut conversation = generation.prompt.clone();
                conversation.extend_from_slice(&completion.tokens);
                conversation.extend(self.model.chat_format()?.turn_end(self.model.tokenizer())?);
                self.conversation = conversation;
            }
            Some(_) => {}
        }
        self.active = Weak::new();
        Ok(())
    }
}
