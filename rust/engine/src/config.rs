//! Every hyperparameter of the family, read from a file's metadata.

use crate::gguf::Gguf;
use crate::{Error, Result};

/// The hyperparameters of a model of the `phi3` architecture.
///
/// Keys that files of the family leave out get the value that llama.cpp gives them.
#[derive(Clone, Debug, PartialEq)]
pub struct PhiConfig {
    /// Positions that the model was made for.
    pub context_length: usize,
    /// Width of the residual stream.
    pub embedding_length: usize,
    /// Width of the feed-forward layer: half the rows of `ffn_up`, which holds gate and up.
    pub feed_forward_length: usize,
    /// Number of transformer blocks.
    pub block_count: usize,
    /// Query heads.
    pub head_count: usize,
    /// Key and value heads; each serves `head_count / head_count_kv` query heads.
    pub head_count_kv: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Epsilon of the RMS norms.
    pub rms_norm_epsilon: f32,
    /// How many of a head's dimensions, from the first on, the rotary embedding turns.
    pub rope_dimension_count: usize,
    /// Base of the rotary frequencies.
    pub rope_freq_base: f32,
    /// Positions that the model was trained on before its context was extended.
    pub original_context_length: usize,
    /// Whether the file has LongRoPE factors for positions up to and beyond the original context.
    pub has_rope_factors: bool,
    /// What cosine and sine are multiplied by.
    pub rope_attention_factor: f32,
    /// A position sees this many positions, itself included; `None` sees all before it.
    pub sliding_window: Option<usize>,
    /// Rows of the embedding: more than the tokenizer's tokens where the vocabulary is padded.
    pub vocabulary_size: usize,
}

impl PhiConfig {
    /// Reads the hyperparameters of a file of the `phi3` architecture and holds them against each other.
    ///
    /// # Errors
    /// [`InvalidModel`](crate::ErrorKind::InvalidModel) naming the key, what was expected and what was found.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self> {
        let key = |name: &str| format!("phi3.{name}");
        let positive = |name: &str, most: usize| -> Result<usize> {
            bounded(gguf, &key(name), most, gguf.required_usize(&key(name))?)
        };
        let context_length = positive("context_length", MAX_CONTEXT)?;
        let embedding_length = positive("embedding_length", MAX_WIDTH)?;
        let head_count = positive("attention.head_count", MAX_COUNT)?;
        let block_count = positive("block_count", MAX_COUNT)?;
        let head_count_kv = gguf.optional_usize(&key("attention.head_count_kv"))?.unwrap_or(head_count);
        if head_count_kv == 0 || !head_count.is_multiple_of(head_count_kv) {
            let expected = format!("a divisor of the head count {head_count}");
            return Err(contradiction(gguf, &key("attention.head_count_kv"), &expected, head_count_kv));
        }
        let head_dim = head_dim(gguf, embedding_length, head_count)?;
        let rope_dimension_count = gguf.optional_usize(&key("rope.dimension_count"))?.unwrap_or(head_dim);
        if rope_dimension_count == 0 || rope_dimension_count > head_dim || !rope_dimension_count.is_multiple_of(2)
        {
            let expected = format!("an even number from 2 to the head's {head_dim} dimensions");
            return Err(contradiction(gguf, &key("rope.dimension_count"), &expected, rope_dimension_count));
        }
        let rope_freq_base = gguf.optional_f32(&key("rope.freq_base"))?.unwrap_or(10_000.0);
        if rope_freq_base <= 0.0 {
            return Err(contradiction(gguf, &key("rope.freq_base"), "a positive number", rope_freq_base));
        }
        let rms_norm_epsilon = gguf.required_f32(&key("attention.layer_norm_rms_epsilon"))?;
        if rms_norm_epsilon < 0.0 {
            let name = key("attention.layer_norm_rms_epsilon");
            return Err(contradiction(gguf, &name, "a number that is not negative", rms_norm_epsilon));
        }
        let original_context_length = gguf
            .optional_usize(&key("rope.scaling.original_context_length"))?
            .filter(|length| *length > 0)
            .unwrap_or(context_length);
        let has_rope_factors = gguf.tensor("rope_factors_short.weight").is_some();
        let rope_attention_factor = match gguf.optional_f32(&key("rope.scaling.attn_factor"))? {
            Some(factor) => factor,
            None if has_rope_factors => long_rope_attention_factor(context_length, original_context_length),
            None => 1.0,
        };
        let sliding_window = match gguf.optional_usize(&key("attention.sliding_window"))? {
            Some(0) => None,
            Some(window) => Some(window),
            None => inferred_sliding_window(context_length, block_count),
        };
        let embedding = gguf.required_tensor("token_embd.weight")?;
        let [vocabulary_size, _] = embedding.shape[..] else {
            return Err(Error::invalid_model(format!(
                "{}: tensor token_embd.weight has shape {:?}, expected (vocabulary, {embedding_length})",
                gguf.path().display(),
                embedding.shape
            )));
        };
        Ok(Self {
            context_length,
            embedding_length,
            feed_forward_length: positive("feed_forward_length", MAX_WIDTH)?,
            block_count,
            head_count,
            head_count_kv,
            head_dim,
            rms_norm_epsilon,
            rope_dimension_count,
            rope_freq_base,
            original_context_length,
            has_rope_factors,
            rope_attention_factor,
            sliding_window,
            vocabulary_size,
        })
    }

    /// Positions that a session can have at most.
    ///
    /// LongRoPE's long factors, which the positions beyond the original context need, are not supported yet:
    /// a shorter context is exact, a longer one would be wrong.
    #[must_use]
    pub fn max_context_length(&self) -> usize {
        if self.has_rope_factors {
            self.context_length.min(self.original_context_length)
        } else {
            self.context_length
        }
    }

    /// Bytes that one position takes in a key-value cache whose values have `bytes_per_value` bytes.
    #[must_use]
    pub fn kv_bytes_per_token(&self, bytes_per_value: usize) -> usize {
        2 * self.block_count * self.head_count_kv * self.head_dim * bytes_per_value
    }
}

