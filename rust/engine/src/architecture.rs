//! What is known of each architecture: its names, its metadata keys and their defaults, its tensors, its conventions.
//!
//! All code that depends on the architecture reads it from here. Only the block is elsewhere: a module of `model`, which
//! maps an [`Architecture`] to its block in one `match`. A new architecture is a variant of [`Architecture`], its [`Facts`]
//! and a [`Conversion`] for each name that files give it. What it needs beside the common hyperparameters is a field of
//! `PhiConfig`.

use crate::gguf::Gguf;
use crate::{Error, Result};

/// The graph that a file's tensors are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Architecture {
    /// Phi-3, Phi-3.5 and Phi-4: RMS norms, SwiGLU, grouped heads. Also their conversions to `llama`.
    Phi3,
    /// phi-1.5 and phi-2: layer norms and biases, attention and feed-forward side by side, GELU.
    Phi2,
}

/// What is known of an architecture, whatever name a file gives it.
pub(crate) struct Facts {
    /// Its name in saved conversations.
    pub(crate) name: &'static str,
    /// The kind of all its norms.
    pub(crate) norm: NormKind,
    /// Metadata key of the norms' epsilon.
    pub(crate) norm_epsilon: &'static str,
    /// Whether the rotary embedding rotates whole heads in a file without the key `rope.dimension_count`; otherwise the key
    /// is required.
    pub(crate) rotates_whole_heads: bool,
    /// The sliding window of a file without the key `attention.sliding_window`.
    pub(crate) default_window: fn(&Shape) -> Option<usize>,
    /// Norms of a block.
    block_norms: &'static [&'static str],
    /// Linear layers of a block.
    block_linears: &'static [&'static str],
    /// Whether the output layer always has a bias.
    pub(crate) output_has_bias: bool,
    /// Matrices of a block's feed-forward layer, `(feed_forward, embedding)` each.
    pub(crate) feed_forward_matrices: usize,
}

/// A kind of norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NormKind {
    /// `x / sqrt(mean(x²) + ε) · w`
    Rms,
    /// `(x - mean(x)) / sqrt(var(x) + ε) · w + b`
    Layer,
}

/// The hyperparameters that defaults of others depend on.
pub(crate) struct Shape {
    pub(crate) context_length: usize,
    pub(crate) block_count: usize,
    pub(crate) rope_freq_base: f32,
}

const PHI3: Facts = Facts {
    name: "phi3",
    norm: NormKind::Rms,
    norm_epsilon: "attention.layer_norm_rms_epsilon",
    rotates_whole_heads: true,
    default_window: window_of_the_4k_models,
    block_norms: &[layer::ATTN_NORM, layer::FFN_NORM],
    block_linears: &[
        layer::ATTN_QKV,
        layer::ATTN_Q,
        layer::ATTN_K,
        layer::ATTN_V,
        layer::ATTN_OUTPUT,
        layer::FFN_GATE,
        layer::FFN_UP,
        layer::FFN_DOWN,
    ],
    output_has_bias: false,
    feed_forward_matrices: 3,
};

const PHI2: Facts = Facts {
    name: "phi2",
    norm: NormKind::Layer,
    norm_epsilon: "attention.layer_norm_epsilon",
    // These rotate a part of each head, and only the key says how much.
    rotates_whole_heads: false,
    default_window: |_| None,
    block_norms: &[layer::ATTN_NORM],
    block_linears: &[
        layer::ATTN_QKV,
        layer::ATTN_Q,
        layer::ATTN_K,
        layer::ATTN_V,
        layer::ATTN_OUTPUT,
        layer::FFN_UP,
        layer::FFN_DOWN,
    ],
    output_has_bias: true,
    feed_forward_matrices: 2,
};

