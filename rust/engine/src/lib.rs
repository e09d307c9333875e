//! Runs Microsoft's Phi models from GGUF files: model, tokenizer, sampling and sessions, without Python.
//!
//! # Key types
//! - [`Phi3Model`]: weights, tokenizer and chat format of one file. Immutable, shared between threads in an `Arc`.
//! - [`Session`]: one conversation on a model: its key-value cache and its history.
//! - [`Generation`]: one completion in progress, advanced by [`Session::step`].
//! - [`Error`] and [`ErrorKind`]: what went wrong, for a person and for a program.
//!
//! # Usage
//! 1. [`Phi3Model::load`] a GGUF file (from disk, or from the hub through `hub::download`).
//! 2. Make a [`Session`].
//! 3. [`Session::start`] a prompt, or [`Session::start_chat`] a conversation.
//! 4. Call [`Session::step`] until it returns `None`, and print each chunk's text as it comes.
//!
//! ```no_run
//! use std::sync::Arc;
//! use candle_phi_engine::{CancelToken, GenerationOptions, LoadOptions, Message, Phi3Model, Session, SessionOptions};
//!
//! # fn main() -> candle_phi_engine::Result<()> {
//! let cancel = CancelToken::new();
//! let path = std::path::Path::new("Phi-3-mini-4k-instruct-q4.gguf");
//! let model = Arc::new(Phi3Model::load(path, &LoadOptions::default(), &cancel)?);
//! let mut session = Session::new(model, &SessionOptions::default())?;
//! let messages = [Message::user("Write a haiku about ice hockey")];
//! let mut generation = session.start_chat(&messages, &GenerationOptions::default())?;
//! while let Some(chunk) = session.step(&mut generation, &cancel)? {
//!     print!("{}", chunk.text);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//! - `hub`, on by default: downloads from the Hugging Face hub, and with them an HTTP client with TLS, which needs a C
//!   compiler. A program that has its files is smaller without it.
//! - `cuda`, `flash-attn`, `metal`, `accelerate`, `mkl`: handed on to Candle.

mod architecture;
mod cache;
mod cancel;
mod chat;
mod completion;
mod config;
mod conversation;
mod device;
mod error;
mod file;
mod fingerprint;
mod generation;
mod gguf;
#[cfg(feature = "hub")]
pub mod hub;
mod info;
mod loader;
mod machine;
mod memory;
mod model;
mod new_file;
pub mod options;
mod overflow;
mod panics;
mod recommended;
mod sampling;
mod saved;
mod session;
mod size;
mod stop;
mod tokenizer;
mod visible;

pub use architecture::Architecture;
pub use cache::KvDtype;
pub use cancel::CancelToken;
pub use chat::{ChatFormat, ChatTemplate, Message, Role};
pub use completion::{Chunk, Completion, StopReason, Timings, TokenLogprob, Usage};
pub use config::PhiConfig;
pub use device::{DeviceChoice, DeviceKind, DeviceSpec};
pub use error::{Error, ErrorKind, Refusal, Result};
pub use generation::{Generation, GenerationOptions};
pub use gguf::{Array, Gguf, LoadProgress, TensorData, TensorInfo, Value};
pub use info::ModelInfo;
pub use loader::{LoadOptions, Phi3Model};
pub use machine::{ExecutorKind, instruction_set, thread_count};
pub use memory::MemoryEstimate;
pub use overflow::OnOverflow;
pub use panics::{catch_panic, keep_panics_quiet};
pub use recommended::RecommendedSampling;
pub use sampling::SamplingOptions;
pub use session::{HalfStep, RopeFactors, Session, SessionOptions};
pub use stop::{FinishReason, StopOutcome, StopStrings};
pub use tokenizer::{StreamDecoder, Tokenizer, TokenizerOptions, VocabularyFamily};
pub use visible::visible;
