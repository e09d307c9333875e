//! Sessions: one conversation each on a shared model.

use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, Weak};
use std::time::Instant;

use crate::cache::{KvCache, KvDtype};
use crate::chat::Message;
use crate::config::PhiConfig;
use crate::conversation::{Conversation, Turn};
use crate::device::DeviceSpec;
use crate::generation::{Chunk, Generation, GenerationOptions};
use crate::loader::Phi3Model;
use crate::machine::Compute;
use crate::model::{ExecutorKind, FactorSet, Logits};
use crate::sampling::log_softmax;
use crate::{CancelToken, Error, ErrorKind, Result, saved};

/// The largest context that a session has without being asked for one.
const DEFAULT_MAX_N_CTX: usize = 4096;

/// How to make a session.
#[derive(Clone, Debug, Default)]
pub struct SessionOptions {
    /// Positions that the context holds; `None` takes the model's, at most 4,096.
    pub n_ctx: Option<usize>,
    /// The type that the cache keeps keys and values in.
    pub kv_dtype: KvDtype,
    /// How many threads compute, on the kernels; `None` takes the cores that this process may use.
    pub n_threads: Option<usize>,
    /// The instruction set level of the kernels, by [name](candle_phi_kernels::Isa::name): one that the machine has.
    /// `None` takes what the environment variable `CANDLE_PHI_ISA` says, or the best.
    pub isa: Option<String>,
    /// How many tokens of a prompt go through the model at once. `None` chooses: many on the kernels and on a GPU; on
    /// Candle's CPU operations as few as it takes for a cancelled prompt to stop soon.
    pub prefill_chunk: Option<usize>,
    /// Which of LongRoPE's factors the positions are turned with.
    pub rope_factors: RopeFactors,
}

impl SessionOptions {
    /// Fails where no model could have a session of these options, which can be known before there is a model.
    ///
    /// # Errors
    /// [`InvalidOption`](crate::ErrorKind::InvalidOption), or [`Device`](crate::ErrorKind::Device) if the device cannot be
    /// opened.
    pub fn check(&self, device: DeviceSpec, executor: ExecutorKind) -> Result<()> {
        let executor = executor.resolve(&device.open()?)?;
        Compute::new(executor, self.n_threads, self.isa.as_deref())?;
        if executor == ExecutorKind::Candle {
            self.kv_dtype.candle()?;
        }
        Ok(())
    }
}

/// Which of LongRoPE's factors a session uses, on a model that has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RopeFactors {
    /// As the model was trained: the short ones for a sequence up to the original context, the long ones for one
    /// beyond. A conversation that crosses this boundary is computed again from its start, once.
    #[default]
    Auto,
    /// The short ones always: nothing is computed again, and what comes beyond the original context is wrong.
    Short,
    /// The long ones always: nothing is computed again, and what comes before the boundary is not quite what the
    /// model was trained for.
    Long,
}

impl RopeFactors {
    /// `"auto"`, `"short"` or `"long"`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Short => "short",
            Self::Long => "long",
        }
    }
}

impl FromStr for RopeFactors {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "short" => Ok(Self::Short),
            "long" => Ok(Self::Long),
            _ => Err(Error::invalid_option(format!(
                "rope_factors: expected \"auto\", \"short\" or \"long\", found {text:?}"
            ))),
        }
    }
}

/// One conversation: the key-value cache of what was computed, and the tokens of the conversation so far.
pub struct Session {
    model: Arc<Phi3Model>,
    cache: KvCache,
    /// The tokens whose keys and values are in the cache.
    cached: Vec<u32>,
    conversation: Conversation,
    n_ctx: usize,
    kv_dtype: KvDtype,
    compute: Compute,
    prefill_chunk: usize,
    rope_factors: RopeFactors,
    /// The generation that was started last; dead once it was dropped.
    active: Weak<()>,
}

/// Positions that a session's context holds on a model.
///
/// # Errors
/// [`InvalidOption`](crate::ErrorKind::InvalidOption) for a context longer than the model's.
pub(crate) fn context_length(n_ctx: Option<usize>, config: &PhiConfig) -> Result<usize> {
    let longest = config.context_length;
    let n_ctx = n_ctx.unwrap_or(longest.min(DEFAULT_MAX_N_CTX));
    if n_ctx == 0 || n_ctx > longest {
        return Err(Error::invalid_option(format!(
            "n_ctx: expected 1 to {longest}, the context length of the model, found {n_ctx}"
        )));
    }
    Ok(n_ctx)
}

