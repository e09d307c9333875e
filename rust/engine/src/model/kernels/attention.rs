//! Turning, caching and attending.

use std::ops::Range;
use std::sync::Arc;

use candle_phi_kernels::{Attended, KvPage, PAGE_TOKENS, Parts, Queries};

use super::super::executor::Projections;
use super::super::rope::RopeTable;
use super::KernelPass;
use super::matrix::{Input, Output, PART_ROWS, part_rows};
use crate::Result;
use crate::cache::{NewPositions, Pages};

/// Where there are few rows of queries, what they see is cut into runs of this many pages, so that there are parts for
/// all threads. The result depends on it and on nothing else.
const SPLIT_PAGES: usize = 16;

/// Queries, keys and values of a run of new positions, turned.
struct Turned {
    queries: Vec<f32>, // (positions, head_count, head_dim), scaled
    keys: Vec<f32>,    // (positions, head_count_kv, head_dim)
    values: Vec<f32>,  // (positions, head_count_kv, head_dim)
}

/// `(head_count, head_count_kv, head_dim)`
#[derive(Clone, Copy)]
struct Heads {
    count: usize,
    kv: usize,
    dim: usize,
}

pub(super) fn attend(pass: &mut KernelPass<'_>, layer: usize, projections: Projections<Output>) -> Result<Input> {
    let config = pass.config;
    let heads = Heads { count: config.head_count, kv: config.head_count_kv, dim: config.head_dim };
    let positions = pass.positions;
    let turned = turn(pass, projections, heads);
    write(pass, layer, &turned, heads)?;
    let (layer, _) = pass.cache.pages()?.layer(layer)?;
    let (pages, first_position) = (layer.pages(), layer.first_position());
    let attended = attend_to(pass, &turned, pages, first_position, heads);
    pass.cancel.check()?;

    let splits = attended.splits;
    let parts = attended.parts;
    let width = heads.count * heads.dim;
    let group = heads.count / heads.kv;
    let merged = pass.threads.map(positions.seq.div_ceil(PART_ROWS) * heads.kv, move |index| {
        Attended::merge((index * splits..(index + 1) * splits).filter_map(|part| parts.get(part)))
    });
    Ok(pass.input(positions.seq, width, move |row, out| {
        let (part, row) = (row / PART_ROWS, row % PART_ROWS);
        for (head, out) in out.chunks_exact_mut(group * heads.dim).enumerate() {
            let values = merged.get(part * heads.kv + head);
            let values = values.and_then(|values| values.chunks_exact(group * heads.dim).nth(row));
            if let Some(values) = values {
                out.copy_from_slice(values);
            }
        }
    }))
}

/// Gathers the projections' rows and turns queries and keys.
fn turn(pass: &KernelPass<'_>, projections: Projections<Output>, heads: Heads) -> Parts<Turned> {
    let (rows, rope) = (pass.positions.seq, Arc::clone(&pass.rope));
    let scale = 1.0 / (heads.dim as f32).sqrt();
    pass.threads.map(rows.div_ceil(PART_ROWS), move |part| {
        let rows = part_rows(part, rows);
        let (q_width, kv_width) = (heads.count * heads.dim, heads.kv * heads.dim);
        let mut turned = Turned {
            queries: vec![0.0; rows.len() * q_width],
            keys: vec![0.0; rows.len() * kv_width],
            values: vec![0.0; rows.len() * kv_width],
        };
        let q = turned.queries.chunks_exact_mut(q_width);
        let kv = turned.keys.chunks_exact_mut(kv_width).zip(turned.values.chunks_exact_mut(kv_width));
        let mut all = vec![0.0; q_width + 2 * kv_width];
        for ((row, q), (k, v)) in rows.zip(q).zip(kv) {
            match &projections {
                Projections::Fused(qkv) => {
                    qkv.copy_row(row, &mut all);
                    let (queries, rest) = all.split_at(q_width);
                    let (keys, values) = rest.split_at(kv_width);
                    q.copy_from_slice(queries);
                    k.copy_from_slice(keys);
                    v.copy_from_slice(values);
                }
                Projections::Split { q: queries, k: keys, v: values } => {
                    queries.copy_row(row, q);
                    keys.copy_row(row, k);
                    values.copy_row(row, v);
                }
            }
            for head in q.chunks_exact_mut(heads.dim) {
                rope.turn(row, head);
                for value in head {
                    *value *= scale;
                }
            }
            for head in k.chunks_exact_mut(heads.dim) {
                rope.turn(row, head);
            }
        }
        turned
    })
}

