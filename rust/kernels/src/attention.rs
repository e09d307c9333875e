//! Attention over pages of cached keys and values.
//!
//! Rows of queries go over the pages once, with a running maximum, as flash attention does (arXiv:2205.14135); what they
//! end with can be merged with that of other pages.

#![allow(clippy::indexing_slicing, reason = "ranges of buffers whose lengths are functions of the page's shape")]

use std::ops::Range;
use std::sync::Arc;

use crate::Kernels;
use crate::elementwise::{exp, sum_of_lanes};
use crate::kv_page::{KvPage, PAGE_TOKENS, Stored};
use crate::lanes::{LANES, Lanes};

/// Vectors of positions of a page.
const PARTS: usize = PAGE_TOKENS / LANES;
/// Rows of queries that go over a page together, at most: each has its sums in registers.
const ROWS: usize = 8;
/// The same with AVX-512, which has twice as many registers, twice as wide.
const MORE_ROWS: usize = 16;

/// Rows of queries of one key head.
#[derive(Clone, Copy, Debug)]
pub struct Queries<'a> {
    /// `(rows, head_dim)`, scaled.
    pub values: &'a [f32],
    /// The positions that each row sees, counted from the beginning of the first page.
    pub visible: &'a [Range<usize>],
}

/// What rows of queries found: softmax's maximum and sum, and the weighted sum of values that is still to be divided.
#[derive(Clone, Debug)]
pub struct Attended {
    /// `(rows, head_dim)`
    values: Vec<f32>,
    /// `(rows)`
    max: Vec<f32>,
    /// `(rows)`
    sum: Vec<f32>,
    head_dim: usize,
}

impl Attended {
    fn new(rows: usize, head_dim: usize) -> Self {
        Self {
            values: vec![0.0; rows * head_dim],
            max: vec![f32::NEG_INFINITY; rows],
            sum: vec![0.0; rows],
            head_dim,
        }
    }

    /// The attention of some rows over all pages, out of those over some each: `(rows.len(), head_dim)`. Of parts without rows,
    /// which a cancelled job leaves, nothing comes.
    ///
    /// # Panics
    /// If a part has not the rows, or `out` is not as long as they are.
    pub fn merge<'a>(parts: impl Iterator<Item = &'a Self> + Clone, rows: Range<usize>, out: &mut [f32]) {
        let Some(first) = parts.clone().next().filter(|part| part.head_dim > 0) else { return };
        assert_eq!(out.len(), rows.len() * first.head_dim, "rows of attention");
        for (row, out) in rows.zip(out.chunks_exact_mut(first.head_dim)) {
            let max = parts.clone().map(|part| part.max[row]).fold(f32::NEG_INFINITY, f32::max);
            let mut sum = 0.0;
            out.fill(0.0);
            for part in parts.clone().filter(|part| part.sum[row] != 0.0) {
                let factor = (part.max[row] - max).exp();
                sum += part.sum[row] * factor;
                let values = &part.values[row * first.head_dim..][..first.head_dim];
                for (out, value) in out.iter_mut().zip(values) {
                    *out += factor * value;
                }
            }
            for out in out {
                *out /= sum;
            }
        }
    }
}

impl Kernels {
    /// Attention of the queries of key head `head` over `pages`, of which those are left out that no row sees.
    ///
    /// # Panics
    /// If there are not as many rows of queries as ranges, or a page has no such head.
    #[must_use]
    pub fn attend(self, queries: Queries<'_>, pages: &[Arc<KvPage>], head: usize) -> Attended {
        let rows = queries.visible.len();
        let head_dim = queries.values.len().checked_div(rows).unwrap_or(0);
        assert_eq!(queries.values.len(), rows * head_dim, "rows of queries");
        let mut attended = Attended::new(rows, head_dim);
        let together = if self.isa() == crate::Isa::Avx512Vnni { MORE_ROWS } else { ROWS };
        for first in (0..rows).step_by(together) {
            let range = first..rows.min(first + together);
            let queries = Queries {
                values: &queries.values[range.start * head_dim..range.end * head_dim],
                visible: &queries.visible[range.clone()],
            };
            let out = Rows {
                values: &mut attended.values[range.start * head_dim..range.end * head_dim],
                max: &mut attended.max[range.clone()],
                sum: &mut attended.sum[range],
            };
            attend_rows(self, queries, pages, head, out);
        }
        attended
    }
}

