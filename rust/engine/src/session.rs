//! Sessions: one conversation each on a shared model.

mod compute;
mod step;

use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, Weak};

use crate::cache::{KvCache, KvDtype, Reuse};
use crate::chat::Message;
use crate::config::context_length;
use crate::conversation::{Conversation, Turn};
use crate::device::{DeviceSpec, check_context};
use crate::generation::{Generation, GenerationOptions, Prompt};
use crate::loader::Phi3Model;
use crate::machine::{Compute, ExecutorKind};
use crate::overflow::{OnOverflow, Script};
use crate::{CancelToken, Error, Result, options, saved};

pub use step::HalfStep;

/// Where log records of all files of this module come from: the names of loggers are public, those of files are not.
const LOG_TARGET: &str = "candle_phi_engine::session";

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
    /// Which of LongRoPE's factors the positions are rotated with.
    pub rope_factors: RopeFactors,
}

impl SessionOptions {
    /// Checks every option against its range, except for what depends on the model, the device and the machine.
    ///
    /// # Errors
    /// [`InvalidOption`](crate::ErrorKind::InvalidOption) naming the option, its range and what was found.
    pub fn validate(&self) -> Result<()> {
        for (name, count) in
            [("n_ctx", self.n_ctx), ("n_threads", self.n_threads), ("prefill_chunk", self.prefill_chunk)]
        {
            count.map_or(Ok(()), |count| options::check(name, count))?;
        }
        Ok(())
    }

