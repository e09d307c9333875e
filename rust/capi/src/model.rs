//! Models: from a file or from memory, and text to tokens and back.

use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::Arc;

use candle_phi_engine as engine;
use candle_phi_engine::{Error, Phi3Model};

use crate::cancel::{self, CancelToken};
use crate::pointers::{self, Grows, Place};
use crate::status::{Result, Status, answer, quietly};
use crate::text::{Str, Text, Tokens};

#[cfg(feature = "demo")]
const DEMO: Option<&[u8]> = Some(include_bytes!("../../../python/candle_phi/demo/candle-phi-demo.gguf"));
#[cfg(not(feature = "demo"))]
const DEMO: Option<&[u8]> = None;

/// Weights, tokenizer and chat template of one file. It never changes, and any number of sessions on any threads share it.
pub struct Model(pub(crate) Arc<Phi3Model>);

/// How to load a model. Texts that are empty leave the choice to the library.
///
/// docs/reference/options.md lists the values, ranges and defaults of all options.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct LoadOptions {
    /// sizeof(CandlePhiLoadOptions); candle_phi_load_options_init sets it.
    pub size: usize,
    /// Where to compute: "auto", or a device by its name, such as "cpu" or "cuda:0"; docs/devices.md has all names.
    pub device: Str,
    /// What computes: "auto", "kernels" or "candle".
    pub executor: Str,
    /// The chat format, in place of the template that the file brings: "phi3", for example.
    pub chat_format: Str,
    /// The path of a tokenizer.json to use in place of the file's own vocabulary.
    pub tokenizer: Str,
    /// Stops loading; NULL for none.
    pub cancel: *const CancelToken,
    /// How many positions a position sees, itself included; 0 for all before it; less than 0 (the default) for what the file
    /// says.
    pub sliding_window: i64,
    /// Not 0 (the default): read the weights in the mapped file, which nobody may cut short meanwhile. 0: read the file into
    /// memory.
    pub mmap: i32,
    /// Not 0: read all of the file while loading, so that the first answer doesn't wait for the disk.
    pub prefault: i32,
    /// Not 0: keep the file in memory, as far as the system lets.
    pub mlock: i32,
    /// Not 0 (the default): control tokens swallow the white space behind them, as Phi-3's do since July 2024.
    pub rstrip_control_tokens: i32,
}

const _: () = assert!(offset_of!(LoadOptions, rstrip_control_tokens) + 4 == size_of::<LoadOptions>());
// SAFETY: numbers and pointers, of which any bytes are a value, and no padding at the end, by the line above.
unsafe impl Grows for LoadOptions {}

impl LoadOptions {
    fn default_of_the_engine() -> Self {
        let engine::LoadOptions { mmap, prefault, mlock, rstrip_control_tokens, .. } =
            engine::LoadOptions::default();
        Self {
            size: size_of::<Self>(),
            device: Str::EMPTY,
            executor: Str::EMPTY,
            chat_format: Str::EMPTY,
            tokenizer: Str::EMPTY,
            cancel: ptr::null(),
            sliding_window: -1,
            mmap: mmap.into(),
            prefault: prefault.into(),
            mlock: mlock.into(),
            rstrip_control_tokens: rstrip_control_tokens.into(),
        }
    }

    /// # Safety
    /// Its texts are a caller's that live for the call.
    unsafe fn read(self) -> Result<engine::LoadOptions> {
        // SAFETY: the caller's promise.
        let (device, executor, chat_format, tokenizer) = unsafe {
            (
                self.device.read_unless_empty("device")?,
                self.executor.read_unless_empty("executor")?,
                self.chat_format.read_unless_empty("chat_format")?,
                self.tokenizer.read_unless_empty("tokenizer")?,
            )
        };
        Ok(engine::LoadOptions {
            tokenizer: tokenizer.map(PathBuf::from),
            device: device.map_or(Ok(engine::DeviceSpec::default()), str::parse)?,
            executor: executor.map_or(Ok(engine::ExecutorKind::default()), str::parse)?,
            mmap: self.mmap != 0,
            prefault: self.prefault != 0,
            mlock: self.mlock != 0,
            rstrip_control_tokens: self.rstrip_control_tokens != 0,
            chat_format: chat_format.map(str::parse).transpose()?,
            sliding_window: usize::try_from(self.sliding_window).ok(),
        })
    }
}

