//! Rows of activations over panels, with 512-bit VNNI dot products.

#![allow(unsafe_code, reason = "vector code; every block says why it is sound")]
#![allow(clippy::indexing_slicing, reason = "arrays indexed by constants, and rows cut to whole blocks")]

use std::arch::x86_64::*;
use std::ops::Range;

use super::avx512_fill::{Blocks, Mins, PAIRS, Portable, Q4K, Q5K, Q6K, Q40, Q80, Source, WidePanel, fill};
use crate::TensorType;
use crate::activations::{Activations, SUMS};
use crate::matmul::{Prepared, Weight, prefetch};
use crate::panel::{GROUP, GROUPS, PANEL_ROWS, Rows, Tile};
use crate::tensor_type::SUPER_BLOCK;
use crate::unpack::Layout;

/// Rows of activations that go over a panel together, at most.
const ROW_BLOCK: usize = 8;

/// Calls `$function::<S>($arguments)` with the [`Source`] of a type.
macro_rules! with_source {
    ($tensor_type:expr, $layout:expr, $function:ident($($argument:expr),*)) => {
        match ($tensor_type, $layout.sub_len, $layout.has_min) {
            (TensorType::Q4_K, ..) => $function::<Q4K>($($argument),*),
            (TensorType::Q5_K, ..) => $function::<Q5K>($($argument),*),
            (TensorType::Q6_K, ..) => $function::<Q6K>($($argument),*),
            (TensorType::Q8_0, ..) => $function::<Q80>($($argument),*),
            (TensorType::Q4_0, ..) => $function::<Q40>($($argument),*),
            (_, 32, true) => $function::<Portable<8, true>>($($argument),*),
            (_, 32, false) => $function::<Portable<8, false>>($($argument),*),
            (_, _, true) => $function::<Portable<16, true>>($($argument),*),
            (_, _, false) => $function::<Portable<16, false>>($($argument),*),
        }
    };
}

/// What the products of a type need of activations beside their quants, `(block, row, n)`, and how many that are: see
/// [`Rows::corrections`](crate::panel::Rows).
pub(super) fn corrections(tensor_type: TensorType, layout: Layout, activations: &Activations) -> Option<Vec<i32>> {
    fn pairs<S: Source>(activations: &Activations) -> Option<Vec<i32>> {
        let of_block = |sums: &[i16; SUMS]| {
            // Sums of 32 quants: 16 bits hold them.
            let sum = |sub: usize| sums[2 * sub] + sums[2 * sub + 1];
            PAIRS.map(|[low, high]| i32::from(sum(low)) & 0xffff | i32::from(sum(high)) << 16)
        };
        (S::MINS == Mins::Pairs).then(|| activations.sums().as_chunks().0.iter().flat_map(of_block).collect())
    }
    with_source!(tensor_type, layout, pairs(activations))
}

/// Products of some weight rows with all rows of activations, `(x rows, weight rows)`. The machine must have
/// `Isa::Avx512Vnni`.
pub(super) fn multiply(
    weight: &Weight<'_>,
    layout: Layout,
    rows: &Range<usize>,
    x: &[(&Activations, &Prepared)],
    out: &mut [f32],
) {
    with_source!(weight.tensor_type(), layout, multiply_type(weight, rows, x, out));
}

