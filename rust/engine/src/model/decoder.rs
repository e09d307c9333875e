//! What the architectures have in common: an embedding, a stack of blocks, a norm and an output layer.

use std::sync::Arc;

use tracing::trace_span;

use super::embedding::Embedding;
use super::executor::{Executor, Start};
use super::rope::Rope;
use super::weights::NormWeights;
use super::{Logits, Model};
use crate::architecture::{bias, in_block, layer, weight};
use crate::cache::KvCache;
use crate::config::PhiConfig;
use crate::gguf::Gguf;
use crate::machine::Compute;
use crate::{CancelToken, Error, KvDtype, Result};

/// A block of an architecture, on an executor.
pub(super) trait Block<E: Executor>: Send + Sync + Sized {
    /// Reads the tensors `blk.{index}.*`.
    fn load(executor: &E, source: &Source<'_>, index: usize) -> Result<Self>;

    /// `(seq, embedding)` to the same
    fn forward(&self, executor: &E, x: E::Hidden, pass: &mut E::Pass<'_>, layer: usize) -> Result<E::Hidden>;
}

/// Where a block's weights come from.
pub(super) struct Source<'a> {
    pub(super) gguf: &'a Arc<Gguf>,
    pub(super) config: &'a PhiConfig,
    pub(super) cancel: &'a CancelToken,
}

impl Source<'_> {
    /// Whether block `index` has the weight `name`.
    pub(super) fn has(&self, index: usize, name: &str) -> bool {
        self.gguf.tensor(&weight(&in_block(index, name))).is_some()
    }

    /// A block's linear layer, with a bias where the file has one.
    pub(super) fn linear<E: Executor>(
        &self,
        executor: &E,
        index: usize,
        name: &str,
        out: usize,
        r#in: usize,
    ) -> Result<E::Linear> {
        self.cancel.check()?;
        executor.load_linear(self.gguf, &in_block(index, name), out, r#in)
    }

    /// A block's linear layer that always has a bias.
    pub(super) fn linear_with_bias<E: Executor>(
        &self,
        executor: &E,
        index: usize,
        name: &str,
        out: usize,
        r#in: usize,
    ) -> Result<E::Linear> {
        self.gguf.required_tensor(&bias(&in_block(index, name)))?;
        self.linear(executor, index, name, out, r#in)
    }

    /// A block's norm.
    pub(super) fn norm<E: Executor>(&self, executor: &E, index: usize, name: &str) -> Result<E::Norm> {
        executor.load_norm(NormWeights::load(self.gguf, &in_block(index, name), self.config)?)
    }
}

/// Weights of a model whose blocks are `B`, on an executor.
pub(super) struct Decoder<E: Executor, B> {
    embedding: Embedding,
    blocks: Vec<B>,
    output_norm: E::Norm,
    output: E::Linear, // (vocabulary, embedding)
    rope: Rope,
    config: PhiConfig,
    /// Last, so that it is dropped after the weights.
    executor: E,
}

impl<E: Executor, B: Block<E>> Decoder<E, B> {
    pub(super) fn load(executor: E, source: &Source<'_>) -> Result<Self> {
        let Source { gguf, config, .. } = *source;
        let mut blocks = Vec::new();
        for index in 0..config.block_count {
            blocks.push(B::load(&executor, source, index)?);
        }
        // If a file has no output layer, the embedding is the output layer too.
        let has_output = gguf.tensor(&weight(layer::OUTPUT)).is_some();
        let output = if has_output { layer::OUTPUT } else { layer::TOKEN_EMBEDDING };
        if config.architecture.facts().output_has_bias {
            gguf.required_tensor(&bias(output))?;
        }
        Ok(Self {
            embedding: Embedding::load(gguf, config)?,
            blocks,
            output_norm: executor.load_norm(NormWeights::load(gguf, layer::OUTPUT_NORM, config)?)?,
            output: executor.load_linear(gguf, output, config.vocabulary_size, config.embedding_length)?,
            rope: Rope::load(gguf, config)?,
            config: config.clone(),
            executor,
        })
    }
}

impl<E: Executor, B: Block<E>> Model for Decoder<E, B> {
    fn new_cache(&self, max_len: usize, dtype: KvDtype) -> Result<KvCache> {
        self.executor.new_cache(&self.config, max_len, dtype)
    }

    fn forward(
        &self,
        tokens: &[u32],
        cache: &mut KvCache,
        logits: Logits,
        compute: &Compute,
        cancel: &CancelToken,
    ) -> Result<Vec<f32>> {
        let executor = &self.executor;
        let positions = cache.new_positions(tokens.len())?;
        let rope = self.rope.table(cache.rope_factors(), positions.past, positions.seq);
        let rows = trace_span!("embedding").in_scope(|| self.embedding.rows(tokens))?; // (seq, embedding)
        let start = Start { config: &self.config, cache, positions, rope, compute, cancel };
        let mut pass = executor.begin(start)?;
        let mut x = executor.hidden(&mut pass, rows)?;
        for (layer, block) in self.blocks.iter().enumerate() {
            cancel.check()?;
            x = trace_span!("layer", layer).in_scope(|| block.forward(executor, x, &mut pass, layer))?;
            cancel.count_layer(tokens.len());
        }
        let mut output = |x: &E::Hidden| {
            let _span = trace_span!("output").entered();
            let x = executor.norm(&mut pass, x, &self.output_norm)?;
            executor.linear(&mut pass, &x, &self.output).and_then(|logits| executor.values(logits))
        };
        let vocabulary = self.config.vocabulary_size;
        let (logits, rows) = match logits {
            Logits::None => (Vec::new(), 0),
            Logits::Last => (output(&executor.last(&x)?)?, 1),
            Logits::All => {
                let mut rows = output(&x)?; // (seq, vocabulary)
                let last = output(&executor.last(&x)?)?;
                rows.truncate((positions.seq - 1) * vocabulary);
                rows.extend_from_slice(&last);
                (rows, positions.seq)
            }
        };
        if logits.len() != rows * vocabulary {
            let values = logits.len();
            return Err(Error::internal(format_args!(
                "{values} logits for {rows} positions of {vocabulary} tokens"
            )));
        }
        cancel.check()?;
        executor.end(pass);
        Ok(logits)
    }
}
