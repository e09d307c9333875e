//! Attention over pages of cached keys and values.
//!
//! Rows of queries go over the pages once, with a running maximum, as flash attention does (arXiv:2205.14135); what they
//! end with can be merged with that of other pages.

#![allow(clippy::indexing_slicing, reason = "ranges of buffers whose lengths are functions of the page's shape")]

use std::ops::Range;
use std::sync::Arc;

use crate::elementwise::exp;
use crate::kv_page::{KvPage, PAGE_TOKENS, Stored};
use crate::panel::fused;
use crate::{Isa, Kernels};

/// Values of a vector.
pub(crate) const LANES: usize = 16;
/// Rows of queries that go over a page together, at most.
const ROWS: usize = 8;

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

    /// The attention over all pages, out of those over some each: `(rows, head_dim)`
    #[must_use]
    pub fn merge<'a>(parts: impl Iterator<Item = &'a Self> + Clone) -> Vec<f32> {
        let Some(first) = parts.clone().next().filter(|part| part.head_dim > 0) else { return Vec::new() };
        let mut out = vec![0.0; first.values.len()];
        for (row, out) in out.chunks_exact_mut(first.head_dim).enumerate() {
            let max = parts.clone().map(|part| part.max[row]).fold(f32::NEG_INFINITY, f32::max);
            let mut sum = 0.0;
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
        out
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
        for first in (0..rows).step_by(ROWS) {
            let range = first..rows.min(first + ROWS);
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
        use crate::x86::half::{WidenAvx2, WidenAvx512};

        #[target_feature(enable = "avx2,fma,f16c")]
        fn avx2(queries: Queries<'_>, pages: &[Arc<KvPage>], head: usize, out: Rows<'_>) {
            by_count::<true, WidenAvx2>(queries, pages, head, out);
        }
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
        fn avx512(queries: Queries<'_>, pages: &[Arc<KvPage>], head: usize, out: Rows<'_>) {
            by_count::<true, WidenAvx512>(queries, pages, head, out);
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
    by_count::<{ cfg!(target_arch = "aarch64") }, WidenPortable>(queries, pages, head, out);
}

/// Widens sixteen values in half precision.
pub(crate) trait Widen {
    fn widen(halves: &[u16; LANES]) -> [f32; LANES];
}

struct WidenPortable;

impl Widen for WidenPortable {
    /// By integer arithmetic without branches, so that it vectorizes; exact, subnormals and infinities included.
    #[inline(always)]
    fn widen(halves: &[u16; LANES]) -> [f32; LANES] {
        // 2^112, by which the exponents' biases differ.
        const REBIAS: f32 = f32::from_bits(0x7780_0000);
        halves.map(|half| {
            let magnitude = u32::from(half & 0x7fff) << 13;
            let finite = (f32::from_bits(magnitude) * REBIAS).to_bits();
            let special = magnitude | 0x7f80_0000;
            let bits = if half & 0x7c00 == 0x7c00 { special } else { finite };
            f32::from_bits(bits | u32::from(half & 0x8000) << 16)
        })
    }
}

#[inline(always)]
fn by_count<const FMA: bool, W: Widen>(queries: Queries<'_>, pages: &[Arc<KvPage>], head: usize, out: Rows<'_>) {
    match queries.visible.len() {
        1 => some_rows::<FMA, 1, W>(queries, pages, head, out),
        2 => some_rows::<FMA, 2, W>(queries, pages, head, out),
        3 => some_rows::<FMA, 3, W>(queries, pages, head, out),
        4 => some_rows::<FMA, 4, W>(queries, pages, head, out),
        // With rows that see nothing where there are less than eight.
        _ => some_rows::<FMA, ROWS, W>(queries, pages, head, out),
    }
}

#[inline(always)]
fn some_rows<const FMA: bool, const COUNT: usize, W: Widen>(
    queries: Queries<'_>,
    pages: &[Arc<KvPage>],
    head: usize,
    out: Rows<'_>,
) {
    let rows = queries.visible.len();
    let head_dim = queries.values.len() / rows;
    let visible: [Range<usize>; COUNT] =
        std::array::from_fn(|row| queries.visible.get(row).cloned().unwrap_or_default());
    let query: [&[f32]; COUNT] =
        std::array::from_fn(|row| &queries.values[row.min(rows - 1) * head_dim..][..head_dim]);
    let padded = head_dim.next_multiple_of(LANES);
    let mut values = vec![[[0f32; LANES]; COUNT]; padded / LANES];
    let (mut max, mut sum) = ([f32::NEG_INFINITY; COUNT], [0f32; COUNT]);
    let seen = |page: usize| {
        let positions = page * PAGE_TOKENS..(page + 1) * PAGE_TOKENS;
        visible.iter().any(|visible| visible.start < positions.end && positions.start < visible.end)
    };
    for (index, page) in pages.iter().enumerate().filter(|(index, _)| seen(*index)) {
        let mut scores = scores::<FMA, COUNT, W>(page, head, query);
        for row in 0..COUNT {
            let scores = &mut scores[row];
            let first = index * PAGE_TOKENS;
            if visible[row].start > first || visible[row].end < first + PAGE_TOKENS {
                for (slot, score) in scores.iter_mut().enumerate() {
                    if !visible[row].contains(&(first + slot)) {
                        *score = f32::NEG_INFINITY;
                    }
                }
            }
            // What is not a number must stay in the result, and `max` leaves it out.
            let largest = scores.iter().fold(max[row], |a, b| if *b > a || b.is_nan() { *b } else { a });
            if largest == f32::NEG_INFINITY {
                scores.fill(0.0);
                continue;
            }
            let factor = exp::<FMA>(max[row] - largest);
            max[row] = largest;
            let mut total = 0.0;
            for score in scores.iter_mut() {
                *score = exp::<FMA>(*score - largest);
            }
            for score in scores.iter() {
                total += score;
            }
            sum[row] = sum[row] * factor + total;
            if factor != 1.0 {
                for values in &mut values {
                    for value in &mut values[row] {
                        *value *= factor;
                    }
                }
            }
        }
        add_values::<FMA, COUNT, W>(page, head, &scores, &mut values);
    }
    for row in 0..rows {
        out.max[row] = max[row];
        out.sum[row] = sum[row];
        let out = &mut out.values[row * head_dim..][..head_dim];
        for (out, values) in out.chunks_mut(LANES).zip(&values) {
            out.copy_from_slice(&values[row][..out.len()]);
        }
    }
}

/// The products of the queries with the keys of a page: `(rows, positions)`
#[inline(always)]
fn scores<const FMA: bool, const COUNT: usize, W: Widen>(
    page: &KvPage,
    head: usize,
    query: [&[f32]; COUNT],
) -> [[f32; PAGE_TOKENS]; COUNT] {
    const PARTS: usize = PAGE_TOKENS / LANES;
    let mut sums = [[[0f32; LANES]; PARTS]; COUNT];
    let mut add = |dim: usize, keys: [[f32; LANES]; PARTS]| {
        for row in 0..COUNT {
            let q = query[row][dim];
            for part in 0..PARTS {
                for lane in 0..LANES {
                    sums[row][part][lane] = fused::<FMA>(q, keys[part][lane], sums[row][part][lane]);
                }
            }
        }
    };
    match page.keys(head) {
        Stored::F16(keys) => {
            for (dim, keys) in keys.as_chunks::<LANES>().0.as_chunks::<PARTS>().0.iter().enumerate() {
                add(dim, std::array::from_fn(|part| W::widen(&keys[part])));
            }
        }
        Stored::F32(keys) => {
            for (dim, keys) in keys.as_chunks::<LANES>().0.as_chunks::<PARTS>().0.iter().enumerate() {
                add(dim, *keys);
            }
        }
        Stored::Q8 { q, scales } => {
            let blocks = q.as_chunks::<{ 32 * PAGE_TOKENS }>().0.iter().zip(scales.as_chunks::<PAGE_TOKENS>().0);
            for (block, (q, scales)) in blocks.enumerate() {
                let scales = scales.as_chunks::<LANES>().0;
                let scales: [[f32; LANES]; PARTS] = std::array::from_fn(|part| W::widen(&scales[part]));
                for (i, q) in q.as_chunks::<LANES>().0.as_chunks::<PARTS>().0.iter().enumerate() {
                    let keys = std::array::from_fn(|part| {
                        std::array::from_fn(|lane| f32::from(q[part][lane]) * scales[part][lane])
                    });
                    add(block * 32 + i, keys);
                }
            }
        }
    }
    let mut scores = [[0f32; PAGE_TOKENS]; COUNT];
    for (scores, sums) in scores.iter_mut().zip(&sums) {
        for (scores, sums) in scores.as_chunks_mut::<LANES>().0.iter_mut().zip(sums) {
            *scores = *sums;
        }
    }
    scores
}

/// Adds the values of a page, weighted: `values` is `(head_dim / 16, rows, 16)`.
#[inline(always)]
fn add_values<const FMA: bool, const COUNT: usize, W: Widen>(
    page: &KvPage,
    head: usize,
    weights: &[[f32; PAGE_TOKENS]; COUNT],
    values: &mut [[[f32; LANES]; COUNT]],
) {
    let padded = values.len() * LANES;
    for (chunk, values) in values.iter_mut().enumerate() {
        let mut sums = *values;
        let mut add = |slot: usize, v: [f32; LANES]| {
            for row in 0..COUNT {
                for lane in 0..LANES {
                    sums[row][lane] = fused::<FMA>(weights[row][slot], v[lane], sums[row][lane]);
                }
            }
        };
        match page.values(head) {
            Stored::F16(v) => {
                for (slot, v) in v.chunks_exact(padded).enumerate().take(PAGE_TOKENS) {
                    if let Some(v) = v[chunk * LANES..].first_chunk() {
                        add(slot, W::widen(v));
                    }
                }
            }
            Stored::F32(v) => {
                for (slot, v) in v.chunks_exact(padded).enumerate().take(PAGE_TOKENS) {
                    if let Some(v) = v[chunk * LANES..].first_chunk() {
                        add(slot, *v);
                    }
                }
            }
            Stored::Q8 { q, scales } => {
                let rows = q.chunks_exact(padded).zip(scales.chunks_exact(padded / 32));
                for (slot, (q, scales)) in rows.enumerate().take(PAGE_TOKENS) {
                    if let Some(q) = q[chunk * LANES..].first_chunk::<LANES>() {
                        let scale = half::f16::from_bits(scales[chunk * LANES / 32]).to_f32();
                        add(slot, q.map(|q| f32::from(q) * scale));
                    }
                }
            }
        }
        *values = sums;
    }
}
