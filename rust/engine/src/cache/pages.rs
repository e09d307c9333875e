//! Keys and values in pages that forks share: the kernels' cache.

use std::sync::Arc;

use candle_phi_kernels::{KvFormat, KvPage, PAGE_TOKENS};

use crate::config::PhiConfig;
use crate::{Error, KvDtype, Result};

/// Pages of each layer. A clone shares them all; who writes to a shared page gets one of his own.
#[derive(Clone)]
pub(crate) struct PageCache {
    layers: Vec<LayerPages>,
    shape: PageShape,
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

#[derive(Clone, Copy)]
pub(crate) struct PageShape {
    format: KvFormat,
    heads: usize,
    head_dim: usize,
}

impl PageShape {
    pub(crate) fn new_page(self) -> KvPage {
        KvPage::new(self.format, self.heads, self.head_dim)
    }
}

impl PageCache {
    pub(crate) fn new(config: &PhiConfig, dtype: KvDtype) -> Result<Self> {
        let format = dtype.page_format();
        if format == KvFormat::Q8 && !config.head_dim.is_multiple_of(32) {
            return Err(Error::invalid_option(format!(
                "kv_dtype: expected \"f16\" or \"f32\", since the model's heads have {} values and \"q8_0\" needs a \
                 multiple of 32, found \"q8_0\"",
                config.head_dim
            )));
        }
        let shape = PageShape { format, heads: config.head_count_kv, head_dim: config.head_dim };
        Ok(Self { layers: vec![LayerPages::default(); config.block_count], shape })
    }

    pub(super) fn oldest(&self) -> usize {
        self.layers.iter().map(|layer| layer.dropped * PAGE_TOKENS).max().unwrap_or(0)
    }

    pub(super) fn clear(&mut self) {
        self.layers.fill(LayerPages::default());
    }

    /// Gives the pages back that hold nothing before position `len`.
    pub(super) fn truncate(&mut self, len: usize) {
        for layer in &mut self.layers {
            let kept = len.div_ceil(PAGE_TOKENS).saturating_sub(layer.dropped);
            if layer.pages.len() > kept {
                Arc::make_mut(&mut layer.pages).truncate(kept);
            }
        }
    }

    /// Gives the pages back that only hold positions before `position`.
    pub(super) fn drop_before(&mut self, position: usize) {
        for layer in &mut self.layers {
            let dropped = (position / PAGE_TOKENS).saturating_sub(layer.dropped).min(layer.pages.len());
            if dropped > 0 {
                Arc::make_mut(&mut layer.pages).drain(..dropped);
                layer.dropped += dropped;
            }
        }
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.layers.iter().flat_map(|layer| layer.pages.iter()).map(|page| page.size_bytes()).sum()
    }

    /// A layer, and what its pages look like.
    pub(crate) fn layer(&mut self, index: usize) -> Result<(&mut LayerPages, PageShape)> {
        let shape = self.shape;
        let layer = self.layers.get_mut(index);
        Ok((layer.ok_or_else(|| Error::inference(format!("the cache has no layer {index}")))?, shape))
    }
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
    pub(crate) fn page_mut(&mut self, position: usize, shape: PageShape) -> Result<&mut KvPage> {
        let index = (position / PAGE_TOKENS).checked_sub(self.dropped);
        let pages = Arc::make_mut(&mut self.pages);
        let index = index.filter(|index| *index <= pages.len());
        let index =
            index.ok_or_else(|| Error::inference(format!("the cache has no page of position {position}")))?;
        if index == pages.len() {
            pages.push(Arc::new(shape.new_page()));
        }
        let page = pages.get_mut(index);
        Ok(Arc::make_mut(page.ok_or_else(|| Error::inference("the cache lost a page"))?))
    }

    /// Puts whole pages from `position`, the beginning of a page, on; what was there before is replaced.
    pub(crate) fn put(&mut self, position: usize, new: impl Iterator<Item = Arc<KvPage>>) -> Result<()> {
        let index = (position / PAGE_TOKENS).checked_sub(self.dropped);
        let pages = Arc::make_mut(&mut self.pages);
        let index = index.filter(|index| *index <= pages.len());
        let index =
            index.ok_or_else(|| Error::inference(format!("the cache has no page of position {position}")))?;
        pages.truncate(index);
        pages.extend(new);
        Ok(())
    }
}
