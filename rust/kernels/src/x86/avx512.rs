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
    let x_rows: usize = x.iter().map(|(part, _)| part.rows()).sum();
    let runs: usize = x.iter().map(|(part, _)| part.rows().div_ceil(ROW_BLOCK)).sum();
    let blocks = weight.len().div_ceil(SUPER_BLOCK);
    if rows.is_empty() || runs == 0 {
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
    let mut sums = vec![[0f32; PANEL_ROWS]; x_rows]; // (x rows, panel rows)
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
            let mut filling = Filling { blocks: in_steps, panel: next_panel, step: 0, until: 0 };
            let (mut ahead, mut run) = (ahead.next().unwrap_or_default(), 0);
            let mut sums = sums.as_mut_slice();
            for (part, prepared) in x {
                let (of_part, rest) = sums.split_at_mut(part.rows());
                sums = rest;
                let q = part.block_q(block, 0).chunks(ROW_BLOCK * SUPER_BLOCK);
                let scales = part.block_scales(block, 0).chunks(ROW_BLOCK);
                let per_row = prepared.corrections_of_row();
                let corrections = prepared.corrections(part, block, 0).chunks(ROW_BLOCK * per_row);
                let parts = q.zip(scales).zip(corrections).zip(of_part.chunks_mut(ROW_BLOCK));
                for (((q, scales), corrections), sums) in parts {
                    run += 1;
                    filling.until = S::STEPS * run / runs;
                    let rows = Rows { q, scales, corrections };
                    run_of_rows::<S>(panel, rows, sums, std::mem::take(&mut ahead), &mut filling);
                }
            }
            if let (Some(next), None) = (next, in_steps) {
                next.fill(filling.panel);
            }
            std::mem::swap(&mut panel, &mut next_panel);
        }
        let (column, tile_rows) = (first - rows.start, PANEL_ROWS.min(rows.end - first));
        for (sums, out) in sums.iter().zip(out.chunks_exact_mut(rows.len())) {
            out[column..column + tile_rows].copy_from_slice(&sums[..tile_rows]);
        }
    }
}

/// The bytes of a tile, and zeros up to those of sixteen rows.
fn padded(tile: Tile<'_>) -> Vec<u8> {
    let mut bytes = tile.bytes.to_vec();
    bytes.resize(PANEL_ROWS * tile.row_bytes, 0);
    bytes
}

/// A panel that is filled while another is multiplied.
struct Filling<'a> {
    /// None if there is nothing to fill in steps.
    blocks: Option<Blocks<'a>>,
    panel: &'a mut WidePanel,
    step: usize,
    /// The step before which to stop.
    until: usize,
}

impl Filling<'_> {
    /// Takes the next step, if there is one to take.
    ///
    /// SAFETY: the machine must have `Isa::Avx512Vnni`, the blocks be whole and of the source's type, and `until` be at
    /// most the number of steps.
    #[inline(always)]
    unsafe fn advance<S: Source>(&mut self) {
        if let Some(blocks) = &self.blocks
            && self.step < self.until
        {
            // SAFETY: as the caller vouches for.
            unsafe {
                if self.step == 0 {
                    S::begin(blocks, self.panel);
                }
                S::step(blocks, self.step, self.panel);
            }
            self.step += 1;
        }
    }
}

fn run_of_rows<S: Source>(
    panel: &WidePanel,
    rows: Rows<'_>,
    sums: &mut [[f32; PANEL_ROWS]],
    ahead: &[u8],
    filling: &mut Filling<'_>,
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
                    unsafe { some_rows::<S, $count>(panel, rows, sums, ahead, filling) };
                })*
                _ => {}
            }
        };
    }
    rows!(1 2 3 4 5 6 7 8);
}

/// Adds the products of `ROWS` rows with a panel to `sums`. Between sub-blocks it asks for the bytes `ahead`, a few at a
/// time since what is under way from memory at once is limited, and takes steps of the filling.
///
/// SAFETY: there must be at least `ROWS` rows in `rows` and `sums`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn some_rows<S: Source, const ROWS: usize>(
    panel: &WidePanel,
    rows: Rows<'_>,
    sums: &mut [[f32; PANEL_ROWS]],
    ahead: &[u8],
    filling: &mut Filling<'_>,
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
            filling.advance::<S>();
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
