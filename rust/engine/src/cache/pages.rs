//! Keys and values in pages that forks share: the kernels' cache.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use candle_phi_kernels::{KvFormat, KvPage, PAGE_TOKENS};

use super::NewPositions;
use crate::config::PhiConfig;
use crate::memory::limit;
use crate::{Error, KvDtype, Result};

/// Of what is let go, so many pages of each layer stay with the cache.
const SPARE_PAGES: usize = 2;

/// Pages of each layer. A clone shares them all; who writes to a shared page gets one of his own.
pub(crate) struct PageCache {
    layers: Vec<LayerPages>,
    new_pages: NewPages,
    /// Positions of the first pages that are not there although the pages are: of a cache that was restored from one that
    /// had let them go.
    missing_before: usize,
}

/// Pages that jobs may still read while the cache goes on.
pub(crate) type Pages = Arc<Vec<Arc<KvPage>>>;

/// The pages of a layer, in order.
#[derive(Clone, Default)]
pub(crate) struct LayerPages {
    /// Shared with the jobs that read them.
    pages: Pages,
    /// Pages that were dropped before the first.
    dropped: usize,
}

/// Where pages come from.
#[derive(Clone)]
pub(crate) struct NewPages {
    shape: PageShape,
    /// Pages that were let go. A conversation that begins anew, or moves on behind a window, takes them: the system needs longer
    /// to find memory than a page takes to be filled.
    spare: Arc<Mutex<Vec<KvPage>>>,
    most_spare: usize,
}

#[derive(Clone, Copy)]
struct PageShape {
    format: KvFormat,
    heads: usize,
    head_dim: usize,
}

impl PageShape {
    const fn page_bytes(self) -> usize {
        KvPage::bytes_of(self.format, self.heads, self.head_dim)
    }
}

impl NewPages {
    fn new(shape: PageShape, most_spare: usize) -> Self {
        Self { shape, spare: Arc::default(), most_spare }
    }

    /// A page that holds anything, or an error if there is no memory for it.
    pub(crate) fn page(&self) -> Result<KvPage> {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let PageShape { format, heads, head_dim } = self.shape;
        spare.map_or_else(|| KvPage::new(format, heads, head_dim).map_err(|_| self.no_memory()), Ok)
    }

    /// The error for a page that there is no memory for.
    pub(crate) fn no_memory(&self) -> Error {
        let bytes = self.shape.page_bytes() as u64;
        limit::refused_by_the_system(bytes, limit::NEXT_TOKENS, limit::REMEDY)
    }

    /// Takes pages back that nobody else has.
    fn take_back(&self, pages: impl Iterator<Item = Arc<KvPage>>) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let room = self.most_spare.saturating_sub(spare.len());
        spare.extend(pages.filter_map(Arc::into_inner).take(room));
    }
}

impl Clone for PageCache {
    fn clone(&self) -> Self {
        let new_pages = NewPages::new(self.new_pages.shape, self.new_pages.most_spare);
        Self { layers: self.layers.clone(), new_pages, missing_before: self.missing_before }
    }
}

impl PageCache {
    pub(crate) fn new(config: &PhiConfig, dtype: KvDtype) -> Result<Self> {
        let format = dtype.page_format();
        if format == KvFormat::Q8 && !config.head_dim.is_multiple_of(32) {
            return Err(Error::invalid_option(
                "kv_dtype",
                format_args!(
                    "must be \"f16\" or \"f32\" for a model whose heads have {} values, got \"q8_0\", which needs a multiple \
                     of 32",
                    config.head_dim
                ),
            ));
        }
        let shape = PageShape { format, heads: config.head_count_kv, head_dim: config.head_dim };
        let new_pages = NewPages::new(shape, SPARE_PAGES * config.block_count);
        Ok(Self { layers: vec![LayerPages::default(); config.block_count], new_pages, missing_before: 0 })
    }

    pub(super) fn oldest(&self) -> usize {
        self.layers.iter().map(LayerPages::first_position).max().unwrap_or(0).max(self.missing_before)
    }

    pub(super) fn clear(&mut self) {
        for layer in &mut self.layers {
            let pages = std::mem::take(layer).pages;
            self.new_pages.take_back(Arc::unwrap_or_clone(pages).into_iter());
        }
        self.missing_before = 0;
    }

    /// Gives the pages back that hold nothing before position `len`.
    pub(super) fn truncate(&mut self, len: usize) {
        for layer in &mut self.layers {
            let kept = len.div_ceil(PAGE_TOKENS).saturating_sub(layer.dropped);
            if layer.pages.len() > kept {
                self.new_pages.take_back(Arc::make_mut(&mut layer.pages).drain(kept..));
            }
        }
    }

    /// Gives the pages back that only hold positions before `position`.
    pub(super) fn drop_before(&mut self, position: usize) {
        for layer in &mut self.layers {
            let dropped = (position / PAGE_TOKENS).saturating_sub(layer.dropped).min(layer.pages.len());
            if dropped > 0 {
                self.new_pages.take_back(Arc::make_mut(&mut layer.pages).drain(..dropped));
                layer.dropped += dropped;
            }
        }
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.layers.iter().flat_map(|layer| layer.pages.iter()).map(|page| page.size_bytes()).sum()
    }

