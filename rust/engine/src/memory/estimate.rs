//! What a session takes, told from a file's header.

use std::path::Path;

use candle_phi_kernels::TensorType;

use super::available::available_bytes;
use crate::cache::{KEPT_BEHIND_WINDOW, PageCache};
use crate::config::{LARGEST_PREFILL_CHUNK, PhiConfig, context_length};
use crate::gguf::{Array, Gguf, TensorInfo, Value};
use crate::info::weights_bytes;
use crate::size::size_text;
use crate::{CancelToken, Error, KvDtype, Result};

/// The memory that a session takes on the kernels, with the file mapped, when its context is full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryEstimate {
    /// Positions that the context holds.
    pub n_ctx: usize,
    /// The type that the cache keeps keys and values in.
    pub kv_dtype: KvDtype,
    /// Bytes of the tensors. They are pages of the file, which the system drops when it needs memory and reads again.
    pub weights_bytes: u64,
    /// Bytes of the keys and values of a full context; with a sliding window, of what is kept of them at once.
    pub kv_cache_bytes: u64,
    /// About as many bytes for the tokenizer, the file's header and what a forward pass computes with.
    pub working_bytes: u64,
}

impl MemoryEstimate {
    /// Estimates from the header of a file; no weights are read. `n_ctx` is as for a
    /// [session](crate::SessionOptions::n_ctx).
    ///
    /// # Errors
    /// As [`ModelInfo::read`](crate::ModelInfo::read), and [`InvalidOption`](crate::ErrorKind::InvalidOption) for a context or
    /// a type that the model cannot have.
    pub fn read(path: &Path, n_ctx: Option<usize>, kv_dtype: KvDtype) -> Result<Self> {
        let gguf = Gguf::open(path, true, &CancelToken::new())?;
        let config = PhiConfig::from_gguf(&gguf)?;
        let n_ctx = context_length(n_ctx, &config)?;
        let pages = PageCache::new(&config, kv_dtype)?;
        let chunk = LARGEST_PREFILL_CHUNK.min(n_ctx);
        Ok(Self {
            n_ctx,
            kv_dtype,
            weights_bytes: weights_bytes(&gguf),
            kv_cache_bytes: cache_bytes(&config, &pages, n_ctx, chunk),
            working_bytes: model_bytes(&gguf)
                .saturating_add(pass_bytes(&config, chunk))
                .saturating_add(float_input_bytes(&gguf, &config, chunk)),
        })
    }

    /// Bytes that must be there: all but the weights.
    #[must_use]
    pub fn anonymous_bytes(&self) -> u64 {
        self.kv_cache_bytes.saturating_add(self.working_bytes)
    }

    /// All of it together.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.weights_bytes.saturating_add(self.anonymous_bytes())
    }
}

/// Fails where a session whose context was asked for cannot have it, with `working` bytes to compute with.
///
/// # Errors
/// [`InsufficientMemory`](crate::ErrorKind::InsufficientMemory), which says how long a context can be.
pub(crate) fn check_session(
    config: &PhiConfig,
    pages: &PageCache,
    kv_dtype: KvDtype,
    n_ctx: usize,
    prefill_chunk: usize,
    working: u64,
) -> Result<()> {
    let cache = cache_bytes(config, pages, n_ctx, prefill_chunk);
    let needed = cache.saturating_add(working);
    let Some(available) = available_bytes().filter(|available| *available < needed) else { return Ok(()) };
    let fitting = pages.positions_in(available.saturating_sub(working));
    let shorter =
        if fitting > 0 { format!("set n_ctx to {fitting} or less") } else { "use a smaller model".to_owned() };
    let narrower = match kv_dtype {
        KvDtype::F32 => ", set kv_dtype to \"f16\" or \"q8_0\" to halve or quarter it",
        KvDtype::F16 => ", set kv_dtype to \"q8_0\" to nearly halve it",
        KvDtype::Q8_0 => "",
    };
    Err(Error::insufficient_memory(
        needed,
        available,
        format!(
            "a full context of {n_ctx} tokens needs {} of memory ({} for keys and values in {kv_dtype}, {} for \
             computing), but only {} is available; {shorter}{narrower}, or close other programs",
            size_text(needed),
            size_text(cache),
            size_text(working),
            size_text(available)
        ),
    ))
}

