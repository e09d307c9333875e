//! What the architectures have in common: an embedding, a stack of blocks, a norm and an output layer.

use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::attention::Visibility;
use super::embedding::{Embedding, TOKEN_EMBEDDING};
use super::linear::Linear;
use super::norm::Norm;
use super::rope::{Rope, Rotation};
use super::{Logits, Model};
use crate::cache::KvCache;
use crate::config::PhiConfig;
use crate::gguf::Gguf;
use crate::{CancelToken, Result};

/// A block of an architecture.
pub(super) trait Block: Send + Sync + Sized {
    /// Whether the output layer always has a bias.
    const OUTPUT_HAS_BIAS: bool;

    /// Reads the tensors `blk.{index}.*`.
    fn load(source: &Source<'_>, index: usize) -> Result<Self>;

    /// `(1, seq, embedding)` to the same
    fn forward(&self, x: &Tensor, pass: &mut Pass<'_>, layer: usize) -> Result<Tensor>;
}

/// Where a block's weights come from.
pub(super) struct Source<'a> {
    pub(super) gguf: &'a Gguf,
    pub(super) config: &'a PhiConfig,
    pub(super) device: &'a Device,
    pub(super) cancel: &'a CancelToken,
}

impl Source<'_> {
    /// Whether block `index` has the weight `name`.
    pub(super) fn has(&self, index: usize, name: &str) -> bool {
        self.gguf.tensor(&format!("blk.{index}.{name}.weight")).is_some()
    }

    /// A block's linear layer, with a bias where the file has one.
    pub(super) fn linear(&self, index: usize, name: &str, out: usize, r#in: usize) -> Result<Linear> {
        self.cancel.check()?;
        Linear::load(self.gguf, &format!("blk.{index}.{name}"), out, r#in, self.device)
    }

    /// A block's linear layer that always has a bias.
    pub(super) fn linear_with_bias(&self, index: usize, name: &str, out: usize, r#in: usize) -> Result<Linear> {
        self.cancel.check()?;
        Linear::load_with_bias(self.gguf, &format!("blk.{index}.{name}"), out, r#in, self.device)
    }

    /// A block's norm.
    pub(super) fn norm(&self, index: usize, name: &str) -> Result<Norm> {
        Norm::load(self.gguf, &format!("blk.{index}.{name}"), self.config, self.device)
    }
}

/// What the blocks share during one forward pass.
pub(super) struct Pass<'a> {
    pub(super) config: &'a PhiConfig,
    pub(super) cache: &'a mut KvCache,
    pub(super) rotation: Rotation,
    pub(super) visibility: Visibility,
}

/// Weights of a model whose blocks are `B`.
pub(super) struct Decoder<B> {
    embedding: Embedding,
    blocks: Vec<B>,
    output_norm: Norm,
    output: Linear, // (vocabulary, embedding)
    rope: Rope,
    config: PhiConfig,
    device: Device,
}

impl<B: Block> Decoder<B> {
    pub(super) fn load(
        gguf: &Arc<Gguf>,
        config: &PhiConfig,
        device: &Device,
        cancel: &CancelToken,
    ) -> Result<Self> {
        let source = Source { gguf, config, device, cancel };
        let mut blocks = Vec::new();
        for index in 0..config.block_count {
            blocks.push(B::load(&source, index)?);
        }
        // Where a file has no output layer, the embedding is the output layer too.
        let output = if gguf.tensor("output.weight").is_some() { "output" } else { TOKEN_EMBEDDING };
        let load_output = if B::OUTPUT_HAS_BIAS { Linear::load_with_bias } else { Linear::load };
        Ok(Self {
            embedding: Embedding::load(gguf, config, device)?,
            blocks,
            output_norm: Norm::load(gguf, "output_norm", config, device)?,
            output: load_output(gguf, output, config.vocabulary_size, config.embedding_length, device)?,
            rope: Rope::load(gguf, config, device)?,
            config: config.clone(),
            device: device.clone(),
        })
    }
}

impl<B: Block> Model for Decoder<B> {
    fn forward(
        &self,
        tokens: &[u32],
        cache: &mut KvCache,
        logits: Logits,
        cancel: &CancelToken,
    ) -> Result<Option<Tensor>> {
        let (past, seq) = (cache.len(), tokens.len());
        let mut pass = Pass {
            config: &self.config,
            rotation: self.rope.rotation(cache.rope_factors(), past, seq)?,
            visibility: Visibility::causal(past, seq, self.config.sliding_window, &self.device)?,
            cache,
        };
        let mut x = self.embedding.forward(tokens)?; // (1, seq, embedding)
        for (layer, block) in self.blocks.iter().enumerate() {
            cancel.check()?;
            x = block.forward(&x, &mut pass, layer)?;
        }
        pass.cache.advance(seq);
        let x = match logits {
            Logits::None => return Ok(None),
            Logits::Last => x.narrow(1, seq - 1, 1)?,
            Logits::All => x,
        };
        Ok(Some(self.output.forward(&self.output_norm.forward(&x)?)?.squeeze(0)?))
    }
}