/// Far beyond every model of the family, and small enough that no product of them overflows.
const MAX_COUNT: usize = 1 << 12;
const MAX_WIDTH: usize = 1 << 20;
const MAX_CONTEXT: usize = 1 << 24;

fn bounded(gguf: &Gguf, key: &str, most: usize, found: usize) -> Result<usize> {
    if (1..=most).contains(&found) {
        return Ok(found);
    }
    Err(contradiction(gguf, key, &format!("1 to {most}"), found))
}

fn contradiction(gguf: &Gguf, key: &str, expected: &str, found: impl std::fmt::Display) -> Error {
    Error::invalid_model(format!(
        "{}: metadata key {key}: expected {expected}, found {found}",
        gguf.path().display()
    ))
}

fn head_dim(gguf: &Gguf, embedding_length: usize, head_count: usize) -> Result<usize> {
    let key_length = gguf.optional_usize("phi3.attention.key_length")?;
    let value_length = gguf.optional_usize("phi3.attention.value_length")?;
    if let (Some(key), Some(value)) = (key_length, value_length)
        && key != value
    {
        return Err(contradiction(gguf, "phi3.attention.value_length", &format!("the key length {key}"), value));
    }
    match key_length.or(value_length) {
        Some(length) => bounded(gguf, "phi3.attention.key_length", MAX_COUNT, length),
        None if embedding_length.is_multiple_of(head_count) => {
            bounded(gguf, "phi3.embedding_length", MAX_COUNT * head_count, embedding_length)?;
            Ok(embedding_length / head_count)
        }
        None => Err(contradiction(
            gguf,
            "phi3.attention.head_count",
            &format!("a divisor of the embedding length {embedding_length}"),
            head_count,
        )),
    }
}

/// The attention factor of LongRoPE, as transformers computes it where a configuration names none.
fn long_rope_attention_factor(context_length: usize, original_context_length: usize) -> f32 {
    let scale = context_length as f32 / original_context_length as f32;
    if scale <= 1.0 || original_context_length < 2 {
        return 1.0;
    }
    (1.0 + scale.ln() / (original_context_length as f32).ln()).sqrt()
}

/// The window of the 4k models, whose older files do not name it.
///
/// Both were trained with it and write garbage past it without. They are known by their context and
/// their 32 (mini) or 40 (medium) blocks, as llama.cpp told them apart.
fn inferred_sliding_window(context_length: usize, block_count: usize) -> Option<usize> {
    (context_length == 4096 && matches!(block_count, 32 | 40)).then_some(2047)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_attention_factor_is_that_of_the_128k_models() {
        assert!((long_rope_attention_factor(131_072, 4096) - 1.190_238).abs() < 1e-6);
        assert_eq!(long_rope_attention_factor(4096, 4096), 1.0);
    }

    #[test]
    fn only_the_4k_models_get_a_window_that_their_file_does_not_name() {
        assert_eq!(inferred_sliding_window(4096, 32), Some(2047));
        assert_eq!(inferred_sliding_window(4096, 40), Some(2047));
        assert_eq!(inferred_sliding_window(131_072, 32), None);
        assert_eq!(inferred_sliding_window(4096, 2), None);
    }
}
