//! Rotary position embedding: plain, on a part of the head, and with LongRoPE's short factors.
//!
//! Angles, cosines and sines are f32 at every position, as in transformers. (RoFormer, arXiv:2104.09864;
//! LongRoPE, arXiv:2402.13753.)

use candle_core::{D, Device, Tensor};

use super::norm::vector;
use crate::Result;
use crate::config::PhiConfig;
use crate::gguf::Gguf;

/// Turns queries and keys by their position.
pub(crate) struct Rope {
    inverse_frequencies: Vec<f32>, // (rope_dim / 2)
    attention_factor: f32,
    device: Device,
}

/// Cosines and sines of a run of positions, each `(seq, rope_dim / 2)`.
pub(crate) struct Rotation {
    cos: Tensor,
    sin: Tensor,
    rope_dim: usize,
}

impl Rope {
    pub(super) fn load(gguf: &Gguf, config: &PhiConfig, device: &Device) -> Result<Self> {
        let half = config.rope_dimension_count / 2;
        let factors = match gguf.tensor("rope_factors_short.weight") {
            Some(info) => vector(gguf, &info.name, half, &Device::Cpu)?.to_vec1()?,
            None => vec![1.0_f32; half],
        };
        let inverse_frequencies = factors
            .iter()
            .enumerate()
            .map(|(i, factor)| {
                let exponent = (2 * i) as f32 / config.rope_dimension_count as f32;
                1.0 / (factor * config.rope_freq_base.powf(exponent))
            })
            .collect();
        let attention_factor = config.rope_attention_factor;
        Ok(Self { inverse_frequencies, attention_factor, device: device.clone() })
    }

    /// The rotation of `len` positions from `start` on.
    pub(super) fn rotation(&self, start: usize, len: usize) -> Result<Rotation> {
        let half = self.inverse_frequencies.len();
        let mut cos = Vec::with_capacity(len * half);
        let mut sin = Vec::with_capacity(len * half);
        for position in start..start + len {
            for inverse_frequency in &self.inverse_frequencies {
                let (s, c) = (position as f32 * inverse_frequency).sin_cos();
                cos.push(c * self.attention_factor);
                sin.push(s * self.attention_factor);
            }
        }
        Ok(Rotation {
            cos: Tensor::from_vec(cos, (len, half), &self.device)?,
            sin: Tensor::from_vec(sin, (len, half), &self.device)?,
            rope_dim: 2 * half,
        })
    }
}

impl Rotation {
    /// Turns the first `rope_dim` dimensions of each head by halves and leaves the others:
    /// `(batch, heads, seq, head_dim)` to the same.
    pub(super) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let head_dim = x.dim(D::Minus1)?;
        if self.rope_dim == head_dim {
            return Ok(candle_nn::rotary_emb::rope(&x.contiguous()?, &self.cos, &self.sin)?);
        }
        let turned = x.narrow(D::Minus1, 0, self.rope_dim)?.contiguous()?;
        let turned = candle_nn::rotary_emb::rope(&turned, &self.cos, &self.sin)?;
        let kept = x.narrow(D::Minus1, self.rope_dim, head_dim - self.rope_dim)?;
        Ok(Tensor::cat(&[&turned, &kept], D::Minus1)?)
    }
}
