//! The `phi3` architecture: Phi-3, Phi-3.5, Phi-4 and Phi-4-mini.
//!
//! Blocks of attention and a SwiGLU feed-forward layer on a residual stream, each behind an RMS norm; no
//! biases. Hugging Face's `modeling_phi3.py` is the reference for the arithmetic, llama.cpp's GGUF for the
//! layout of the tensors. Files that were converted as `llama` differ in names and in the order of rows only.

use tracing::trace_span;

use super::decoder::{Block, Source};
use super::executor::{Executor, GateAndUp};
use super::self_attention::SelfAttention;
use crate::Result;
use crate::architecture::layer;

/// A block of the `phi3` architecture.
pub(super) struct Phi3Block<E: Executor> {
    attn_norm: E::Norm,
    attention: SelfAttention<E>,
    ffn_norm: E::Norm,
    gate_and_up: GateAndUp<E::Linear>,
    ffn_down: E::Linear, // (embedding, feed_forward)
}

impl<E: Executor> Block<E> for Phi3Block<E> {
    fn load(executor: &E, source: &Source<'_>, index: usize) -> Result<Self> {
        let (width, hidden) = (source.config.embedding_length, source.config.feed_forward_length);
        let gate_and_up = if source.has(index, layer::FFN_GATE) {
            GateAndUp::Split {
                gate: source.linear(executor, index, layer::FFN_GATE, hidden, width)?,
                up: source.linear(executor, index, layer::FFN_UP, hidden, width)?,
            }
        } else {
            GateAndUp::Fused(source.linear(executor, index, layer::FFN_UP, 2 * hidden, width)?)
        };
        Ok(Self {
            attn_norm: source.norm(executor, index, layer::ATTN_NORM)?,
            attention: SelfAttention::load(executor, source, index, Source::linear)?,
            ffn_norm: source.norm(executor, index, layer::FFN_NORM)?,
            gate_and_up,
            ffn_down: source.linear(executor, index, layer::FFN_DOWN, width, hidden)?,
        })
    }

    fn forward(&self, executor: &E, x: E::Hidden, pass: &mut E::Pass<'_>, layer: usize) -> Result<E::Hidden> {
        let normed = trace_span!("attn_norm").in_scope(|| executor.norm(pass, &x, &self.attn_norm))?;
        let attended = self.attention.forward(executor, &normed, pass, layer)?;
        let x = executor.add(pass, x, &[attended])?;
        let normed = trace_span!("ffn_norm").in_scope(|| executor.norm(pass, &x, &self.ffn_norm))?;
        let hidden = trace_span!("ffn_up").in_scope(|| executor.swiglu(pass, &normed, &self.gate_and_up))?;
        let fed_forward = trace_span!("ffn_down").in_scope(|| executor.linear(pass, &hidden, &self.ffn_down))?;
        executor.add(pass, x, &[fed_forward])
    }
}
