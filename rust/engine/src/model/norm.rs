//! RMS norms.

use candle_core::{Device, Tensor};
use candle_phi_kernels::dequantize_row;

use super::linear::tensor_of_shape;
use crate::gguf::Gguf;
use crate::{Error, Result};

/// `x / sqrt(mean(x²) + ε) · w`
pub(crate) struct RmsNorm {
    weight: Tensor, // (embedding)
    epsilon: f32,
}

impl RmsNorm {
    pub(super) fn load(gguf: &Gguf, name: &str, len: usize, epsilon: f32, device: &Device) -> Result<Self> {
        Ok(Self { weight: vector(gguf, name, len, device)?, epsilon })
    }

    /// `(batch, seq, embedding)` to the same
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(candle_nn::ops::rms_norm(&x.contiguous()?, &self.weight, self.epsilon)?)
    }
}

/// A vector of `len` values as f32.
pub(super) fn vector(gguf: &Gguf, name: &str, len: usize, device: &Device) -> Result<Tensor> {
    let info = tensor_of_shape(gguf, name, &[len])?;
    let mut values = vec![0.0; len];
    dequantize_row(info.tensor_type()?, gguf.tensor_bytes(info), &mut values)
        .map_err(|error| Error::invalid_model(format!("{}: tensor {name}: {error}", gguf.path().display())))?;
    Ok(Tensor::from_vec(values, len, device)?)
}
