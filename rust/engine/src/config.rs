//! Every hyperparameter of the family, read from a file's metadata.

use crate::gguf::Gguf;
use crate::{Error, Result};

/// Which graph a file's tensors are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// Phi-3, Phi-3.5 and Phi-4: RMS norms, SwiGLU, grouped heads. Also where a converter wrote them as `llama`.
    Phi3,
    /// phi-1.5 and phi-2: layer norms and biases, attention and feed-forward side by side, GELU.
    Phi2,
}

/// The most tokens of a prompt that go through a model at once, unless a session says otherwise.
pub(crate) const LARGEST_PREFILL_CHUNK: usize = 512;

/// The largest context that a session has without being asked for one.
const DEFAULT_MAX_N_CTX: usize = 4096;

/// The hyperparameters of a model of the family.
///
/// Keys that files of the family leave out get the value that llama.cpp gives them, and the window and LongRoPE's
/// factors those that the model was trained with.
#[derive(Clone, Debug, PartialEq)]
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
    /// Whether the rotary embedding rotates neighbouring dimensions together, as files need it that were converted as
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

impl PhiConfig {
    /// Reads the hyperparameters of a file and holds them against each other.
    ///
    /// # Errors
    /// [`UnsupportedModel`](crate::ErrorKind::UnsupportedModel) for another architecture, and
    /// [`InvalidModel`](crate::ErrorKind::InvalidModel) naming the key, what was expected and what was found.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self> {
        let prefix = crate::architecture::supported_architecture(gguf)?;
        let keys = Keys { gguf, prefix };
        let architecture = if prefix == "phi2" { Architecture::Phi2 } else { Architecture::Phi3 };
        let context_length = keys.bounded("context_length", MAX_CONTEXT)?;
        let embedding_length = keys.bounded("embedding_length", MAX_WIDTH)?;
        let head_count = keys.bounded("attention.head_count", MAX_COUNT)?;
        let block_count = keys.bounded("block_count", MAX_COUNT)?;
        let head_count_kv = keys.optional_usize("attention.head_count_kv")?.unwrap_or(head_count);
        if head_count_kv == 0 || !head_count.is_multiple_of(head_count_kv) {
            let expected = format!("a divisor of the head count {head_count}");
            return Err(keys.contradiction("attention.head_count_kv", &expected, head_count_kv));
        }
        let head_dim = head_dim(&keys, embedding_length, head_count)?;
        let rope_dimension_count = match (keys.optional_usize("rope.dimension_count")?, architecture) {
            (Some(count), _) => count,
            (None, Architecture::Phi3) => head_dim,
            // These rotate a part of each head, and nothing else says which.
            (None, Architecture::Phi2) => keys.required_usize("rope.dimension_count")?,
        };
        if rope_dimension_count == 0 || rope_dimension_count > head_dim || !rope_dimension_count.is_multiple_of(2)
        {
            let expected = format!("an even number from 2 to the head's {head_dim} dimensions");
            return Err(keys.contradiction("rope.dimension_count", &expected, rope_dimension_count));
        }
        if prefix == "llama" && rope_dimension_count != head_dim {
            // The conversion to `llama` sorts the rows of whole heads.
            return Err(keys.contradiction(
                "rope.dimension_count",
                &format!("all {head_dim} dimensions of a head, as in every Phi model that is converted as llama"),
                rope_dimension_count,
            ));
        }
        refuse_other_scaling(&keys)?;
        let rope_freq_base = keys.optional_f32("rope.freq_base")?.unwrap_or(DEFAULT_FREQ_BASE);
        if rope_freq_base <= 0.0 {
            return Err(keys.contradiction("rope.freq_base", "a positive number", rope_freq_base));
        }
        let epsilon = match architecture {
            Architecture::Phi3 => "attention.layer_norm_rms_epsilon",
            Architecture::Phi2 => "attention.layer_norm_epsilon",
        };
        let norm_epsilon = keys.required_f32(epsilon)?;
        if norm_epsilon < 0.0 {
            return Err(keys.contradiction(epsilon, "a number that is not negative", norm_epsilon));
        }
        let has_rope_factors = has_rope_factors(&keys, context_length, rope_freq_base)?;
        let original_context_length = match keys.optional_usize("rope.scaling.original_context_length")? {
            Some(length) if length > 0 => length,
            _ if has_rope_factors => context_length.min(LONG_ROPE_ORIGINAL_CONTEXT),
            _ => context_length,
        };
        let rope_attention_factor = match keys.optional_f32("rope.scaling.attn_factor")? {
            Some(factor) => factor,
            None if has_rope_factors => long_rope_attention_factor(context_length, original_context_length),
            None => 1.0,
        };
        if rope_attention_factor <= 0.0 || rope_attention_factor > MAX_ATTENTION_FACTOR {
            let expected = format!("more than 0 and at most {MAX_ATTENTION_FACTOR}");
            return Err(keys.contradiction("rope.scaling.attn_factor", &expected, rope_attention_factor));
        }
        let sliding_window = match keys.optional_usize("attention.sliding_window")? {
            Some(0) => None,
            Some(window) => Some(window),
            None if architecture == Architecture::Phi3 => {
                inferred_sliding_window(context_length, block_count, rope_freq_base)
            }
            None => None,
        };
        Ok(Self {
            architecture,
            context_length,
            embedding_length,
            feed_forward_length: keys.bounded("feed_forward_length", MAX_WIDTH)?,
            block_count,
            head_count,
            head_count_kv,
            head_dim,
            norm_epsilon,
            rope_dimension_count,
            rope_freq_base,
            interleaved_rope: prefix == "llama",
            original_context_length,
            has_rope_factors,
            rope_attention_factor,
            sliding_window,
            vocabulary_size: vocabulary_size(&keys, embedding_length)?,
        })
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
const DEFAULT_FREQ_BASE: f32 = 10_000.0;
/// LongRoPE's is 1.19; a larger one than this overflows.
const MAX_ATTENTION_FACTOR: f32 = 1000.0;
/// The context that every LongRoPE model of the family was extended from.
const LONG_ROPE_ORIGINAL_CONTEXT: usize = 4096;
/// No model of the family has a longer context with the default base and without LongRoPE.
const LONGEST_PLAIN_CONTEXT: usize = 65_536;

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
        Err(self.contradiction(name, &format!("1 to {most}"), found))
    }

    fn contradiction(&self, name: &str, expected: &str, found: impl std::fmt::Display) -> Error {
        Error::invalid_model(format!(
            "{}: metadata key {}: expected {expected}, found {found}",
            self.gguf.path().display(),
            self.key(name)
        ))
    }
}