/// What of a cache a sequence begins with.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reuse {
    /// Tokens that need not be computed.
    pub(crate) cached: usize,
    /// Tokens that the cache shares with the sequence, but must be computed again: they were turned with the other
    /// LongRoPE factors, or what they would see was dropped behind the window.
    pub(crate) recomputed: usize,
}

impl Session {
    /// A session with an empty context.
    ///
    /// # Errors
    /// [`InvalidOption`](crate::ErrorKind::InvalidOption) for a context longer than the model's,
    /// [`InsufficientMemory`](crate::ErrorKind::InsufficientMemory) for one that was asked for and that the machine has no
    /// memory for. The default is not held against the memory: it is an upper limit, and what is used of it counts.
    pub fn new(model: Arc<Phi3Model>, options: &SessionOptions) -> Result<Self> {
        let n_ctx = context_length(options.n_ctx, model.config())?;
        if options.rope_factors != RopeFactors::Auto && !model.config().has_rope_factors {
            return Err(Error::invalid_option(format!(
                "rope_factors: expected \"auto\", since the model has no LongRoPE factors to choose from, found {:?}",
                options.rope_factors.as_str()
            )));
        }
        if options.prefill_chunk == Some(0) {
            return Err(Error::invalid_option(
                "prefill_chunk: expected 1 or more tokens, or none to choose, found 0",
            ));
        }
        let prefill_chunk = options.prefill_chunk.unwrap_or_else(|| model.prefill_chunk());
        let compute = Compute::new(model.executor(), options.n_threads, options.isa.as_deref())?;
        let cache = model.new_cache(n_ctx, options.kv_dtype)?;
        if options.n_ctx.is_some() {
            model.check_memory(n_ctx, options.kv_dtype, prefill_chunk)?;
        }
        Ok(Self {
            model,
            cache,
            cached: Vec::new(),
            conversation: Conversation::default(),
            n_ctx,
            kv_dtype: options.kv_dtype,
            compute,
            prefill_chunk,
            rope_factors: options.rope_factors,
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

    /// How many threads compute.
    #[must_use]
    pub fn n_threads(&self) -> usize {
        self.compute.threads.count()
    }

    /// The instruction set level that computes, by its name; that of the kernels also where Candle computes.
    #[must_use]
    pub fn isa(&self) -> &'static str {
        self.compute.kernels.isa().name()
    }

    /// Bytes of memory that the cached keys and values take.
    #[must_use]
    pub fn kv_cache_bytes(&self) -> usize {
        self.cache.size_bytes()
    }

    /// A session with the same conversation and cache that goes its own way from here. On the kernels nothing is copied:
    /// what either computes next goes into memory of its own.
    ///
    /// # Errors
    /// [`SessionBusy`](crate::ErrorKind::SessionBusy) while a generation is in progress.
    pub fn fork(&self) -> Result<Self> {
        self.refuse_while_busy()?;
        self.model.check_cache_memory(
            self.cache.fork_bytes() as u64,
            "a fork, which Candle's executor makes by copying,",
        )?;
        Ok(Self {
            model: Arc::clone(&self.model),
            cache: self.cache.fork()?,
            cached: self.cached.clone(),
            conversation: self.conversation.clone(),
            active: Weak::new(),
            ..*self
        })
    }

    /// Writes the conversation and what was computed of it to a file, from which [`load`](Self::load) takes it up again, in
    /// this process or another. An old file stays until the new one is whole.
    ///
    /// # Errors
    /// [`ConversationFile`](crate::ErrorKind::ConversationFile) if the file cannot be written,
    /// [`SessionBusy`](crate::ErrorKind::SessionBusy) while a generation is in progress, and
    /// [`Cancelled`](crate::ErrorKind::Cancelled) once `cancel` is set.
    pub fn save(&self, path: &Path, cancel: &CancelToken) -> Result<()> {
        self.refuse_while_busy()?;
        let state = saved::State { conversation: &self.conversation, cached: &self.cached, cache: &self.cache };
        saved::save(path, &self.model, &state, self.kv_dtype, cancel)
    }

    /// Takes up a conversation that was [saved](Self::save), in the place of this one. What was computed of it need not be
    /// computed again. On any failure the session stays as it was.
    ///
    /// # Errors
    /// [`ConversationNotFound`](crate::ErrorKind::ConversationNotFound) if there is no file,
    /// [`ConversationFile`](crate::ErrorKind::ConversationFile) if it cannot be read,
    /// [`SavedConversation`](crate::ErrorKind::SavedConversation) if it is none, is damaged, or does not fit this session,
    /// [`InsufficientMemory`](crate::ErrorKind::InsufficientMemory) if there is no memory for it,
    /// [`SessionBusy`](crate::ErrorKind::SessionBusy) while a generation is in progress, and
    /// [`Cancelled`](crate::ErrorKind::Cancelled) once `cancel` is set.
    pub fn load(&mut self, path: &Path, cancel: &CancelToken) -> Result<()> {
        self.refuse_while_busy()?;
        let place = saved::Place { n_ctx: self.n_ctx, kv_dtype: self.kv_dtype };
        let loaded = saved::load(path, &self.model, place, cancel)?;
        self.conversation = loaded.conversation;
        self.cached = loaded.cached;
        self.cache = loaded.cache;
        Ok(())
    }

    /// The tokens whose keys and values are in the cache.
    #[must_use]
    pub fn cached_tokens(&self) -> &[u32] {
        &self.cached
    }

    /// The conversation so far as token ids.
    #[must_use]
    pub fn conversation_tokens(&self) -> &[u32] {
        self.conversation.tokens()
    }

    /// The conversation so far as messages.
    #[must_use]
    pub fn history(&self) -> &[Message] {
        self.conversation.messages()
    }

    /// Takes the last `turns` turns of the conversation back, each what one call said and its answer, and returns their
    /// messages. What is left need not be computed again.
    ///
    /// # Errors
    /// [`InvalidOption`](crate::ErrorKind::InvalidOption) if the conversation has fewer turns,
    /// [`SessionBusy`](crate::ErrorKind::SessionBusy) while a generation is in progress.
    pub fn rewind(&mut self, turns: usize) -> Result<Vec<Message>> {
        self.refuse_while_busy()?;
        self.conversation.rewind(turns)
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
        self.begin(prompt.to_vec(), None, options)
    }

    /// Begins the answer to `messages`, the whole of a new conversation.
    ///
    /// When the generation ends by itself, messages and answer become the session's conversation.
    pub fn start_chat(&mut self, messages: &[Message], options: &GenerationOptions) -> Result<Generation> {
        let prompt = self.model.chat_template()?.encode(self.model.tokenizer(), messages, true, false)?;
        self.begin(prompt, Some(Turn::whole(messages)), options)
    }

    /// Begins the rest of the last of `messages`, which is the assistant's; they are the whole of a new conversation.
    ///
    /// # Errors
    /// As for [`start_chat`](Self::start_chat), and [`InvalidOption`](crate::ErrorKind::InvalidOption) if the last
    /// message is not the assistant's.
    pub fn complete_chat(&mut self, messages: &[Message], options: &GenerationOptions) -> Result<Generation> {
        let prompt = self.model.chat_template()?.encode(self.model.tokenizer(), messages, false, true)?;
        self.begin(prompt, Some(Turn::rest_of(messages)), options)
    }

    /// Begins the answer to `messages`, which continue the session's conversation.
    pub fn continue_chat(&mut self, messages: &[Message], options: &GenerationOptions) -> Result<Generation> {
        let turn = self.model.chat_template()?.encode_turn(self.model.tokenizer(), self.history(), messages)?;
        let prompt = [self.conversation.tokens(), &turn].concat();
        self.begin(prompt, Some(Turn::next(messages)), options)
    }

    fn begin(&mut self, prompt: Vec<u32>, turn: Option<Turn>, options: &GenerationOptions) -> Result<Generation> {
        self.refuse_while_busy()?;
        options.validate(self.model.config().vocabulary_size)?;
        self.check_tokens(&prompt)?;
        let reuse = self.reuse(&prompt);
        let generation = Generation::new(&self.model, prompt, turn, reuse, options)?;
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
        let limited = cancel.until(generation.mark_started());
        let chunk = if generation.has_tokens() && generation.sequence.len() > self.n_ctx {
            generation.context_is_full()
        } else {
            match self.extend(generation, &limited) {
                Ok(logits) => generation.accept(&logits)?,
                Err(error) if error.kind() == ErrorKind::Cancelled && !cancel.is_cancelled() => {
                    generation.time_is_over()
                }
                Err(error) => return Err(error),
            }
        };
        if !generation.commits_later() {
            self.commit(generation);
        }
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
        let mut cache = self.model.new_cache(self.n_ctx, self.kv_dtype)?;
        cache.restart(self.factors_of(tokens.len()));
        let mut scores = Vec::with_capacity(tokens.len().saturating_sub(1));
        for chunk in tokens.chunks(self.prefill_chunk) {
            let targets = tokens.iter().skip(cache.len() + 1);
            let logits = self.model.forward(chunk, &mut cache, Logits::All, &self.compute, cancel)?; // (chunk, vocabulary)
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
        self.conversation = Conversation::default();
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
            let longest = self.model.config().context_length;
            let larger = if self.n_ctx < longest {
                format!(", or make the session with a larger n_ctx (the model allows {longest})")
            } else {
                " (the model allows no more)".to_owned()
            };
            return Err(Error::context_length(
                tokens.len(),
                self.n_ctx,
                format!(
                    "the prompt has {} tokens, but the context holds {}; shorten it{larger}",
                    tokens.len(),
                    self.n_ctx
                ),
            ));
        }
        Ok(())
    }

    /// The factors that all positions of a sequence of `len` tokens are turned with.
    fn factors_of(&self, len: usize) -> FactorSet {
        let config = self.model.config();
        match self.rope_factors {
            RopeFactors::Long => FactorSet::Long,
            RopeFactors::Auto if config.has_rope_factors && len > config.original_context_length => {
                FactorSet::Long
            }
            RopeFactors::Auto | RopeFactors::Short => FactorSet::Short,
        }
    }

    /// What of the cache can stand for the beginning of `tokens`; the last token is always computed.
    fn reuse(&self, tokens: &[u32]) -> Reuse {
        let shared = self.cached.iter().zip(tokens).take_while(|(cached, token)| cached == token).count();
        let shared = shared.min(tokens.len().saturating_sub(1));
        let is_there =
            self.factors_of(tokens.len()) == self.cache.rope_factors() && self.cache.can_truncate(shared);
        let cached = if is_there { shared } else { 0 };
        Reuse { cached, recomputed: shared - cached }
    }

    /// Computes what is new of a generation's sequence and returns the logits behind it: the prompt in the first step,
    /// one token in each that follows, and everything again where LongRoPE's factors change.
    fn extend(&mut self, generation: &mut Generation, cancel: &CancelToken) -> Result<Vec<f32>> {
        let started = Instant::now();
        let sequence = std::mem::take(&mut generation.sequence);
        let reuse = self.reuse(&sequence);
        let logits = self.compute(&sequence, cancel);
        let computed = sequence.len().min(self.cached.len()).saturating_sub(reuse.cached);
        let is_decode = generation.has_tokens() && reuse.cached + 1 == sequence.len();
        if is_decode && logits.is_ok() {
            generation.add_decode_time(started.elapsed());
        } else if !is_decode {
            generation.add_prefill_time(computed, started.elapsed());
        }
        if generation.has_tokens() {
            generation.add_recomputed(reuse.recomputed);
        }
        generation.sequence = sequence;
        logits
    }

    /// Brings the cache to hold exactly `tokens` and returns the logits behind the last.
    fn compute(&mut self, tokens: &[u32], cancel: &CancelToken) -> Result<Vec<f32>> {
        let Reuse { cached: reused, recomputed } = self.reuse(tokens);
        if recomputed > 0 {
            tracing::info!(recomputed, sequence = tokens.len(), "cached tokens are computed again");
        }
        if reused == 0 {
            self.cache.restart(self.factors_of(tokens.len()));
        }
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
        let logits = self.model.forward(tokens, &mut self.cache, logits, &self.compute, cancel)?;
        self.cached.extend_from_slice(tokens);
        Ok(logits)
    }

    /// Lets go of a generation that has ended; one that has not is left as it is. A chat's turn becomes part of the
    /// conversation if its answer ended by itself. [`step`](Self::step) does this, unless the generation
    /// [commits later](Generation::commit_later).
    pub fn commit(&mut self, generation: &mut Generation) {
        if !generation.has_ticket(&self.active) || !generation.is_finished() {
            return;
        }
        if let Some(turn) = generation.said() {
            self.conversation.add(turn, &generation.completion().text, &generation.sequence);
        }
        self.active = Weak::new();
    }
}
