//! Vocabularies for tests: a small one that is written here, byte by byte and so independent of the engine's
//! reader, and the family's own where the shared test data is there.
#![allow(dead_code, unreachable_pub, reason = "each test binary compiles this module and uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a fixture that cannot be made stops the test that needs it")]

pub mod byte_level;

use std::path::{Path, PathBuf};

use candle_phi_engine::{CancelToken, Gguf, Tokenizer, TokenizerOptions};
use proptest::prelude::ProptestConfig;
use proptest::test_runner::TestRunner;

/// A file of the shared test data, or `None` and a line on stderr that says what is skipped.
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
pub fn test_data(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("CANDLE_PHI_TEST_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    let path = root.join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: no {} (set CANDLE_PHI_TEST_DATA to the shared test data)", path.display());
    None
}

/// The model that the Python package carries.
pub fn demo() -> Gguf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    Gguf::open(&root.join("python/candle_phi/demo/candle-phi-demo.gguf"), true, &CancelToken::new()).unwrap()
}

/// Runs a property on this many random cases, and writes no files.
pub fn runner(cases: u32) -> TestRunner {
    TestRunner::new(ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() })
}

/// A metadata value.
#[derive(Clone)]
pub enum Meta {
    U32(u32),
    Bool(bool),
    Str(String),
    Strings(Vec<String>),
    F32s(Vec<f32>),
    I32s(Vec<i32>),
}

impl From<&str> for Meta {
    fn from(text: &str) -> Self {
        Self::Str(text.to_owned())
    }
}

