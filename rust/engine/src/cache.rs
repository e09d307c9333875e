//! The key-value cache of a session.

use std::fmt;
use std::str::FromStr;

use candle_core::{DType, Device, Tensor};

use crate::config::PhiConfig;
use crate::{Error, Result};

/// The cache grows by at least this many positions at a time.
const GROWTH_TOKENS: usize = 256;
/// Dimension of the cached tensors that counts positions.
const SEQ_DIM: usize = 2;

/// The type that keys and values are kept in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvDtype {
    /// Half precision: half the memory, and the default.
    #[default]
    F16,
    /// Single precision: exact.
    F32,
}

impl KvDtype {
    /// Bytes of one value.
    #[must_use]
    pub const fn size_bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
        }
    }

    const fn dtype(self) -> DType {
        match self {
            Self::F16 => DType::F16,
            Self::F32 => DType::F32,
        }
    }
}

impl FromStr for KvDtype {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "f16" => Ok(Self::F16),
            "f32" => Ok(Self::F32),
            _ => Err(Error::invalid_option(format!("kv_dtype: expected \"f16\" or \"f32\", found {text:?}"))),
        }
    }
}

impl fmt::Display for KvDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F16 => "f16",
            Self::F32 => "f32",
        })
    }
}

/// Keys and values of the positions that were computed, by layer.
///
/// Memory is taken for the positions that there are, in steps, and never for the whole context at once.
/// A forward pass appends to each layer and then calls [`advance`](Self::advance): one that stops half-way
/// has appended nothing.
pub(crate) struct KvCache {
    layers: Vec<Option<LayerCache>>,
    len: usize,
    max_len: usize,
    dtype: KvDtype,
}

struct LayerCache {
    keys: Tensor,   // (1, head_count_kv, capacity, head_dim)
    values: Tensor, // (1, head_count_kv, capacity, head_dim)
}

impl KvCache {
    /// An empty cache for at most `max_len` positions.
    pub(crate) fn new(config: &PhiConfig, max_len: usize, dtype: KvDtype) -> Self {
        Self { layers: (0..config.block_count).map(|_| None).collect(), len: 0, max_len, dtype }
    }

    /// Positions that are cached.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Forgets all positions from `len` on.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Forgets everything and gives its memory back.
    pub(crate) fn clear(&mut self) {
        self.len = 0;
        self.layers.fill_with(|| None);
    }

    /// Writes the keys and values of new positions behind the cached ones of a layer and returns all of
    /// them from position `first` on, as f32.
    pub(crate) fn append(
        &mut self,
        layer: usize,
        keys: &Tensor,   // (1, head_count_kv, seq, head_dim)
        values: &Tensor, // (1, head_count_kv, seq, head_dim)
        first: usize,
    ) -> Result<(Tensor, Tensor)> {
        let (_, _, seq, _) = keys.dims4()?;
        let end = self.len + seq;
        if end > self.max_len {
            return Err(Error::context_length(
                end,
                self.max_len,
                format!("{end} positions do not fit into a context of {}", self.max_len),
            ));
        }
        let Some(slot) = self.layers.get_mut(layer) else {
            return Err(Error::inference(format!("the cache has no layer {layer}")));
        };
        let keys = keys.to_dtype(self.dtype.dtype())?.contiguous()?;
        let values = values.to_dtype(self.dtype.dtype())?.contiguous()?;
        // Replaced only once the larger one is whole: a device that is out of memory must not lose what was cached.
        let cached = match &*slot {
            Some(cached) if cached.capacity()? >= end => cached,
            outgrown => {
                let capacity = (self.len + seq.max(self.len / 2)).next_multiple_of(GROWTH_TOKENS);
                let grown = LayerCache::grow(outgrown.as_ref(), &keys, self.len, capacity.min(self.max_len))?;
                &*slot.insert(grown)
            }
        };
        cached.keys.slice_set(&keys, SEQ_DIM, self.len)?;
        cached.values.slice_set(&values, SEQ_DIM, self.len)?;
        let visible = |tensor: &Tensor| tensor.narrow(SEQ_DIM, first, end - first)?.to_dtype(DType::F32);
        Ok((visible(&cached.keys)?, visible(&cached.values)?))
    }

