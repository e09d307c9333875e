//! A cache's keys and values as rows of bytes, run by run: how a file has them, whatever keeps them in memory.

use std::ops::Range;

use candle_phi_kernels::PAGE_TOKENS;

use super::{FactorSet, KvCache, Storage};
use crate::config::PhiConfig;
use crate::{KvDtype, Result};

/// The positions `all` in runs that begin at a multiple of 32, as pages do; the first may begin behind one, and the last be
/// shorter.
pub(crate) fn runs(all: &Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
    let (mut next, end) = (all.start, all.end);
    std::iter::from_fn(move || {
        let start = next;
        next = (start / PAGE_TOKENS + 1).saturating_mul(PAGE_TOKENS).min(end);
        (start < end).then_some(start..next)
    })
}

/// Bytes of the rows of `positions` positions of a layer: of keys and of values.
pub(crate) fn rows_bytes(config: &PhiConfig, dtype: KvDtype, positions: usize) -> usize {
    2 * config.head_count_kv * dtype.size_bytes(config.head_dim) * positions
}

impl KvCache {
    /// The positions whose keys and values are there.
    pub(crate) fn positions(&self) -> Range<usize> {
        self.oldest().min(self.len)..self.len
    }

    /// Whether a cache of the positions `all` would have everything that the next position sees.
    pub(crate) fn suffice(&self, all: &Range<usize>) -> bool {
        all.start <= self.first_seen_from(all.end)
    }

    /// Appends the keys of a layer at a [run](runs) of positions, `(head_count_kv, positions, head_dim)`, and then the values,
    /// each head's row at a position as ggml's type of the cache's type.
    pub(crate) fn rows_to_bytes(&self, layer: usize, run: Range<usize>, out: &mut Vec<u8>) -> Result<()> {
        match &self.storage {
            Storage::Tensors(tensors) => tensors.rows_to_bytes(layer, run, out),
            Storage::Pages(pages) => pages.rows_to_bytes(layer, run, out),
        }
    }

    /// Makes an empty cache one of the positions `all`, rotated with `factors`, whose rows are taken in next.
    pub(crate) fn begin_restoring(&mut self, all: &Range<usize>, factors: FactorSet) {
        self.clear();
        self.len = all.end;
        self.rope_factors = factors;
        if let Storage::Pages(pages) = &mut self.storage {
            pages.begin_at(all.start);
        }
    }

    /// Takes in what [`rows_to_bytes`](Self::rows_to_bytes) gave; runs of a layer come in their order. `bytes` are
    /// [as many](rows_bytes) as the run has.
    pub(crate) fn rows_from_bytes(
        &mut self,
        layer: usize,
        all: &Range<usize>,
        run: Range<usize>,
        bytes: &[u8],
    ) -> Result<()> {
        match &mut self.storage {
            Storage::Tensors(tensors) => tensors.rows_from_bytes(layer, all, run, bytes),
            Storage::Pages(pages) => pages.rows_from_bytes(layer, run, bytes),
        }
    }
}