/// Opens a GGUF file of this metadata and no tensors.
pub fn gguf(metadata: &[(&str, Meta)]) -> Gguf {
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(3_u32.to_le_bytes());
    bytes.extend(0_u64.to_le_bytes());
    bytes.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        put_string(&mut bytes, key);
        match value {
            Meta::U32(value) => put(&mut bytes, 4, &value.to_le_bytes()),
            Meta::Bool(value) => put(&mut bytes, 7, &[u8::from(*value)]),
            Meta::Str(value) => {
                put(&mut bytes, 8, &[]);
                put_string(&mut bytes, value);
            }
            Meta::Strings(items) => {
                put_array(&mut bytes, 8, items.len());
                for item in items {
                    put_string(&mut bytes, item);
                }
            }
            Meta::F32s(items) => {
                put_array(&mut bytes, 6, items.len());
                for item in items {
                    bytes.extend(item.to_le_bytes());
                }
            }
            Meta::I32s(items) => {
                put_array(&mut bytes, 5, items.len());
                for item in items {
                    bytes.extend(item.to_le_bytes());
                }
            }
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("vocabulary.gguf");
    std::fs::write(&path, bytes).unwrap();
    Gguf::open(&path, false, &CancelToken::new()).unwrap()
}

fn put(bytes: &mut Vec<u8>, value_type: u32, value: &[u8]) {
    bytes.extend(value_type.to_le_bytes());
    bytes.extend(value);
}

fn put_array(bytes: &mut Vec<u8>, item_type: u32, len: usize) {
    put(bytes, 9, &item_type.to_le_bytes());
    bytes.extend((len as u64).to_le_bytes());
}

fn put_string(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

/// Numbers of `tokenizer.ggml.token_type`.
pub const NORMAL: i32 = 1;
pub const UNKNOWN: i32 = 2;
pub const CONTROL: i32 = 3;
pub const USER_DEFINED: i32 = 4;
pub const UNUSED: i32 = 5;
pub const BYTE: i32 = 6;

/// Pieces of the small vocabulary, the best first. Some are parts of control tokens' texts, so that hostile texts
/// have something to merge to; `<|end|>` would be a piece if text could become one.
const PIECES: [&str; 24] = [
    "▁t",
    "he",
    "▁the",
    "en",
    "nd",
    "er",
    "us",
    "user",
    "<|",
    "|>",
    "<|en",
    "end",
    "ll",
    "o▁",
    "▁h",
    "▁he",
    "▁▁",
    "</",
    "s>",
    "</s",
    "▁<",
    "▁<|",
    "▁▁▁▁",
    "lo",
];
const CHARACTERS: &str = "▁abcdefghijklmnopqrstuvwxyzABCDHEIU<|>/.,!?é你";
/// Control tokens of the small vocabulary, by text and type, as the official files mix the types.
pub const CONTROLS: [(&str, i32); 6] = [
    ("<|endoftext|>", CONTROL),
    ("<|assistant|>", CONTROL),
    ("<|placeholder1|>", CONTROL),
    ("<|system|>", USER_DEFINED),
    ("<|end|>", USER_DEFINED),
    ("<|user|>", CONTROL),
];

/// A vocabulary of the family's kind with a few hundred tokens.
#[derive(Clone)]
pub struct SmallVocabulary {
    pub texts: Vec<String>,
    pub scores: Vec<f32>,
    pub types: Vec<i32>,
    pub keys: Vec<(&'static str, Meta)>,
}

impl Default for SmallVocabulary {
    fn default() -> Self {
        let mut vocabulary = Self { texts: vec![], scores: vec![], types: vec![], keys: vec![] };
        vocabulary.add("<unk>", -1000.0, CONTROL);
        vocabulary.add("<s>", -1000.0, CONTROL);
        vocabulary.add("</s>", -1000.0, USER_DEFINED);
        for byte in 0..=255 {
            vocabulary.add(&format!("<0x{byte:02X}>"), 0.0, BYTE);
        }
        let characters = CHARACTERS.chars().map(String::from);
        for (rank, piece) in PIECES.iter().map(|piece| (*piece).to_owned()).chain(characters).enumerate() {
            vocabulary.add(&piece, -(rank as f32), NORMAL);
        }
        for (text, token_type) in CONTROLS {
            vocabulary.add(text, -1000.0, token_type);
        }
        let padding = format!("[PAD{}]", vocabulary.texts.len());
        vocabulary.add(&padding, -10000.0, UNKNOWN);
        vocabulary.add("unused", -10000.0, UNUSED);
        vocabulary.keys = vec![
            ("tokenizer.ggml.model", "llama".into()),
            ("tokenizer.ggml.bos_token_id", Meta::U32(1)),
            ("tokenizer.ggml.eos_token_id", Meta::U32(vocabulary.id("<|endoftext|>"))),
            ("tokenizer.ggml.unknown_token_id", Meta::U32(0)),
        ];
        vocabulary
    }
}

impl SmallVocabulary {
    pub fn add(&mut self, text: &str, score: f32, token_type: i32) {
        self.texts.push(text.to_owned());
        self.scores.push(score);
        self.types.push(token_type);
    }

    /// The same with a metadata key set.
    pub fn with(mut self, key: &'static str, value: impl Into<Meta>) -> Self {
        self.keys.retain(|(other, _)| *other != key);
        self.keys.push((key, value.into()));
        self
    }

    pub fn id(&self, text: &str) -> u32 {
        self.texts.iter().position(|other| other == text).unwrap() as u32
    }

    pub fn ids(&self, texts: &[&str]) -> Vec<u32> {
        texts.iter().map(|text| self.id(text)).collect()
    }

    pub fn gguf(&self) -> Gguf {
        let lists = [
            ("tokenizer.ggml.tokens", Meta::Strings(self.texts.clone())),
            ("tokenizer.ggml.scores", Meta::F32s(self.scores.clone())),
            ("tokenizer.ggml.token_type", Meta::I32s(self.types.clone())),
        ];
        let replaced = |key: &str| self.keys.iter().any(|(other, _)| *other == key);
        let lists = lists.into_iter().filter(|(key, _)| !replaced(key));
        gguf(&lists.chain(self.keys.clone()).collect::<Vec<_>>())
    }

    pub fn tokenizer(&self, rstrip_control_tokens: bool) -> Tokenizer {
        Tokenizer::from_gguf(&self.gguf(), &TokenizerOptions { rstrip_control_tokens }).unwrap()
    }
}