impl Architecture {
    /// What is known of it.
    pub(crate) const fn facts(self) -> &'static Facts {
        match self {
            Self::Phi3 => &PHI3,
            Self::Phi2 => &PHI2,
        }
    }

    /// Whether a model of this architecture reads the tensor `name`.
    pub(crate) fn reads_tensor(self, name: &str) -> bool {
        let facts = self.facts();
        let Some((name, part)) = name.rsplit_once('.') else { return false };
        let in_block = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
        let (name, norms, linears) = match in_block {
            Some((index, name)) if index.parse::<usize>().is_ok() => {
                (name, facts.block_norms, facts.block_linears)
            }
            Some(_) => return false,
            None => (name, &[layer::OUTPUT_NORM][..], &[layer::OUTPUT][..]),
        };
        let is_matrix_or_factors = in_block.is_none()
            && [layer::TOKEN_EMBEDDING, layer::ROPE_FACTORS_SHORT, layer::ROPE_FACTORS_LONG].contains(&name);
        match part {
            "weight" => is_matrix_or_factors || norms.contains(&name) || linears.contains(&name),
            "bias" => linears.contains(&name) || (facts.norm == NormKind::Layer && norms.contains(&name)),
            _ => false,
        }
    }
}

/// How files name an architecture, and the conventions of the converters that write this name.
#[derive(Debug)]
pub(crate) struct Conversion {
    /// `general.architecture`, which the other metadata keys begin with.
    pub(crate) name: &'static str,
    /// The models that are written so, for messages.
    models: &'static str,
    /// The graph.
    pub(crate) architecture: Architecture,
    /// Whether the rotary embedding rotates pairs of neighbouring dimensions, for which the converter sorts the rows of
    /// queries and keys of whole heads. Otherwise it rotates the two halves of a head.
    pub(crate) interleaved_rope: bool,
    /// Whether models of other families have this name too, so that only the vocabulary tells that a file is a Phi model.
    pub(crate) is_shared: bool,
    /// `tokenizer.ggml.pre` of a byte-level vocabulary in a file that is older than the key.
    pub(crate) default_pre_tokenizer: Option<&'static str>,
}

static CONVERSIONS: [Conversion; 3] = [
    Conversion {
        name: "phi3",
        models: "Phi-3, Phi-3.5, Phi-4",
        architecture: Architecture::Phi3,
        interleaved_rope: false,
        is_shared: false,
        default_pre_tokenizer: None,
    },
    Conversion {
        name: "llama",
        models: "the same models, converted as Llama",
        architecture: Architecture::Phi3,
        interleaved_rope: true,
        is_shared: true,
        default_pre_tokenizer: None,
    },
    Conversion {
        name: "phi2",
        models: "phi-1.5, phi-2",
        architecture: Architecture::Phi2,
        interleaved_rope: false,
        is_shared: false,
        default_pre_tokenizer: Some("phi-2"),
    },
];

/// A relative of the family that is known and not supported.
struct Unsupported {
    model: &'static str,
    architectures: &'static [&'static str],
    reason: &'static str,
}

static UNSUPPORTED: [Unsupported; 2] = [
    Unsupported {
        model: "Phi-3.5-MoE",
        architectures: &["phimoe"],
        reason: "it has 16 experts with a sparse mixer, layer norms and biases",
    },
    Unsupported {
        model: "Phi-3-small",
        architectures: &["phi3small", "phi3-small"],
        reason: "it has block-sparse attention, a gated GELU and a vocabulary of another kind",
    },
];

impl Conversion {
    /// The file's conversion.
    ///
    /// # Errors
    /// [`UnsupportedModel`](crate::ErrorKind::UnsupportedModel) for an architecture that is not supported, with what the file
    /// is and what is supported.
    pub(crate) fn of(gguf: &Gguf) -> Result<&'static Self> {
        let path = gguf.path().display();
        let name = gguf.required_str("general.architecture")?;
        let relative = UNSUPPORTED.iter().find(|relative| relative.architectures.contains(&name));
        if let Some(Unsupported { model, reason, .. }) = relative {
            return Err(Error::unsupported_model(format!(
                "{path}: {model} (architecture {name}) is not supported: {reason}; load one of {}",
                supported()
            )));
        }
        CONVERSIONS.iter().find(|conversion| conversion.name == name).ok_or_else(|| {
            Error::unsupported_model(format!(
                "{path}: architecture {name:?} is not supported; load one of {}",
                supported()
            ))
        })
    }
}

