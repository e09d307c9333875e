//! Keys and values in tensors on a device: the cache of Candle's executor.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};

use super::NewPositions;
use crate::config::PhiConfig;
use crate::{Error, KvDtype, Result};

/// The cache grows by at least this many positions at a time.
const GROWTH_TOKENS: usize = 256;
/// Dimension of the cached tensors that counts positions.
const SEQ_DIM: usize = 2;

/// A tensor of keys and one of values for each layer.
pub(crate) struct TensorCache {
    layers: Vec<Option<LayerCache>>,
    dtype: DType,
    max_len: usize,
    has_window: bool,
}

struct LayerCache {
    keys: Tensor,   // (1, head_count_kv, capacity, head_dim)
    values: Tensor, // (1, head_count_kv, capacity, head_dim)
    /// The position that is first in the tensors: those before it were dropped.
    start: usize,
}

impl TensorCache {
    /// An empty cache for at most `max_len` positions.
    pub(crate) fn new(config: &PhiConfig, max_len: usize, dtype: KvDtype) -> Result<Self> {
        let dtype = dtype.candle()?;
        let layers = (0..config.block_count).map(|_| None).collect();
        Ok(Self { layers, dtype, max_len, has_window: config.sliding_window.is_some() })
    }

    pub(super) fn oldest(&self) -> usize {
        self.layers.iter().flatten().map(|layer| layer.start).max().unwrap_or(0)
    }

    pub(super) fn restart(&mut self) {
        for layer in self.layers.iter_mut().flatten() {
            layer.start = 0;
        }
    }

    pub(super) fn clear(&mut self) {
        self.layers.fill_with(|| None);
    }

    pub(super) fn copy(&self) -> Result<Self> {
        let layers = self.layers.iter().map(|layer| layer.as_ref().map(LayerCache::copy).transpose());
        Ok(Self { layers: layers.collect::<Result<_>>()?, ..*self })
    }

    pub(super) fn size_bytes(&self) -> usize {
        let tensors = self.layers.iter().flatten().flat_map(|layer| [&layer.keys, &layer.values]);
        tensors.map(|tensor| tensor.elem_count() * self.dtype.size_in_bytes()).sum()
    }

    /// Writes the keys and values of new positions behind the cached ones of a layer and returns all of
    /// them from the first that is seen on, as f32.
    pub(crate) fn append(
        &mut self,
        layer: usize,
        keys: &Tensor,   // (1, head_count_kv, seq, head_dim)
        values: &Tensor, // (1, head_count_kv, seq, head_dim)
        positions: NewPositions,
    ) -> Result<(Tensor, Tensor)> {
        let NewPositions { past, seq, first_seen } = positions;
        let end = past + seq;
        let Some(slot) = self.layers.get_mut(layer) else {
            return Err(Error::inference(format!("the cache has no layer {layer}")));
        };
        let keys = keys.to_dtype(self.dtype)?.contiguous()?;
        let values = values.to_dtype(self.dtype)?.contiguous()?;
        // Replaced only once the new one is whole: a device that is out of memory must not lose what was cached.
        let cached = match &*slot {
            Some(cached) if cached.start + cached.capacity()? >= end => cached,
            outgrown => {
                let old_start = outgrown.as_ref().map_or(0, |cached| cached.start);
                let start = first_seen.max(old_start);
                let kept = past - start;
                // Half as much again, so that moving costs little; a window bounds what is worth keeping ahead.
                let most_ahead = if self.has_window { GROWTH_TOKENS } else { usize::MAX };
                let ahead = seq.max((kept / 2).min(most_ahead));
                let capacity = (kept + ahead).next_multiple_of(GROWTH_TOKENS).min(self.max_len - start);
                let moved = LayerCache::moved(outgrown.as_ref(), &keys, start..past, capacity)?;
                &*slot.insert(moved)
            }
        };
        cached.keys.slice_set(&keys, SEQ_DIM, past - cached.start)?;
        cached.values.slice_set(&values, SEQ_DIM, past - cached.start)?;
        let visible = |tensor: &Tensor| {
            tensor.narrow(SEQ_DIM, first_seen - cached.start, end - first_seen)?.to_dtype(DType::F32)
        };
        Ok((visible(&cached.keys)?, visible(&cached.values)?))
    }
}

impl LayerCache {
    fn copy(&self) -> Result<Self> {
        Ok(Self { keys: self.keys.copy()?, values: self.values.copy()?, start: self.start })
    }

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