/// Some rows of an [`Attended`].
struct Rows<'a> {
    values: &'a mut [f32],
    max: &'a mut [f32],
    sum: &'a mut [f32],
}

/// Chooses the level.
#[allow(unsafe_code, reason = "calls of code for the level; see SAFETY")]
fn attend_rows(kernels: Kernels, queries: Queries<'_>, pages: &[Arc<KvPage>], head: usize, out: Rows<'_>) {
    #[cfg(target_arch = "x86_64")]
    {
        use crate::Isa;
        use crate::x86::lanes::{Avx2Lanes, Avx512Lanes};

        #[target_feature(enable = "avx2,fma,f16c")]
        fn avx2(queries: Queries<'_>, pages: &[Arc<KvPage>], head: usize, out: Rows<'_>) {
            by_count::<Avx2Lanes>(queries, pages, head, out);
        }
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
        fn avx512(queries: Queries<'_>, pages: &[Arc<KvPage>], head: usize, out: Rows<'_>) {
            by_count::<Avx512Lanes>(queries, pages, head, out);
        }
        match kernels.isa() {
            // SAFETY: kernels only have levels that the machine has.
            Isa::Avx2 | Isa::AvxVnni => return unsafe { avx2(queries, pages, head, out) },
            // SAFETY: as above.
            Isa::Avx512Vnni => return unsafe { avx512(queries, pages, head, out) },
            _ => {}
        }
    }
    let _ = kernels;
    by_count::<[f32; LANES]>(queries, pages, head, out);
}

#[inline(always)]
fn by_count<V: Lanes>(queries: Queries<'_>, pages: &[Arc<KvPage>], head: usize, out: Rows<'_>) {
    match queries.visible.len() {
        1 => some_rows::<V, 1>(queries, pages, head, out),
        2 => some_rows::<V, 2>(queries, pages, head, out),
        3 => some_rows::<V, 3>(queries, pages, head, out),
        4 => some_rows::<V, 4>(queries, pages, head, out),
        // With rows that see nothing where there are less.
        5..=ROWS => some_rows::<V, ROWS>(queries, pages, head, out),
        _ => some_rows::<V, MORE_ROWS>(queries, pages, head, out),
    }
}

#[inline(always)]
fn some_rows<V: Lanes, const COUNT: usize>(
    queries: Queries<'_>,
    pages: &[Arc<KvPage>],
    head: usize,
    out: Rows<'_>,
) {
    let rows = queries.visible.len();
    let head_dim = queries.values.len() / rows;
    // A row that is not there sees nothing, and computes as the last one.
    let mut visible = [(0, 0); COUNT];
    let mut query = vec![[0f32; COUNT]; head_dim];
    for row in 0..COUNT {
        for (query, value) in query.iter_mut().zip(&queries.values[row.min(rows - 1) * head_dim..]) {
            query[row] = *value;
        }
        if row < rows {
            visible[row] = (queries.visible[row].start, queries.visible[row].end);
        }
    }
    let padded = head_dim.next_multiple_of(LANES);
    let mut values = vec![[[0f32; LANES]; COUNT]; padded / LANES];
    let (mut max, mut sum) = ([f32::NEG_INFINITY; COUNT], [[0f32; LANES]; COUNT]);
    for (index, page) in pages.iter().enumerate() {
        let first = index * PAGE_TOKENS;
        // What of the page each row sees, and what any of them does: the rest may hold anything, left from before.
        let mut seen = [(0, 0); COUNT];
        let (mut from, mut to) = (PAGE_TOKENS, 0);
        for row in 0..COUNT {
            let (start, end) = visible[row];
            seen[row] = (start.saturating_sub(first), end.saturating_sub(first).min(PAGE_TOKENS));
            if seen[row].0 < seen[row].1 {
                (from, to) = (from.min(seen[row].0), to.max(seen[row].1));
            }
        }
        if from >= to {
            continue;
        }
        let mut weights = [[[0f32; LANES]; PARTS]; COUNT];
        if COUNT * PARTS * V::REGISTERS <= 16 {
            scores::<V, COUNT, PARTS>(page, head, &query, 0, &mut weights);
        } else {
            for part in 0..PARTS {
                scores::<V, COUNT, 1>(page, head, &query, part, &mut weights);
            }
        }
        for row in 0..COUNT {
            let weights = &mut weights[row];
            let (start, end) = seen[row];
            if start >= end {
                *weights = [[0.0; LANES]; PARTS];
                continue;
            }
            if start > 0 || end < PAGE_TOKENS {
                mask(weights.as_flattened_mut(), start, end);
            }
            // What is not a number stays in the sum, wherever this leaves it.
            let mut largest = [0f32; LANES];
            V::load(&weights[0]).max(V::load(&weights[1])).store(&mut largest);
            let largest = largest_of(largest, max[row]);
            // Without a number among them, they are weighted as they are.
            let reference = if largest == f32::NEG_INFINITY { 0.0 } else { largest };
            // After some pages it seldom is a new one.
            if largest != max[row] {
                let factor = V::splat(exp_of::<V>(max[row] - reference));
                V::load(&sum[row]).mul(factor).store(&mut sum[row]);
                for values in &mut values {
                    V::load(&values[row]).mul(factor).store(&mut values[row]);
                }
                max[row] = largest;
            }
            to_weights::<V>(weights, reference, &mut sum[row]);
        }
        add_values::<V, COUNT>(page, head, &weights, from..to, &mut values);
    }
    for row in 0..rows {
        out.max[row] = max[row];
        out.sum[row] = sum_of_lanes(sum[row]);
        let out = &mut out.values[row * head_dim..][..head_dim];
        for (out, values) in out.chunks_mut(LANES).zip(&values) {
            out.copy_from_slice(&values[row][..out.len()]);
        }
    }
}