/// Facts about a model. The texts are the model's, and good for as long as it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ModelInfo {
    /// The model's name; empty where the file has none.
    pub name: Str,
    /// The architecture, as the file names it.
    pub architecture: Str,
    /// The mixture of tensor types, "Q4_K_M" and the like.
    pub quantization: Str,
    /// What messages are written with; empty where the file has no chat template, and candle_phi_chat is an error.
    pub chat_format: Str,
    /// How many weights there are.
    pub parameter_count: u64,
    /// Bytes of the file.
    pub file_size_bytes: u64,
    /// Bytes of the weights.
    pub weights_bytes: u64,
    /// The longest context that the model was made for, in tokens.
    pub context_length: u64,
    /// How many token ids there are.
    pub vocabulary_size: u64,
    /// How long loading took.
    pub load_s: f64,
}

const _: () = assert!(offset_of!(ModelInfo, load_s) + 8 == size_of::<ModelInfo>());
// SAFETY: as above.
unsafe impl Grows for ModelInfo {}

/// Fills the options with their defaults. `size` is sizeof(CandlePhiLoadOptions). NULL is left as it is.
///
/// Threads: any, where no other uses the struct.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn candle_phi_load_options_init(options: *mut LoadOptions, size: usize) {
    quietly((), || {
        // SAFETY: the caller promises `size` bytes, or NULL.
        unsafe { pointers::init(LoadOptions { size, ..LoadOptions::default_of_the_engine() }, options, size) };
    });
}

/// Loads a model from a GGUF file into `model`, to be freed with candle_phi_model_free. A failure leaves NULL there.
/// `options` may be NULL. Takes milliseconds to seconds: not for the thread that draws.
///
/// Threads: any, at any time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn candle_phi_model_load(
    path: Str,
    options: *const LoadOptions,
    model: *mut *mut Model,
) -> Status {
    answer(|| {
        // SAFETY: the caller promises a text that lives for the call.
        let read = || unsafe { path.read("path") };
        // SAFETY: the caller promises options that live for the call, or NULL, and a place for the model.
        unsafe {
            load(options, model, |options, cancel| Ok(Phi3Model::load(Path::new(read()?), options, cancel)?))
        }
    })
}

/// Loads a model from the bytes of a GGUF file, which are copied and may be freed afterwards. For files that are too large
/// to have twice in memory candle_phi_model_load is better: it reads them in place. Otherwise the same.
///
/// Threads: any, at any time, where nobody writes to the bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn candle_phi_model_load_bytes(
    bytes: *const u8,
    len: usize,
    options: *const LoadOptions,
    model: *mut *mut Model,
) -> Status {
    answer(|| {
        // SAFETY: the caller promises `len` bytes that live for the call.
        let read = || unsafe { pointers::slice(bytes, len, "bytes") };
        // SAFETY: the caller promises options that live for the call, or NULL, and a place for the model.
        unsafe { load(options, model, |options, cancel| Ok(Phi3Model::load_bytes(read()?, options, cancel)?)) }
    })
}

/// Loads the toy model that is a part of the library, to try an app without a download. It knows haiku, greetings and
/// counting. CANDLE_PHI_STATUS_UNSUPPORTED_MODEL where the library was built without it. Otherwise the same.
///
/// Threads: any, at any time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn candle_phi_model_load_demo(
    options: *const LoadOptions,
    model: *mut *mut Model,
) -> Status {
    answer(|| {
        let bytes = || {
            DEMO.ok_or_else(|| {
                Error::unsupported_model(
                    "this library has no embedded model; build it with the feature \"demo\", or load a file",
                )
            })
        };
        // SAFETY: the caller promises options that live for the call, or NULL, and a place for the model.
        unsafe { load(options, model, |options, cancel| Ok(Phi3Model::load_bytes(bytes()?, options, cancel)?)) }
    })
}

/// # Safety
/// The options are NULL, or a caller's that live for the call; the place is NULL, or one to write to.
unsafe fn load(
    options: *const LoadOptions,
    model: *mut *mut Model,
    load: impl FnOnce(&engine::LoadOptions, &engine::CancelToken) -> Result<Phi3Model>,
) -> Result<()> {
    // SAFETY: the caller's promise.
    let (place, options, cancel) = unsafe {
        let place = Place::new(model, ptr::null_mut(), "model")?;
        let options = pointers::options(options, LoadOptions::default_of_the_engine(), "options")?;
        (place, options.read()?, cancel::flag(options.cancel)?)
    };
    let model = Model(Arc::new(load(&options, &cancel)?));
    place.put(Box::into_raw(Box::new(model)));
    Ok(())
}

