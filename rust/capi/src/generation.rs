//! Generating: prompts and chats, with a callback for each chunk.

use std::ffi::c_void;
use std::mem::offset_of;
use std::ptr;
use std::time::Duration;

use candle_phi_engine as engine;
use candle_phi_engine::{Error, ErrorKind, GenerationOptions as EngineOptions, SamplingOptions};

use crate::cancel::{self, CancelToken};
use crate::completion::Completion;
use crate::pointers::{self, Grows, Place};
use crate::session::Session;
use crate::status::{Result, Status, answer, quietly};
use crate::text::Str;

/// Who speaks in a message.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Instructions in front of the conversation.
    System = 1,
    /// The person.
    User = 2,
    /// The model.
    Assistant = 3,
}

/// One message of a conversation.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Message {
    /// Who says it: a CandlePhiRole.
    pub role: i32,
    /// What is said. Control tokens in it are text as any other.
    pub content: Str,
}

/// A token's logit is moved by so much before it is drawn.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct LogitBias {
    /// The token.
    pub token: u32,
    /// Added to its logit; minus infinity bans it.
    pub bias: f32,
}

/// A piece of an answer, as a callback gets it: good until it returns. Newer versions may have more fields at the end.
#[repr(C)]
pub struct Chunk {
    /// New text, whole characters of UTF-8. Empty while a character is not complete, or a stop text may have begun.
    pub text: Str,
    /// The token that it came with.
    pub token: u32,
    /// 0 for text that was held back until the end, which comes with none.
    pub has_token: i32,
}

/// Called with each chunk, on the thread that called the function. 0 goes on, and anything else cancels: it isn't called
/// again, and the generation ends with CANDLE_PHI_FINISH_REASON_CANCELLED.
///
/// The session is busy meanwhile; other sessions and all else may be used. It must return: no exception and no longjmp may
/// leave it.
pub type OnChunk = Option<unsafe extern "C" fn(chunk: *const Chunk, user_data: *mut c_void) -> i32>;

/// What to generate and when to stop. candle_phi_generation_options_init fills in the defaults.
///
/// docs/reference/options.md lists the values, ranges and defaults of all options.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct GenerationOptions {
    /// sizeof(CandlePhiGenerationOptions); candle_phi_generation_options_init sets it.
    pub size: usize,
    /// The most tokens to generate; 0 (the default) goes on until the model ends, or the context is full.
    pub max_tokens: usize,
    /// End tokens are not drawn before this many tokens.
    pub min_tokens: usize,
    /// Only so many of the most likely tokens are drawn from; 0 (the default) for all.
    pub top_k: usize,
    /// Over how many of the last generated tokens penalties look (64).
    pub repeat_last_n: usize,
    /// Texts that end the generation and are not a part of it.
    pub stop: *const Str,
    /// How many there are.
    pub n_stop: usize,
    /// Token ids that end the generation besides the model's own.
    pub stop_token_ids: *const u32,
    /// How many there are.
    pub n_stop_token_ids: usize,
    /// Logits to move.
    pub logit_bias: *const LogitBias,
    /// How many there are.
    pub n_logit_bias: usize,
    /// Stops the generation from another thread, which ends with CANDLE_PHI_FINISH_REASON_CANCELLED; NULL for none.
    pub cancel: *const CancelToken,
    /// After so many seconds the generation ends as it is; 0 (the default) sets no limit.
    pub timeout_s: f64,
    /// 0 takes the most likely token always; 1 (the default) draws as the model's probabilities are.
    pub temperature: f64,
    /// Only the most likely tokens that together have this probability are drawn from; 1 (the default) for all.
    pub top_p: f64,
    /// Tokens that are less likely than this share of the likeliest are not drawn; 0 (the default) for none.
    pub min_p: f64,
    /// The seed of the draw, where `has_seed` is not 0.
    pub seed: u64,
    /// Not 0: draw with `seed`. 0 (the default): with a seed that the completion reports.
    pub has_seed: i32,
    /// Not 0: go on past the model's end tokens.
    pub ignore_eos: i32,
    /// Divides the logits of tokens that were generated lately; 1 (the default) is off.
    pub repetition_penalty: f32,
    /// Subtracted once from the logits of tokens that were generated lately.
    pub presence_penalty: f32,
    /// Subtracted from them for each time.
    pub frequency_penalty: f32,
    /// Leave it 0.
    pub reserved: u32,
    /// Only tokens whose surprise is near the expected one and that together have this probability are drawn from (locally
    /// typical sampling); 1 (the default) for all.
    pub typical_p: f64,
}

const _: () = assert!(offset_of!(GenerationOptions, typical_p) + 8 == size_of::<GenerationOptions>());
// SAFETY: numbers and pointers, of which any bytes are a value, and no padding at the end, by the line above.
unsafe impl Grows for GenerationOptions {}

