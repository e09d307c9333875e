//! The models: one file an architecture.

mod candle;
mod decoder;
mod embedding;
mod executor;
mod kernels;
mod phi2;
mod phi3;
mod rope;
mod self_attention;
mod weights;

use std::sync::Arc;

use crate::cache::KvCache;
use crate::config::{Architecture, PhiConfig};
use crate::device::OpenDevice;
use crate::gguf::Gguf;
use crate::machine::{Compute, ExecutorKind};
use crate::{CancelToken, Error, KvDtype, Result};

use self::candle::CandleExecutor;
use decoder::{Decoder, Source};
use executor::Executor;
use kernels::KernelExecutor;
use phi2::Phi2Block;
use phi3::Phi3Block;

/// Which positions of a forward pass get logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Logits {
    /// None: the pass only fills the cache.
    None,
    /// The last position.
    Last,
    /// Every position; the last gets those of [`Last`](Self::Last), bit by bit.
    All,
}

/// A model's weights and how to run tokens through them. Immutable; the state is in the cache.
pub(crate) trait Model: Send + Sync {
    /// An empty cache for at most `max_len` positions.
    fn new_cache(&self, max_len: usize, dtype: KvDtype) -> Result<KvCache>;

    /// Runs `tokens` behind the cached positions and adds them to the cache.
    ///
    /// Returns logits `(rows, vocabulary)`, row after row, or nothing for [`Logits::None`]. Stops inside or between
    /// layers once `cancel` is set, with the cache as it was.
    fn forward(
        &self,
        tokens: &[u32],
        cache: &mut KvCache,
        logits: Logits,
        compute: &Compute,
        cancel: &CancelToken,
    ) -> Result<Option<Vec<f32>>>;
}

/// Reads a model's weights, for `executor` on `device`.
pub(crate) fn load(
    gguf: &Arc<Gguf>,
    config: &PhiConfig,
    executor: ExecutorKind,
    device: &OpenDevice,
    cancel: &CancelToken,
) -> Result<Box<dyn Model>> {
    refuse_unknown_rope(gguf)?;
    check_block_count(gguf, config)?;
    refuse_unused(gguf, config)?;
    let source = Source { gguf, config, cancel };
    match executor {
        ExecutorKind::Kernels => load_on(KernelExecutor::new(gguf), &source),
        ExecutorKind::Auto | ExecutorKind::Candle => load_on(CandleExecutor::new(device), &source),
    }
}

fn load_on<E: Executor + 'static>(executor: E, source: &Source<'_>) -> Result<Box<dyn Model>> {
    Ok(match source.config.architecture {
        Architecture::Phi3 => Box::new(Decoder::<E, Phi3Block<E>>::load(executor, source)?),
        Architecture::Phi2 => Box::new(Decoder::<E, Phi2Block<E>>::load(executor, source)?),
    })
}

/// Frequencies of another kind than the family's would be silently wrong.
fn refuse_unknown_rope(gguf: &Gguf) -> Result<()> {
    match gguf.tensor("rope_freqs.weight") {
        None => Ok(()),
        Some(info) => Err(Error::unsupported_model(format!(
            "{}: tensor {} scales the rotary frequencies in a way that no Phi model does; expected \
             rope_factors_short.weight and rope_factors_long.weight, or neither",
            gguf.path().display(),
            info.name
        ))),
    }
}

/// A block too many or too few in the metadata would leave some out in silence, or ask for one that is not there.
fn check_block_count(gguf: &Gguf, config: &PhiConfig) -> Result<()> {
    let block = |name: &str| name.strip_prefix("blk.")?.split('.').next()?.parse::<usize>().ok();
    let blocks = gguf.tensors().filter_map(|info| block(&info.name)?.checked_add(1)).max().unwrap_or(0);
    if blocks == config.block_count {
        return Ok(());
    }
    Err(Error::invalid_model(format!(
        "{}: metadata key block_count: expected {blocks}, the number of blocks (blk.0 and on) that there are tensors \
         of, found {}",
        gguf.path().display(),
        config.block_count
    )))
}

/// A tensor that nothing computes with belongs to a model of another make, and leaving it out would be wrong in silence.
fn refuse_unused(gguf: &Gguf, config: &PhiConfig) -> Result<()> {
    let is_used = |name: &str| match name.rsplit_once('.') {
        Some((layer, part @ ("weight" | "bias"))) => {
            let layer = match layer.strip_prefix("blk.") {
                Some(rest) => rest.split_once('.').map_or("", |(_, layer)| layer),
                None => layer,
            };
            match layer {
                "token_embd" | "rope_factors_short" | "rope_factors_long" => part == "weight",
                "attn_norm" | "ffn_norm" | "output_norm" => {
                    part == "weight" || config.architecture == Architecture::Phi2
                }
                "output" | "attn_q" | "attn_k" | "attn_v" | "attn_qkv" | "attn_output" | "ffn_gate" | "ffn_up"
                | "ffn_down" => true,
                _ => false,
            }
        }
        _ => false,
    };
    match gguf.tensors().find(|info| !is_used(&info.name)) {
        None => Ok(()),
        Some(info) => Err(Error::unsupported_model(format!(
            "{}: tensor {} is one that no Phi model has; expected the tensors of phi3 or phi2 and no others",
            gguf.path().display(),
            info.name
        ))),
    }
}
