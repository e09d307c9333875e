//! Rows of activations over panels, with 512-bit VNNI dot products.

#![allow(unsafe_code, reason = "vector code; every block says why it is sound")]
#![allow(clippy::indexing_slicing, reason = "arrays indexed by constants, and rows cut to whole blocks")]

use std::arch::x86_64::*;
use std::ops::Range;

use super::avx512_fill::{Blocks, Mins, PAIRS, Portable, Q4K, Q5K, Q6K, Q40, Q80, Source, WidePanel, fill};
use crate::TensorType;
use crate::activations::{Activations, SUMS};
use crate::matmul::{Prepared, Weight, prefetch};
use crate::panel::{GROUP, GROUPS, PANEL_ROWS, Tile};
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
    let runs: Vec<Run<'_>> = x.iter().flat_map(|(part, prepared)| Run::of_part::<S>(part, prepared)).collect();
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
    let mut sums = vec![Sums::ZERO; runs.len()];
    for first in rows.clone().step_by(PANEL_ROWS) {
        sums.fill(Sums::ZERO);
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
            let mut ahead = Ahead::new(ahead.next().unwrap_or_default(), runs.len() * S::SUBS);
            // SAFETY: the caller has found the level on this machine, and `block` is one of the activations' blocks.
            unsafe {
                if let Some(blocks) = in_steps {
                    let filling = Filling { blocks, panel: &mut *next_panel };
                    all_rows::<S, _>(panel, &runs[..1], block, &mut sums[..1], &mut ahead, filling);
                    all_rows::<S, _>(panel, &runs[1..], block, &mut sums[1..], &mut ahead, ());
                } else {
                    all_rows::<S, _>(panel, &runs, block, &mut sums, &mut ahead, ());
                }
            }
            if let (Some(next), None) = (next, in_steps) {
                next.fill(next_panel);
            }
            std::mem::swap(&mut panel, &mut next_panel);
        }
        let column = first - rows.start;
        let sums = runs.iter().zip(&sums).flat_map(|(run, sums)| &sums.0[..run.rows]);
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
struct Run<'a> {
    rows: usize,
    /// From the first row of the first block on.
    q: &'a [i8],
    scales: &'a [f32],
    corrections: &'a [i32],
    /// Rows of the part: what lies between a row's blocks.
    of: usize,
}

impl<'a> Run<'a> {
    /// What a row needs of corrections.
    const fn per_row<S: Source>() -> usize {
        if matches!(S::MINS, Mins::Pairs) { PAIRS.len() } else { S::SUBS }
    }

    /// Those of a part: as even as they can be.
    fn of_part<S: Source>(part: &'a Activations, prepared: &'a Prepared) -> impl Iterator<Item = Self> {
        let of = part.rows();
        let (q, scales, corrections) = (part.all_q(), part.all_scales(), prepared.all_corrections());
        let rows = part.blocks() * of;
        assert!(
            q.len() >= rows * SUPER_BLOCK
                && scales.len() >= rows
                && corrections.len() >= rows * Self::per_row::<S>()
        );
        let count = of.div_ceil(ROW_BLOCK);
        (0..count).map(move |run| {
            let first = run * of / count;
            Self {
                rows: (run + 1) * of / count - first,
                q: &q[first * SUPER_BLOCK..],
                scales: &scales[first..],
                corrections: &corrections[first * Self::per_row::<S>()..],
                of,
            }
        })
    }
}

/// What the rows of a run come to with a tile so far: `(rows, panel rows)`, each in a cache line of its own.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Sums([[f32; PANEL_ROWS]; ROW_BLOCK]);

impl Sums {
    const ZERO: Self = Self([[0.0; PANEL_ROWS]; ROW_BLOCK]);
}

/// A panel that is filled while another is multiplied, in the steps of one run of rows.
struct Filling<'a> {
    /// Whole, and of the source's type.
    blocks: Blocks<'a>,
    panel: &'a mut WidePanel,
}

/// Bytes that memory is asked for while others are multiplied: a few at a time, since what is under way at once is
/// limited, and what is needed now would wait behind it.
struct Ahead<'a>(std::slice::Chunks<'a, u8>);

impl<'a> Ahead<'a> {
    /// To be asked for in so many steps.
    fn new(bytes: &'a [u8], steps: usize) -> Self {
        Self(bytes.chunks(bytes.len().div_ceil(steps).next_multiple_of(64).max(64)))
    }

    #[inline(always)]
    fn step(&mut self) {
        for line in self.0.next().unwrap_or_default().chunks(64) {
            // SAFETY: a hint has no effect that a program could tell, and SSE is in the baseline.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
        }
    }
}

/// Adds the products of all runs of rows with a panel to `sums`.
///
/// SAFETY: the machine must have `Isa::Avx512Vnni`, and the activations the block.
unsafe fn all_rows<S: Source, M: Meanwhile>(
    panel: &WidePanel,
    runs: &[Run<'_>],
    block: usize,
    sums: &mut [Sums],
    ahead: &mut Ahead<'_>,
    mut meanwhile: M,
) {
    let (mut runs, mut sums) = (runs, sums);
    while let Some(first) = runs.first() {
        let alike = runs.iter().take_while(|run| run.rows == first.rows).count();
        let (these, others) = runs.split_at(alike);
        let (sums_of_these, sums_of_others) = sums.split_at_mut(alike);
        macro_rules! rows {
            ($($count:literal)*) => {
                match first.rows {
                    // SAFETY: as the caller vouches for, and each of the runs has so many rows.
                    $($count => unsafe {
                        some_rows::<S, M, $count>(panel, these, block, sums_of_these, ahead, &mut meanwhile);
                    })*
                    _ => {}
                }
            };
        }
        rows!(1 2 3 4 5 6 7 8);
        (runs, sums) = (others, sums_of_others);
    }
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

/// Adds the products of runs of `ROWS` rows with a panel to `sums`.
///
/// SAFETY: the machine must have `Isa::Avx512Vnni`, each of the runs have `ROWS` rows, and the activations the block.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn some_rows<S: Source, M: Meanwhile, const ROWS: usize>(
    panel: &WidePanel,
    runs: &[Run<'_>],
    block: usize,
    sums: &mut [Sums],
    ahead: &mut Ahead<'_>,
    meanwhile: &mut M,
) {
    const { assert!(ROWS <= ROW_BLOCK) };
    let groups = GROUPS / S::SUBS;
    let of_panel = &panel.panel;
    for (run, sums) in runs.iter().zip(sums) {
        let before = block * run.of;
        // SAFETY: all reads are of rows of the run's block, which the caller vouches for, and inside the panel's arrays.
        unsafe {
            let q = run.q.as_ptr().add(before * SUPER_BLOCK);
            let scales = run.scales.as_ptr().add(before);
            let corrections = run.corrections.as_ptr().add(before * Run::per_row::<S>());
            let mut total = [_mm512_setzero_ps(); ROWS];
            for sub in 0..S::SUBS {
                ahead.step();
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
                let dots = dots.map(|dot| _mm512_cvtepi32_ps(dot));
                for (total, dot) in total.iter_mut().zip(dots) {
                    *total = _mm512_fmadd_ps(dot, scale, *total);
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
                let sums = sums.0.as_mut_ptr().add(row).cast();
                let scale = _mm512_set1_ps(*scales.add(row));
                _mm512_store_ps(sums, _mm512_fmadd_ps(total[row], scale, _mm512_load_ps(sums)));
            }
        }
    }
}
