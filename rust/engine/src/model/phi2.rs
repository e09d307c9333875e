//! The `phi2` architecture: phi-1.5 and phi-2.
//!
//! Attention and a feed-forward layer side by side behind one layer norm, both added to the residual stream; biases
//! everywhere. Hugging Face's `modeling_phi.py` is the reference for the arithmetic, llama.cpp's GGUF for the layout
//! of the tensors.

use tracing::trace_span;

use super::decoder::{Block, Source};
use super::executor::Executor;
use super::self_attention::SelfAttention;
use crate::Result;
use crate::architecture::layer;

/// A block of the `phi2` architecture.
pub(super) struct Phi2Block<E: Executor> {
    attn_norm: E::Norm,
    attention: SelfAttention<E>,
    ffn_up: E::Linear,   // (feed_forward, embedding)
    ffn_down: E::Linear, // (embedding, feed_forward)
}

impl<E: Executor> Block<E> for Phi2Block<E> {
    fn load(executor: &E, source: &Source<'_>, index: usize) -> Result<Self> {
        let (width, hidden) = (source.config.embedding_length, source.config.feed_forward_length);
        Ok(Self {
            attn_norm: source.norm(executor, index, layer::ATTN_NORM)?,
            attention: SelfAttention::load(executor, source, index, Source::linear_with_bias)?,
            ffn_up: source.linear_with_bias(executor, index, layer::FFN_UP, hidden, width)?,
            ffn_down: source.linear_with_bias(executor, index, layer::FFN_DOWN, width, hidden)?,
        })
    }

    fn forward(&self, executor: &E, x: E::Hidden, pass: &mut E::Pass<'_>, layer: usize) -> Result<E::Hidden> {
        let normed = trace_span!("attn_norm").in_scope(|| executor.norm(pass, &x, &self.attn_norm))?;
        let attended = self.attention.forward(executor, &normed, pass, layer)?;
        let hidden = trace_span!("ffn_up").in_scope(|| executor.gelu(pass, &normed, &self.ffn_up))?;
        let fed_forward = trace_span!("ffn_down").in_scope(|| executor.linear(pass, &hidden, &self.ffn_down))?;
        executor.add(pass, x, &[attended, fed_forward])
    }
}