/// Tiles of sixteen weight rows, block by block. While rows of activations go over a panel, the next one is filled.
fn multiply_type<S: Source>(
    weight: &Weight<'_>,
    rows: &Range<usize>,
    x: &[(&Activations, &Prepared)],
    out: &mut [f32],
) {
    let runs: Vec<Run> =
        x.iter().enumerate().flat_map(|(part, (rows, _))| Run::of_part(part, rows.rows())).collect();
    let blocks = weight.len().div_ceil(SUPER_BLOCK);
    if rows.is_empty() || runs.is_empty() {
        return;
    }
    let whole = rows.len() / PANEL_ROWS * PANEL_ROWS;
    let rest = weight.tile(rows.start + whole..rows.end);
    // Steps read sixteen rows: the last tile has zeros in the place of those that are not there.
    let padded = if rest.bytes.is_empty() { Vec::new() } else { padded(rest) };
    let tile_at = |first: usize| match first + PANEL_ROWS {
        end if end <= rows.end => weight.tile(first..end),
        _ => Tile { bytes: &padded, ..rest },
    };
    let mut panels = [WidePanel::ZERO, WidePanel::ZERO];
    let [mut panel, mut next_panel] = panels.each_mut();
    prefetch(tile_at(rows.start).bytes);
    // SAFETY: the caller has found the level on this machine, and the blocks are of the source's type.
    unsafe { fill::<S>(&Blocks::new::<S>(tile_at(rows.start), 0), panel) };
    let mut sums = vec![[0f32; PANEL_ROWS]; runs.len() * ROW_BLOCK]; // (runs, rows, panel rows)
    for first in rows.clone().step_by(PANEL_ROWS) {
        sums.fill([0.0; PANEL_ROWS]);
        // The next tile comes into the cache while this one is multiplied.
        let ahead =
            weight.tile((first + PANEL_ROWS).min(weight.rows())..weight.rows().min(first + 2 * PANEL_ROWS));
        let mut ahead = ahead.bytes.chunks(ahead.bytes.len().div_ceil(blocks).max(1));
        for block in 0..blocks {
            let next = if block + 1 < blocks {
                Some(Blocks::new::<S>(tile_at(first), block + 1))
            } else if first + PANEL_ROWS < rows.end {
                Some(Blocks::new::<S>(tile_at(first + PANEL_ROWS), 0))
            } else {
                None
            };
            let in_steps = next.filter(Blocks::are_whole::<S>);
            let mut filling = in_steps.map(|blocks| Filling { blocks, panel: &mut *next_panel });
            let mut ahead = ahead.next().unwrap_or_default();
            for (run, sums) in runs.iter().zip(sums.chunks_mut(ROW_BLOCK)) {
                let (part, prepared) = x[run.part];
                let rows = Rows {
                    q: part.block_q(block, run.first),
                    scales: part.block_scales(block, run.first),
                    corrections: prepared.corrections(part, block, run.first),
                };
                let sums = &mut sums[..run.rows];
                run_of_rows::<S>(panel, rows, sums, std::mem::take(&mut ahead), filling.take());
            }
            if let (Some(next), None) = (next, in_steps) {
                next.fill(next_panel);
            }
            std::mem::swap(&mut panel, &mut next_panel);
        }
        let column = first - rows.start;
        let sums = runs.iter().zip(sums.chunks(ROW_BLOCK)).flat_map(|(run, sums)| &sums[..run.rows]);
        for (sums, out) in sums.zip(out.chunks_exact_mut(rows.len())) {
            match out[column..].first_chunk_mut() {
                Some(out) => *out = *sums,
                None => out[column..].copy_from_slice(&sums[..rows.len() - column]),
            }
        }
    }
}

/// The bytes of a tile, and zeros up to those of sixteen rows.
fn padded(tile: Tile<'_>) -> Vec<u8> {
    let mut bytes = tile.bytes.to_vec();
    bytes.resize(PANEL_ROWS * tile.row_bytes, 0);
    bytes
}

/// Rows of a part of the activations that go over a panel together.
#[derive(Clone, Copy)]
struct Run {
    part: usize,
    first: usize,
    rows: usize,
}

impl Run {
    /// Those of a part of so many rows: as even as they can be.
    fn of_part(part: usize, rows: usize) -> impl Iterator<Item = Self> {
        let count = rows.div_ceil(ROW_BLOCK);
        (0..count).map(move |run| {
            let first = run * rows / count;
            Self { part, first, rows: (run + 1) * rows / count - first }
        })
    }
}

/// A panel that is filled while another is multiplied.
struct Filling<'a> {
    /// Whole, and of the source's type.
    blocks: Blocks<'a>,
    panel: &'a mut WidePanel,
}

fn run_of_rows<S: Source>(
    panel: &WidePanel,
    rows: Rows<'_>,
    sums: &mut [[f32; PANEL_ROWS]],
    ahead: &[u8],
    filling: Option<Filling<'_>>,
) {
    macro_rules! rows {
        ($($count:literal)*) => {
            match sums.len() {
                $($count => {
                    let per_row = if S::MINS == Mins::Pairs { PAIRS.len() } else { S::SUBS };
                    assert!(
                        rows.q.len() >= $count * SUPER_BLOCK
                            && rows.scales.len() >= $count
                            && rows.corrections.len() >= $count * per_row
                    );
                    // SAFETY: the caller has found the level on this machine, and the lengths were just checked.
                    unsafe {
                        match filling {
                            Some(filling) => some_rows::<S, _, $count>(panel, rows, sums, ahead, filling),
                            None => some_rows::<S, _, $count>(panel, rows, sums, ahead, ()),
                        }
                    }
                })*
                _ => {}
            }
        };
    }
    rows!(1 2 3 4 5 6 7 8);
}

