//! The `phi3` architecture: Phi-3, Phi-3.5, Phi-4 and Phi-4-mini.
//!
//! Blocks of attention and a SwiGLU feed-forward layer on a residual stream, each behind an RMS norm; no
//! biases. Hugging Face's `modeling_phi3.py` is the reference for the arithmetic, llama.cpp's GGUF for the
//! layout of the tensors.

use std::sync::Arc;

use candle_core::{D, Device, Tensor};

use super::attention::{Visibility, attend};
use super::embedding::{Embedding, TOKEN_EMBEDDING};
use super::linear::Linear;
use super::norm::RmsNorm;
use super::rope::{Rope, Rotation};
use super::{Logits, Model};
use crate::cache::KvCache;
use crate::config::PhiConfig;
use crate::gguf::Gguf;
use crate::{CancelToken, Error, Result};

/// Weights of a model of the `phi3` architecture.
pub(super) struct Phi3 {
    embedding: Embedding,
    blocks: Vec<Block>,
    output_norm: RmsNorm,
    output: Linear, // (vocabulary, embedding)
    rope: Rope,
    config: PhiConfig,
    device: Device,
}

struct Block {
    attn_norm: RmsNorm,
    attn_qkv: QueryKeyValue,
    attn_output: Linear, // (embedding, head_count * head_dim)
    ffn_norm: RmsNorm,
    ffn_up: Linear,   // (2 * feed_forward, embedding): the gate's rows, then the up projection's
    ffn_down: Linear, // (embedding, feed_forward)
}

/// The projections to queries, keys and values: one tensor in most files, three in some.
enum QueryKeyValue {
    Fused(Linear), // ((head_count + 2 * head_count_kv) * head_dim, embedding)
    Split { q: Linear, k: Linear, v: Linear },
}

impl Phi3 {
    pub(super) fn load(
        gguf: &Arc<Gguf>,
        config: &PhiConfig,
        device: &Device,
        cancel: &CancelToken,
    ) -> Result<Self> {
        check_rope_factors(gguf)?;
        let mut blocks = Vec::new();
        for index in 0..config.block_count {
            blocks.push(Block::load(gguf, config, index, device, cancel)?);
        }
        let output_name = ["output.weight", TOKEN_EMBEDDING].into_iter().find(|name| gguf.tensor(name).is_some());
        let output = output_name.unwrap_or(TOKEN_EMBEDDING);
        let (vocabulary, embedding) = (config.vocabulary_size, config.embedding_length);
        Ok(Self {
            embedding: Embedding::load(gguf, config, device)?,
            blocks,
            output_norm: RmsNorm::load(gguf, "output_norm.weight", embedding, config.rms_norm_epsilon, device)?,
            output: Linear::load(gguf, output, vocabulary, embedding, device)?,
            rope: Rope::load(gguf, config, device)?,
            config: config.clone(),
            device: device.clone(),
        })
    }
}

/// A file with one set of LongRoPE factors is damaged, whatever is done with them.
fn check_rope_factors(gguf: &Gguf) -> Result<()> {
    let short = gguf.tensor("rope_factors_short.weight").is_some();
    let long = gguf.tensor("rope_factors_long.weight").is_some();
    if short == long {
        return Ok(());
    }
    let (found, missing) = if short { ("short", "long") } else { ("long", "short") };
    Err(Error::invalid_model(format!(
        "{}: tensor rope_factors_{found}.weight is there, but rope_factors_{missing}.weight is missing",
        gguf.path().display()
    )))
}

