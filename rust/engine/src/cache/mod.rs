//! The key-value cache of a session.

mod dtype;
mod pages;
mod rows;
mod tensors;

use crate::config::PhiConfig;
use crate::{Error, Result};

pub use dtype::KvDtype;
pub(crate) use pages::{PageCache, Pages};
pub(crate) use rows::{rows_bytes, runs};
pub(crate) use tensors::TensorCache;

/// Behind a window, this many positions are kept that nobody sees, so that a conversation can go back a little.
pub(crate) const KEPT_BEHIND_WINDOW: usize = 256;

/// Keys and values of the positions that were computed, by layer.
///
/// Memory is taken for the positions that there are, and never for the whole context at once; with a sliding window what
/// no later position sees is dropped. A forward pass appends to each layer and then calls [`advance`](Self::advance): one
/// that stops half-way has appended nothing.
pub(crate) struct KvCache {
    storage: Storage,
    len: usize,
    max_len: usize,
    /// How many positions a position sees, itself included.
    window: Option<usize>,
    /// What the keys were rotated with.
    rope_factors: FactorSet,
}

/// Which of LongRoPE's factors a sequence is rotated with: all of it with the same ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FactorSet {
    /// Those for sequences up to the original context; also what a model without factors has.
    #[default]
    Short,
    /// Those for longer ones.
    Long,
}

/// What of a cache a sequence begins with.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reuse {
    /// Tokens that need not be computed.
    pub(crate) cached: usize,
    /// Tokens that the cache shares with the sequence, but must be computed again: they were rotated with the other
    /// LongRoPE factors, or what they would see was dropped behind the window.
    pub(crate) recomputed: usize,
}

/// What an executor keeps keys and values in.
pub(crate) enum Storage {
    Tensors(TensorCache),
    Pages(PageCache),
}

/// A run of new positions behind the cached ones.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewPositions {
    /// Positions that are cached.
    pub(crate) past: usize,
    /// Positions that are new.
    pub(crate) seq: usize,
    /// The first position that any of the new ones sees.
    pub(crate) first_seen: usize,
}

impl NewPositions {
    /// Positions that the last of the new ones can see: cached and new ones.
    pub(crate) fn visible(&self) -> usize {
        self.past + self.seq - self.first_seen
    }
}

impl KvCache {
    /// An empty cache for at most `max_len` positions.
    pub(crate) fn new(config: &PhiConfig, max_len: usize, storage: Storage) -> Self {
        Self { storage, len: 0, max_len, window: config.sliding_window, rope_factors: FactorSet::default() }
    }

    /// Positions that are cached, the dropped ones included.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// What the cached keys were rotated with, and the next ones will be.
    pub(crate) fn rope_factors(&self) -> FactorSet {
        self.rope_factors
    }

    /// The first position that was not dropped.
    pub(crate) fn oldest(&self) -> usize {
        match &self.storage {
            Storage::Tensors(tensors) => tensors.oldest(),
            Storage::Pages(pages) => pages.oldest(),
        }
    }

    /// Whether a position `len` would find everything that it sees.
    pub(crate) fn can_truncate(&self, len: usize) -> bool {
        let oldest = self.oldest();
        len >= oldest && self.first_seen_from(len) >= oldest
    }

    /// Forgets all positions from `len` on; see [`can_truncate`](Self::can_truncate).
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        if let Storage::Pages(pages) = &mut self.storage {
            pages.truncate(self.len);
        }
    }

    /// Forgets all positions, so that the next ones can be rotated with `factors`.
    pub(crate) fn restart(&mut self, factors: FactorSet) {
        self.len = 0;
        self.rope_factors = factors;
        match &mut self.storage {
            Storage::Tensors(tensors) => tensors.restart(),
            Storage::Pages(pages) => pages.clear(),
        }
    }

    /// Forgets everything and gives its memory back, but for a few pages that come next.
    pub(crate) fn clear(&mut self) {
        self.len = 0;
        match &mut self.storage {
            Storage::Tensors(tensors) => tensors.clear(),
            Storage::Pages(pages) => pages.clear(),
        }
    }

    /// A cache of the same positions that goes its own way from here. Pages are shared until one side writes to them;
    /// tensors are copied.
    pub(crate) fn fork(&self) -> Result<Self> {
        let storage = match &self.storage {
            Storage::Tensors(tensors) => Storage::Tensors(tensors.copy()?),
            Storage::Pages(pages) => Storage::Pages(pages.clone()),
        };
        Ok(Self { storage, ..*self })
    }

    /// Bytes of memory that keys and values take, shared ones included.
    pub(crate) fn size_bytes(&self) -> usize {
        match &self.storage {
            Storage::Tensors(tensors) => tensors.size_bytes(),
            Storage::Pages(pages) => pages.size_bytes(),
        }
    }

    /// Bytes of memory that `seq` more positions will take.
    pub(crate) fn growth_bytes(&self, seq: usize) -> usize {
        // What does not fit is refused before it takes any.
        let Ok(positions) = self.new_positions(seq) else { return 0 };
        match &self.storage {
            Storage::Tensors(tensors) => tensors.growth_bytes(positions),
            Storage::Pages(pages) => pages.growth_bytes(positions),
        }
    }

    /// Bytes of memory that a fork takes at once.
    pub(crate) fn fork_bytes(&self) -> usize {
        match &self.storage {
            Storage::Tensors(tensors) => tensors.size_bytes(),
            Storage::Pages(_) => 0,
        }
    }

    /// What `seq` new positions are, or an error if they do not fit.
    pub(crate) fn new_positions(&self, seq: usize) -> Result<NewPositions> {
        let end = self.len + seq;
        if end > self.max_len {
            return Err(Error::context_length(
                end,
                self.max_len,
                format!(
                    "the context holds {} positions, got {end}; shorten the prompt, or set n_ctx higher",
                    self.max_len
                ),
            ));
        }
        Ok(NewPositions { past: self.len, seq, first_seen: self.first_seen_from(self.len) })
    }

    /// The tensors of Candle's executor.
    pub(crate) fn tensors(&mut self) -> Result<&mut TensorCache> {
        match &mut self.storage {
            Storage::Tensors(tensors) => Ok(tensors),
            Storage::Pages(_) => Err(other_executor()),
        }
    }

    /// The pages of the kernels' executor.
    pub(crate) fn pages(&mut self) -> Result<&mut PageCache> {
        match &mut self.storage {
            Storage::Pages(pages) => Ok(pages),
            Storage::Tensors(_) => Err(other_executor()),
        }
    }

    /// Makes the positions that every layer appended part of the cache.
    pub(crate) fn advance(&mut self, tokens: usize) {
        self.len += tokens;
        let oldest_seen = self.first_seen_from(self.len);
        if let Storage::Pages(pages) = &mut self.storage {
            pages.drop_before(oldest_seen.saturating_sub(KEPT_BEHIND_WINDOW));
        }
    }

    fn first_seen_from(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }
}

fn other_executor() -> Error {
    Error::internal("the cache was made for another executor")
}

#[cfg(test)]
mod tests;