/// Bytes of the keys and values of a context of `n_ctx` positions, at most at one time.
fn cache_bytes(config: &PhiConfig, pages: &PageCache, n_ctx: usize, prefill_chunk: usize) -> u64 {
    let kept = config.sliding_window.map_or(n_ctx, |window| {
        // What a window lets go is let go behind a chunk, in whole pages.
        window.saturating_add(KEPT_BEHIND_WINDOW).saturating_add(prefill_chunk).min(n_ctx)
    });
    pages.bytes_of(kept)
}

/// About the bytes that a forward pass of `rows` positions computes with, as measured.
pub(crate) fn pass_bytes(config: &PhiConfig, rows: usize) -> u64 {
    let widest = widest(config);
    // The residual stream, its successor and what is rounded of it; what is widest in a layer, and that again in eight bits.
    let of_rows = floats(&[rows, 3 * config.embedding_length + widest + widest / 4]);
    of_rows.saturating_add(floats(&[2, config.vocabulary_size]))
}

/// About the bytes that Candle's operations compute a pass of `rows` positions with, the last of them the one before `end`:
/// each gives a tensor of its own, and attention has all scores at once, and keys and values in single precision.
pub(crate) fn candle_pass_bytes(config: &PhiConfig, rows: usize, end: usize) -> u64 {
    let seen = config.sliding_window.map_or(end, |window| end.min(window.saturating_add(rows)));
    let scores = floats(&[4, config.head_count, rows, seen]);
    let keys_and_values = floats(&[3 * 2, config.head_count_kv, config.head_dim, seen]);
    pass_bytes(config, rows).saturating_mul(3).saturating_add(scores).saturating_add(keys_and_values)
}

/// About the bytes that come on top where weights are floats, which multiply activations as they are.
fn float_input_bytes(gguf: &Gguf, config: &PhiConfig, rows: usize) -> u64 {
    use TensorType::{BF16, F16, F32};
    let is_float = |info: &TensorInfo| matches!(info.tensor_type(), Ok(F32 | F16 | BF16));
    let any = gguf.tensors().any(|info| info.name.starts_with("blk.") && info.shape.len() > 1 && is_float(info));
    if any { floats(&[rows, widest(config)]) } else { 0 }
}

/// The most values that a position has in a layer.
fn widest(config: &PhiConfig) -> usize {
    let projections = (config.head_count + 2 * config.head_count_kv) * config.head_dim;
    config.feed_forward_length.max(projections)
}

/// Bytes of a tensor in single precision. A damaged file's numbers may be too large for any.
fn floats(shape: &[usize]) -> u64 {
    shape.iter().fold(size_of::<f32>() as u64, |bytes, size| bytes.saturating_mul(*size as u64))
}

/// About the bytes that a loaded model takes beside its weights, as measured: its header and its tokenizer.
fn model_bytes(gguf: &Gguf) -> u64 {
    const OF_A_TOKEN: usize = 230;
    const OF_A_MERGE: usize = 140;
    const OF_ANY_MODEL: usize = 1 << 20;
    let len = |key: &str| match gguf.get(key) {
        Some(Value::Array(Array::Strings(items))) => Some(items.len()),
        _ => None,
    };
    let tokens = len("tokenizer.ggml.tokens").unwrap_or(0);
    // A SentencePiece vocabulary has none in the file, and about two of each token are made of it.
    let merges = len("tokenizer.ggml.merges").unwrap_or_else(|| tokens.saturating_mul(2));
    let of_vocabulary = tokens.saturating_mul(OF_A_TOKEN).saturating_add(merges.saturating_mul(OF_A_MERGE));
    of_vocabulary.saturating_add(OF_ANY_MODEL) as u64
}
