//! Every hyperparameter of the family, read from a file's metadata.

use crate::architecture::{
    Architecture, Conversion, DEFAULT_FREQ_BASE, LONG_ROPE_ORIGINAL_CONTEXT, LONG_ROPE_SCALING,
    LONGEST_PLAIN_CONTEXT, Shape, key, layer, long_rope_attention_factor, weight,
};
use crate::gguf::{CONVERTED, Gguf};
use crate::{Error, Result};

/// The most tokens of a prompt that go through a model at once, unless a session says otherwise.
pub(crate) const LARGEST_PREFILL_CHUNK: usize = 512;

/// The largest context that a session has without being asked for one.
const DEFAULT_MAX_N_CTX: usize = 4096;

/// The hyperparameters of a model of the family.
///
/// Keys that files of the family leave out get the value that llama.cpp gives them, and the window and LongRoPE's
/// factors those that the model was trained with.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PhiConfig {
    /// The graph.
    pub architecture: Architecture,
    /// Positions that the model was made for.
    pub context_length: usize,
    /// Width of the residual stream.
    pub embedding_length: usize,
    /// Width of the feed-forward layer.
    pub feed_forward_length: usize,
    /// Number of transformer blocks.
    pub block_count: usize,
    /// Query heads.
    pub head_count: usize,
    /// Key and value heads; each serves `head_count / head_count_kv` query heads.
    pub head_count_kv: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Epsilon of the norms.
    pub norm_epsilon: f32,
    /// How many of a head's dimensions, from the first on, the rotary embedding rotates.
    pub rope_dimension_count: usize,
    /// Base of the rotary frequencies.
    pub rope_freq_base: f32,
    /// Whether the rotary embedding rotates pairs of neighbouring dimensions, as files need it that were converted as
    /// `llama`: that conversion sorts the rows of queries and keys so. Otherwise it rotates the two halves of a head.
    pub interleaved_rope: bool,
    /// Positions that the model was trained on before its context was extended.
    pub original_context_length: usize,
    /// Whether the file has LongRoPE factors for sequences up to and beyond the original context.
    pub has_rope_factors: bool,
    /// What cosine and sine are multiplied by.
    pub rope_attention_factor: f32,
    /// A position sees this many positions, itself included; `None` sees all before it.
    pub sliding_window: Option<usize>,
    /// Rows of the embedding: more than the tokenizer's tokens where the vocabulary is padded.
    pub vocabulary_size: usize,
}

/// A hyperparameter that cached keys and values depend on.
pub(crate) struct Hyperparameter {
    pub(crate) name: &'static str,
    /// Its value, written so that no digit is lost.
    pub(crate) value: String,
    /// For a hyperparameter that is newer than the file format: the value that holds for a saved conversation that does
    /// not name it. `None` for those of the first format, which every file names.
    pub(crate) default: Option<String>,
}

