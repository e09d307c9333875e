//! A block's attention: its projections around what the executor attends with.

use tracing::trace_span;

use super::decoder::Source;
use super::executor::{Executor, Projections};
use crate::Result;
use crate::architecture::layer;

/// The attention of a block, with its weights.
pub(super) struct SelfAttention<E: Executor> {
    /// Fused in most files, apart in some: `((head_count + 2 * head_count_kv) * head_dim, embedding)` in all
    qkv: Projections<E::Linear>,
    output: E::Linear, // (embedding, head_count * head_dim)
}

/// How an architecture reads a linear layer: with a bias, or with one where the file has it.
type LoadLinear<'a, E> = fn(&Source<'a>, &E, usize, &str, usize, usize) -> Result<<E as Executor>::Linear>;

impl<E: Executor> SelfAttention<E> {
    pub(super) fn load<'a>(
        executor: &E,
        source: &Source<'a>,
        index: usize,
        linear: LoadLinear<'a, E>,
    ) -> Result<Self> {
        let config = source.config;
        let width = config.embedding_length;
        let heads = config.head_count * config.head_dim;
        let heads_kv = config.head_count_kv * config.head_dim;
        let qkv = if source.has(index, layer::ATTN_Q) {
            Projections::Split {
                q: linear(source, executor, index, layer::ATTN_Q, heads, width)?,
                k: linear(source, executor, index, layer::ATTN_K, heads_kv, width)?,
                v: linear(source, executor, index, layer::ATTN_V, heads_kv, width)?,
            }
        } else {
            Projections::Fused(linear(source, executor, index, layer::ATTN_QKV, heads + 2 * heads_kv, width)?)
        };
        Ok(Self { qkv, output: linear(source, executor, index, layer::ATTN_OUTPUT, width, heads)? })
    }

    /// `(seq, embedding)` to the same
    pub(super) fn forward(
        &self,
        executor: &E,
        x: &E::Input,
        pass: &mut E::Pass<'_>,
        layer: usize,
    ) -> Result<E::Output> {
        let projections = trace_span!("attn_qkv").in_scope(|| self.project(executor, x, pass))?;
        let attended = trace_span!("attention").in_scope(|| executor.attend(pass, layer, projections))?;
        trace_span!("attn_output").in_scope(|| executor.linear(pass, &attended, &self.output))
    }

    fn project(&self, executor: &E, x: &E::Input, pass: &mut E::Pass<'_>) -> Result<Projections<E::Output>> {
        Ok(match &self.qkv {
            Projections::Fused(qkv) => Projections::Fused(executor.linear(pass, x, qkv)?),
            Projections::Split { q, k, v } => Projections::Split {
                q: executor.linear(pass, x, q)?,
                k: executor.linear(pass, x, k)?,
                v: executor.linear(pass, x, v)?,
            },
        })
    }
}
