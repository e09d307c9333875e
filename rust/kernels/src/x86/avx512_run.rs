//! Rows of activations that are multiplied together, and what their products become.

#![allow(unsafe_code, reason = "vector code; every block says why it is sound")]
#![allow(clippy::indexing_slicing, reason = "rows cut to whole blocks")]

use std::arch::asm;
use std::arch::x86_64::*;

use super::avx512_fill::Source;
use super::avx512_panel::{MinPairs, Mins, PAIRS};
use crate::activations::Activations;
use crate::matmul::Prepared;
use crate::panel::PANEL_ROWS;
use crate::tensor_type::SUPER_BLOCK;

/// Rows of activations that are multiplied together, at most.
pub(super) const ROW_BLOCK: usize = 8;

/// Rows of a part of the activations.
pub(super) struct Run<'a> {
    pub(super) rows: usize,
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
    pub(super) fn of_part<S: Source>(part: &'a Activations, prepared: &'a Prepared) -> impl Iterator<Item = Self> {
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

    /// Quants and corrections from the first row of a block on.
    ///
    /// SAFETY: the activations must have the block.
    #[inline(always)]
    pub(super) unsafe fn of_block<S: Source>(&self, block: usize) -> (*const i8, *const i32) {
        let before = block * self.of;
        // SAFETY: as the caller vouches for.
        unsafe {
            let q = self.q.as_ptr().add(before * SUPER_BLOCK);
            (q, self.corrections.as_ptr().add(before * Self::per_row::<S>()))
        }
    }

    /// Scales from the first row of a block on.
    ///
    /// SAFETY: the activations must have the block.
    #[inline(always)]
    pub(super) unsafe fn scales_of(&self, block: usize) -> *const f32 {
        // SAFETY: as the caller vouches for.
        unsafe { self.scales.as_ptr().add(block * self.of) }
    }
}

/// What a row of activations comes to with a tile, so far.
pub(super) type Sums = [f32; PANEL_ROWS];

/// Asks memory for a sub-block's share of sixteen blocks, whether they are there or not, and returns where the next one's begins.
/// A few lines at a time: what is under way at once is limited, and what is needed now would wait behind it.
#[inline(always)]
pub(super) fn ask_for<S: Source>(share: *const u8) -> *const u8 {
    let bytes = PANEL_ROWS * S::BLOCK_BYTES / S::SUBS;
    for line in 0..bytes.div_ceil(64) {
        // SAFETY: a hint has no effect that a program could tell, and SSE is in the baseline.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(share.wrapping_add(line * 64).cast()) };
    }
    share.wrapping_add(bytes)
}

/// What the dot products of a sub-block begin with.
///
/// SAFETY: the machine must have `Isa::Avx512Vnni`, and the corrections be of `ROWS` rows.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn begin_dots<S: Source, const ROWS: usize>(
    corrections: *const i32,
    sub: usize,
) -> [__m512i; ROWS] {
    let mut dots = [_mm512_setzero_si512(); ROWS];
    if S::MINS == Mins::None {
        for (row, dot) in dots.iter_mut().enumerate() {
            // SAFETY: as the caller vouches for.
            *dot = _mm512_set1_epi32(unsafe { *corrections.add(row * S::SUBS + sub) });
        }
    }
    dots
}

/// Adds the dot products of a sub-block, times its scales.
///
/// SAFETY: the machine must have `Isa::Avx512Vnni`.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn add_scaled<const ROWS: usize>(
    mut total: [__m512; ROWS],
    dots: [__m512i; ROWS],
    scale: __m512,
) -> [__m512; ROWS] {
    let dots = dots.map(|dot| _mm512_cvtepi32_ps(dot));
    for (total, dot) in total.iter_mut().zip(dots) {
        *total = _mm512_fmadd_ps(dot, scale, *total);
    }
    total
}

/// `_mm512_dpwssd_epi32`, which LLVM takes apart into a product and an addition to make a chain of them shorter: here it is
/// instructions that count.
///
/// SAFETY: the machine must have `Isa::Avx512Vnni`.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn add_pair_products(mut sums: __m512i, a: __m512i, b: __m512i) -> __m512i {
    // SAFETY: an instruction of the level, on registers.
    unsafe {
        asm!("vpdpwssd {0}, {1}, {2}", inout(zmm_reg) sums, in(zmm_reg) a, in(zmm_reg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    sums
}

/// Subtracts the products of minimums that are integers.
///
/// SAFETY: the machine must have `Isa::Avx512Vnni`, and the corrections be of `ROWS` rows and for [`Mins::Pairs`].
#[inline(always)]
pub(super) unsafe fn subtract_pairs<const ROWS: usize>(
    mut total: [__m512; ROWS],
    mins: MinPairs,
    corrections: *const i32,
) -> [__m512; ROWS] {
    // SAFETY: the level and corrections as the caller vouches for.
    unsafe {
        let mut products = [_mm512_setzero_si512(); ROWS];
        for (pair, min) in mins.pairs.into_iter().enumerate() {
            for (row, products) in products.iter_mut().enumerate() {
                let sums = *corrections.add(row * PAIRS.len() + pair);
                *products = add_pair_products(*products, min, _mm512_set1_epi32(sums));
            }
        }
        for (total, products) in total.iter_mut().zip(products) {
            *total = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(products), mins.scale, *total);
        }
    }
    total
}

/// Adds what a block comes to, times the activations' scales. With the first block, there is nothing yet to add it to.
///
/// SAFETY: the machine must have `Isa::Avx512Vnni`, and the scales be of `ROWS` rows.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn add_to_sums<const ROWS: usize>(
    total: [__m512; ROWS],
    scales: *const f32,
    is_first: bool,
    sums: &mut [Sums; ROWS],
) {
    // SAFETY: sixteen floats each, and scales as the caller vouches for.
    unsafe {
        if is_first {
            for (row, (total, sums)) in total.into_iter().zip(sums).enumerate() {
                _mm512_storeu_ps(sums.as_mut_ptr(), _mm512_mul_ps(total, _mm512_set1_ps(*scales.add(row))));
            }
        } else {
            for (row, (total, sums)) in total.into_iter().zip(sums).enumerate() {
                let before = _mm512_loadu_ps(sums.as_ptr());
                _mm512_storeu_ps(
                    sums.as_mut_ptr(),
                    _mm512_fmadd_ps(total, _mm512_set1_ps(*scales.add(row)), before),
                );
            }
        }
    }
}