fn head_dim(keys: &Keys<'_>, embedding_length: usize, head_count: usize) -> Result<usize> {
    let key_length = keys.optional_usize("attention.key_length")?;
    let value_length = keys.optional_usize("attention.value_length")?;
    if let (Some(key), Some(value)) = (key_length, value_length)
        && key != value
    {
        return Err(keys.contradiction("attention.value_length", &format!("the key length {key}"), value));
    }
    match key_length.or(value_length) {
        Some(length) => keys.within("attention.key_length", MAX_COUNT, length),
        None if embedding_length.is_multiple_of(head_count) => {
            keys.within("embedding_length", MAX_COUNT * head_count, embedding_length)?;
            Ok(embedding_length / head_count)
        }
        None => {
            let expected = format!("a divisor of the embedding length {embedding_length}");
            Err(keys.contradiction("attention.head_count", &expected, head_count))
        }
    }
}

/// No model of the family stretches its positions but by LongRoPE's factors; ignoring another way would be wrong in
/// silence.
fn refuse_other_scaling(keys: &Keys<'_>) -> Result<()> {
    let refused = |name: &str, found: String| {
        Error::unsupported_model(format!(
            "{}: metadata key {}: expected none but LongRoPE, by the tensors rope_factors_short.weight and \
             rope_factors_long.weight, found {found}",
            keys.gguf.path().display(),
            keys.key(name)
        ))
    };
    let kind = keys.gguf.optional_str(&keys.key("rope.scaling.type"))?;
    if let Some(kind) = kind.filter(|kind| !matches!(*kind, "none" | "longrope" | "su")) {
        return Err(refused("rope.scaling.type", format!("{kind:?}")));
    }
    for name in ["rope.scale_linear", "rope.scaling.factor"] {
        let factor = keys.optional_f32(name)?;
        if let Some(factor) = factor.filter(|factor| *factor != 1.0 && *factor != 0.0 && kind.is_none()) {
            return Err(refused(name, factor.to_string()));
        }
    }
    Ok(())
}

