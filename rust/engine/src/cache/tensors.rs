//! Keys and values in tensors on a device: the cache of Candle's executor.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};
use half::f16;

use super::NewPositions;
use crate::config::PhiConfig;
use crate::device::OpenDevice;
use crate::{Error, KvDtype, Result};

/// The cache grows by at least this many positions at a time.
const GROWTH_TOKENS: usize = 256;
/// Dimension of the cached tensors that counts positions.
const SEQ_DIM: usize = 2;

/// A tensor of keys and one of values for each layer.
pub(crate) struct TensorCache {
    layers: Vec<Option<LayerCache>>,
    dtype: DType,
    device: OpenDevice,
    head_count_kv: usize,
    head_dim: usize,
    growth: Growth,
}

/// How large the tensors of a layer become.
#[derive(Clone, Copy)]
struct Growth {
    max_len: usize,
    has_window: bool,
}

impl Drop for TensorCache {
    fn drop(&mut self) {
        self.clear();
    }
}

struct LayerCache {
    keys: Tensor,   // (1, head_count_kv, capacity, head_dim)
    values: Tensor, // (1, head_count_kv, capacity, head_dim)
    /// The position that is first in the tensors: those before it were dropped.
    start: usize,
    capacity: usize,
}

impl Growth {
    /// Where the tensors of a layer begin that has no place for new positions, and how many they hold.
    fn of(self, outgrown: Option<&LayerCache>, positions: NewPositions) -> (usize, usize) {
        let NewPositions { past, seq, first_seen } = positions;
        let start = first_seen.max(outgrown.map_or(0, |outgrown| outgrown.start));
        let kept = past - start;
        // Half as much again, so that moving costs little; a window bounds what is worth keeping ahead.
        let most_ahead = if self.has_window { GROWTH_TOKENS } else { usize::MAX };
        let ahead = seq.max((kept / 2).min(most_ahead));
        (start, (kept + ahead).next_multiple_of(GROWTH_TOKENS).min(self.max_len - start))
    }
}

impl TensorCache {
    /// An empty cache for at most `max_len` positions.
    pub(crate) fn new(config: &PhiConfig, max_len: usize, dtype: KvDtype, device: &OpenDevice) -> Result<Self> {
        Ok(Self {
            layers: (0..config.block_count).map(|_| None).collect(),
            dtype: dtype.candle()?,
            device: device.clone(),
            head_count_kv: config.head_count_kv,
            head_dim: config.head_dim,
            growth: Growth { max_len, has_window: config.sliding_window.is_some() },
        })
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
        self.device.finish();
    }

    pub(super) fn copy(&self) -> Result<Self> {
        let _guard = self.device.lock();
        let layers = self.layers.iter().map(|layer| layer.as_ref().map(LayerCache::copy).transpose());
        let layers = layers.collect::<Result<_>>()?;
        Ok(Self { layers, device: self.device.clone(), ..*self })
    }

    pub(super) fn size_bytes(&self) -> usize {
        let tensors = self.layers.iter().flatten().flat_map(|layer| [&layer.keys, &layer.values]);
        tensors.map(|tensor| tensor.elem_count() * self.dtype.size_in_bytes()).sum()
    }

    /// Bytes of memory that new positions add at most: one layer after another moves to larger tensors.
    pub(super) fn growth_bytes(&self, positions: NewPositions) -> usize {
        let (mut added, mut largest_left) = (0, 0);
        for layer in &self.layers {
            let capacity = layer.as_ref().map_or(0, |layer| layer.capacity);
            if layer.as_ref().is_none_or(|layer| !layer.has_place_for(positions)) {
                let (_, grown) = self.growth.of(layer.as_ref(), positions);
                added += self.layer_bytes(grown).saturating_sub(self.layer_bytes(capacity));
                largest_left = largest_left.max(self.layer_bytes(capacity));
            }
        }
        added + largest_left
    }

    /// Bytes that a layer's tensors of `capacity` positions take.
    fn layer_bytes(&self, capacity: usize) -> usize {
        2 * self.head_count_kv * self.head_dim * capacity * self.dtype.size_in_bytes()
    }