/// The supported architectures, for a message.
fn supported() -> String {
    let names = CONVERSIONS.each_ref().map(|conversion| format!("{} ({})", conversion.name, conversion.models));
    names.join(", ")
}

/// Metadata keys of hyperparameters. In a file they follow the name of its architecture and a dot.
pub(crate) mod key {
    pub(crate) const CONTEXT_LENGTH: &str = "context_length";
    pub(crate) const EMBEDDING_LENGTH: &str = "embedding_length";
    pub(crate) const FEED_FORWARD_LENGTH: &str = "feed_forward_length";
    pub(crate) const BLOCK_COUNT: &str = "block_count";
    pub(crate) const VOCABULARY_SIZE: &str = "vocab_size";
    pub(crate) const HEAD_COUNT: &str = "attention.head_count";
    /// As many as query heads where it is absent.
    pub(crate) const HEAD_COUNT_KV: &str = "attention.head_count_kv";
    /// The embedding's width shared out to the heads where it is absent.
    pub(crate) const KEY_LENGTH: &str = "attention.key_length";
    /// The key length where it is absent.
    pub(crate) const VALUE_LENGTH: &str = "attention.value_length";
    /// See [`Facts::default_window`](super::Facts::default_window).
    pub(crate) const SLIDING_WINDOW: &str = "attention.sliding_window";
    /// See [`Facts::rotates_whole_heads`](super::Facts::rotates_whole_heads).
    pub(crate) const ROPE_DIMENSION_COUNT: &str = "rope.dimension_count";
    /// See [`DEFAULT_FREQ_BASE`](super::DEFAULT_FREQ_BASE).
    pub(crate) const ROPE_FREQ_BASE: &str = "rope.freq_base";
    /// See [`LONG_ROPE_ORIGINAL_CONTEXT`](super::LONG_ROPE_ORIGINAL_CONTEXT).
    pub(crate) const ROPE_ORIGINAL_CONTEXT: &str = "rope.scaling.original_context_length";
    /// See [`long_rope_attention_factor`](super::long_rope_attention_factor).
    pub(crate) const ROPE_ATTENTION_FACTOR: &str = "rope.scaling.attn_factor";
    /// Only [`LONG_ROPE_SCALING`](super::LONG_ROPE_SCALING), or none.
    pub(crate) const ROPE_SCALING_TYPE: &str = "rope.scaling.type";
    /// Ways to scale positions that no model of the family uses.
    pub(crate) const OTHER_ROPE_SCALING: [&str; 2] = ["rope.scale_linear", "rope.scaling.factor"];
}

/// Layers. A layer's tensors are `{layer}.weight` and `{layer}.bias`, those of a block after `blk.{index}.`
pub(crate) mod layer {
    /// The output layer too, in a file that has no [`OUTPUT`].
    pub(crate) const TOKEN_EMBEDDING: &str = "token_embd";
    pub(crate) const OUTPUT_NORM: &str = "output_norm";
    pub(crate) const OUTPUT: &str = "output";
    /// LongRoPE's factors for sequences up to the original context.
    pub(crate) const ROPE_FACTORS_SHORT: &str = "rope_factors_short";
    /// LongRoPE's factors for longer sequences.
    pub(crate) const ROPE_FACTORS_LONG: &str = "rope_factors_long";
    /// Factors of another kind than LongRoPE's, which no model of the family has.
    pub(crate) const OTHER_ROPE_FACTORS: &str = "rope_freqs";
    pub(crate) const ATTN_NORM: &str = "attn_norm";
    /// Queries, keys and values in one tensor; a file has either this one or the next three.
    pub(crate) const ATTN_QKV: &str = "attn_qkv";
    pub(crate) const ATTN_Q: &str = "attn_q";
    pub(crate) const ATTN_K: &str = "attn_k";
    pub(crate) const ATTN_V: &str = "attn_v";
    pub(crate) const ATTN_OUTPUT: &str = "attn_output";
    pub(crate) const FFN_NORM: &str = "ffn_norm";
    /// Absent where [`FFN_UP`] holds the gate's rows too.
    pub(crate) const FFN_GATE: &str = "ffn_gate";
    pub(crate) const FFN_UP: &str = "ffn_up";
    pub(crate) const FFN_DOWN: &str = "ffn_down";
}