    /// Makes the positions that every layer appended part of the cache.
    pub(crate) fn advance(&mut self, tokens: usize) {
        self.len += tokens;
    }
}

impl LayerCache {
    fn capacity(&self) -> Result<usize> {
        Ok(self.keys.dim(SEQ_DIM)?)
    }

    /// A cache of `capacity` positions like `sample`, with the first `len` positions of the one it replaces.
    fn grow(outgrown: Option<&Self>, sample: &Tensor, len: usize, capacity: usize) -> Result<Self> {
        let (batch, head_count_kv, _, head_dim) = sample.dims4()?;
        let (dtype, device): (DType, &Device) = (sample.dtype(), sample.device());
        let moved = |old: Option<&Tensor>| -> Result<Tensor> {
            let new = Tensor::zeros((batch, head_count_kv, capacity, head_dim), dtype, device)?;
            if let Some(old) = old.filter(|_| len > 0) {
                new.slice_set(&old.narrow(SEQ_DIM, 0, len)?.contiguous()?, SEQ_DIM, 0)?;
            }
            Ok(new)
        };
        let (keys, values) = outgrown.map(|old| (&old.keys, &old.values)).unzip();
        Ok(Self { keys: moved(keys)?, values: moved(values)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn config() -> PhiConfig {
        PhiConfig {
            context_length: 1000,
            embedding_length: 8,
            feed_forward_length: 8,
            block_count: 1,
            head_count: 2,
            head_count_kv: 2,
            head_dim: 4,
            rms_norm_epsilon: 1e-5,
            rope_dimension_count: 4,
            rope_freq_base: 10_000.0,
            original_context_length: 1000,
            has_rope_factors: false,
            rope_attention_factor: 1.0,
            sliding_window: None,
            vocabulary_size: 16,
        }
    }

    fn random(seq: usize) -> Tensor {
        Tensor::randn(0f32, 1.0, (1, 2, seq, 4), &Device::Cpu).unwrap()
    }

    fn values(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn what_was_appended_comes_back_across_growth_and_truncation() {
        let mut cache = KvCache::new(&config(), 1000, KvDtype::F32);
        let (a, b, c) = (random(200), random(300), random(1));
        cache.append(0, &a, &a, 0).unwrap();
        cache.advance(200);
        cache.append(0, &b, &b, 0).unwrap();
        cache.advance(300);
        cache.truncate(200);
        let (keys, _) = cache.append(0, &c, &c, 0).unwrap();
        assert_eq!(values(&keys), values(&Tensor::cat(&[&a, &c], SEQ_DIM).unwrap()));
        let (keys, _) = cache.append(0, &c, &c, 199).unwrap();
        assert_eq!(keys.dims(), [1, 2, 2, 4]);
    }

    #[test]
    fn an_append_without_advance_leaves_nothing() {
        let mut cache = KvCache::new(&config(), 1000, KvDtype::F32);
        cache.append(0, &random(5), &random(5), 0).unwrap();
        let kept = random(3);
        let (keys, _) = cache.append(0, &kept, &kept, 0).unwrap();
        assert_eq!(values(&keys), values(&kept));
    }

    #[test]
    fn memory_is_taken_in_steps_and_never_past_the_maximum() {
        let mut cache = KvCache::new(&config(), 300, KvDtype::F16);
        cache.append(0, &random(1), &random(1), 0).unwrap();
        cache.advance(1);
        assert_eq!(cache.layers[0].as_ref().unwrap().capacity().unwrap(), GROWTH_TOKENS);
        cache.append(0, &random(299), &random(299), 0).unwrap();
        cache.advance(299);
        assert_eq!(cache.layers[0].as_ref().unwrap().capacity().unwrap(), 300);
        let error = cache.append(0, &random(1), &random(1), 0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ContextLength { prompt_tokens: 301, context_length: 300 });
    }
}
