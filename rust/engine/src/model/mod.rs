//! The models: one file an architecture, and the one match on `general.architecture`.

mod attention;
mod embedding;
mod linear;
mod norm;
mod phi3;
mod rope;

use std::sync::Arc;

use candle_core::{Device, Tensor};

use crate::cache::KvCache;
use crate::config::PhiConfig;
use crate::gguf::Gguf;
use crate::{CancelToken, Error, Result};

/// The architectures that run, by their name in `general.architecture`.
const SUPPORTED: &str = "phi3";

/// Which positions of a forward pass get logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Logits {
    /// None: the pass only fills the cache.
    None,
    /// The last position.
    Last,
    /// Every position.
    All,
}

/// A model's weights and how to run tokens through them. Immutable; the state is in the cache.
pub(crate) trait Model: Send + Sync {
    /// Runs `tokens` behind the cached positions and adds them to the cache.
    ///
    /// Returns logits `(rows, vocabulary)` in f32, or nothing for [`Logits::None`]. Stops between layers once
    /// `cancel` is set, with the cache as it was.
    fn forward(
        &self,
        tokens: &[u32],
        cache: &mut KvCache,
        logits: Logits,
        cancel: &CancelToken,
    ) -> Result<Option<Tensor>>;
}

/// The file's architecture if it runs, or an error that says what the file is.
pub(crate) fn supported_architecture(gguf: &Gguf) -> Result<&str> {
    let path = gguf.path().display();
    match gguf.required_str("general.architecture")? {
        "phi3" => Ok("phi3"),
        "phimoe" => Err(Error::unsupported_model(format!(
            "{path}: Phi-3.5-MoE (architecture phimoe) is not supported: its experts, norms and router are another \
             model; supported is {SUPPORTED}"
        ))),
        "phi2" => Err(Error::unsupported_model(format!(
            "{path}: phi-2 and phi-1.5 (architecture phi2) are not supported yet; supported is {SUPPORTED}"
        ))),
        other => Err(Error::unsupported_model(format!(
            "{path} has architecture {other:?}; supported is {SUPPORTED} (Phi-3, Phi-3.5 and Phi-4 GGUF files)"
        ))),
    }
}

/// Reads a model's weights onto `device`.
pub(crate) fn load(
    gguf: &Arc<Gguf>,
    config: &PhiConfig,
    device: &Device,
    cancel: &CancelToken,
) -> Result<Box<dyn Model>> {
    supported_architecture(gguf)?;
    Ok(Box::new(phi3::Phi3::load(gguf, config, device, cancel)?))
}