/// Writes facts about the model to `info`. `size` is sizeof(CandlePhiModelInfo).
///
/// Threads: any, at any time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn candle_phi_model_info(model: *const Model, info: *mut ModelInfo, size: usize) -> Status {
    answer(|| {
        // SAFETY: the caller promises a model that was not freed, or NULL.
        let model = &unsafe { pointers::borrow(model, "model") }?.0;
        let facts = model.info();
        let of = |text: Option<&String>| text.map_or(Str::EMPTY, |text| Str::of(text));
        let written = ModelInfo {
            name: of(facts.name.as_ref()),
            architecture: Str::of(&facts.architecture),
            quantization: Str::of(&facts.quantization),
            chat_format: of(facts.chat_format.as_ref()),
            parameter_count: facts.parameter_count,
            file_size_bytes: facts.file_size_bytes,
            weights_bytes: facts.weights_bytes,
            context_length: model.config().context_length as u64,
            vocabulary_size: model.tokenizer().vocab_size() as u64,
            load_s: model.load_time().as_secs_f64(),
        };
        // SAFETY: the caller promises `size` bytes to write to, or NULL.
        unsafe { pointers::write_sized(written, info, size, "info") }
    })
}

/// Frees the model; NULL is left as it is. Its sessions keep what they need of it, and go on.
///
/// Threads: any, where no other is about to use the model, or in one of its functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn candle_phi_model_free(model: *mut Model) {
    quietly((), || {
        if !model.is_null() {
            // SAFETY: the caller promises a model of this library that was not freed.
            drop(unsafe { Box::from_raw(model) });
        }
    });
}

/// The token ids of a text, to be freed with candle_phi_tokens_free. With `add_bos` they begin with the token for the
/// beginning of a text, if the vocabulary has it. With `parse_special` the texts of control tokens become these
/// tokens; without it they are text as any other.
///
/// Threads: any, at any time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn candle_phi_tokenize(
    model: *const Model,
    text: Str,
    add_bos: i32,
    parse_special: i32,
    tokens: *mut Tokens,
) -> Status {
    answer(|| {
        // SAFETY: the caller promises a place to write to, or NULL, and a model and a text that live for the call.
        let (place, model, text) = unsafe {
            let place = Place::new(tokens, Tokens::EMPTY, "tokens")?;
            (place, pointers::borrow(model, "model")?, text.read("text")?)
        };
        let ids = model.0.tokenizer().encode(text, add_bos != 0, parse_special != 0)?;
        place.put(Tokens::new(ids));
        Ok(())
    })
}

/// The text of token ids, to be freed with candle_phi_text_free. With `skip_special` control tokens are left out. Bytes
/// that are no UTF-8 become U+FFFD.
///
/// Threads: any, at any time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn candle_phi_detokenize(
    model: *const Model,
    tokens: *const u32,
    n_tokens: usize,
    skip_special: i32,
    text: *mut Text,
) -> Status {
    answer(|| {
        // SAFETY: the caller promises a place to write to, or NULL, and a model and ids that live for the call.
        let (place, model, tokens) = unsafe {
            let place = Place::new(text, Text::EMPTY, "text")?;
            (place, pointers::borrow(model, "model")?, pointers::slice(tokens, n_tokens, "tokens")?)
        };
        place.put(Text::new(model.0.tokenizer().decode(tokens, skip_special != 0)?));
        Ok(())
    })
}

/// The engine's model of a caller's handle.
///
/// # Safety
/// It is NULL, or a model that was not freed.
pub(crate) unsafe fn shared(model: *const Model) -> Result<Arc<Phi3Model>> {
    // SAFETY: the caller's promise.
    Ok(Arc::clone(&unsafe { pointers::borrow(model, "model") }?.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_the_engines() {
        // SAFETY: the defaults have no texts.
        let read = unsafe { LoadOptions::default_of_the_engine().read() }.unwrap();
        assert_eq!(format!("{read:?}"), format!("{:?}", engine::LoadOptions::default()));
    }
}