/// Rows of the embedding, which the metadata must not contradict.
fn vocabulary_size(keys: &Keys<'_>, embedding_length: usize) -> Result<usize> {
    let embedding = keys.gguf.required_tensor("token_embd.weight")?;
    let [rows, _] = embedding.shape[..] else {
        return Err(Error::invalid_model(format!(
            "{}: tensor token_embd.weight has shape {:?}, expected (vocabulary, {embedding_length})",
            keys.gguf.path().display(),
            embedding.shape
        )));
    };
    match keys.optional_usize("vocab_size")? {
        Some(size) if size != rows => {
            Err(keys.contradiction("vocab_size", &format!("the {rows} rows of token_embd.weight"), size))
        }
        _ => Ok(rows),
    }
}

/// Whether the file has LongRoPE's factors. One without the other, or neither where the context was extended with
/// them, is a damaged file, or one of a converter that did not know them yet; both would write garbage.
fn has_rope_factors(keys: &Keys<'_>, context_length: usize, rope_freq_base: f32) -> Result<bool> {
    let has = |name: &str| keys.gguf.tensor(&format!("rope_factors_{name}.weight")).is_some();
    let named_original = keys.optional_usize("rope.scaling.original_context_length")?;
    let original = named_original.filter(|original| (1..context_length).contains(original));
    let missing = match (has("short"), has("long")) {
        (true, true) => return Ok(true),
        (true, false) => "rope_factors_long.weight is",
        (false, true) => "rope_factors_short.weight is",
        (false, false) => {
            let kind = keys.gguf.optional_str(&keys.key("rope.scaling.type"))?;
            let needs_them = matches!(kind, Some("longrope" | "su"))
                || (context_length > LONGEST_PLAIN_CONTEXT && rope_freq_base == DEFAULT_FREQ_BASE);
            if original.is_none() && !needs_them {
                return Ok(false);
            }
            "rope_factors_short.weight and rope_factors_long.weight are"
        }
    };
    Err(Error::invalid_model(format!(
        "{}: metadata key {} says {context_length}, which LongRoPE extended from {}, but {missing} missing; expected a \
         tensor for each of the two sets of factors. Convert the model again with a current converter",
        keys.gguf.path().display(),
        keys.key("context_length"),
        original.unwrap_or(LONG_ROPE_ORIGINAL_CONTEXT.min(context_length)),
    )))
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
fn inferred_sliding_window(context_length: usize, block_count: usize, rope_freq_base: f32) -> Option<usize> {
    let is_4k = context_length == 4096 && rope_freq_base == DEFAULT_FREQ_BASE;
    (is_4k && matches!(block_count, 32 | 40)).then_some(2047)
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
        assert_eq!(inferred_sliding_window(4096, 32, 1e4), Some(2047));
        assert_eq!(inferred_sliding_window(4096, 40, 1e4), Some(2047));
        assert_eq!(inferred_sliding_window(131_072, 32, 1e4), None);
        assert_eq!(inferred_sliding_window(4096, 2, 1e4), None);
        assert_eq!(inferred_sliding_window(4096, 32, 250_000.0), None);
    }
}
