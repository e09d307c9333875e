//! Rotary position embedding: of halves or of neighbours, on a part of the head, and with LongRoPE's factors.
//!
//! Angles, cosines and sines are f32 at every position, as in transformers. (RoFormer, arXiv:2104.09864;
//! LongRoPE, arXiv:2402.13753.)

use super::weights::vector;
use crate::Result;
use crate::cache::FactorSet;
use crate::config::PhiConfig;
use crate::gguf::Gguf;

/// The angles that queries and keys are rotated by.
pub(crate) struct Rope {
    short: Vec<f32>, // (rope_dim / 2), inverse frequencies
    long: Vec<f32>,  // (rope_dim / 2), inverse frequencies
    attention_factor: f32,
    interleaved: bool,
}

/// Cosines and sines of a run of positions, each `(seq, rope_dim / 2)`.
#[derive(Clone, Debug)]
pub(crate) struct RopeTable {
    pub(super) cos: Vec<f32>,
    pub(super) sin: Vec<f32>,
    /// `rope_dim / 2`
    pub(super) half: usize,
    /// Whether neighbours are rotated, and not the halves of the dimensions.
    pub(super) interleaved: bool,
}

impl Rope {
    pub(super) fn load(gguf: &Gguf, config: &PhiConfig) -> Result<Self> {
        Ok(Self {
            short: inverse_frequencies(gguf, "rope_factors_short.weight", config)?,
            long: inverse_frequencies(gguf, "rope_factors_long.weight", config)?,
            attention_factor: config.rope_attention_factor,
            interleaved: config.interleaved_rope,
        })
    }

    /// Cosines and sines of `len` positions from `start` on.
    pub(super) fn table(&self, factors: FactorSet, start: usize, len: usize) -> RopeTable {
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
        RopeTable { cos, sin, half, interleaved: self.interleaved }
    }
}

/// `1 / (factor · θ^(2i / rope_dim))`, with a factor of 1 where the file has none.
fn inverse_frequencies(gguf: &Gguf, factors: &str, config: &PhiConfig) -> Result<Vec<f32>> {
    let half = config.rope_dimension_count / 2;
    let factors = match gguf.tensor(factors) {
        Some(info) => {
            let factors = vector(gguf, &info.name, half)?;
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
    // The family's are at most 1; what rotates thousands of times from one position to the next is noise or overflows.
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
