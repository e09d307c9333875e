//! The `phi2` architecture: phi-1.5 and phi-2.
//!
//! Attention and a feed-forward layer side by side behind one layer norm, both added to the residual stream; biases
//! everywhere. Hugging Face's `modeling_phi.py` is the reference for the arithmetic, llama.cpp's GGUF for the layout
//! of the tensors.

use candle_core::Tensor;

use super::decoder::{Block, Pass, Source};
use super::linear::Linear;
use super::norm::Norm;
use super::self_attention::SelfAttention;
use crate::Result;

/// A block of the `phi2` architecture.
pub(super) struct Phi2Block {
    attn_norm: Norm,
    attention: SelfAttention,
    ffn_up: Linear,   // (feed_forward, embedding)
    ffn_down: Linear, // (embedding, feed_forward)
}

impl Block for Phi2Block {
    const OUTPUT_HAS_BIAS: bool = true;

    fn load(source: &Source<'_>, index: usize) -> Result<Self> {
        let (width, hidden) = (source.config.embedding_length, source.config.feed_forward_length);
        Ok(Self {
            attn_norm: source.norm(index, "attn_norm")?,
            attention: SelfAttention::load(source, index, Source::linear_with_bias)?,
            ffn_up: source.linear_with_bias(index, "ffn_up", hidden, width)?,
            ffn_down: source.linear_with_bias(index, "ffn_down", width, hidden)?,
        })
    }

    fn forward(&self, x: &Tensor, pass: &mut Pass<'_>, layer: usize) -> Result<Tensor> {
        let normed = self.attn_norm.forward(x)?;
        let attended = self.attention.forward(&normed, pass, layer)?;
        // GELU by tanh (arXiv:1606.08415), `gelu_new` in the model's configuration.
        let hidden = self.ffn_up.forward(&normed)?.gelu()?; // (1, seq, feed_forward)
        Ok(((x + attended)? + self.ffn_down.forward(&hidden)?)?)
    }
}
