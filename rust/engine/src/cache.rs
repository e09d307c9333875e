//! The key-value cache of a session.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use candle_core::{DType, Device, Tensor};

use crate::config::PhiConfig;
use crate::model::FactorSet;
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
/// Memory is taken for the positions that there are, in steps, and never for the whole context at once; with a
/// sliding window what no later position sees is dropped. A forward pass appends to each layer and then calls
/// [`advance`](Self::advance): one that stops half-way has appended nothing.
pub(crate) struct KvCache {
    layers: Vec<Option<LayerCache>>,
    len: usize,
    max_len: usize,
    dtype: KvDtype,
    /// How many positions a position sees, itself included.
    window: Option<usize>,
    /// What the keys were turned with.
    rope_factors: FactorSet,
}

struct LayerCache {
    keys: Tensor,   // (1, head_count_kv, capacity, head_dim)
    values: Tensor, // (1, head_count_kv, capacity, head_dim)
    /// The position that is first in the tensors: those before it were dropped.
    start: usize,
}

impl KvCache {
    /// An empty cache for at most `max_len` positions.
    pub(crate) fn new(config: &PhiConfig, max_len: usize, dtype: KvDtype) -> Self {
        Self {
            layers: (0..config.block_count).map(|_| None).collect(),
            len: 0,
            max_len,
            dtype,
            window: config.sliding_window,
            rope_factors: FactorSet::default(),
        }
    }

    /// Positions that are cached, the dropped ones included.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// What the cached keys were turned with, and the next ones will be.
    pub(crate) fn rope_factors(&self) -> FactorSet {
        self.rope_factors
    }

    /// Whether a position `len` would find everything that it sees.
    pub(crate) fn can_truncate(&self, len: usize) -> bool {
        let oldest = self.layers.iter().flatten().map(|layer| layer.start).max().unwrap_or(0);
        len >= oldest && self.first_seen_from(len) >= oldest
    }

    /// Forgets all positions from `len` on; see [`can_truncate`](Self::can_truncate).
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Forgets all positions, so that the next ones can be turned with `factors`.
    pub(crate) fn restart(&mut self, factors: FactorSet) {
        self.len = 0;
        self.rope_factors = factors;
        for layer in self.layers.iter_mut().flatten() {
            layer.start = 0;
        }
    }

    /// Forgets everything and gives its memory back.
    pub(crate) fn clear(&mut self) {
        self.len = 0;
        self.layers.fill_with(|| None);
    }

    /// Bytes of memory that keys and values take.
    #[cfg(test)]
    fn size_bytes(&self) -> usize {
        let tensors = self.layers.iter().flatten().flat_map(|layer| [&layer.keys, &layer.values]);
        tensors.map(|tensor| tensor.elem_count() * self.dtype.size_bytes()).sum()
    }

    fn first_seen_from(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
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
        let kept_from = self.first_seen_from(self.len);
        let Some(slot) = self.layers.get_mut(layer) else {
            return Err(Error::inference(format!("the cache has no layer {layer}")));
        };
        let keys = keys.to_dtype(self.dtype.dtype())?.contiguous()?;
        let values = values.to_dtype(self.dtype.dtype())?.contiguous()?;
        // Replaced only once the new one is whole: a device that is out of memory must not lose what was cached.
        let cached = match &*slot {
            Some(cached) if cached.start + cached.capacity()? >= end => cached,
            outgrown => {
                let old_start = outgrown.as_ref().map_or(0, |cached| cached.start);
                let start = kept_from.max(old_start);
                let kept = self.len - start;
                // Half as much again, so that moving costs little; a window bounds what is worth keeping ahead.
                let ahead = seq.max((kept / 2).min(self.window.map_or(usize::MAX, |_| GROWTH_TOKENS)));
                let capacity = (kept + ahead).next_multiple_of(GROWTH_TOKENS).min(self.max_len - start);
                let moved = LayerCache::moved(outgrown.as_ref(), &keys, start..self.len, capacity)?;
                &*slot.insert(moved)
            }
        };
        cached.keys.slice_set(&keys, SEQ_DIM, self.len - cached.start)?;
        cached.values.slice_set(&values, SEQ_DIM, self.len - cached.start)?;
        let visible =
            |tensor: &Tensor| tensor.narrow(SEQ_DIM, first - cached.start, end - first)?.to_dtype(DType::F32);
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

    /// A cache of `capacity` positions like `sample`, with the positions `kept` of the one it replaces.
    fn moved(outgrown: Option<&Self>, sample: &Tensor, kept: Range<usize>, capacity: usize) -> Result<Self> {
        let (batch, head_count_kv, _, head_dim) = sample.dims4()?;
        let (dtype, device): (DType, &Device) = (sample.dtype(), sample.device());
        let moved = |old: Option<&Tensor>, old_start: usize| -> Result<Tensor> {
            let new = Tensor::zeros((batch, head_count_kv, capacity, head_dim), dtype, device)?;
            if let Some(old) = old.filter(|_| !kept.is_empty()) {
                let old = old.narrow(SEQ_DIM, kept.start - old_start, kept.len())?.contiguous()?;
                new.slice_set(&old, SEQ_DIM, 0)?;
            }
            Ok(new)
        };
        let old_start = outgrown.map_or(0, |old| old.start);
        let (keys, values) = outgrown.map(|old| (&old.keys, &old.values)).unzip();
        Ok(Self { keys: moved(keys, old_start)?, values: moved(values, old_start)?, start: kept.start })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::config::Architecture;

    fn config() -> PhiConfig {
        PhiConfig {
            architecture: Architecture::Phi3,
            context_length: 1000,
            embedding_length: 8,
            feed_forward_length: 8,
            block_count: 1,
            head_count: 2,
            head_count_kv: 2,
            head_dim: 4,
            norm_epsilon: 1e-5,
            rope_dimension_count: 4,
            rope_freq_base: 10_000.0,
            interleaved_rope: false,
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

    #[test]
    fn with_a_window_memory_stays_bounded_and_what_is_seen_stays() {
        let config = PhiConfig { sliding_window: Some(100), ..config() };
        let mut cache = KvCache::new(&config, 100_000, KvDtype::F32);
        let mut all = Vec::new();
        for step in 0..60 {
            let new = random(if step % 7 == 0 { 90 } else { 17 });
            let seq = new.dim(SEQ_DIM).unwrap();
            let first = (cache.len() + 1).saturating_sub(100);
            all.push(new.clone());
            let (keys, _) = cache.append(0, &new, &new, first).unwrap();
            cache.advance(seq);
            let expected =
                Tensor::cat(&all, SEQ_DIM).unwrap().narrow(SEQ_DIM, first, cache.len() - first).unwrap();
            assert_eq!(values(&keys), values(&expected));
        }
        // Two tensors of 2 heads of 4 dimensions.
        assert!(cache.size_bytes() <= 2 * 2 * 4 * 4 * (100 + 90 + 2 * GROWTH_TOKENS), "{}", cache.size_bytes());
        assert!(cache.can_truncate(cache.len()));
        assert!(!cache.can_truncate(100));
        cache.restart(FactorSet::Long);
        assert!(cache.can_truncate(0));
        let (new, _) = cache.append(0, &all[0], &all[0], 0).unwrap();
        assert_eq!(values(&new), values(&all[0]));
    }
}
