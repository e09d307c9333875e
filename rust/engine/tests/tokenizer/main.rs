//! Text to token ids and back, against the family's own files and against the `tokenizers` library.
#![allow(clippy::unwrap_used, reason = "a test stops where it is wrong")]

mod byte_level;
mod errors;
mod family;
mod json;
#[path = "../messages/mod.rs"]
mod messages;
mod small;
mod small_bytes;
mod texts;
#[path = "../vocabulary/mod.rs"]
mod vocabulary;

use candle_phi_engine::Tokenizer;
use serde_json::{Value, json};
use tokenizers::{Decoder as _, DecoderWrapper};

pub(crate) fn decoded(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    tokenizer.decode(ids, true).unwrap()
}

pub(crate) fn streamed(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let mut decoder = tokenizer.decoder();
    let mut text: String = ids.iter().map(|id| decoder.push(*id).unwrap()).collect();
    text.push_str(&decoder.finish());
    text
}

/// How the `tokenizers` library decodes the family's pieces.
pub(crate) fn reference_decode(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let decoder: DecoderWrapper = serde_json::from_value(phi3_decoder()).unwrap();
    let hidden = |id: &u32| tokenizer.control_ids().contains(id) || tokenizer.padding_ids().contains(id);
    let shown = ids.iter().filter(|id| !hidden(id));
    let shown: Vec<&str> = shown.map(|id| tokenizer.token_text(*id).unwrap()).collect();
    let byte = |text: &str| u8::from_str_radix(text.strip_prefix("<0x")?.strip_suffix('>')?, 16).ok();
    let mut bytes = Vec::new();
    for text in &shown {
        match byte(text) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend(text.replace('▁', " ").into_bytes()),
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    let text = text.strip_prefix(' ').unwrap_or(&text).to_owned();
    // The library replaces each byte of a run that is not UTF-8, its whole characters included.
    if std::str::from_utf8(&bytes).is_ok() {
        assert_eq!(text, decoder.decode(shown.into_iter().map(str::to_owned).collect()).unwrap());
    }
    text
}

pub(crate) fn phi3_decoder() -> Value {
    json!({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ]})
}

#[test]
fn tokenizer_is_shared_between_threads() {
    fn shareable<T: Send + Sync + Clone + 'static>() {}
    fn sendable<T: Send + 'static>() {}
    shareable::<Tokenizer>();
    sendable::<candle_phi_engine::StreamDecoder>();
}
