//! Sessions: one conversation each.

use std::mem::offset_of;
use std::ptr;
use std::sync::{Arc, Mutex, TryLockError};

use candle_phi_engine as engine;
use candle_phi_engine::{Error, ErrorKind, Phi3Model, catch_panic};

use crate::model::{self, Model};
use crate::pointers::{self, Grows, Place};
use crate::status::{Fault, Result, Status, answer, quietly};
use crate::text::Str;

/// A conversation with a model: what was said, and what was computed of it. One call at a time uses it.
pub struct Session {
    engine: Mutex<engine::Session>,
    model: Arc<Phi3Model>,
    options: engine::SessionOptions,
}

/// How to make a session. Zeros and empty texts leave the choice to the library.
///
/// docs/reference/options.md lists the values, ranges and defaults of all options.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SessionOptions {
    /// sizeof(CandlePhiSessionOptions); candle_phi_session_options_init sets it.
    pub size: usize,
    /// How many tokens of a conversation there is room for; 0 for the model's own number, at most 4,096. Memory is taken as
    /// it is used.
    pub n_ctx: usize,
    /// How many threads compute; 0 for all cores that the process may use.
    pub n_threads: usize,
    /// How many tokens of a prompt are computed at once; 0 to choose.
    pub prefill_chunk: usize,
    /// The type that keys and values are kept in: "f16" (the default), "f32" or "q8_0", which takes half the memory.
    pub kv_dtype: Str,
    /// The instruction set level that computes, one that the processor has. Empty for the environment variable
    /// CANDLE_PHI_ISA, or the best.
    pub isa: Str,
    /// Which of LongRoPE's factors are used: "auto" (the default), "short" or "long".
    pub rope_factors: Str,
}

const _: () = assert!(offset_of!(SessionOptions, rope_factors) + size_of::<Str>() == size_of::<SessionOptions>());
// SAFETY: numbers and pointers, of which any bytes are a value, and no padding at the end, by the line above.
unsafe impl Grows for SessionOptions {}

impl SessionOptions {
    const DEFAULT: Self = Self {
        size: size_of::<Self>(),
        n_ctx: 0,
        n_threads: 0,
        prefill_chunk: 0,
        kv_dtype: Str::EMPTY,
        isa: Str::EMPTY,
        rope_factors: Str::EMPTY,
    };

    /// # Safety
    /// Its texts are a caller's that live for the call.
    unsafe fn read(self) -> Result<engine::SessionOptions> {
        let chosen = |number: usize| Some(number).filter(|number| *number > 0);
        // SAFETY: the caller's promise.
        let (kv_dtype, isa, rope_factors) = unsafe {
            (
                self.kv_dtype.read_unless_empty("kv_dtype")?,
                self.isa.read_unless_empty("isa")?,
                self.rope_factors.read_unless_empty("rope_factors")?,
            )
        };
        Ok(engine::SessionOptions {
            n_ctx: chosen(self.n_ctx),
            kv_dtype: kv_dtype.map_or(Ok(engine::KvDtype::default()), str::parse)?,
            n_threads: chosen(self.n_threads),
            isa: isa.map(str::to_owned),
            prefill_chunk: chosen(self.prefill_chunk),
            rope_factors: rope_factors.map_or(Ok(engine::RopeFactors::default()), str::parse)?,
        })
    }
}

impl Session {
    fn new(model: Arc<Phi3Model>, options: engine::SessionOptions) -> Result<Self> {
        let engine = Mutex::new(engine::Session::new(Arc::clone(&model), &options)?);
        Ok(Self { engine, model, options })
    }

    /// Hands the session over as a pointer that owns it.
    fn into_handle(self) -> *mut Self {
        Arc::into_raw(Arc::new(self)).cast_mut()
    }

    /// The session of a caller's handle, which the handle may be freed before.
    ///
    /// # Safety
    /// It is NULL, or a session that was not freed.
    pub(crate) unsafe fn of_handle(session: *const Self) -> Result<Arc<Self>> {
        // SAFETY: the caller's promise; that it is not NULL is looked at first.
        unsafe {
            pointers::borrow(session, "session")?;
            Arc::increment_strong_count(session);
            Ok(Arc::from_raw(session))
        }
    }

    /// Lends the session to a call, unless another one has it. Nobody waits: the other may be the one whose callback this
    /// is.
    pub(crate) fn lend<T>(&self, work: impl FnOnce(&mut engine::Session) -> Result<T>) -> Result<T> {
        let mut guard = match self.engine.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                return Err(Fault::from(Error::session_busy(
                    "another call is using the session; wait for it to end, or use another session on the same model",
                )));
            }
        };
        catch_panic(|| work(&mut guard)).unwrap_or_else(|panic| {
            // The old one may be in any state.
            *guard = engine::Session::new(Arc::clone(&self.model), &self.options)?;
            let message = format!("{panic}; the session was reset and its conversation is lost");
            Err(Fault::from(Error::new(ErrorKind::Inference, message)))
        })
    }
}

