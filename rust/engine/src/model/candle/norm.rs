//! Norms.

use candle_core::{Device, Tensor};

use super::super::weights::NormWeights;
use crate::Result;

/// A norm with its parameters on a device.
pub(crate) enum Norm {
    Rms { weight: Tensor, epsilon: f32 },                 // (embedding)
    Layer { weight: Tensor, bias: Tensor, epsilon: f32 }, // (embedding)
}

impl Norm {
    pub(super) fn new(weights: NormWeights, device: &Device) -> Result<Self> {
        let tensor = |values: Vec<f32>| Tensor::new(values, device);
        Ok(match weights {
            NormWeights::Rms { weight, epsilon } => Self::Rms { weight: tensor(weight)?, epsilon },
            NormWeights::Layer { weight, bias, epsilon } => {
                Self::Layer { weight: tensor(weight)?, bias: tensor(bias)?, epsilon }
            }
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