impl PhiConfig {
    /// Reads the hyperparameters of a file and checks that they don't contradict each other.
    ///
    /// # Errors
    /// [`UnsupportedModel`](crate::ErrorKind::UnsupportedModel) for another architecture, and
    /// [`InvalidModel`](crate::ErrorKind::InvalidModel) naming the key, what was expected and what was found.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self> {
        let conversion = Conversion::of(gguf)?;
        let keys = Keys { gguf, prefix: conversion.name };
        let facts = conversion.architecture.facts();
        let context_length = keys.bounded(key::CONTEXT_LENGTH, MAX_CONTEXT)?;
        let embedding_length = keys.bounded(key::EMBEDDING_LENGTH, MAX_WIDTH)?;
        let head_count = keys.bounded(key::HEAD_COUNT, MAX_COUNT)?;
        let block_count = keys.bounded(key::BLOCK_COUNT, MAX_COUNT)?;
        let head_count_kv = keys.optional_usize(key::HEAD_COUNT_KV)?.unwrap_or(head_count);
        if head_count_kv == 0 || !head_count.is_multiple_of(head_count_kv) {
            let expected = format!("a divisor of the head count {head_count}");
            return Err(keys.contradiction(key::HEAD_COUNT_KV, &expected, head_count_kv));
        }
        let head_dim = head_dim(&keys, embedding_length, head_count)?;
        let rope_dimension_count = rope_dimension_count(&keys, conversion, head_dim)?;
        refuse_other_scaling(&keys)?;
        let rope_freq_base = keys.optional_f32(key::ROPE_FREQ_BASE)?.unwrap_or(DEFAULT_FREQ_BASE);
        if rope_freq_base <= 0.0 {
            return Err(keys.contradiction(key::ROPE_FREQ_BASE, "a positive number", rope_freq_base));
        }
        let norm_epsilon = keys.required_f32(facts.norm_epsilon)?;
        if norm_epsilon < 0.0 {
            return Err(keys.contradiction(facts.norm_epsilon, "a non-negative number", norm_epsilon));
        }
        let has_rope_factors = has_rope_factors(&keys, context_length, rope_freq_base)?;
        let original_context_length = match keys.optional_usize(key::ROPE_ORIGINAL_CONTEXT)? {
            Some(length) if length > 0 => length,
            _ if has_rope_factors => context_length.min(LONG_ROPE_ORIGINAL_CONTEXT),
            _ => context_length,
        };
        let rope_attention_factor = match keys.optional_f32(key::ROPE_ATTENTION_FACTOR)? {
            Some(factor) => factor,
            None if has_rope_factors => long_rope_attention_factor(context_length, original_context_length),
            None => 1.0,
        };
        if rope_attention_factor <= 0.0 || rope_attention_factor > MAX_ATTENTION_FACTOR {
            let expected = format!("above 0 and at most {MAX_ATTENTION_FACTOR}");
            return Err(keys.contradiction(key::ROPE_ATTENTION_FACTOR, &expected, rope_attention_factor));
        }
        let sliding_window = match keys.optional_usize(key::SLIDING_WINDOW)? {
            Some(window) => (window > 0).then_some(window),
            None => (facts.default_window)(&Shape { context_length, block_count, rope_freq_base }),
        };
        Ok(Self {
            architecture: conversion.architecture,
            context_length,
            embedding_length,
            feed_forward_length: keys.bounded(key::FEED_FORWARD_LENGTH, MAX_WIDTH)?,
            block_count,
            head_count,
            head_count_kv,
            head_dim,
            norm_epsilon,
            rope_dimension_count,
            rope_freq_base,
            interleaved_rope: conversion.interleaved_rope,
            original_context_length,
            has_rope_factors,
            rope_attention_factor,
            sliding_window,
            vocabulary_size: vocabulary_size(&keys, embedding_length)?,
        })
    }

    /// Everything that cached keys and values depend on beside the weights.
    ///
    /// Saved conversations hold these. A new one needs a default, or each conversation that was saved before is refused: the
    /// value that every model had when the hyperparameter was not known.
    pub(crate) fn hyperparameters(&self) -> Vec<Hyperparameter> {
        // A later one gets a default, so that conversations saved before remain readable.
        let required = |name, value: String| Hyperparameter { name, value, default: None };
        let window = self.sliding_window.map_or_else(|| "none".to_owned(), |window| window.to_string());
        vec![
            required("architecture", self.architecture.facts().name.to_owned()),
            required("embedding_length", self.embedding_length.to_string()),
            required("feed_forward_length", self.feed_forward_length.to_string()),
            required("block_count", self.block_count.to_string()),
            required("head_count", self.head_count.to_string()),
            required("head_count_kv", self.head_count_kv.to_string()),
            required("head_dim", self.head_dim.to_string()),
            required("norm_epsilon", self.norm_epsilon.to_string()),
            required("rope_dimension_count", self.rope_dimension_count.to_string()),
            required("rope_freq_base", self.rope_freq_base.to_string()),
            required("interleaved_rope", self.interleaved_rope.to_string()),
            required("rope_attention_factor", self.rope_attention_factor.to_string()),
            required("sliding_window", window),
            required("vocabulary_size", self.vocabulary_size.to_string()),
        ]
    }

    /// The same model with another window: `Some(0)` for none, `None` to leave it as it is.
    #[must_use]
    pub(crate) fn with_sliding_window(mut self, window: Option<usize>) -> Self {
        if let Some(window) = window {
            self.sliding_window = (window > 0).then_some(window);
        }
        self
    }

    /// Values that one position has in a key-value cache.
    #[must_use]
    pub fn kv_values_per_token(&self) -> usize {
        2 * self.block_count * self.head_count_kv * self.head_dim
    }
}

