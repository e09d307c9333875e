//! Writes tiny random phi3 GGUF files with Candle's own writer.
#![allow(dead_code, reason = "each test binary compiles this module and uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a fixture that cannot be written stops the test that needs it")]

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

/// How a file's attention is laid out; the embedding is as wide as the query heads together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heads {
    /// Query heads.
    pub(crate) count: usize,
    /// Key and value heads.
    pub(crate) count_kv: usize,
    /// Dimensions of a head; all of them rotate.
    pub(crate) dim: usize,
}

impl Heads {
    /// As in Phi-3-mini: a key head for each query head, of 96 dimensions. The width is three super-blocks.
    pub(crate) const MINI: Self = Self { count: 8, count_kv: 8, dim: 96 };
    /// Grouped as in Phi-3-medium, Phi-4 and Phi-4-mini.
    pub(crate) const GROUPED: Self = Self { count: 4, count_kv: 2, dim: 64 };

    fn embedding_length(self) -> usize {
        self.count * self.dim
    }
}

/// Width of the feed-forward layer: two super-blocks.
pub(crate) const FEED_FORWARD_LENGTH: usize = 512;
/// Transformer blocks: with four, the mixture has `ffn_down` tensors of both types.
pub(crate) const BLOCK_COUNT: usize = 4;
/// Tokens of the vocabulary, none of them padding.
pub(crate) const VOCABULARY_SIZE: usize = 320;
/// Positions.
pub(crate) const CONTEXT_LENGTH: usize = 1024;

const CONTROL_TOKENS: [&str; 5] = ["<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>"];

/// Which types the tensors of a file have.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mixture {
    /// Everything in F32.
    F32,
    /// As llama.cpp's Q4_K_M: qkv Q5_K, output and some of ffn_down Q6_K, the rest Q4_K, norms F32.
    Q4KM,
    /// All matrices in one type, norms F32.
    Uniform(GgmlDType),
    /// All matrices in F32, with the values that they have after quantization to this type.
    Dequantized(GgmlDType),
}

/// A generator of normally distributed numbers that gives the same ones everywhere.
pub(crate) struct Random(u64);

