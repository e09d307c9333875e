//! Many rows of activations: they go over panels, block by block, and while they do, the next panel is filled.

#![allow(unsafe_code, reason = "vector code; every block says why it is sound")]

use std::arch::x86_64::*;

use super::avx512::Tiles;
use super::avx512_fill::{Blocks, Source, fill};
use super::avx512_panel::{Mins, WidePanel};
use super::avx512_run::{Run, Sums, add_scaled, add_to_sums, ask_for, begin_dots, subtract_pairs};
use crate::matmul::prefetch;
use crate::panel::{GROUP, GROUPS};
use crate::products::Products;
use crate::tensor_type::SUPER_BLOCK;

/// Products of all runs, which are all their rows, with all tiles. The machine must have `Isa::Avx512Vnni`, and the weight be
/// of the source's type.
pub(super) fn multiply<S: Source>(tiles: &Tiles<'_>, runs: &[Run<'_>], products: &mut Products) {
    let blocks = tiles.blocks;
    let mut panels = [WidePanel::ZERO, WidePanel::ZERO];
    let [mut panel, mut next_panel] = panels.each_mut();
    if let Some(first) = tiles.firsts().next() {
        // SAFETY: the caller has found the level on this machine, and the blocks are of the source's type.
        unsafe { fill::<S>(&Blocks::new::<S>(tiles.at(first), 0), panel) };
    }
    let (first_run, others) = runs.split_at(1.min(runs.len()));
    let rows_of_first = first_run.iter().map(|run| run.rows).sum();
    for (first, sums) in tiles.firsts().zip(products.by_columns()) {
        // The next tile comes into the cache while this one is multiplied.
        let ahead = tiles.ahead(first);
        let mut ahead = ahead.chunks(ahead.len().div_ceil(blocks).max(1));
        for block in 0..blocks {
            let next = if block + 1 < blocks {
                Some(Blocks::new::<S>(tiles.at(first), block + 1))
            } else {
                tiles.behind(first).map(|tile| Blocks::new::<S>(tile, 0))
            };
            let in_steps = next.filter(Blocks::are_whole::<S>);
            let ahead = ahead.next().unwrap_or_default();
            // SAFETY: the caller has found the level on this machine, and `block` is one of the activations' blocks.
            unsafe {
                if let Some(blocks) = in_steps {
                    let filling = Filling { blocks, panel: &mut *next_panel, ahead: ahead.as_ptr() };
                    let (of_first, of_others) = sums.split_at_mut(rows_of_first);
                    all_rows::<S, _>(panel, first_run, block, of_first, filling);
                    all_rows::<S, _>(panel, others, block, of_others, ());
                } else {
                    prefetch(ahead);
                    all_rows::<S, _>(panel, runs, block, sums, ());
                }
            }
            if let (Some(next), None) = (next, in_steps) {
                next.fill(next_panel);
            }
            std::mem::swap(&mut panel, &mut next_panel);
        }
    }
}

/// Adds the products of a run with a panel to `sums`; the first block's are all there are until then.
///
/// SAFETY: the machine must have `Isa::Avx512Vnni`, and the activations the block.
pub(super) unsafe fn add_panel<S: Source>(panel: &WidePanel, run: &Run<'_>, block: usize, sums: &mut [Sums]) {
    // SAFETY: as the caller vouches for.
    unsafe { all_rows::<S, _>(panel, std::slice::from_ref(run), block, sums, ()) };
}

/// A panel that is filled while another is multiplied, in the steps of one run of rows.
struct Filling<'a> {
    /// Whole, and of the source's type.
    blocks: Blocks<'a>,
    panel: &'a mut WidePanel,
    /// Where the sixteen blocks begin that memory is asked for meanwhile. They need not be there.
    ahead: *const u8,
}

/// Adds the products of all runs of rows with a panel to `sums`; the first block's are all there are until then.
///
/// SAFETY: the machine must have `Isa::Avx512Vnni`, and the activations the block.
unsafe fn all_rows<S: Source, M: Meanwhile>(
    panel: &WidePanel,
    runs: &[Run<'_>],
    block: usize,
    sums: &mut [Sums],
    mut meanwhile: M,
) {
    let (mut runs, mut sums) = (runs, sums);
    while let Some(first) = runs.first() {
        let alike = runs.iter().take_while(|run| run.rows == first.rows).count();
        let (these, others) = runs.split_at(alike);
        let (sums_of_these, sums_of_others) = sums.split_at_mut(alike * first.rows);
        macro_rules! rows {
            ($($count:literal)*) => {
                match first.rows {
                    // SAFETY: as the caller vouches for, and each of the runs has so many rows.
                    $($count => unsafe {
                        some_rows::<S, M, $count>(panel, these, block, sums_of_these, &mut meanwhile);
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
    unsafe fn before<S: Source>(&mut self, step: usize);
}

impl Meanwhile for () {
    #[inline(always)]
    unsafe fn before<S: Source>(&mut self, _: usize) {}
}

impl Meanwhile for Filling<'_> {
    #[inline(always)]
    unsafe fn before<S: Source>(&mut self, step: usize) {
        const { assert!(S::STEPS > 0 && S::SUBS.is_multiple_of(S::STEPS)) };
        let every = S::SUBS / S::STEPS;
        self.ahead = ask_for::<S>(self.ahead);
        // SAFETY: the caller vouches for the level; the blocks are whole and of the type, and steps come in their order.
        unsafe {
            if step == 0 {
                S::begin(&self.blocks, self.panel);
            }
            if step.is_multiple_of(every) {
                S::step(&self.blocks, step / every, self.panel);
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
    meanwhile: &mut M,
) {
    let groups = GROUPS / S::SUBS;
    for (run, sums) in runs.iter().zip(sums.as_chunks_mut::<ROWS>().0) {
        // SAFETY: all reads are of rows of the run's block, which the caller vouches for, and inside the panel's arrays.
        unsafe {
            let (q, corrections) = run.of_block::<S>(block);
            let mut total = [_mm512_setzero_ps(); ROWS];
            if S::MINS == Mins::Pairs {
                total = subtract_pairs(total, panel.load_mins(), corrections);
            }
            for step in 0..S::SUBS {
                meanwhile.before::<S>(step);
                let sub = S::sub_of(step);
                let mut dots = begin_dots::<S, ROWS>(corrections, sub);
                for group in sub * groups..(sub + 1) * groups {
                    let w = _mm512_load_si512(panel.panel.q.as_ptr().add(group).cast());
                    for (row, dot) in dots.iter_mut().enumerate() {
                        let a = q.add(row * SUPER_BLOCK + group * GROUP).cast::<i32>().read_unaligned();
                        *dot = _mm512_dpbusd_epi32(*dot, w, _mm512_set1_epi32(a));
                    }
                }
                total = add_scaled(total, dots, panel.load_scale(sub));
                if S::MINS == Mins::Floats {
                    let min = _mm512_load_ps(panel.panel.min.as_ptr().add(sub).cast());
                    for (row, total) in total.iter_mut().enumerate() {
                        let sum = *corrections.add(row * S::SUBS + sub);
                        let sum = _mm512_castsi512_ps(_mm512_set1_epi32(sum));
                        *total = _mm512_fnmadd_ps(min, sum, *total);
                    }
                }
            }
            add_to_sums(total, run.scales_of(block), block == 0, sums);
        }
    }
}