/// Positions that a session's context holds on a model.
///
/// # Errors
/// [`InvalidOption`](crate::ErrorKind::InvalidOption) for a context longer than the model's.
pub(crate) fn context_length(n_ctx: Option<usize>, config: &PhiConfig) -> Result<usize> {
    let longest = config.context_length;
    let n_ctx = n_ctx.unwrap_or(longest.min(DEFAULT_MAX_N_CTX));
    if n_ctx == 0 || n_ctx > longest {
        return Err(Error::invalid_option(
            "n_ctx",
            format_args!("must be from 1 to {longest}, the context length of the model, got {n_ctx}"),
        ));
    }
    Ok(n_ctx)
}

/// Far beyond every model of the family, and small enough that no product of them overflows.
const MAX_COUNT: usize = 1 << 12;
const MAX_WIDTH: usize = 1 << 20;
const MAX_CONTEXT: usize = 1 << 24;
/// LongRoPE's is 1.19; a larger one than this overflows.
const MAX_ATTENTION_FACTOR: f32 = 1000.0;

/// The metadata of one architecture, whose keys begin with its name.
struct Keys<'a> {
    gguf: &'a Gguf,
    prefix: &'a str,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    fn optional_usize(&self, name: &str) -> Result<Option<usize>> {
        self.gguf.optional_usize(&self.key(name))
    }

    fn required_usize(&self, name: &str) -> Result<usize> {
        self.gguf.required_usize(&self.key(name))
    }

    fn optional_f32(&self, name: &str) -> Result<Option<f32>> {
        self.gguf.optional_f32(&self.key(name))
    }

    fn required_f32(&self, name: &str) -> Result<f32> {
        self.gguf.required_f32(&self.key(name))
    }

    fn bounded(&self, name: &str, most: usize) -> Result<usize> {
        self.within(name, most, self.required_usize(name)?)
    }

    fn within(&self, name: &str, most: usize, found: usize) -> Result<usize> {
        if (1..=most).contains(&found) {
            return Ok(found);
        }
        Err(self.contradiction(name, &format!("from 1 to {most}"), found))
    }

    fn contradiction(&self, name: &str, expected: &str, found: impl std::fmt::Display) -> Error {
        Error::invalid_model(format!(
            "{}: metadata key {} must be {expected}, got {found}; {CONVERTED}",
            self.gguf.path().display(),
            self.key(name)
        ))
    }
}

fn head_dim(keys: &Keys<'_>, embedding_length: usize, head_count: usize) -> Result<usize> {
    let key_length = keys.optional_usize(key::KEY_LENGTH)?;
    let value_length = keys.optional_usize(key::VALUE_LENGTH)?;
    if let (Some(key), Some(value)) = (key_length, value_length)
        && key != value
    {
        return Err(keys.contradiction(key::VALUE_LENGTH, &format!("the key length {key}"), value));
    }
    match key_length.or(value_length) {
        Some(length) => keys.within(key::KEY_LENGTH, MAX_COUNT, length),
        None if embedding_length.is_multiple_of(head_count) => {
            keys.within(key::EMBEDDING_LENGTH, MAX_COUNT * head_count, embedding_length)?;
            Ok(embedding_length / head_count)
        }
        None => {
            let expected = format!("a divisor of the embedding length {embedding_length}");
            Err(keys.contradiction(key::HEAD_COUNT, &expected, head_count))
        }
    }
}

/// How many dimensions of a head are rotated.
fn rope_dimension_count(keys: &Keys<'_>, conversion: &Conversion, head_dim: usize) -> Result<usize> {
    let count = match keys.optional_usize(key::ROPE_DIMENSION_COUNT)? {
        Some(count) => count,
        None if conversion.architecture.facts().rotates_whole_heads => head_dim,
        None => keys.required_usize(key::ROPE_DIMENSION_COUNT)?,
    };
    if count == 0 || count > head_dim || !count.is_multiple_of(2) {
        let expected = format!("an even number from 2 to the head's {head_dim} dimensions");
        return Err(keys.contradiction(key::ROPE_DIMENSION_COUNT, &expected, count));
    }
    // The conversion sorts the rows of whole heads.
    if conversion.interleaved_rope && count != head_dim {
        return Err(keys.contradiction(
            key::ROPE_DIMENSION_COUNT,
            &format!(
                "all {head_dim} dimensions of a head, as in every Phi model converted as {}",
                conversion.name
            ),
            count,
        ));
    }
    Ok(count)
}