impl Random {
    /// A generator with this seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits (SplitMix64).
    pub(crate) fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number between 0 and 1, neither of them included.
    fn uniform(&mut self) -> f64 {
        ((self.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// A normally distributed number.
    fn normal(&mut self) -> f32 {
        ((-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()) as f32
    }

    /// `count` token ids, the first of them BOS.
    pub(crate) fn ids(&mut self, count: usize) -> Vec<u32> {
        let mut ids: Vec<u32> =
            (0..count).map(|_| 3 + (self.next_u64() % (VOCABULARY_SIZE as u64 - 3)) as u32).collect();
        if let Some(first) = ids.first_mut() {
            *first = 1;
        }
        ids
    }
}

/// Writes a model into a directory and returns its path.
pub(crate) fn write_tiny(directory: &Path, heads: Heads, mixture: Mixture) -> PathBuf {
    let path = directory.join(format!("tiny-{mixture:?}.gguf"));
    let tensors = tensors(heads, mixture);
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let metadata = metadata(heads);
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
    gguf_file::write(&mut File::create(&path).unwrap(), &metadata, &tensors).unwrap();
    path
}

fn tensors(heads: Heads, mixture: Mixture) -> BTreeMap<String, QTensor> {
    let mut random = Random::new(7);
    let width = heads.embedding_length();
    let mut tensors = BTreeMap::new();
    let mut add = |name: String, rows: usize, columns: usize, gain: f32| {
        let deviation = gain / (columns as f32).sqrt();
        let values: Vec<f32> = (0..rows * columns).map(|_| random.normal() * deviation).collect();
        let tensor = Tensor::from_vec(values, (rows, columns), &Device::Cpu).unwrap();
        let mut weight = QTensor::quantize(&tensor, tensor_type(&name, mixture)).unwrap();
        if let Mixture::Dequantized(_) = mixture {
            weight = QTensor::quantize(&weight.dequantize(&Device::Cpu).unwrap(), GgmlDType::F32).unwrap();
        }
        tensors.insert(format!("{name}.weight"), weight);
    };
    add("token_embd".into(), VOCABULARY_SIZE, width, 16.0);
    add("output".into(), VOCABULARY_SIZE, width, 2.0);
    for block in 0..BLOCK_COUNT {
        let qkv_rows = (heads.count + 2 * heads.count_kv) * heads.dim;
        add(format!("blk.{block}.attn_qkv"), qkv_rows, width, 1.5);
        add(format!("blk.{block}.attn_output"), width, width, 1.0);
        add(format!("blk.{block}.ffn_up"), 2 * FEED_FORWARD_LENGTH, width, 1.0);
        add(format!("blk.{block}.ffn_down"), width, FEED_FORWARD_LENGTH, 1.0);
    }
    let mut add_norm = |name: String| {
        let values: Vec<f32> = (0..width).map(|_| 1.0 + 0.2 * random.normal()).collect();
        let tensor = Tensor::new(values, &Device::Cpu).unwrap();
        tensors.insert(format!("{name}.weight"), QTensor::quantize(&tensor, GgmlDType::F32).unwrap());
    };
    add_norm("output_norm".into());
    for block in 0..BLOCK_COUNT {
        add_norm(format!("blk.{block}.attn_norm"));
        add_norm(format!("blk.{block}.ffn_norm"));
    }
    tensors
}

fn tensor_type(name: &str, mixture: Mixture) -> GgmlDType {
    match mixture {
        Mixture::F32 => return GgmlDType::F32,
        Mixture::Uniform(dtype) | Mixture::Dequantized(dtype) => return dtype,
        Mixture::Q4KM => {}
    }
    let block: usize = name.split('.').nth(1).and_then(|block| block.parse().ok()).unwrap_or_default();
    let eighth = BLOCK_COUNT / 8;
    let more_bits = block < eighth || block >= 7 * BLOCK_COUNT / 8 || (block - eighth) % 3 == 2;
    match name {
        "output" => GgmlDType::Q6K,
        _ if name.ends_with("attn_qkv") => GgmlDType::Q5K,
        _ if name.ends_with("ffn_down") && more_bits => GgmlDType::Q6K,
        _ => GgmlDType::Q4K,
    }
}

fn metadata(heads: Heads) -> BTreeMap<String, Value> {
    let mut metadata = BTreeMap::new();
    let mut add = |key: &str, value: Value| metadata.insert(key.to_owned(), value);
    let count = |value: usize| Value::U32(value as u32);
    let text = |value: &str| Value::String(value.to_owned());
    add("general.architecture", text("phi3"));
    add("phi3.context_length", count(CONTEXT_LENGTH));
    add("phi3.embedding_length", count(heads.embedding_length()));
    add("phi3.feed_forward_length", count(FEED_FORWARD_LENGTH));
    add("phi3.block_count", count(BLOCK_COUNT));
    add("phi3.attention.head_count", count(heads.count));
    add("phi3.attention.head_count_kv", count(heads.count_kv));
    add("phi3.attention.layer_norm_rms_epsilon", Value::F32(1e-5));
    add("phi3.rope.dimension_count", count(heads.dim));
    let (tokens, scores, types) = vocabulary();
    add("tokenizer.ggml.model", text("llama"));
    add("tokenizer.ggml.tokens", Value::Array(tokens.into_iter().map(Value::String).collect()));
    add("tokenizer.ggml.scores", Value::Array(scores.into_iter().map(Value::F32).collect()));
    add("tokenizer.ggml.token_type", Value::Array(types.into_iter().map(Value::I32).collect()));
    add("tokenizer.ggml.bos_token_id", Value::U32(1));
    add("tokenizer.ggml.eos_token_id", count(VOCABULARY_SIZE - CONTROL_TOKENS.len()));
    add("tokenizer.ggml.unknown_token_id", Value::U32(0));
    add("tokenizer.ggml.add_bos_token", Value::Bool(true));
    metadata
}

/// Tokens, scores and types (1 normal, 3 control, 6 byte) of a valid SentencePiece vocabulary.
fn vocabulary() -> (Vec<String>, Vec<f32>, Vec<i32>) {
    let mut tokens: Vec<(String, i32)> = ["<unk>", "<s>", "</s>"].map(|token| (token.to_owned(), 3)).into();
    tokens.extend((0..=255u8).map(|byte| (format!("<0x{byte:02X}>"), 6)));
    let pieces = std::iter::once("▁".to_owned())
        .chain(('a'..='z').map(String::from))
        .chain(('a'..='z').map(|letter| format!("▁{letter}")))
        .chain(["th", "he", "in"].map(str::to_owned));
    tokens.extend(pieces.map(|piece| (piece, 1)));
    tokens.extend(CONTROL_TOKENS.map(|token| (token.to_owned(), 3)));
    assert_eq!(tokens.len(), VOCABULARY_SIZE);
    let scores = tokens.iter().enumerate().map(|(id, (_, kind))| if *kind == 1 { -(id as f32) } else { 0.0 });
    let scores = scores.collect();
    let (tokens, types) = tokens.into_iter().unzip();
    (tokens, scores, types)
}