impl GenerationOptions {
    fn default_of_the_engine() -> Self {
        let EngineOptions { min_tokens, sampling, ignore_eos, .. } = EngineOptions::default();
        Self {
            size: size_of::<Self>(),
            max_tokens: 0,
            min_tokens,
            top_k: 0,
            repeat_last_n: sampling.repeat_last_n,
            stop: ptr::null(),
            n_stop: 0,
            stop_token_ids: ptr::null(),
            n_stop_token_ids: 0,
            logit_bias: ptr::null(),
            n_logit_bias: 0,
            cancel: ptr::null(),
            timeout_s: 0.0,
            temperature: sampling.temperature,
            top_p: 1.0,
            min_p: 0.0,
            seed: 0,
            has_seed: 0,
            ignore_eos: ignore_eos.into(),
            repetition_penalty: sampling.repetition_penalty,
            presence_penalty: sampling.presence_penalty,
            frequency_penalty: sampling.frequency_penalty,
            reserved: 0,
            typical_p: 1.0,
        }
    }

    /// # Safety
    /// Its lists and texts are a caller's that live for the call.
    unsafe fn read(self) -> Result<EngineOptions> {
        // SAFETY: the caller's promise.
        let (stop, stop_token_ids, logit_bias) = unsafe {
            (
                pointers::slice(self.stop, self.n_stop, "stop")?
                    .iter()
                    .map(|text| Ok(text.read("stop")?.to_owned()))
                    .collect::<Result<_>>()?,
                pointers::slice(self.stop_token_ids, self.n_stop_token_ids, "stop_token_ids")?,
                pointers::slice(self.logit_bias, self.n_logit_bias, "logit_bias")?,
            )
        };
        Ok(EngineOptions {
            max_tokens: Some(self.max_tokens).filter(|most| *most > 0),
            min_tokens: self.min_tokens,
            timeout: timeout(self.timeout_s)?,
            sampling: SamplingOptions {
                temperature: self.temperature,
                top_k: Some(self.top_k).filter(|k| *k > 0),
                typical_p: Some(self.typical_p),
                top_p: Some(self.top_p),
                min_p: Some(self.min_p),
                repetition_penalty: self.repetition_penalty,
                repeat_last_n: self.repeat_last_n,
                presence_penalty: self.presence_penalty,
                frequency_penalty: self.frequency_penalty,
                logit_bias: logit_bias.iter().map(|bias| (bias.token, bias.bias)).collect(),
                seed: (self.has_seed != 0).then_some(self.seed),
            },
            stop,
            stop_token_ids: stop_token_ids.to_vec(),
            ignore_eos: self.ignore_eos != 0,
            ..EngineOptions::default()
        })
    }
}

/// What no clock can count to is no limit.
fn timeout(seconds: f64) -> Result<Option<Duration>> {
    if seconds.is_nan() || seconds < 0.0 {
        let problem = format_args!("must be at least 0 (0 for no limit), got {seconds}");
        return Err(Error::invalid_option("timeout_s", problem).into());
    }
    Ok(Some(seconds)
        .filter(|seconds| *seconds > 0.0)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()))
}

/// # Safety
/// Its text is a caller's that lives for the call.
unsafe fn message(message: &Message) -> Result<engine::Message> {
    let role = match message.role {
        role if role == Role::System as i32 => engine::Role::System,
        role if role == Role::User as i32 => engine::Role::User,
        role if role == Role::Assistant as i32 => engine::Role::Assistant,
        other => {
            let problem = format_args!("must be 1 (system), 2 (user) or 3 (assistant), got {other}");
            return Err(Error::invalid_option("role", problem).into());
        }
    };
    // SAFETY: the caller's promise.
    Ok(engine::Message::new(role, unsafe { message.content.read("content") }?))
}

/// Whom a generation tells of its chunks.
struct Listener {
    on_chunk: OnChunk,
    user_data: *mut c_void,
}

impl Listener {
    /// Whether to go on.
    fn hear(&self, chunk: &engine::Chunk) -> bool {
        let Some(on_chunk) = self.on_chunk else { return true };
        let chunk = Chunk {
            text: Str::of(&chunk.text),
            token: chunk.token_id.unwrap_or_default(),
            has_token: chunk.token_id.is_some().into(),
        };
        // SAFETY: the caller promises a function of this signature that returns.
        unsafe { on_chunk(&raw const chunk, self.user_data) == 0 }
    }
}

