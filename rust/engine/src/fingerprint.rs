//! What tells a model from others, so that keys and values of one are not taken for another's.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::{Hyperparameter, PhiConfig};
use crate::gguf::{Gguf, TensorInfo};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

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
        let hyperparameters = config.hyperparameters().into_iter();
        Ok(Self {
            name: gguf.model_name().unwrap_or("a model without a name").to_owned(),
            hyperparameters: hyperparameters.map(|known| (known.name.to_owned(), known.value)).collect(),
            weights_sha256: weights(gguf)?,
            vocabulary_sha256: vocabulary(tokenizer)?,
        })
    }

    /// How the model that `saved` is of differs from this one, which has the hyperparameters `config`; `None` if they are
    /// the same model.
    ///
    /// A conversation that was saved before a hyperparameter was known does not name it. It stands for the
    /// [default](crate::config::Hyperparameter::default).
    pub(crate) fn difference_from(&self, saved: &Self, config: &PhiConfig) -> Option<String> {
        let known = config.hyperparameters();
        for Hyperparameter { name, value, default } in &known {
            let saved = saved.hyperparameters.get(*name).or(default.as_ref()).map_or("unknown", String::as_str);
            if value != saved {
                return Some(format!("its {name} is {saved}, but this model's is {value}"));
            }
        }
        let is_known = |name: &str| known.iter().any(|known| known.name == name);
        if let Some((name, value)) = saved.hyperparameters.iter().find(|(name, _)| !is_known(name)) {
            return Some(format!(
                "its {name} is {value}, and this version of candle-phi does not know that hyperparameter"
            ));
        }
        if self.weights_sha256 != saved.weights_sha256 {
            return Some(format!(
                "its weights differ (they are of {}, and this model is {})",
                saved.name, self.name
            ));
        }
        (self.vocabulary_sha256 != saved.vocabulary_sha256)
            .then(|| "its vocabulary differs, so token ids stand for other texts".to_owned())
    }
}

fn weights(gguf: &Gguf) -> Result<String> {
    let mut hash = Sha256::new();
    for info in gguf.tensors() {
        let TensorInfo { name, shape, type_id, .. } = info;
        hash.update(format!("{name} {shape:?} {type_id}\n"));
        samples(gguf.tensor_bytes(info)?).for_each(|bytes| hash.update(bytes));
    }
    Ok(hex(hash))
}

/// The bytes that stand for a tensor.
fn samples(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (count, len) = if bytes.len() <= WHOLE_BYTES { (1, bytes.len()) } else { (SAMPLES, SAMPLE_BYTES) };
    // Where the last one begins, and how far apart two are.
    let last = bytes.len() - len;
    let step = last / (SAMPLES - 1);
    (0..count).map(move |sample| {
        let (_, from) = bytes.split_at(if sample + 1 == count { last } else { step * sample });
        from.split_at(len).0
    })
}

fn vocabulary(tokenizer: &Tokenizer) -> Result<String> {
    let mut hash = Sha256::new();
    for id in 0..tokenizer.vocab_size() as u32 {
        let text = tokenizer.token_text(id);
        let text = text.ok_or_else(|| Error::internal(format_args!("the tokenizer has no token {id}")))?;
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    Ok(hex(hash))
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
            let found: Vec<&[u8]> = samples(&bytes).collect();
            assert_eq!(found.len(), if len > WHOLE_BYTES { SAMPLES } else { 1 });
            let found = found.concat();
            assert_eq!((found.first(), found.last()), (bytes.first(), bytes.last()), "{len}");
            assert!(found.len() <= WHOLE_BYTES);
        }
    }

    fn fingerprint(config: &PhiConfig) -> Fingerprint {
        Fingerprint {
            name: "tiny".to_owned(),
            hyperparameters: config
                .hyperparameters()
                .into_iter()
                .map(|own| (own.name.to_owned(), own.value))
                .collect(),
            weights_sha256: "w".to_owned(),
            vocabulary_sha256: "v".to_owned(),
        }
    }

    /// Every file of the first format names all of them, so a file without one is not a file of this model.
    #[test]
    fn the_hyperparameters_of_the_first_format_are_required() {
        let config = PhiConfig::tiny();
        let model = fingerprint(&config);
        assert_eq!(model.difference_from(&model, &config), None);
        assert_eq!(config.hyperparameters().len(), 14);
        for Hyperparameter { name, .. } in config.hyperparameters() {
            let mut saved = model.clone();
            saved.hyperparameters.remove(name).unwrap();
            assert!(model.difference_from(&saved, &config).is_some(), "{name}");
        }
    }

    /// Files of the first version of the format have these names and texts.
    #[test]
    fn hyperparameters_are_written_as_in_the_first_version() {
        let expected = [
            ("architecture", "phi3"),
            ("block_count", "1"),
            ("embedding_length", "8"),
            ("feed_forward_length", "8"),
            ("head_count", "2"),
            ("head_count_kv", "2"),
            ("head_dim", "4"),
            ("interleaved_rope", "false"),
            ("norm_epsilon", "0.00001"),
            ("rope_attention_factor", "1"),
            ("rope_dimension_count", "4"),
            ("rope_freq_base", "10000"),
            ("sliding_window", "none"),
            ("vocabulary_size", "16"),
        ];
        let found = fingerprint(&PhiConfig::tiny()).hyperparameters;
        assert_eq!(found.iter().map(|(name, value)| (&**name, &**value)).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_hyperparameter_of_a_newer_version_is_a_difference() {
        let config = PhiConfig::tiny();
        let mut saved = fingerprint(&config);
        saved.hyperparameters.insert("expert_count".to_owned(), "16".to_owned());
        assert!(fingerprint(&config).difference_from(&saved, &config).is_some());
    }
}