/// Fills the options with their defaults. `size` is sizeof(CandlePhiSessionOptions). NULL is left as it is.
///
/// Threads: any, where no other uses the struct.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn candle_phi_session_options_init(options: *mut SessionOptions, size: usize) {
    quietly((), || {
        // SAFETY: the caller promises `size` bytes, or NULL.
        unsafe { pointers::init(SessionOptions { size, ..SessionOptions::DEFAULT }, options, size) };
    });
}

/// Begins an empty conversation in `session`, to be freed with candle_phi_session_free. A failure leaves NULL there.
/// `options` may be NULL. The model may be freed before the session.
///
/// Threads: any, at any time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn candle_phi_session_new(
    model: *const Model,
    options: *const SessionOptions,
    session: *mut *mut Session,
) -> Status {
    answer(|| {
        // SAFETY: the caller promises a place to write to, a model and options that live for the call, or NULL.
        let (place, model, options) = unsafe {
            let place = Place::new(session, ptr::null_mut(), "session")?;
            let options = pointers::options(options, SessionOptions::DEFAULT, "options")?;
            (place, model::shared(model)?, options.read()?)
        };
        place.put(Session::new(model, options)?.into_handle());
        Ok(())
    })
}

/// A second conversation in `forked` that begins as `session` is now, and goes its own way. Nothing is computed again, and
/// on a CPU no memory is copied. A failure leaves NULL there.
///
/// Threads: any, at any time; CANDLE_PHI_STATUS_SESSION_BUSY while a call uses `session`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn candle_phi_session_fork(session: *const Session, forked: *mut *mut Session) -> Status {
    answer(|| {
        // SAFETY: the caller promises a place to write to, and a session that was not freed, or NULL.
        let (place, session) =
            unsafe { (Place::new(forked, ptr::null_mut(), "forked")?, Session::of_handle(session)?) };
        let engine = Mutex::new(session.lend(|engine| Ok(engine.fork()?))?);
        let (model, options) = (Arc::clone(&session.model), session.options.clone());
        place.put(Session { engine, model, options }.into_handle());
        Ok(())
    })
}

/// Forgets the conversation and gives its memory back, but for that of 64 tokens at most, which the next one takes.
///
/// Threads: any, at any time; CANDLE_PHI_STATUS_SESSION_BUSY while another call uses the session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn candle_phi_session_reset(session: *mut Session) -> Status {
    answer(|| {
        // SAFETY: the caller promises a session that was not freed, or NULL.
        let session = unsafe { Session::of_handle(session) }?;
        session.lend(|engine| {
            engine.reset();
            Ok(())
        })
    })
}

/// Takes the last `turns` turns of the conversation back: each is what one candle_phi_chat said, and its answer. What is
/// left is not computed again.
///
/// Threads: any, at any time; CANDLE_PHI_STATUS_SESSION_BUSY while another call uses the session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn candle_phi_session_rewind(session: *mut Session, turns: usize) -> Status {
    answer(|| {
        // SAFETY: the caller promises a session that was not freed, or NULL.
        let session = unsafe { Session::of_handle(session) }?;
        session.lend(|engine| {
            engine.rewind(turns)?;
            Ok(())
        })
    })
}

/// Frees the session; NULL is left as it is. A call that is using it goes on to its end: cancel it where it shall not.
///
/// Threads: any, also within a callback of the session, where no other is about to use the session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn candle_phi_session_free(session: *mut Session) {
    quietly((), || {
        if !session.is_null() {
            // SAFETY: the caller promises a session of this library that was not freed.
            drop(unsafe { Arc::from_raw(session.cast_const()) });
        }
    });
}

#[cfg(all(test, feature = "demo"))]
mod tests {
    use super::*;
    use crate::model::{candle_phi_model_free, candle_phi_model_load_demo};

    #[test]
    fn after_a_panic_the_session_is_empty_and_works() {
        let mut handle = ptr::null_mut();
        // SAFETY: the place is a variable of this function, and the model is freed once, when nothing uses it any more.
        let model = unsafe {
            assert_eq!(candle_phi_model_load_demo(ptr::null(), &raw mut handle), Status::Ok);
            let model = model::shared(handle).unwrap();
            candle_phi_model_free(handle);
            model
        };
        let session = Session::new(model, engine::SessionOptions::default()).unwrap();
        let ask = || {
            session.lend(|engine| {
                let options = engine::GenerationOptions { max_tokens: Some(3), ..Default::default() };
                let mut generation = engine.continue_chat(&[engine::Message::user("Hello")], &options)?;
                engine.run(&mut generation, &engine::CancelToken::new())?;
                Ok(engine.history().len())
            })
        };
        assert_eq!(ask().unwrap(), 2);
        let fault = session.lend(|_| -> Result<()> { panic!("out of cheese") }).unwrap_err();
        assert!(format!("{fault:?}").contains("out of cheese"), "{fault:?}");
        assert_eq!(ask().unwrap(), 2);
    }

    #[test]
    fn the_defaults_are_the_engines() {
        // SAFETY: the defaults have no texts.
        let read = unsafe { SessionOptions::DEFAULT.read() }.unwrap();
        assert_eq!(format!("{read:?}"), format!("{:?}", engine::SessionOptions::default()));
    }
}
