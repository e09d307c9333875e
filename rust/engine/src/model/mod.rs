//! The models: one module for the block of each architecture, and the one match that maps architectures to blocks.

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

use crate::architecture::{Architecture, layer, weight};
use crate::cache::KvCache;
use crate::config::PhiConfig;
use crate::device::OpenDevice;
use crate::gguf::{CONVERTED, Gguf};
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

    /// Runs `tokens` after the cached positions and adds them to the cache.
    ///
    /// Returns logits `(rows, vocabulary)`, row after row: no rows for [`Logits::None`]. Stops inside or between
    /// layers once `cancel` is set, with the cache as it was.
    fn forward(
        &self,
        tokens: &[u32],
        cache: &mut KvCache,
        logits: Logits,
        compute: &Compute,
        cancel: &CancelToken,
    ) -> Result<Vec<f32>>;
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

/// Frequencies of another kind than the family's would silently compute wrong results.
fn refuse_unknown_rope(gguf: &Gguf) -> Result<()> {
    match gguf.tensor(&weight(layer::OTHER_ROPE_FACTORS)) {
        None => Ok(()),
        Some(info) => Err(Error::unsupported_model(format!(
            "{}: tensor {} scales the rotary frequencies in an unsupported way; Phi models have {} and {}, or neither",
            gguf.path().display(),
            info.name,
            weight(layer::ROPE_FACTORS_SHORT),
            weight(layer::ROPE_FACTORS_LONG),
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
        "{}: metadata key block_count must be {blocks}, the number of blocks with tensors (blk.0 and so on), got {}; \
         {CONVERTED}",
        gguf.path().display(),
        config.block_count
    )))
}

/// A tensor that the architecture does not read belongs to a model of another make. Leaving it out would silently compute
/// wrong results.
fn refuse_unused(gguf: &Gguf, config: &PhiConfig) -> Result<()> {
    match gguf.tensors().find(|info| !config.architecture.reads_tensor(&info.name)) {
        None => Ok(()),
        Some(info) => Err(Error::unsupported_model(format!(
            "{}: tensor {} is not part of the architecture {}; use a file of a Phi model",
            gguf.path().display(),
            info.name,
            config.architecture.facts().name
        ))),
    }
}