    /// Writes the keys and values of new positions behind the cached ones of a layer and returns all of
    /// them from the first that is seen on, in the cache's type.
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
            return Err(Error::internal(format_args!("the cache has no layer {layer}")));
        };
        let keys = keys.to_dtype(self.dtype)?.contiguous()?;
        let values = values.to_dtype(self.dtype)?.contiguous()?;
        // Replaced only once the new one is whole: a device that is out of memory must not lose what was cached.
        let cached = match &*slot {
            Some(cached) if cached.has_place_for(positions) => cached,
            outgrown => {
                let (start, capacity) = self.growth.of(outgrown.as_ref(), positions);
                let moved = LayerCache::moved(outgrown.as_ref(), &keys, start..past, capacity)?;
                &*slot.insert(moved)
            }
        };
        cached.keys.slice_set(&keys, SEQ_DIM, past - cached.start)?;
        cached.values.slice_set(&values, SEQ_DIM, past - cached.start)?;
        let visible = |tensor: &Tensor| tensor.narrow(SEQ_DIM, first_seen - cached.start, end - first_seen);
        Ok((visible(&cached.keys)?, visible(&cached.values)?))
    }
}

/// Keys and values as rows of bytes.
impl TensorCache {
    pub(super) fn rows_to_bytes(&self, layer: usize, run: Range<usize>, out: &mut Vec<u8>) -> Result<()> {
        let cached = self.layers.get(layer).and_then(Option::as_ref);
        let cached = cached.ok_or_else(|| Error::internal(format_args!("the cache has no layer {layer}")))?;
        let _guard = self.device.lock();
        for tensor in [&cached.keys, &cached.values] {
            // Laid side by side first: to another device Candle moves all of a tensor that it is a view of.
            let rows = tensor.narrow(SEQ_DIM, run.start - cached.start, run.len())?.contiguous()?;
            let rows = rows.to_device(&Device::Cpu)?.flatten_all()?; // (heads * positions * head_dim)
            match self.dtype {
                DType::F16 => out.extend(rows.to_vec1::<f16>()?.iter().flat_map(|value| value.to_le_bytes())),
                _ => out.extend(rows.to_vec1::<f32>()?.iter().flat_map(|value| value.to_le_bytes())),
            }
        }
        Ok(())
    }

    /// Takes in the rows of a run of the positions `all`, from `bytes` of just their length.
    pub(super) fn rows_from_bytes(
        &mut self,
        layer: usize,
        all: &Range<usize>,
        run: Range<usize>,
        bytes: &[u8],
    ) -> Result<()> {
        let (heads, head_dim, dtype) = (self.head_count_kv, self.head_dim, self.dtype);
        let _guard = self.device.lock();
        let device = self.device.candle();
        let Some(slot) = self.layers.get_mut(layer) else {
            return Err(Error::internal(format_args!("the cache has no layer {layer}")));
        };
        if slot.is_none() {
            let (start, capacity) = (all.start, all.len().next_multiple_of(GROWTH_TOKENS));
            let capacity = capacity.min(self.growth.max_len - start);
            let zeros = || Tensor::zeros((1, heads, capacity, head_dim), dtype, device);
            *slot = Some(LayerCache { keys: zeros()?, values: zeros()?, start, capacity });
        }
        let Some(cached) = slot else { return Err(Error::internal("the cache lost a layer")) };
        let (keys, values) = bytes.split_at(bytes.len() / 2);
        for (tensor, bytes) in [(&cached.keys, keys), (&cached.values, values)] {
            let shape = (1, heads, run.len(), head_dim);
            let rows = match dtype {
                DType::F16 => {
                    let values = bytes.as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes)).collect();
                    Tensor::from_vec::<_, f16>(values, shape, device)?
                }
                _ => {
                    let values = bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
                    Tensor::from_vec::<_, f32>(values, shape, device)?
                }
            };
            tensor.slice_set(&rows, SEQ_DIM, run.start - cached.start)?;
        }
        Ok(())
    }
}

impl LayerCache {
    /// Not by `Tensor::copy`, which on Metal is the same buffer once more.
    fn copy(&self) -> Result<Self> {
        Self::moved(Some(self), &self.keys, self.start..self.start + self.capacity, self.capacity)
    }

    fn has_place_for(&self, positions: NewPositions) -> bool {
        self.start + self.capacity >= positions.past + positions.seq
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
        let (keys, values) = (moved(keys, old_start)?, moved(values, old_start)?);
        Ok(Self { keys, values, start: kept.start, capacity })
    }
}
