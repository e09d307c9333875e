//! Norms.

use candle_core::{Device, Tensor};
use candle_phi_kernels::dequantize_row;

use super::linear::tensor_of_shape;
use crate::config::{Architecture, PhiConfig};
use crate::gguf::Gguf;
use crate::{Error, Result};

/// The norm of an architecture.
pub(crate) enum Norm {
    /// `x / sqrt(mean(x²) + ε) · w`
    Rms { weight: Tensor, epsilon: f32 }, // (embedding)
    /// `(x - mean(x)) / sqrt(var(x) + ε) · w + b`
    Layer { weight: Tensor, bias: Tensor, epsilon: f32 }, // (embedding)
}

impl Norm {
    /// Reads the norm `{name}.weight` and, where the architecture has one, `{name}.bias`.
    pub(super) fn load(gguf: &Gguf, name: &str, config: &PhiConfig, device: &Device) -> Result<Self> {
        let vector = |part: &str| vector(gguf, &format!("{name}.{part}"), config.embedding_length, device);
        let epsilon = config.norm_epsilon;
        Ok(match config.architecture {
            Architecture::Phi3 => Self::Rms { weight: vector("weight")?, epsilon },
            Architecture::Phi2 => Self::Layer { weight: vector("weight")?, bias: vector("bias")?, epsilon },
        })
    }

    /// `(batch, seq, embedding)` to the same
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = x.contiguous()?;
        Ok(match self {
            Self::Rms { weight, epsilon } => candle_nn::ops::rms_norm(&x, weight, *epsilon)?,
            Self::Layer { weight, bias, epsilon } => candle_nn::ops::layer_norm(&x, weight, bias, *epsilon)?,
        })
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
