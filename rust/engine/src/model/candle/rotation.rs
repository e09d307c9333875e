//! Rotary embedding of halves or of neighbours, on a part of the head.

use candle_core::{D, Device, Tensor};

use super::super::rope::RopeTable;
use crate::Result;

/// Cosines and sines of a run of positions on a device, each `(seq, rope_dim / 2)`.
pub(super) struct Rotation {
    cos: Tensor,
    sin: Tensor,
    rope_dim: usize,
    interleaved: bool,
}

impl Rotation {
    pub(super) fn new(table: &RopeTable, device: &Device) -> Result<Self> {
        let shape = (table.cos.len() / table.half, table.half);
        Ok(Self {
            cos: Tensor::from_slice(&table.cos, shape, device)?,
            sin: Tensor::from_slice(&table.sin, shape, device)?,
            rope_dim: 2 * table.half,
            interleaved: table.interleaved,
        })
    }

    /// Rotates the first `rope_dim` dimensions of each head and leaves the others:
    /// `(batch, heads, seq, head_dim)` to the same.
    pub(super) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let head_dim = x.dim(D::Minus1)?;
        if self.rope_dim == head_dim {
            return self.rotate(&x.contiguous()?);
        }
        let rotated = self.rotate(&x.narrow(D::Minus1, 0, self.rope_dim)?.contiguous()?)?;
        let kept = x.narrow(D::Minus1, self.rope_dim, head_dim - self.rope_dim)?;
        Ok(Tensor::cat(&[&rotated, &kept], D::Minus1)?)
    }

    fn rotate(&self, x: &Tensor) -> Result<Tensor> {
        let rotate = if self.interleaved { candle_nn::rotary_emb::rope_i } else { candle_nn::rotary_emb::rope };
        Ok(rotate(x, &self.cos, &self.sin)?)
    }
}