impl Block {
    fn load(gguf: &Gguf, config: &PhiConfig, index: usize, device: &Device, cancel: &CancelToken) -> Result<Self> {
        let width = config.embedding_length;
        let heads = config.head_count * config.head_dim;
        let linear = |name: &str, out: usize, r#in: usize| {
            cancel.check()?;
            Linear::load(gguf, &format!("blk.{index}.{name}.weight"), out, r#in, device)
        };
        let norm = |name: &str| {
            RmsNorm::load(gguf, &format!("blk.{index}.{name}.weight"), width, config.rms_norm_epsilon, device)
        };
        let heads_kv = config.head_count_kv * config.head_dim;
        let attn_qkv = if gguf.tensor(&format!("blk.{index}.attn_q.weight")).is_some() {
            QueryKeyValue::Split {
                q: linear("attn_q", heads, width)?,
                k: linear("attn_k", heads_kv, width)?,
                v: linear("attn_v", heads_kv, width)?,
            }
        } else {
            QueryKeyValue::Fused(linear("attn_qkv", heads + 2 * heads_kv, width)?)
        };
        Ok(Self {
            attn_norm: norm("attn_norm")?,
            attn_qkv,
            attn_output: linear("attn_output", width, heads)?,
            ffn_norm: norm("ffn_norm")?,
            ffn_up: linear("ffn_up", 2 * config.feed_forward_length, width)?,
            ffn_down: linear("ffn_down", width, config.feed_forward_length)?,
        })
    }

    /// `(1, seq, embedding)` to the same
    fn forward(&self, x: &Tensor, pass: &mut Pass<'_>, layer: usize) -> Result<Tensor> {
        let attended = self.attention(&self.attn_norm.forward(x)?, pass, layer)?;
        let x = (x + attended)?;
        let gate_and_up = self.ffn_up.forward(&self.ffn_norm.forward(&x)?)?; // (1, seq, 2 * feed_forward)
        let hidden = candle_nn::ops::swiglu(&gate_and_up)?; // (1, seq, feed_forward)
        Ok((x + self.ffn_down.forward(&hidden)?)?)
    }

    fn attention(&self, x: &Tensor, pass: &mut Pass<'_>, layer: usize) -> Result<Tensor> {
        let config = pass.config;
        let (_, seq, _) = x.dims3()?;
        let (q, k, v) = self.attn_qkv.forward(x, config)?;
        let heads = |x: &Tensor, count: usize| x.reshape((1, seq, count, config.head_dim))?.transpose(1, 2);
        let q = pass.rotation.apply(&heads(&q, config.head_count)?)?; // (1, head_count, seq, head_dim)
        let k = pass.rotation.apply(&heads(&k, config.head_count_kv)?)?; // (1, head_count_kv, seq, head_dim)
        let v = heads(&v, config.head_count_kv)?; // (1, head_count_kv, seq, head_dim)
        let (k, v) = pass.cache.append(layer, &k, &v, pass.visibility.first)?;
        self.attn_output.forward(&attend(&q, &k, &v, &pass.visibility, config)?)
    }
}

impl QueryKeyValue {
    /// Queries `(1, seq, head_count * head_dim)`, keys and values `(1, seq, head_count_kv * head_dim)`
    fn forward(&self, x: &Tensor, config: &PhiConfig) -> Result<(Tensor, Tensor, Tensor)> {
        match self {
            Self::Split { q, k, v } => Ok((q.forward(x)?, k.forward(x)?, v.forward(x)?)),
            Self::Fused(qkv) => {
                let qkv = qkv.forward(x)?;
                let heads = config.head_count * config.head_dim;
                let heads_kv = config.head_count_kv * config.head_dim;
                Ok((
                    qkv.narrow(D::Minus1, 0, heads)?,
                    qkv.narrow(D::Minus1, heads, heads_kv)?,
                    qkv.narrow(D::Minus1, heads + heads_kv, heads_kv)?,
                ))
            }
        }
    }
}

/// What the blocks share during one forward pass.
struct Pass<'a> {
    config: &'a PhiConfig,
    cache: &'a mut KvCache,
    rotation: Rotation,
    visibility: Visibility,
}

impl Model for Phi3 {
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
            cache,
            rotation: self.rope.rotation(past, seq)?,
            visibility: Visibility::causal(past, seq, self.config.sliding_window, &self.device)?,
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