/// The name of a layer's weight.
pub(crate) fn weight(layer: &str) -> String {
    format!("{layer}.weight")
}

/// The name of a layer's bias.
pub(crate) fn bias(layer: &str) -> String {
    format!("{layer}.bias")
}

/// A block's layer.
pub(crate) fn in_block(index: usize, layer: &str) -> String {
    format!("blk.{index}.{layer}")
}

/// Base of the rotary frequencies in a file that does not name it, as in llama.cpp.
pub(crate) const DEFAULT_FREQ_BASE: f32 = 10_000.0;
/// The context that every LongRoPE model of the family was extended from.
pub(crate) const LONG_ROPE_ORIGINAL_CONTEXT: usize = 4096;
/// What files call LongRoPE.
pub(crate) const LONG_ROPE_SCALING: [&str; 2] = ["longrope", "su"];
/// No model of the family has a longer context with the default base and without LongRoPE.
pub(crate) const LONGEST_PLAIN_CONTEXT: usize = 65_536;

/// The attention factor of LongRoPE, as transformers computes it where a configuration names none.
pub(crate) fn long_rope_attention_factor(context_length: usize, original_context_length: usize) -> f32 {
    let scale = context_length as f32 / original_context_length as f32;
    if scale <= 1.0 || original_context_length < 2 {
        return 1.0;
    }
    (1.0 + scale.ln() / (original_context_length as f32).ln()).sqrt()
}

/// The window of the 4k models, whose older files do not name it.
///
/// Both were trained with it, and without it write garbage after that many tokens. As in llama.cpp, they are recognised by
/// their context and their 32 (mini) or 40 (medium) blocks.
fn window_of_the_4k_models(shape: &Shape) -> Option<usize> {
    let is_4k = shape.context_length == 4096 && shape.rope_freq_base == DEFAULT_FREQ_BASE;
    (is_4k && matches!(shape.block_count, 32 | 40)).then_some(2047)
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
        for (context_length, block_count, rope_freq_base, expected) in [
            (4096, 32, 1e4, Some(2047)),
            (4096, 40, 1e4, Some(2047)),
            (131_072, 32, 1e4, None),
            (4096, 2, 1e4, None),
            (4096, 32, 250_000.0, None),
        ] {
            let shape = Shape { context_length, block_count, rope_freq_base };
            assert_eq!((Architecture::Phi3.facts().default_window)(&shape), expected);
            assert_eq!((Architecture::Phi2.facts().default_window)(&shape), None);
        }
    }

    #[test]
    fn an_architecture_reads_its_own_tensors_and_no_others() {
        let both = ["token_embd.weight", "output.bias", "blk.0.attn_norm.weight", "blk.11.attn_q.bias"];
        let phi3 = ["blk.0.ffn_gate.weight", "blk.3.ffn_norm.weight"];
        let phi2 = ["blk.0.attn_norm.bias", "output_norm.bias"];
        let none = [
            "token_embd.bias",
            "attn_q.weight",
            "blk.0.output.weight",
            "blk.0.attn_q.scale",
            "blk.x.attn_q.weight",
            "blk.0.attn_q_norm.weight",
            "rope_freqs.weight",
            "weight",
            "",
        ];
        for (names, of_phi3, of_phi2) in [
            (&both[..], true, true),
            (&phi3[..], true, false),
            (&phi2[..], false, true),
            (&none[..], false, false),
        ] {
            for name in names {
                assert_eq!(Architecture::Phi3.reads_tensor(name), of_phi3, "phi3 {name}");
                assert_eq!(Architecture::Phi2.reads_tensor(name), of_phi2, "phi2 {name}");
            }
        }
    }
}