    /// Bytes that `positions` positions of all layers take, in pages.
    pub(crate) fn bytes_of(&self, positions: usize) -> u64 {
        let pages = positions.div_ceil(PAGE_TOKENS).saturating_mul(self.layers.len());
        pages.saturating_mul(self.new_pages.shape.page_bytes()) as u64
    }

    /// Positions that have place in so many bytes.
    pub(crate) fn positions_in(&self, bytes: u64) -> usize {
        let of_a_page = self.bytes_of(PAGE_TOKENS).max(1);
        usize::try_from(bytes / of_a_page).unwrap_or(usize::MAX).saturating_mul(PAGE_TOKENS)
    }

    /// Bytes of memory that new positions add.
    pub(super) fn growth_bytes(&self, positions: NewPositions) -> usize {
        let NewPositions { past, seq, .. } = positions;
        let end = past + seq;
        let pages = self.layers.iter().map(|layer| {
            let new = end.div_ceil(PAGE_TOKENS).saturating_sub(layer.dropped + layer.pages.len());
            let written_to =
                (past / PAGE_TOKENS).checked_sub(layer.dropped).and_then(|index| layer.pages.get(index));
            // One that a fork shares is copied first; until then, a fork shares the list of them all.
            let is_shared = |page| Arc::strong_count(&layer.pages) > 1 || Arc::strong_count(page) > 1;
            new + usize::from(written_to.is_some_and(is_shared))
        });
        pages.sum::<usize>() * self.new_pages.shape.page_bytes()
    }

    /// Pages that were let go and have not been taken again.
    #[cfg(test)]
    pub(super) fn spare_pages(&self) -> usize {
        self.new_pages.spare.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// A layer, and where its pages come from.
    pub(crate) fn layer(&mut self, index: usize) -> Result<(&mut LayerPages, &NewPages)> {
        let layer = self.layers.get_mut(index);
        Ok((
            layer.ok_or_else(|| Error::internal(format_args!("the cache has no layer {index}")))?,
            &self.new_pages,
        ))
    }
}

/// Keys and values as rows of bytes.
impl PageCache {
    /// Appends the rows of a run of positions of one page.
    pub(super) fn rows_to_bytes(&self, layer: usize, run: Range<usize>, out: &mut Vec<u8>) -> Result<()> {
        let missing = || Error::internal(format_args!("the cache has no positions {run:?} of layer {layer}"));
        let layer = self.layers.get(layer).ok_or_else(missing)?;
        let index = (run.start / PAGE_TOKENS).checked_sub(layer.dropped);
        let page = index.and_then(|index| layer.pages.get(index)).ok_or_else(missing)?;
        page.rows_to_bytes(slots(&run), out);
        Ok(())
    }

    /// Makes an empty cache one that will hold positions from `first` on.
    pub(super) fn begin_at(&mut self, first: usize) {
        self.missing_before = first;
        self.layers.fill(LayerPages { pages: Pages::default(), dropped: first / PAGE_TOKENS });
    }

    /// Takes in the rows of a run of positions of one page, from `bytes` of just their length.
    pub(super) fn rows_from_bytes(&mut self, layer: usize, run: Range<usize>, bytes: &[u8]) -> Result<()> {
        let (layer, new_pages) = self.layer(layer)?;
        layer.page_mut(run.start, new_pages)?.rows_from_bytes(slots(&run), bytes);
        Ok(())
    }
}

/// Where the positions of a run stand in their page.
fn slots(run: &Range<usize>) -> Range<usize> {
    let first = run.start % PAGE_TOKENS;
    first..first + run.len()
}

impl LayerPages {
    /// The pages, to be read.
    pub(crate) fn pages(&self) -> Pages {
        Arc::clone(&self.pages)
    }

    /// The position that the first page begins with.
    pub(crate) fn first_position(&self) -> usize {
        self.dropped * PAGE_TOKENS
    }

    /// The page that holds `position`, to be written to: a new one where there is none yet. The pages before it must be
    /// there.
    pub(crate) fn page_mut(&mut self, position: usize, new_pages: &NewPages) -> Result<&mut KvPage> {
        let index = (position / PAGE_TOKENS).checked_sub(self.dropped);
        let pages = Arc::make_mut(&mut self.pages);
        let index = index.filter(|index| *index <= pages.len());
        let index =
            index.ok_or_else(|| Error::internal(format_args!("the cache has no page of position {position}")))?;
        if index == pages.len() {
            pages.push(Arc::new(new_pages.page()?));
        }
        let lost = || Error::internal("the cache lost a page");
        let page = pages.get_mut(index).ok_or_else(lost)?;
        if Arc::get_mut(page).is_none() {
            *page = Arc::new(page.try_clone().map_err(|_| new_pages.no_memory())?);
        }
        Arc::get_mut(page).ok_or_else(lost)
    }

    /// Puts whole pages from `position`, the beginning of a page, on; what was there before is replaced.
    pub(crate) fn put(&mut self, position: usize, new: impl IntoIterator<Item = Arc<KvPage>>) -> Result<()> {
        let index = (position / PAGE_TOKENS).checked_sub(self.dropped);
        let pages = Arc::make_mut(&mut self.pages);
        let index = index.filter(|index| *index <= pages.len());
        let index =
            index.ok_or_else(|| Error::internal(format_args!("the cache has no page of position {position}")))?;
        pages.truncate(index);
        pages.extend(new);
        Ok(())
    }
}