#[inline(always)]
fn exp_of<V: Lanes>(x: f32) -> f32 {
    if V::FMA { exp::<true>(x) } else { exp::<false>(x) }
}

/// Hides the scores outside of `start..end`.
fn mask(scores: &mut [f32], start: usize, end: usize) {
    for (slot, score) in scores.iter_mut().enumerate() {
        if slot < start || slot >= end {
            *score = f32::NEG_INFINITY;
        }
    }
}

#[inline(always)]
fn largest_of(mut lanes: [f32; LANES], at_least: f32) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] = if lanes[lane] > lanes[lane + width] { lanes[lane] } else { lanes[lane + width] };
        }
        width /= 2;
    }
    if lanes[0] < at_least { at_least } else { lanes[0] }
}

/// Turns scores into weights relative to the largest, and adds them to `sums`.
#[inline(always)]
fn to_weights<V: Lanes>(scores: &mut [[f32; LANES]; PARTS], largest: f32, sums: &mut [f32; LANES]) {
    for part in scores.iter_mut() {
        for lane in 0..LANES {
            part[lane] = exp_of::<V>(part[lane] - largest);
            sums[lane] += part[lane];
        }
    }
}

/// The products of the queries with the keys of `AT_ONCE` of a page's parts, from `part` on. Sums go from hand to hand by
/// value, which keeps them in registers.
#[inline(always)]
fn scores<V: Lanes, const COUNT: usize, const AT_ONCE: usize>(
    page: &KvPage,
    head: usize,
    query: &[[f32; COUNT]], // (head_dim, rows)
    part: usize,
    out: &mut [[[f32; LANES]; PARTS]; COUNT],
) {
    let mut sums = [[V::splat(0.0); AT_ONCE]; COUNT];
    match page.keys(head) {
        Stored::F16(keys) => {
            for (keys, query) in keys.as_chunks::<LANES>().0.as_chunks::<PARTS>().0.iter().zip(query) {
                let mut lanes = [V::splat(0.0); AT_ONCE];
                for i in 0..AT_ONCE {
                    lanes[i] = V::widen(&keys[part + i]);
                }
                sums = add_products(sums, query, lanes);
            }
        }
        Stored::F32(keys) => {
            for (keys, query) in keys.as_chunks::<LANES>().0.as_chunks::<PARTS>().0.iter().zip(query) {
                let mut lanes = [V::splat(0.0); AT_ONCE];
                for i in 0..AT_ONCE {
                    lanes[i] = V::load(&keys[part + i]);
                }
                sums = add_products(sums, query, lanes);
            }
        }
        Stored::Q8 { q, scales } => {
            let blocks = q.as_chunks::<{ 32 * PAGE_TOKENS }>().0.iter().zip(scales.as_chunks::<PAGE_TOKENS>().0);
            for ((q, scales), query) in blocks.zip(query.as_chunks::<32>().0) {
                let scales = scales.as_chunks::<LANES>().0;
                for (q, query) in q.as_chunks::<LANES>().0.as_chunks::<PARTS>().0.iter().zip(query) {
                    let mut lanes = [V::splat(0.0); AT_ONCE];
                    for i in 0..AT_ONCE {
                        lanes[i] = V::convert(&q[part + i]).mul(V::widen(&scales[part + i]));
                    }
                    sums = add_products(sums, query, lanes);
                }
            }
        }
    }
    for row in 0..COUNT {
        for i in 0..AT_ONCE {
            sums[row][i].store(&mut out[row][part + i]);
        }
    }
}

