//! Messages to prompt tokens: the family's formats, a file's own template, and contents that would like to be
//! part of it.
#![allow(clippy::unwrap_used, reason = "a test stops where it is wrong")]

mod custom;
mod formats;
mod jinja;
mod parts;
#[path = "../vocabulary/mod.rs"]
mod vocabulary;
