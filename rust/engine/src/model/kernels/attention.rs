//! Rotating, caching and attending.

use std::ops::Range;
use std::sync::Arc;

use candle_phi_kernels::{Attended, KvPage, PAGE_TOKENS, Parts, Queries};

use super::super::executor::Projections;
use super::super::rope::RopeTable;
use super::matrix::{Input, Output, PART_ROWS, part_rows};
use super::{KernelPass, map};
use crate::cache::{NewPositions, Pages};
use crate::{Error, Result};

/// Where there are few rows of queries, what they see is cut into runs of this many pages, so that there are parts for
/// all threads. The result depends on it and on nothing else.
const SPLIT_PAGES: usize = 16;

/// Queries, keys and values of the new positions, as the projections left them; the jobs that read them rotate them.
struct Heads {
    projections: Projections<Output>,
    rope: Arc<RopeTable>,
    count: usize,
    kv: usize,
    dim: usize,
}

impl Heads {
    /// Query heads that share a key head.
    fn group(&self) -> usize {
        self.count / self.kv
    }

    /// The queries of a key head, rotated and scaled: `(rows, group, head_dim)`
    fn queries(&self, rows: &Range<usize>, head: usize, out: &mut [f32]) -> Result<()> {
        let width = self.group() * self.dim;
        let columns = head * width..(head + 1) * width;
        match &self.projections {
            Projections::Fused(qkv) => qkv.copy(rows, &columns, out)?,
            Projections::Split { q, .. } => q.copy(rows, &columns, out)?,
        }
        let scale = 1.0 / (self.dim as f32).sqrt();
        for (row, queries) in rows.clone().zip(out.chunks_exact_mut(width)) {
            for query in queries.chunks_exact_mut(self.dim) {
                self.rope.rotate(row, query)?;
                for value in query {
                    *value *= scale;
                }
            }
        }
        Ok(())
    }

    /// A head's keys, rotated: `(rows, head_dim)`
    fn keys(&self, rows: &Range<usize>, head: usize, out: &mut [f32]) -> Result<()> {
        match &self.projections {
            Projections::Fused(qkv) => qkv.copy(rows, &self.columns(self.count + head), out)?,
            Projections::Split { k, .. } => k.copy(rows, &self.columns(head), out)?,
        }
        let mut keys = rows.clone().zip(out.chunks_exact_mut(self.dim));
        keys.try_for_each(|(row, key)| self.rope.rotate(row, key))
    }

    /// A head's values: `(rows, head_dim)`
    fn values(&self, rows: &Range<usize>, head: usize, out: &mut [f32]) -> Result<()> {
        match &self.projections {
            Projections::Fused(qkv) => qkv.copy(rows, &self.columns(self.count + self.kv + head), out),
            Projections::Split { v, .. } => v.copy(rows, &self.columns(head), out),
        }
    }

    /// Of a head, where heads stand side by side.
    fn columns(&self, head: usize) -> Range<usize> {
        head * self.dim..(head + 1) * self.dim
    }
}

pub(super) fn attend(pass: &mut KernelPass<'_>, layer: usize, projections: Projections<Output>) -> Result<Input> {
    let config = pass.config;
    let (count, kv, dim) = (config.head_count, config.head_count_kv, config.head_dim);
    let heads = Arc::new(Heads { projections, rope: Arc::clone(&pass.rope), count, kv, dim });
    write(pass, layer, &heads)?;
    let (layer, _) = pass.cache.pages()?.layer(layer)?;
    let (pages, first_position) = (layer.pages(), layer.first_position());
    let Runs { parts, splits } = attend_to(pass, &heads, pages, first_position)?;

    let group = heads.group();
    pass.input(pass.positions.seq, count * dim, move |row, out| {
        let (part, row) = (row / PART_ROWS, row % PART_ROWS);
        for (head, out) in out.chunks_exact_mut(group * dim).enumerate() {
            let first = (part * kv + head) * splits;
            let runs = first..first + splits;
            if runs.end > parts.len() {
                return Err(Error::internal(format_args!("attention has no row {row} of part {part}")));
            }
            let runs = runs.filter_map(|run| parts.get(run));
            Attended::merge(runs, row * group..(row + 1) * group, out);
        }
        Ok(())
    })
}