/// No model of the family scales its positions except by LongRoPE's factors. Ignoring another way would silently compute
/// wrong results.
fn refuse_other_scaling(keys: &Keys<'_>) -> Result<()> {
    let refused = |name: &str, found: String| {
        Error::unsupported_model(format!(
            "{}: metadata key {} is not supported, got {found}; Phi models scale positions only by LongRoPE, with the \
             tensors {} and {}",
            keys.gguf.path().display(),
            keys.key(name),
            weight(layer::ROPE_FACTORS_SHORT),
            weight(layer::ROPE_FACTORS_LONG),
        ))
    };
    let kind = keys.gguf.optional_str(&keys.key(key::ROPE_SCALING_TYPE))?;
    if let Some(kind) = kind.filter(|kind| *kind != "none" && !LONG_ROPE_SCALING.contains(kind)) {
        return Err(refused(key::ROPE_SCALING_TYPE, format!("{kind:?}")));
    }
    for name in key::OTHER_ROPE_SCALING {
        let factor = keys.optional_f32(name)?;
        if let Some(factor) = factor.filter(|factor| *factor != 1.0 && *factor != 0.0 && kind.is_none()) {
            return Err(refused(name, factor.to_string()));
        }
    }
    Ok(())
}

/// Rows of the embedding, which the metadata must not contradict.
fn vocabulary_size(keys: &Keys<'_>, embedding_length: usize) -> Result<usize> {
    let embedding = keys.gguf.required_tensor(&weight(layer::TOKEN_EMBEDDING))?;
    let [rows, _] = embedding.shape[..] else {
        return Err(Error::invalid_model(format!(
            "{}: tensor {} must have the shape (vocabulary, {embedding_length}), got {:?}; {CONVERTED}",
            keys.gguf.path().display(),
            embedding.name,
            embedding.shape
        )));
    };
    match keys.optional_usize(key::VOCABULARY_SIZE)? {
        Some(size) if size != rows => {
            Err(keys.contradiction(key::VOCABULARY_SIZE, &format!("the {rows} rows of {}", embedding.name), size))
        }
        _ => Ok(rows),
    }
}

/// Whether the file has LongRoPE's factors. One set without the other, or neither although the context was extended with
/// them, is a damaged file, or one of a converter that did not know them yet; both would write garbage.
fn has_rope_factors(keys: &Keys<'_>, context_length: usize, rope_freq_base: f32) -> Result<bool> {
    let (short, long) = (weight(layer::ROPE_FACTORS_SHORT), weight(layer::ROPE_FACTORS_LONG));
    let has = |name: &str| keys.gguf.tensor(name).is_some();
    let named_original = keys.optional_usize(key::ROPE_ORIGINAL_CONTEXT)?;
    let original = named_original.filter(|original| (1..context_length).contains(original));
    let missing = match (has(&short), has(&long)) {
        (true, true) => return Ok(true),
        (true, false) => format!("the tensor {long}"),
        (false, true) => format!("the tensor {short}"),
        (false, false) => {
            let kind = keys.gguf.optional_str(&keys.key(key::ROPE_SCALING_TYPE))?;
            let needs_them = kind.is_some_and(|kind| LONG_ROPE_SCALING.contains(&kind))
                || (context_length > LONGEST_PLAIN_CONTEXT && rope_freq_base == DEFAULT_FREQ_BASE);
            if original.is_none() && !needs_them {
                return Ok(false);
            }
            format!("the tensors {short} and {long}")
        }
    };
    Err(Error::invalid_model(format!(
        "{}: metadata key {} is {context_length}, which LongRoPE extends from {}, but the file lacks {missing}; convert the \
         model again with a current converter, or download another file",
        keys.gguf.path().display(),
        keys.key(key::CONTEXT_LENGTH),
        original.unwrap_or(LONG_ROPE_ORIGINAL_CONTEXT.min(context_length)),
    )))
}

#[cfg(test)]
impl PhiConfig {
    /// A small model, for tests.
    pub(crate) fn tiny() -> Self {
        Self {
            architecture: Architecture::Phi3,
            context_length: 1000,
            embedding_length: 8,
            feed_forward_length: 8,
            block_count: 1,
            head_count: 2,
            head_count_kv: 2,
            head_dim: 4,
            norm_epsilon: 1e-5,
            rope_dimension_count: 4,
            rope_freq_base: 10_000.0,
            interleaved_rope: false,
            original_context_length: 1000,
            has_rope_factors: false,
            rope_attention_factor: 1.0,
            sliding_window: None,
            vocabulary_size: 16,
        }
    }
}
