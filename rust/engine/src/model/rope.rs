//! Rotary position embedding: of halves or of neighbours, on a part of the head, and with LongRoPE's factors.
//!
//! Angles, cosines and sines are f32 at every position, as in transformers. (RoFormer, arXiv:2104.09864;
//! LongRoPE, arXiv:2402.13753.)

use candle_core::{D, Device, Tensor};

use super::norm::vector;
use crate::Result;
use crate::config::PhiConfig;
use crate::gguf::Gguf;

/// Which of LongRoPE's factors a sequence is turned with: all of it with the same ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FactorSet {
    /// Those for sequences up to the original context; also what a model without factors has.
    #[default]
    Short,
    /// Those for longer ones.
    Long,
}

/// Turns queries and keys by their position.
pub(crate) struct Rope {
    short: Vec<f32>, // (rope_dim / 2), inverse frequencies
    long: Vec<f32>,  // (rope_dim / 2), inverse frequencies
    attention_factor: f32,
    interleaved: bool,
    device: Device,
}

/// Cosines and sines of a run of positions, each `(seq, rope_dim / 2)`.
pub(crate) struct Rotation {
    cos: Tensor,
    sin: Tensor,
    rope_dim: usize,
    interleaved: bool,
}

impl Rope {
    pub(super) fn load(gguf: &Gguf, config: &PhiConfig, device: &Device) -> Result<Self> {
        Ok(Self {
            short: inverse_frequencies(gguf, "rope_factors_short.weight", config)?,
            long: inverse_frequencies(gguf, "rope_factors_long.weight", config)?,
            attention_factor: config.rope_attention_factor,
            interleaved: config.interleaved_rope,
            device: device.clone(),
        })
    }

    /// The rotation of `len` positions from `start` on.
    pub(super) fn rotation(&self, factors: FactorSet, start: usize, len: usize) -> Result<Rotation> {
        let inverse_frequencies = match factors {
            FactorSet::Short => &self.short,
            FactorSet::Long => &self.long,
        };
        let half = inverse_frequencies.len();
        let mut cos = Vec::with_capacity(len * half);
        let mut sin = Vec::with_capacity(len * half);
        for position in start..start + len {
            for inverse_frequency in inverse_frequencies {
                let (s, c) = (position as f32 * inverse_frequency).sin_cos();
                cos.push(c * self.attention_factor);
                sin.push(s * self.attention_factor);
            }
        }
        Ok(Rotation {
            cos: Tensor::from_vec(cos, (len, half), &self.device)?,
            sin: Tensor::from_vec(sin, (len, half), &self.device)?,
            rope_dim: 2 * half,
            interleaved: self.interleaved,
        })
    }
}

/// `1 / (factor · θ^(2i / rope_dim))`, with a factor of 1 where the file has none.
fn inverse_frequencies(gguf: &Gguf, factors: &str, config: &PhiConfig) -> Result<Vec<f32>> {
    let half = config.rope_dimension_count / 2;
    let factors = match gguf.tensor(factors) {
        Some(info) => {
            let factors: Vec<f32> = vector(gguf, &info.name, half, &Device::Cpu)?.to_vec1()?;
            if let Some(factor) = factors.iter().find(|factor| !(factor.is_finite() && **factor > 0.0)) {
                return Err(crate::Error::invalid_model(format!(
                    "{}: tensor {}: expected positive factors, found {factor}",
                    gguf.path().display(),
                    info.name
                )));
            }
            factors
        }
        None => vec![1.0; half],
    };
    let frequencies = factors.iter().enumerate().map(|(i, factor)| {
        let exponent = (2 * i) as f32 / config.rope_dimension_count as f32;
        1.0 / (factor * config.rope_freq_base.powf(exponent))
    });
    let frequencies: Vec<f32> = frequencies.collect();
    // The family's are at most 1; what turns thousands of times from one position to the next is noise or overflows.
    if frequencies.iter().all(|frequency| *frequency <= 1e4) {
        return Ok(frequencies);
    }
    Err(crate::Error::invalid_model(format!(
        "{}: the rotary frequencies are too high; expected a larger base (rope.freq_base) or larger factors, found the \
         base {}",
        gguf.path().display(),
        config.rope_freq_base
    )))
}

impl Rotation {
    /// Turns the first `rope_dim` dimensions of each head and leaves the others:
    /// `(batch, heads, seq, head_dim)` to the same.
    pub(super) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let head_dim = x.dim(D::Minus1)?;
        if self.rope_dim == head_dim {
            return self.turn(&x.contiguous()?);
        }
        let turned = self.turn(&x.narrow(D::Minus1, 0, self.rope_dim)?.contiguous()?)?;
        let kept = x.narrow(D::Minus1, self.rope_dim, head_dim - self.rope_dim)?;
        Ok(Tensor::cat(&[&turned, &kept], D::Minus1)?)
    }

    fn turn(&self, x: &Tensor) -> Result<Tensor> {
        let turn = if self.interleaved { candle_nn::rotary_emb::rope_i } else { candle_nn::rotary_emb::rope };
        Ok(turn(x, &self.cos, &self.sin)?)
    }
}