/// Writes new keys and values into the pages of a layer: what continues a page in place, whole pages as a job.
fn write(pass: &mut KernelPass<'_>, layer: usize, heads: &Arc<Heads>) -> Result<()> {
    let NewPositions { past, seq, .. } = pass.positions;
    let end = past + seq;
    let whole_from = past.next_multiple_of(PAGE_TOKENS).min(end);
    let (layer, new_pages) = pass.cache.pages()?.layer(layer)?;
    if past < whole_from {
        let page = layer.page_mut(past, new_pages)?;
        write_page(page, past..whole_from, past, heads)?;
    }
    let pages = (end - whole_from).div_ceil(PAGE_TOKENS);
    let (heads, source) = (Arc::clone(heads), new_pages.clone());
    let new_page = move |index: usize| {
        let first = whole_from + index * PAGE_TOKENS;
        let mut page = source.page()?;
        write_page(&mut page, first..end.min(first + PAGE_TOKENS), past, &heads)?;
        Ok(Some(Arc::new(page)))
    };
    let new = map(&pass.threads, &pass.errors, pages, new_page, || None)?;
    if pages > 0 {
        layer.put(whole_from, new.iter().flatten().cloned())?;
    }
    Ok(())
}

fn write_page(page: &mut KvPage, positions: Range<usize>, past: usize, heads: &Heads) -> Result<()> {
    let rows = positions.start - past..positions.end - past;
    let mut keys = vec![0.0; rows.len() * heads.dim];
    let mut values = vec![0.0; rows.len() * heads.dim];
    for head in 0..heads.kv {
        heads.keys(&rows, head, &mut keys)?;
        heads.values(&rows, head, &mut values)?;
        let rows = keys.chunks_exact(heads.dim).zip(values.chunks_exact(heads.dim));
        for (position, (key, value)) in positions.clone().zip(rows) {
            page.write(head, position % PAGE_TOKENS, key, value);
        }
    }
    Ok(())
}

/// Attention of each part of rows, key head and run of pages, in this order.
struct Runs {
    parts: Parts<Attended>,
    /// Runs of pages.
    splits: usize,
}

fn attend_to(pass: &KernelPass<'_>, heads: &Arc<Heads>, pages: Pages, first_position: usize) -> Result<Runs> {
    let NewPositions { past, seq, .. } = pass.positions;
    let window = pass.config.sliding_window;
    let first_page = (pass.positions.first_seen - first_position) / PAGE_TOKENS;
    let split_pages = if seq > PART_ROWS { usize::MAX } else { SPLIT_PAGES };
    let splits = (pages.len() - first_page).div_ceil(split_pages).max(1);
    let (kernels, cancel, heads) = (pass.kernels, pass.cancel.clone(), Arc::clone(heads));
    let (kv, group) = (heads.kv, heads.group());
    let parts = seq.div_ceil(PART_ROWS) * kv * splits;
    let attend_part = move |index: usize| {
        cancel.check()?;
        let (split, head, part) = (index % splits, index / splits % kv, index / splits / kv);
        let rows = part_rows(part, seq);
        let run = first_page + split * split_pages.min(pages.len());
        let pages = pages.get(run..pages.len().min(run.saturating_add(split_pages))).ok_or_else(|| {
            Error::internal(format_args!("the layer has {} pages, and page {run} was asked for", pages.len()))
        })?;
        let start = first_position + run * PAGE_TOKENS;
        let end = start + pages.len() * PAGE_TOKENS;
        let mut queries = vec![0.0; rows.len() * group * heads.dim];
        heads.queries(&rows, head, &mut queries)?;
        let mut visible = Vec::with_capacity(rows.len() * group);
        for position in past + rows.start..past + rows.end {
            let from = window.map_or(0, |window| (position + 1).saturating_sub(window));
            let seen = from.clamp(start, end) - start..(position + 1).clamp(start, end) - start;
            visible.extend(std::iter::repeat_n(seen, group));
        }
        Ok(kernels.attend(Queries { values: &queries, visible: &visible }, pages, head))
    };
    let nothing = move || kernels.attend(Queries { values: &[], visible: &[] }, &[], 0);
    let parts = map(&pass.threads, &pass.errors, parts, attend_part, nothing)?;
    Ok(Runs { parts, splits })
}