#[inline(always)]
fn add_products<V: Lanes, const COUNT: usize, const AT_ONCE: usize>(
    mut sums: [[V; AT_ONCE]; COUNT],
    query: &[f32; COUNT],
    keys: [V; AT_ONCE],
) -> [[V; AT_ONCE]; COUNT] {
    for row in 0..COUNT {
        let q = V::splat(query[row]);
        for i in 0..AT_ONCE {
            sums[row][i] = sums[row][i].add_product(q, keys[i]);
        }
    }
    sums
}

/// Weights of a page's positions, of each row.
type Weights<const COUNT: usize> = [[[f32; LANES]; PARTS]; COUNT];

/// Adds the values of some positions of a page, weighted: `values` is `(head_dim / 16, rows, 16)`.
#[inline(always)]
fn add_values<V: Lanes, const COUNT: usize>(
    page: &KvPage,
    head: usize,
    weights: &Weights<COUNT>,
    slots: Range<usize>,
    values: &mut [[[f32; LANES]; COUNT]],
) {
    let chunks = values.len();
    let (stored, from) = (page.values(head), slots.start);
    for (chunk, values) in values.iter_mut().enumerate() {
        let mut sums = [V::splat(0.0); COUNT];
        for row in 0..COUNT {
            sums[row] = V::load(&values[row]);
        }
        match stored {
            Stored::F16(v) => {
                let v = &v.as_chunks::<LANES>().0[from * chunks..];
                for (v, slot) in v.chunks_exact(chunks).zip(slots.clone()) {
                    let Some(v) = v.get(chunk) else { break };
                    sums = add_weighted(sums, weights, slot, V::widen(v));
                }
            }
            Stored::F32(v) => {
                let v = &v.as_chunks::<LANES>().0[from * chunks..];
                for (v, slot) in v.chunks_exact(chunks).zip(slots.clone()) {
                    let Some(v) = v.get(chunk) else { break };
                    sums = add_weighted(sums, weights, slot, V::load(v));
                }
            }
            Stored::Q8 { q, scales } => {
                let q = &q.as_chunks::<LANES>().0[from * chunks..];
                let scales = &scales[from * (chunks / 2)..];
                let rows = q.chunks_exact(chunks).zip(scales.chunks_exact(chunks / 2));
                for ((q, scales), slot) in rows.zip(slots.clone()) {
                    let (Some(q), Some(scale)) = (q.get(chunk), scales.get(chunk / 2)) else { break };
                    let scale = V::splat(half::f16::from_bits(*scale).to_f32());
                    sums = add_weighted(sums, weights, slot, V::convert(q).mul(scale));
                }
            }
        }
        for row in 0..COUNT {
            sums[row].store(&mut values[row]);
        }
    }
}

#[inline(always)]
fn add_weighted<V: Lanes, const COUNT: usize>(
    mut sums: [V; COUNT],
    weights: &Weights<COUNT>,
    slot: usize,
    v: V,
) -> [V; COUNT] {
    for row in 0..COUNT {
        let weight = weights[row].as_flattened()[slot % PAGE_TOKENS];
        sums[row] = sums[row].add_product(V::splat(weight), v);
    }
    sums
}
