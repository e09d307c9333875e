//! What tells a model from others, so that keys and values of one are not taken for another's.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::PhiConfig;
use crate::gguf::{Gguf, TensorInfo};
use crate::tokenizer::Tokenizer;
use crate::{Architecture, Result};

/// Tensors up to this size are hashed as they are.
const WHOLE_BYTES: usize = 64 << 10;
/// Of larger ones so many samples of so many bytes are, evenly from the first byte to the last: a model that was trained
/// further is another one all over, and gigabytes take seconds.
const SAMPLES: usize = 16;
const SAMPLE_BYTES: usize = 4 << 10;

/// What tells a model from others. Two files of the same tensors have the same one, split or not, whatever else their
/// metadata says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fingerprint {
    /// The model's name, for people; it is not compared.
    pub(crate) name: String,
    /// What keys and values depend on beside the weights, the window that was chosen included.
    pub(crate) hyperparameters: BTreeMap<String, String>,
    /// Of the tensors' names, shapes, types and bytes.
    pub(crate) weights_sha256: String,
    /// Of the tokens' texts, by which token ids mean something.
    pub(crate) vocabulary_sha256: String,
}

impl Fingerprint {
    pub(crate) fn of(gguf: &Gguf, config: &PhiConfig, tokenizer: &Tokenizer) -> Result<Self> {
        gguf.check_length()?;
        Ok(Self {
            name: gguf.optional_str("general.name")?.unwrap_or("a model without a name").to_owned(),
            hyperparameters: hyperparameters(config),
            weights_sha256: weights(gguf),
            vocabulary_sha256: vocabulary(tokenizer),
        })
    }

    /// How this model differs from the one that `other` is of, in words; `None` if it is the same.
    pub(crate) fn difference_from(&self, other: &Self) -> Option<String> {
        for (name, own) in &self.hyperparameters {
            let others = other.hyperparameters.get(name).map_or("unknown", String::as_str);
            if own != others {
                return Some(format!("its {name} is {others}, and this model's is {own}"));
            }
        }
        if self.weights_sha256 != other.weights_sha256 {
            return Some(format!("its weights are others ({}, and this model is {})", other.name, self.name));
        }
        (self.vocabulary_sha256 != other.vocabulary_sha256)
            .then(|| "its vocabulary is another, so that token ids mean other texts".to_owned())
    }
}

/// By name, each written so that no digit is lost.
fn hyperparameters(config: &PhiConfig) -> BTreeMap<String, String> {
    let architecture = match config.architecture {
        Architecture::Phi3 => "phi3",
        Architecture::Phi2 => "phi2",
    };
    let window = config.sliding_window.map_or_else(|| "none".to_owned(), |window| window.to_string());
    [
        ("architecture", architecture.to_owned()),
        ("embedding_length", config.embedding_length.to_string()),
        ("feed_forward_length", config.feed_forward_length.to_string()),
        ("block_count", config.block_count.to_string()),
        ("head_count", config.head_count.to_string()),
        ("head_count_kv", config.head_count_kv.to_string()),
        ("head_dim", config.head_dim.to_string()),
        ("norm_epsilon", config.norm_epsilon.to_string()),
        ("rope_dimension_count", config.rope_dimension_count.to_string()),
        ("rope_freq_base", config.rope_freq_base.to_string()),
        ("interleaved_rope", config.interleaved_rope.to_string()),
        ("rope_attention_factor", config.rope_attention_factor.to_string()),
        ("sliding_window", window),
        ("vocabulary_size", config.vocabulary_size.to_string()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

fn weights(gguf: &Gguf) -> String {
    let mut hash = Sha256::new();
    for info in gguf.tensors() {
        let TensorInfo { name, shape, type_id, .. } = info;
        hash.update(format!("{name} {shape:?} {type_id}\n"));
        each_sample(gguf.tensor_bytes(info), |bytes| hash.update(bytes));
    }
    hex(hash)
}

/// The bytes that stand for a tensor.
fn each_sample(bytes: &[u8], mut take: impl FnMut(&[u8])) {
    if bytes.len() <= WHOLE_BYTES {
        take(bytes);
        return;
    }
    let last = bytes.len() - SAMPLE_BYTES;
    for sample in 0..SAMPLES {
        let start = if sample + 1 == SAMPLES { last } else { last / (SAMPLES - 1) * sample };
        take(bytes.get(start..start + SAMPLE_BYTES).unwrap_or_default());
    }
}

fn vocabulary(tokenizer: &Tokenizer) -> String {
    let mut hash = Sha256::new();
    for id in 0..tokenizer.vocab_size() as u32 {
        let text = tokenizer.token_text(id).unwrap_or_default();
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    hex(hash)
}

fn hex(hash: Sha256) -> String {
    let mut digits = String::new();
    for byte in hash.finalize() {
        // Writing to a text does not fail.
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_reach_from_the_first_byte_to_the_last() {
        for len in [0, 1, WHOLE_BYTES, WHOLE_BYTES + 1, 1_000_003] {
            let bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            let (mut samples, mut count) = (Vec::new(), 0);
            each_sample(&bytes, |sample| {
                samples.extend_from_slice(sample);
                count += 1;
            });
            assert_eq!(samples.first(), bytes.first(), "{len}");
            assert_eq!(samples.last(), bytes.last(), "{len}");
            assert!(samples.len() <= WHOLE_BYTES);
            assert_eq!(count, if len > WHOLE_BYTES { SAMPLES } else { 1 });
        }
    }
}
