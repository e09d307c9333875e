//! What a file is, told from its header alone.

use std::collections::BTreeMap;
use std::path::Path;

use crate::cache::KvDtype;
use crate::chat::ChatTemplate;
use crate::config::PhiConfig;
use crate::gguf::{Gguf, TensorInfo};
use crate::tokenizer::{Tokenizer, TokenizerOptions};
use crate::{CancelToken, RecommendedSampling, Result};

/// Facts about a model, read from its file's header.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelInfo {
    /// The model's name, where the file has one.
    pub name: Option<String>,
    /// `general.architecture`
    pub architecture: String,
    /// Number of weights.
    pub parameter_count: u64,
    /// The mixture of tensor types, `Q4_K_M` and the like.
    pub quantization: String,
    /// Kind of tokenizer, as `tokenizer.ggml.model` names it; `None` if the file has no vocabulary.
    pub tokenizer: Option<String>,
    /// Number of tokens that the tokenizer knows; `None` if the file has no vocabulary.
    pub tokenizer_vocabulary_size: Option<usize>,
    /// What messages are written with: a chat format of the family, or `"custom"` for a template of the file's own.
    pub chat_format: Option<String>,
    /// What of the file's chat template is known to be broken and was corrected.
    pub chat_corrections: Vec<String>,
    /// The sampling options that the file recommends.
    pub sampling: RecommendedSampling,
    /// Size of the file in bytes.
    pub file_size_bytes: u64,
    /// Bytes of the tensors.
    pub weights_bytes: u64,
    /// The hyperparameters.
    pub config: PhiConfig,
}

impl ModelInfo {
    /// Reads a file's header; no weights are loaded.
    ///
    /// # Errors
    /// As [`Phi3Model::load`](crate::Phi3Model::load) for a file that is damaged or of another architecture. A file
    /// without a vocabulary or with a tensor type that can't be computed with is described all the same.
    pub fn read(path: &Path) -> Result<Self> {
        let gguf = Gguf::open(path, true, &CancelToken::new())?;
        let tokenizer = Tokenizer::from_gguf(&gguf, &TokenizerOptions::default()).ok();
        let config = PhiConfig::from_gguf(&gguf)?;
        // Loading says what is wrong with a template; what else the file is can be told without it.
        let template =
            tokenizer.as_ref().and_then(|tokenizer| ChatTemplate::load(&gguf, tokenizer, None, None).ok()?);
        Self::new(&gguf, config, tokenizer.as_ref(), template.as_ref())
    }

    pub(crate) fn new(
        gguf: &Gguf,
        config: PhiConfig,
        tokenizer: Option<&Tokenizer>,
        chat_template: Option<&ChatTemplate>,
    ) -> Result<Self> {
        Ok(Self {
            name: gguf.model_name().map(str::to_owned),
            architecture: gguf.required_str("general.architecture")?.to_owned(),
            parameter_count: total(gguf.tensors().map(TensorInfo::element_count)),
            quantization: quantization(gguf)?,
            tokenizer: gguf.optional_str("tokenizer.ggml.model")?.map(str::to_owned),
            tokenizer_vocabulary_size: tokenizer.map(Tokenizer::vocab_size),
            chat_format: chat_template.map(|template| template.name().to_owned()),
            chat_corrections: chat_template.map(|template| template.corrections().to_vec()).unwrap_or_default(),
            sampling: RecommendedSampling::read(gguf, config.context_length),
            file_size_bytes: gguf.file_size_bytes() as u64,
            weights_bytes: weights_bytes(gguf),
            config,
        })
    }

    /// Bytes that the key-value cache of a full context of `n_ctx` positions takes.
    #[must_use]
    pub fn kv_cache_bytes(&self, n_ctx: usize, kv_dtype: KvDtype) -> u64 {
        kv_dtype.size_bytes(self.config.kv_values_per_token()) as u64 * n_ctx as u64
    }
}

/// Bytes of a file's tensors.
pub(crate) fn weights_bytes(gguf: &Gguf) -> u64 {
    total(gguf.tensors().map(TensorInfo::size_bytes))
}

/// A sum that a damaged file can't make overflow.
fn total(numbers: impl Iterator<Item = usize>) -> u64 {
    numbers.fold(0, |sum, number| sum.saturating_add(number as u64))
}

/// The mixture's name: as the file's type number says, or the type that holds most of the bytes.
fn quantization(gguf: &Gguf) -> Result<String> {
    // `llama_ftype` of llama.cpp's llama.h
    let named = match gguf.optional_usize("general.file_type")? {
        Some(0) => "F32",
        Some(1) => "F16",
        Some(2) => "Q4_0",
        Some(3) => "Q4_1",
        Some(7) => "Q8_0",
        Some(8) => "Q5_0",
        Some(9) => "Q5_1",
        Some(10) => "Q2_K",
        Some(11) => "Q3_K_S",
        Some(12) => "Q3_K_M",
        Some(13) => "Q3_K_L",
        Some(14) => "Q4_K_S",
        Some(15) => "Q4_K_M",
        Some(16) => "Q5_K_S",
        Some(17) => "Q5_K_M",
        Some(18) => "Q6_K",
        Some(25) => "IQ4_NL",
        Some(30) => "IQ4_XS",
        Some(32) => "BF16",
        _ => return Ok(most_of_the_values(gguf)),
    };
    Ok(named.to_owned())
}

fn most_of_the_values(gguf: &Gguf) -> String {
    let mut values_by_type = BTreeMap::new();
    for tensor in gguf.tensors() {
        let values = values_by_type.entry(tensor.type_name()).or_insert(0_usize);
        *values = values.saturating_add(tensor.element_count());
    }
    let most = values_by_type.into_iter().max_by_key(|(_, values)| *values);
    most.map_or_else(|| "none".to_owned(), |(name, _)| name)
}
