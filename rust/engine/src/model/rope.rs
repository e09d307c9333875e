//! Rotary position embedding: of halves or of neighbours, on a part of the head, and with LongRoPE's factors.
//!
//! Angles, cosines and sines are f32 at every position, as in transformers. (RoFormer, arXiv:2104.09864;
//! LongRoPE, arXiv:2402.13753.)

use super::weights::vector;
use crate::architecture::{layer, weight};
use crate::cache::FactorSet;
use crate::config::PhiConfig;
use crate::gguf::{CONVERTED, Gguf};
use crate::{Error, Result};

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
    /// Whether pairs of neighbours are rotated, and not the halves of the dimensions.
    pub(super) interleaved: bool,
}

impl Rope {
    pub(super) fn load(gguf: &Gguf, config: &PhiConfig) -> Result<Self> {
        Ok(Self {
            short: inverse_frequencies(gguf, &weight(layer::ROPE_FACTORS_SHORT), config)?,
            long: inverse_frequencies(gguf, &weight(layer::ROPE_FACTORS_LONG), config)?,
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

impl RopeTable {
    /// Rotates the first `rope_dim` dimensions of a head by the angles of row `row`. The others keep their values.
    ///
    /// # Errors
    /// [`Inference`](crate::ErrorKind::Inference) if the table has no such row, or the head fewer dimensions.
    pub(super) fn rotate(&self, row: usize, head: &mut [f32]) -> Result<()> {
        let range = row * self.half..(row + 1) * self.half;
        let (Some(cos), Some(sin)) = (self.cos.get(range.clone()), self.sin.get(range)) else {
            return Err(Error::internal(format_args!("the table of rotations has no row {row}")));
        };
        let head_dim = head.len();
        let Some((rotated, _)) = head.split_at_mut_checked(2 * self.half) else {
            let rope_dim = 2 * self.half;
            return Err(Error::internal(format_args!("{rope_dim} dimensions to rotate of a head of {head_dim}")));
        };
        let rotate = |a: &mut f32, b: &mut f32, cos: f32, sin: f32| {
            (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
        };
        if self.interleaved {
            for (pair, (cos, sin)) in rotated.as_chunks_mut().0.iter_mut().zip(cos.iter().zip(sin)) {
                let [a, b]: &mut [f32; 2] = pair;
                rotate(a, b, *cos, *sin);
            }
        } else {
            let (first, second) = rotated.split_at_mut(self.half);
            for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(cos.iter().zip(sin)) {
                rotate(a, b, *cos, *sin);
            }
        }
        Ok(())
    }
}

/// `1 / (factor · θ^(2i / rope_dim))`, with a factor of 1 where the file has none.
fn inverse_frequencies(gguf: &Gguf, factors: &str, config: &PhiConfig) -> Result<Vec<f32>> {
    let half = config.rope_dimension_count / 2;
    let factors = match gguf.tensor(factors) {
        Some(info) => {
            let factors = vector(gguf, &info.name, half)?;
            if let Some(factor) = factors.iter().find(|factor| !(factor.is_finite() && **factor > 0.0)) {
                return Err(Error::invalid_model(format!(
                    "{}: tensor {} must have positive factors, got {factor}; {CONVERTED}",
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
    Err(Error::invalid_model(format!(
        "{}: metadata key rope.freq_base, or the LongRoPE factors, must be larger, got the base {}; {CONVERTED}",
        gguf.path().display(),
        config.rope_freq_base
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_or_a_head_that_the_table_does_not_fit_is_an_error() {
        for interleaved in [false, true] {
            let table = RopeTable { cos: vec![0.0; 4], sin: vec![1.0; 4], half: 2, interleaved };
            let mut head = [1.0, 2.0, 3.0, 4.0, 5.0];
            table.rotate(1, &mut head).unwrap();
            assert_eq!(head, if interleaved { [-2.0, 1.0, -4.0, 3.0, 5.0] } else { [-3.0, -4.0, 1.0, 2.0, 5.0] });
            for (row, head_dim) in [(2, 4), (0, 3)] {
                let error = table.rotate(row, &mut vec![0.0; head_dim]).unwrap_err();
                assert_eq!(error.kind(), crate::ErrorKind::Inference);
            }
        }
    }
}
