//! The engine for C, and for whatever calls C: a mobile app, a game, another language.
//!
//! The header, `include/candle_phi.h`, is written from these sources, comments included, so they speak to who calls from C.
//! `docs/c.md` shows the use. No decisions are made here: values are checked, converted and handed on.
//!
//! - [`status`]: how a call ends, and the one door, which no panic gets out of.
//! - [`pointers`]: what is read and written through a caller's pointers.
//! - [`text`]: text and token ids that go in and out.
//! - [`cancel`], [`model`], [`session`], [`generation`], [`completion`], [`version`]: the functions, in the order of the header.
#![allow(unsafe_code, reason = "the border to C: pointers come from a caller, and functions keep their names")]
#![allow(clippy::missing_safety_doc, reason = "what a caller promises is said once, at the head of the header")]

pub mod cancel;
pub mod completion;
pub mod generation;
pub mod model;
pub mod pointers;
pub mod session;
pub mod status;
pub mod text;
pub mod version;