/// What the three functions that generate have in common.
///
/// # Safety
/// The pointers are NULL, or what the functions' callers promise of them.
unsafe fn generate(
    session: *const Session,
    options: *const GenerationOptions,
    listener: &Listener,
    completion: *mut *mut Completion,
    start: impl FnOnce(&mut engine::Session, &EngineOptions) -> Result<engine::Generation>,
) -> Result<()> {
    // SAFETY: the caller's promise.
    let (place, session, cancel, options) = unsafe {
        let place = Place::wanted(completion, ptr::null_mut(), "completion")?;
        let session = Session::of_handle(session)?;
        let options = pointers::options(options, GenerationOptions::default_of_the_engine(), "options")?;
        (place, session, cancel::flag(options.cancel)?, options.read()?)
    };
    let given = session.lend(|session| {
        let mut generation = start(session, &options)?;
        loop {
            match session.step(&mut generation, &cancel) {
                Ok(None) => break,
                Ok(Some(chunk)) => {
                    if !listener.hear(&chunk) {
                        generation.cancel();
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Cancelled => {
                    if let Some(held_back) = generation.cancel() {
                        listener.hear(&held_back);
                    }
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(generation.completion().clone())
    })?;
    if let Some(place) = place {
        place.put(Box::into_raw(Box::new(Completion(given))));
    }
    Ok(())
}

/// Fills the options with their defaults. `size` is sizeof(CandlePhiGenerationOptions). NULL is left as it is.
///
/// Threads: any, where no other uses the struct.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn candle_phi_generation_options_init(options: *mut GenerationOptions, size: usize) {
    quietly((), || {
        let default = GenerationOptions { size, ..GenerationOptions::default_of_the_engine() };
        // SAFETY: the caller promises `size` bytes, or NULL.
        unsafe { pointers::init(default, options, size) };
    });
}

/// Completes a raw prompt, in which control tokens count, and returns at the end. The conversation stays as it is.
///
/// `options`, `on_chunk` and `completion` may be NULL. The completion is freed with candle_phi_completion_free; a failure
/// leaves NULL there. A generation that is cancelled, or whose time is over, is no failure: the completion has what there is.
///
/// Threads: any, at any time; CANDLE_PHI_STATUS_SESSION_BUSY while another call uses the session. Sessions of one model
/// generate side by side.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn candle_phi_generate(
    session: *mut Session,
    prompt: Str,
    options: *const GenerationOptions,
    on_chunk: OnChunk,
    user_data: *mut c_void,
    completion: *mut *mut Completion,
) -> Status {
    answer(|| {
        let start = |session: &mut engine::Session, options: &EngineOptions| {
            // SAFETY: the caller promises a text that lives for the call.
            let prompt = unsafe { prompt.read("prompt") }?;
            let tokenizer = session.model().tokenizer();
            let prompt = tokenizer.encode(prompt, tokenizer.add_bos(), true)?;
            Ok(session.start(&prompt, options)?)
        };
        // SAFETY: the caller promises a session that was not freed, options that live for the call, and a place to write to.
        unsafe { generate(session, options, &Listener { on_chunk, user_data }, completion, start) }
    })
}

/// The same for a prompt of token ids, which are taken as they are.
///
/// Threads: as candle_phi_generate.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn candle_phi_generate_tokens(
    session: *mut Session,
    tokens: *const u32,
    n_tokens: usize,
    options: *const GenerationOptions,
    on_chunk: OnChunk,
    user_data: *mut c_void,
    completion: *mut *mut Completion,
) -> Status {
    answer(|| {
        let start = |session: &mut engine::Session, options: &EngineOptions| {
            // SAFETY: the caller promises ids that live for the call.
            let tokens = unsafe { pointers::slice(tokens, n_tokens, "tokens") }?;
            Ok(session.start(tokens, options)?)
        };
        // SAFETY: as for `candle_phi_generate`.
        unsafe { generate(session, options, &Listener { on_chunk, user_data }, completion, start) }
    })
}

/// Says `messages` in the session's conversation and generates the answer, which becomes a part of it when it ends by itself
/// or at its length; one that was cancelled, or whose time was over, leaves no trace. What was said before is not computed
/// again. The first call may bring a whole conversation: a system's message, earlier questions and their answers.
///
/// The rest is as for candle_phi_generate.
///
/// Threads: as candle_phi_generate.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn candle_phi_chat(
    session: *mut Session,
    messages: *const Message,
    n_messages: usize,
    options: *const GenerationOptions,
    on_chunk: OnChunk,
    user_data: *mut c_void,
    completion: *mut *mut Completion,
) -> Status {
    answer(|| {
        let start = |session: &mut engine::Session, options: &EngineOptions| {
            // SAFETY: the caller promises messages that live for the call.
            let messages = unsafe { pointers::slice(messages, n_messages, "messages") }?;
            let said: Vec<engine::Message> = messages
                .iter()
                .map(|one| {
                    // SAFETY: as above.
                    unsafe { message(one) }
                })
                .collect::<Result<_>>()?;
            Ok(session.continue_chat(&said, options)?)
        };
        // SAFETY: as for `candle_phi_generate`.
        unsafe { generate(session, options, &Listener { on_chunk, user_data }, completion, start) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_the_engines() {
        // SAFETY: the defaults have no texts and no lists.
        let read = unsafe { GenerationOptions::default_of_the_engine().read() }.unwrap();
        // These have a number that does nothing in the place of None.
        let sampling = SamplingOptions { typical_p: None, top_p: None, min_p: None, ..read.sampling.clone() };
        let SamplingOptions { typical_p, top_p, min_p, .. } = read.sampling;
        assert_eq!((typical_p, top_p, min_p), (Some(1.0), Some(1.0), Some(0.0)));
        assert_eq!(EngineOptions { sampling, ..read }, EngineOptions::default());
    }
}
