//! The token embedding, read row by row out of the file.

use std::sync::Arc;

use candle_phi_kernels::{TensorType, dequantize_row};

use super::weights::tensor_of_shape;
use crate::architecture::{self, layer};
use crate::config::PhiConfig;
use crate::gguf::{Gguf, TensorInfo};
use crate::{Error, Result};

/// Looks tokens up in the mapped file: no copy of the embedding is kept, quantized or not.
pub(crate) struct Embedding {
    gguf: Arc<Gguf>,
    weight: TensorInfo, // (vocabulary, embedding)
    tensor_type: TensorType,
    row_bytes: usize,
    vocabulary_size: usize,
    embedding_length: usize,
}

impl Embedding {
    pub(super) fn load(gguf: &Arc<Gguf>, config: &PhiConfig) -> Result<Self> {
        let shape = [config.vocabulary_size, config.embedding_length];
        let weight = tensor_of_shape(gguf, &architecture::weight(layer::TOKEN_EMBEDDING), &shape)?.clone();
        let tensor_type = weight.tensor_type()?;
        let row_bytes = tensor_type.row_bytes(config.embedding_length).ok_or_else(|| {
            Error::internal(format_args!("tensor {} has rows that are not whole blocks", weight.name))
        })?;
        Ok(Self {
            gguf: Arc::clone(gguf),
            weight,
            tensor_type,
            row_bytes,
            vocabulary_size: config.vocabulary_size,
            embedding_length: config.embedding_length,
        })
    }

    /// The rows of `tokens`: `(seq, embedding)`
    ///
    /// # Errors
    /// [`InvalidModel`](crate::ErrorKind::InvalidModel) if the file was cut short since it was opened: this is where a
    /// forward pass begins to read it.
    pub(super) fn rows(&self, tokens: &[u32]) -> Result<Vec<f32>> {
        self.gguf.check_length()?;
        let (bytes, row_bytes) = (self.gguf.tensor_bytes(&self.weight)?, self.row_bytes);
        let mut rows = vec![0.0; tokens.len() * self.embedding_length];
        for (token, row) in tokens.iter().zip(rows.chunks_exact_mut(self.embedding_length)) {
            let start = *token as usize * row_bytes;
            let bytes = bytes.get(start..start + row_bytes).ok_or_else(|| {
                Error::invalid_input(format!(
                    "token ids must be below {}, the size of the vocabulary, got {token}",
                    self.vocabulary_size
                ))
            })?;
            dequantize_row(self.tensor_type, bytes, row)
                .map_err(|error| Error::internal(format_args!("token {token}: {error}")))?;
        }
        Ok(rows)
    }
}
