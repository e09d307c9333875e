//! What computes a model: the operations that the blocks are written in.
//!
//! The blocks are written once, on an [`Executor`]: Candle's tensors, on any device, or the project's own kernels on the
//! CPU, which read the weights in the file. The operations are as large as one of the two wants to have them in one piece:
//! a norm ends in what linear layers read, attention takes projections and rotates, caches and attends.

use std::sync::Arc;

use super::rope::RopeTable;
use super::weights::NormWeights;
use crate::cache::{KvCache, NewPositions};
use crate::config::PhiConfig;
use crate::gguf::Gguf;
use crate::machine::Compute;
use crate::{CancelToken, KvDtype, Result};

/// Operations on weights and activations of its own kinds.
pub(crate) trait Executor: Send + Sync + Sized {
    /// A linear layer's weight, `(out, in)`, with its bias.
    type Linear: Send + Sync;
    /// A norm's parameters.
    type Norm: Send + Sync;
    /// The residual stream, `(seq, embedding)`.
    type Hidden;
    /// What linear layers read, `(seq, in)`.
    type Input;
    /// What a linear layer gives, `(seq, out)`.
    type Output;
    /// What one forward pass carries.
    type Pass<'a>;

    /// Reads the linear layer `{name}.weight`, which must have the shape `(out, in)`, and `{name}.bias` where the file
    /// has it.
    fn load_linear(&self, gguf: &Arc<Gguf>, name: &str, out: usize, r#in: usize) -> Result<Self::Linear>;

    /// Takes a norm's parameters.
    fn load_norm(&self, weights: NormWeights) -> Result<Self::Norm>;

    /// An empty cache for at most `max_len` positions.
    fn new_cache(&self, config: &PhiConfig, max_len: usize, dtype: KvDtype) -> Result<KvCache>;

    /// Begins a forward pass.
    fn begin<'a>(&'a self, start: Start<'a>) -> Result<Self::Pass<'a>>;

    /// The residual stream out of rows of the embedding: `(seq, embedding)`
    fn hidden(&self, pass: &mut Self::Pass<'_>, rows: Vec<f32>) -> Result<Self::Hidden>;

    /// The norm of the residual stream.
    fn norm(&self, pass: &mut Self::Pass<'_>, x: &Self::Hidden, norm: &Self::Norm) -> Result<Self::Input>;

    /// `x Wᵀ + b`
    fn linear(&self, pass: &mut Self::Pass<'_>, x: &Self::Input, layer: &Self::Linear) -> Result<Self::Output>;

    /// Rotates queries and keys, caches keys and values, and attends: `(seq, head_count * head_dim)`
    fn attend(
        &self,
        pass: &mut Self::Pass<'_>,
        layer: usize,
        projections: Projections<Self::Output>,
    ) -> Result<Self::Input>;

    /// `silu(x Gᵀ) · x Uᵀ`: `(seq, feed_forward)`
    fn swiglu(
        &self,
        pass: &mut Self::Pass<'_>,
        x: &Self::Input,
        gate_and_up: &GateAndUp<Self::Linear>,
    ) -> Result<Self::Input>;

    /// `gelu(x Uᵀ + b)`, by tanh: `(seq, feed_forward)`
    fn gelu(&self, pass: &mut Self::Pass<'_>, x: &Self::Input, up: &Self::Linear) -> Result<Self::Input>;

    /// The residual stream with outputs added to it.
    fn add(&self, pass: &mut Self::Pass<'_>, x: Self::Hidden, outputs: &[Self::Output]) -> Result<Self::Hidden>;

    /// The last position alone: `(1, embedding)`
    fn last(&self, x: &Self::Hidden) -> Result<Self::Hidden>;

    /// An output's values on the CPU, row after row.
    fn values(&self, output: Self::Output) -> Result<Vec<f32>>;

    /// Makes the positions that every layer appended part of the cache.
    fn end(&self, pass: Self::Pass<'_>);
}

/// What a forward pass begins with.
pub(crate) struct Start<'a> {
    pub(super) config: &'a PhiConfig,
    pub(super) cache: &'a mut KvCache,
    pub(super) positions: NewPositions,
    pub(super) rope: RopeTable,
    pub(super) compute: &'a Compute,
    pub(super) cancel: &'a CancelToken,
}

/// Queries, keys and values.
pub(crate) enum Projections<T> {
    /// Side by side: `(seq, (head_count + 2 * head_count_kv) * head_dim)`
    Fused(T),
    /// Queries `(seq, head_count * head_dim)`, keys and values `(seq, head_count_kv * head_dim)`
    Split { q: T, k: T, v: T },
}

/// A gated feed-forward layer's two inputs: one tensor in `phi3` files, two in `llama` files.
pub(crate) enum GateAndUp<T> {
    /// `(2 * feed_forward, embedding)`: the gate's rows, then the up projection's
    Fused(T),
    Split {
        gate: T,
        up: T,
    },
}