    /// Fails where no model could have a session of these options, which can be known before there is a model.
    ///
    /// # Errors
    /// [`InvalidOption`](crate::ErrorKind::InvalidOption), or [`Device`](crate::ErrorKind::Device) if the device cannot be
    /// opened.
    pub fn check(&self, device: DeviceSpec, executor: ExecutorKind) -> Result<()> {
        let executor = executor.resolve(device.choose()?.device)?;
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
            _ => Err(options::unknown_choice("rope_factors", text)),
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

impl Session {
    /// A session with an empty context.
    ///
    /// # Errors
    /// [`InvalidOption`](crate::ErrorKind::InvalidOption) for a context longer than the model's, or than what the device
    /// computes rightly,
    /// [`InsufficientMemory`](crate::ErrorKind::InsufficientMemory) for one that was asked for and that the machine has no
    /// memory for. The default is not held against the memory: it is an upper limit, and what is used of it counts.
    pub fn new(model: Arc<Phi3Model>, options: &SessionOptions) -> Result<Self> {
        let n_ctx = context_length(options.n_ctx, model.config())?;
        check_context(model.device(), n_ctx)?;
        if options.rope_factors != RopeFactors::Auto && !model.config().has_rope_factors {
            return Err(Error::invalid_option(
                "rope_factors",
                format_args!(
                    "must be \"auto\" for a model without LongRoPE factors, got {:?}",
                    options.rope_factors.as_str()
                ),
            ));
        }
        options.validate()?;
        let prefill_chunk = options.prefill_chunk.unwrap_or_else(|| model.prefill_chunk(n_ctx));
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
        let model = &self.model;
        self.conversation.rewind(turns, |left| {
            let (template, tokenizer) = (model.chat_template()?, model.tokenizer());
            // A template that changes the last answer cannot leave it open. The next turn is rendered anyway.
            template
                .encode(tokenizer, left, false, true)
                .or_else(|_| template.encode(tokenizer, left, false, false))
        })
    }

    /// Begins a completion of `prompt`. Nothing is computed before the first [`step`](Self::step).
    ///
    /// The part of the prompt that the cache holds already is not computed again.
    ///
    /// # Errors
    /// [`SessionBusy`](crate::ErrorKind::SessionBusy) while another generation lives and has not ended,
    /// [`ContextLength`](crate::ErrorKind::ContextLength) for a prompt longer than the context, unless
    /// [`on_overflow`](GenerationOptions::on_overflow) knows better,
    /// [`InvalidOption`](crate::ErrorKind::InvalidOption) for options out of range or tokens out of the vocabulary.
    pub fn start(&mut self, prompt: &[u32], options: &GenerationOptions) -> Result<Generation> {
        self.begin(Prompt::raw(prompt.to_vec()), options)
    }

    /// Begins a completion of a raw text: control tokens in it count, and BOS is put first where the model wants it.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub fn start_text(&mut self, text: &str, options: &GenerationOptions) -> Result<Generation> {
        let tokenizer = self.model.tokenizer();
        let tokens = tokenizer.encode(text, tokenizer.add_bos(), true)?;
        self.begin(Prompt { text: Some(text.to_owned()), ..Prompt::raw(tokens) }, options)
    }

    /// Begins the answer to `messages`, the whole of a new conversation.
    ///
    /// When the generation ends by itself, messages and answer become the session's conversation.
    pub fn start_chat(&mut self, messages: &[Message], options: &GenerationOptions) -> Result<Generation> {
        let tokens = self.model.chat_template()?.encode(self.model.tokenizer(), messages, true, false)?;
        let script = Some(Script::new(&[], messages, false));
        self.begin(Prompt { turn: Some(Turn::whole(messages)), script, ..Prompt::raw(tokens) }, options)
    }

    /// Begins the rest of the last of `messages`, which is the assistant's; they are the whole of a new conversation.
    ///
    /// # Errors
    /// As for [`start_chat`](Self::start_chat), and [`InvalidOption`](crate::ErrorKind::InvalidOption) if the last
    /// message is not the assistant's.
    pub fn complete_chat(&mut self, messages: &[Message], options: &GenerationOptions) -> Result<Generation> {
        let tokens = self.model.chat_template()?.encode(self.model.tokenizer(), messages, false, true)?;
        let script = Some(Script::new(&[], messages, true));
        self.begin(Prompt { turn: Some(Turn::rest_of(messages)), script, ..Prompt::raw(tokens) }, options)
    }

    /// Begins the answer to `messages`, which continue the session's conversation.
    pub fn continue_chat(&mut self, messages: &[Message], options: &GenerationOptions) -> Result<Generation> {
        let (template, tokenizer) = (self.model.chat_template()?, self.model.tokenizer());
        // Refuses messages that the template does not write after the last answer.
        let turn = template.encode_turn(tokenizer, self.history(), messages)?;
        let tokens = if self.history().is_empty() {
            turn
        } else {
            // The messages are the conversation: a template can write an answer otherwise once it is in the past.
            let whole = [self.history(), messages].concat();
            tokenizer.keep_known(self.conversation.tokens(), &template.encode(tokenizer, &whole, true, false)?)
        };
        let script = Some(Script::new(self.history(), messages, false));
        self.begin(Prompt { turn: Some(Turn::next(messages)), script, ..Prompt::raw(tokens) }, options)
    }

    fn begin(&mut self, mut prompt: Prompt, options: &GenerationOptions) -> Result<Generation> {
        self.refuse_while_busy()?;
        options.validate(self.model.config().vocabulary_size)?;
        self.check_tokens(&prompt.tokens)?;
        let truncated = match options.on_overflow {
            OnOverflow::TruncateOldest => prompt.leave_out_oldest(&self.model, self.n_ctx, options)?,
            OnOverflow::Error | OnOverflow::Stop => 0,
        };
        let fits = prompt.tokens.len() <= self.n_ctx;
        if !fits && options.on_overflow != OnOverflow::Stop {
            // What is no way out of this is not offered as one.
            let (left_out, or_else) = match options.on_overflow {
                OnOverflow::TruncateOldest if truncated > 0 => (" after its oldest part was truncated", ""),
                OnOverflow::TruncateOldest => (", none of which can be truncated", ""),
                OnOverflow::Error | OnOverflow::Stop if self.fits_without_oldest(&mut prompt) => {
                    ("", "; set on_overflow to \"truncate_oldest\" to truncate its oldest part instead")
                }
                OnOverflow::Error | OnOverflow::Stop => ("", ""),
            };
            return Err(self.too_long(prompt.tokens.len(), left_out, or_else));
        }
        let mut reuse = if fits { self.reuse(&prompt.tokens) } else { Reuse::default() };
        if options.wants_prompt_logprobs() {
            reuse = Reuse { cached: 0, recomputed: reuse.cached + reuse.recomputed };
        }
        let mut generation = Generation::new(&self.model, prompt, reuse, options)?;
        if fits {
            generation.add_truncated(truncated);
            self.active = generation.ticket();
        } else {
            generation.does_not_fit();
        }
        Ok(generation)
    }

    /// Forgets the conversation and gives the cache's memory back, but for two pages of 32 positions, which the next
    /// conversation takes.
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

    /// Whether a prompt would fit into the context without all of it that may be left out. A raw prompt always would.
    fn fits_without_oldest(&self, prompt: &mut Prompt) -> bool {
        prompt.script.as_mut().is_none_or(|script| script.fits_without_oldest(&self.model, self.n_ctx))
    }

    fn check_tokens(&self, tokens: &[u32]) -> Result<()> {
        if tokens.is_empty() {
            return Err(Error::invalid_option("prompt", "must have at least one token, got none"));
        }
        let vocabulary_size = self.model.config().vocabulary_size;
        if let Some(token) = tokens.iter().find(|token| **token as usize >= vocabulary_size) {
            return Err(Error::invalid_option(
                "prompt",
                format_args!(
                    "must have token ids below {vocabulary_size}, the size of the vocabulary, got {token}"
                ),
            ));
        }
        Ok(())
    }

    fn check_length(&self, tokens: &[u32]) -> Result<()> {
        if tokens.len() > self.n_ctx { Err(self.too_long(tokens.len(), "", "")) } else { Ok(()) }
    }

    /// The error for a prompt that is longer than the context, with a remark about its length and one more remedy.
    fn too_long(&self, prompt_tokens: usize, left_out: &str, or_else: &str) -> Error {
        let longest = self.model.config().context_length;
        let larger =
            if self.n_ctx < longest { format!(", or set n_ctx higher, up to {longest}") } else { String::new() };
        let message = format!(
            "the prompt has {prompt_tokens} tokens{left_out}, but the context holds {}; shorten it{larger}{or_else}",
            self.n_ctx
        );
        Error::context_length(prompt_tokens, self.n_ctx, message)
    }
}
