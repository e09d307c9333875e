//! The `phi3` architecture: Phi-3, Phi-3.5, Phi-4 and Phi-4-mini.
//!
//! Blocks of attention and a SwiGLU feed-forward layer on a residual stream, each behind an RMS norm; no
//! biases. Hugging Face's `modeling_phi3.py` is the reference for the arithmetic, llama.cpp's GGUF for the
//! layout of the tensors. Files that were converted as `llama` differ in names and in the order of rows only.

use candle_core::{Module, Tensor};

use super::decoder::{Block, Pass, Source};
use super::linear::Linear;
use super::norm::Norm;
use super::self_attention::SelfAttention;
use crate::Result;

/// A block of the `phi3` architecture.
pub(super) struct Phi3Block {
    attn_norm: Norm,
    attention: SelfAttention,
    ffn_norm: Norm,
    gate_and_up: GateAndUp,
    ffn_down: Linear, // (embedding, feed_forward)
}

/// The feed-forward layer's two inputs: one tensor in `phi3` files, two in `llama` files.
enum GateAndUp {
    Fused(Linear), // (2 * feed_forward, embedding): the gate's rows, then the up projection's
    Split { gate: Linear, up: Linear },
}

impl GateAndUp {
    fn load(source: &Source<'_>, index: usize) -> Result<Self> {
        let (width, hidden) = (source.config.embedding_length, source.config.feed_forward_length);
        Ok(if source.has(index, "ffn_gate") {
            Self::Split {
                gate: source.linear(index, "ffn_gate", hidden, width)?,
                up: source.linear(index, "ffn_up", hidden, width)?,
            }
        } else {
            Self::Fused(source.linear(index, "ffn_up", 2 * hidden, width)?)
        })
    }

    /// `silu(gate) · up`: `(1, seq, embedding)` to `(1, seq, feed_forward)`
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Fused(both) => candle_nn::ops::swiglu(&both.forward(x)?)?,
            Self::Split { gate, up } => {
                (candle_nn::Activation::Silu.forward(&gate.forward(x)?)? * up.forward(x)?)?
            }
        })
    }
}

impl Block for Phi3Block {
    const OUTPUT_HAS_BIAS: bool = false;

    fn load(source: &Source<'_>, index: usize) -> Result<Self> {
        let config = source.config;
        Ok(Self {
            attn_norm: source.norm(index, "attn_norm")?,
            attention: SelfAttention::load(source, index, Source::linear)?,
            ffn_norm: source.norm(index, "ffn_norm")?,
            gate_and_up: GateAndUp::load(source, index)?,
            ffn_down: source.linear(index, "ffn_down", config.embedding_length, config.feed_forward_length)?,
        })
    }

    fn forward(&self, x: &Tensor, pass: &mut Pass<'_>, layer: usize) -> Result<Tensor> {
        let attended = self.attention.forward(&self.attn_norm.forward(x)?, pass, layer)?;
        let x = (x + attended)?;
        let hidden = self.gate_and_up.forward(&self.ffn_norm.forward(&x)?)?; // (1, seq, feed_forward)
        Ok((x + self.ffn_down.forward(&hidden)?)?)
    }
}