impl RopeTable {
    /// Turns the first `rope_dim` dimensions of a head by the angles of row `row` and leaves the others.
    fn turn(&self, row: usize, head: &mut [f32]) {
        let range = row * self.half..(row + 1) * self.half;
        let (Some(cos), Some(sin)) = (self.cos.get(range.clone()), self.sin.get(range)) else { return };
        let Some((turned, _)) = head.split_at_mut_checked(2 * self.half) else { return };
        let turn = |a: &mut f32, b: &mut f32, cos: f32, sin: f32| {
            (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
        };
        if self.interleaved {
            for (pair, (cos, sin)) in turned.as_chunks_mut().0.iter_mut().zip(cos.iter().zip(sin)) {
                let [a, b]: &mut [f32; 2] = pair;
                turn(a, b, *cos, *sin);
            }
        } else {
            let (first, second) = turned.split_at_mut(self.half);
            for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(cos.iter().zip(sin)) {
                turn(a, b, *cos, *sin);
            }
        }
    }
}

/// Writes new keys and values into the pages of a layer: what continues a page in place, whole pages as a job.
fn write(pass: &mut KernelPass<'_>, layer: usize, turned: &Parts<Turned>, heads: Heads) -> Result<()> {
    let NewPositions { past, seq, .. } = pass.positions;
    let end = past + seq;
    let whole_from = past.next_multiple_of(PAGE_TOKENS).min(end);
    let (layer, new_pages) = pass.cache.pages()?.layer(layer)?;
    if past < whole_from {
        let page = layer.page_mut(past, new_pages)?;
        write_page(page, past..whole_from, past, turned, heads);
    }
    let pages = (end - whole_from).div_ceil(PAGE_TOKENS);
    let (turned, source) = (turned.clone(), new_pages.clone());
    let new = pass.threads.map(pages, move |index| {
        let first = whole_from + index * PAGE_TOKENS;
        let mut page = source.page().ok()?;
        write_page(&mut page, first..end.min(first + PAGE_TOKENS), past, &turned, heads);
        Some(Arc::new(page))
    });
    if pages > 0 {
        let new: Option<Vec<Arc<KvPage>>> = new.iter().cloned().collect();
        layer.put(whole_from, new.ok_or_else(|| new_pages.no_memory())?)?;
    }
    Ok(())
}

fn write_page(page: &mut KvPage, positions: Range<usize>, past: usize, turned: &Parts<Turned>, heads: Heads) {
    for position in positions {
        let row = position - past;
        let Some(part) = turned.get(row / PART_ROWS) else { continue };
        let width = heads.kv * heads.dim;
        let row = row % PART_ROWS * width;
        let (Some(keys), Some(values)) = (part.keys.get(row..row + width), part.values.get(row..row + width))
        else {
            continue;
        };
        let rows = keys.chunks_exact(heads.dim).zip(values.chunks_exact(heads.dim));
        for (head, (key, value)) in rows.enumerate() {
            page.write(head, position % PAGE_TOKENS, key, value);
        }
    }
}

/// Attention of each part of rows, key head and run of pages, in this order.
struct Runs {
    parts: Parts<Attended>,
    /// Runs of pages.
    splits: usize,
}

fn attend_to(
    pass: &KernelPass<'_>,
    turned: &Parts<Turned>,
    pages: Pages,
    first_position: usize,
    heads: Heads,
) -> Runs {
    let NewPositions { past, seq, .. } = pass.positions;
    let window = pass.config.sliding_window;
    let first_page = (pass.positions.first_seen - first_position) / PAGE_TOKENS;
    let split_pages = if seq > PART_ROWS { usize::MAX } else { SPLIT_PAGES };
    let splits = (pages.len() - first_page).div_ceil(split_pages).max(1);
    let (kernels, cancel, turned) = (pass.kernels, pass.cancel.clone(), turned.clone());
    let group = heads.count / heads.kv;
    let parts = seq.div_ceil(PART_ROWS) * heads.kv * splits;
    let parts = pass.threads.map(parts, move |index| {
        let (split, head, part) = (index % splits, index / splits % heads.kv, index / splits / heads.kv);
        let rows = part_rows(part, seq);
        let run = first_page + split * split_pages.min(pages.len());
        let pages = pages.get(run..pages.len().min(run.saturating_add(split_pages))).unwrap_or_default();
        let start = first_position + run * PAGE_TOKENS;
        let end = start + pages.len() * PAGE_TOKENS;
        let mut queries = Vec::with_capacity(rows.len() * group * heads.dim);
        let mut visible = Vec::with_capacity(rows.len() * group);
        if let Some(turned) = turned.get(part).filter(|_| !cancel.is_cancelled()) {
            for (row, q) in rows.zip(turned.queries.chunks_exact(heads.count * heads.dim)) {
                let position = past + row;
                let from = window.map_or(0, |window| (position + 1).saturating_sub(window));
                let seen = from.clamp(start, end) - start..(position + 1).clamp(start, end) - start;
                let of_head = head * group * heads.dim..(head + 1) * group * heads.dim;
                queries.extend_from_slice(q.get(of_head).unwrap_or_default());
                visible.extend(std::iter::repeat_n(seen, group));
            }
        }
        kernels.attend(Queries { values: &queries, visible: &visible }, pages, head)
    });
    Runs { parts, splits }
}