/// What else is done while rows of activations go over a panel.
trait Meanwhile {
    /// What stands before a sub-block.
    ///
    /// SAFETY: the machine must have `Isa::Avx512Vnni`.
    unsafe fn before<S: Source>(&mut self, sub: usize);
}

impl Meanwhile for () {
    #[inline(always)]
    unsafe fn before<S: Source>(&mut self, _: usize) {}
}

impl Meanwhile for Filling<'_> {
    #[inline(always)]
    unsafe fn before<S: Source>(&mut self, sub: usize) {
        const { assert!(S::STEPS > 0 && S::SUBS.is_multiple_of(S::STEPS)) };
        let every = S::SUBS / S::STEPS;
        // SAFETY: the caller vouches for the level; the blocks are whole and of the type, and steps come in their order.
        unsafe {
            if sub == 0 {
                S::begin(&self.blocks, self.panel);
            }
            if sub.is_multiple_of(every) {
                S::step(&self.blocks, sub / every, self.panel);
            }
        }
    }
}

/// Adds the products of `ROWS` rows with a panel to `sums`. Between sub-blocks it asks for the bytes `ahead`, a few at a
/// time since what is under way from memory at once is limited.
///
/// SAFETY: the machine must have `Isa::Avx512Vnni`, and there be at least `ROWS` rows in `rows` and `sums`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn some_rows<S: Source, M: Meanwhile, const ROWS: usize>(
    panel: &WidePanel,
    rows: Rows<'_>,
    sums: &mut [[f32; PANEL_ROWS]],
    ahead: &[u8],
    mut meanwhile: M,
) {
    let mut ahead = ahead.chunks((ahead.len().div_ceil(S::SUBS)).max(64));
    let groups = GROUPS / S::SUBS;
    let (q, corrections) = (rows.q.as_ptr(), rows.corrections.as_ptr());
    let of_panel = &panel.panel;
    // SAFETY: all reads are of the first `ROWS` rows, which the caller vouches for, and inside the panel's arrays.
    unsafe {
        let mut total = [_mm512_setzero_ps(); ROWS];
        for sub in 0..S::SUBS {
            for line in ahead.next().unwrap_or_default().chunks(64) {
                _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast());
            }
            meanwhile.before::<S>(sub);
            let correction = |row: usize| *corrections.add(row * S::SUBS + sub);
            let mut dots = [_mm512_setzero_si512(); ROWS];
            if S::MINS == Mins::None {
                for (row, dot) in dots.iter_mut().enumerate() {
                    *dot = _mm512_set1_epi32(correction(row));
                }
            }
            for group in sub * groups..(sub + 1) * groups {
                let w = _mm512_load_si512(of_panel.q.as_ptr().add(group).cast());
                for (row, dot) in dots.iter_mut().enumerate() {
                    let a = q.add(row * SUPER_BLOCK + group * GROUP).cast::<i32>().read_unaligned();
                    *dot = _mm512_dpbusd_epi32(*dot, w, _mm512_set1_epi32(a));
                }
            }
            let scale = _mm512_load_ps(of_panel.scale.as_ptr().add(sub).cast());
            for (total, dot) in total.iter_mut().zip(dots) {
                *total = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, *total);
            }
            if S::MINS == Mins::Floats {
                let min = _mm512_load_ps(of_panel.min.as_ptr().add(sub).cast());
                for (row, total) in total.iter_mut().enumerate() {
                    let sum = _mm512_castsi512_ps(_mm512_set1_epi32(correction(row)));
                    *total = _mm512_fnmadd_ps(min, sum, *total);
                }
            }
        }
        if S::MINS == Mins::Pairs {
            let mut mins = [_mm512_setzero_si512(); ROWS];
            for pair in 0..PAIRS.len() {
                let min = _mm512_loadu_si512(panel.min_pairs.as_ptr().add(pair).cast());
                for (row, mins) in mins.iter_mut().enumerate() {
                    let sums = *corrections.add(row * PAIRS.len() + pair);
                    *mins = _mm512_dpwssd_epi32(*mins, min, _mm512_set1_epi32(sums));
                }
            }
            let scale = _mm512_loadu_ps(panel.min_scale.as_ptr());
            for (total, mins) in total.iter_mut().zip(mins) {
                *total = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(mins), scale, *total);
            }
        }
        for row in 0..ROWS {
            let sums = sums.as_mut_ptr().add(row).cast();
            let scale = _mm512_set1_ps(*rows.scales.as_ptr().add(row));
            _mm512_storeu_ps(sums, _mm512_fmadd_ps(total[row], scale, _mm512_loadu_ps(sums)));
        }
    }
}
