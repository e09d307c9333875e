//! A block's attention: projections, rotary embedding, cache.

use candle_core::{D, Tensor};

use super::attention::attend;
use super::decoder::{Pass, Source};
use super::linear::Linear;
use crate::Result;
use crate::config::PhiConfig;

/// The attention of a block, with its weights.
pub(super) struct SelfAttention {
    qkv: QueryKeyValue,
    output: Linear, // (embedding, head_count * head_dim)
}

/// The projections to queries, keys and values: one tensor in most files, three in some.
enum QueryKeyValue {
    Fused(Linear), // ((head_count + 2 * head_count_kv) * head_dim, embedding)
    Split { q: Linear, k: Linear, v: Linear },
}

/// How an architecture reads a linear layer: with a bias, or with one where the file has it.
type LoadLinear<'a> = fn(&Source<'a>, usize, &str, usize, usize) -> Result<Linear>;

impl SelfAttention {
    pub(super) fn load<'a>(source: &Source<'a>, index: usize, linear: LoadLinear<'a>) -> Result<Self> {
        let config = source.config;
        let width = config.embedding_length;
        let heads = config.head_count * config.head_dim;
        let heads_kv = config.head_count_kv * config.head_dim;
        let qkv = if source.has(index, "attn_q") {
            QueryKeyValue::Split {
                q: linear(source, index, "attn_q", heads, width)?,
                k: linear(source, index, "attn_k", heads_kv, width)?,
                v: linear(source, index, "attn_v", heads_kv, width)?,
            }
        } else {
            QueryKeyValue::Fused(linear(source, index, "attn_qkv", heads + 2 * heads_kv, width)?)
        };
        Ok(Self { qkv, output: linear(source, index, "attn_output", width, heads)? })
    }

    /// `(1, seq, embedding)` to the same
    pub(super) fn forward(&self, x: &Tensor, pass: &mut Pass<'_>, layer: usize) -> Result<Tensor> {
        let config = pass.config;
        let (_, seq, _) = x.dims3()?;
        let (q, k, v) = self.qkv.forward(x, config)?;
        let heads = |x: &Tensor, count: usize| x.reshape((1, seq, count, config.head_dim))?.transpose(1, 2);
        let q = pass.rotation.apply(&heads(&q, config.head_count)?)?; // (1, head_count, seq, head_dim)
        let k = pass.rotation.apply(&heads(&k, config.head_count_kv)?)?; // (1, head_count_kv, seq, head_dim)
        let v = heads(&v, config.head_count_kv)?; // (1, head_count_kv, seq, head_dim)
        let (k, v) = pass.cache.append(layer, &k, &v, pass.visibility.first)?;
        self.output.forward(&attend(&q, &k, &v, &pass.visibility, config)?)
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
