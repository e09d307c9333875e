//! Pairs of rows of activations over a panel, with matrix products.

#![allow(unsafe_code, reason = "vector code; every block says why it is sound")]
#![allow(clippy::indexing_slicing, reason = "arrays indexed by constants, and rows cut to whole blocks")]

use std::arch::aarch64::*;

use super::instructions::smmla;
use crate::activations::Activations;
use crate::panel::{PANEL_ROWS, Panel};
use crate::tensor_type::SUPER_BLOCK;
use crate::unpack::Layout;

/// Quants of a row that a matrix product takes.
const EIGHT: usize = 8;
/// Pairs of rows of activations that go over a panel together: with as many weight rows they have what they add up to
/// in registers, the integers of a sub-block and the floats of a block.
const PAIR_BLOCK: usize = 4;
/// Pairs of weight rows of a panel.
const PANEL_PAIRS: usize = PANEL_ROWS / 2;

/// Rows of activations two by two; an odd last one has zeros beside it.
#[derive(Clone, Debug, Default)]
pub(super) struct PairedRows {
    pairs: usize,
    subs: usize,
    q: Vec<[i8; EIGHT]>,        // (block, pair, 32, 2)
    corrections: Vec<[i32; 4]>, // (block, pair, subs), twice of the first row and twice of the second
}

/// The pairs of a block.
#[derive(Clone, Copy)]
pub(super) struct Pairs<'a> {
    q: &'a [[i8; EIGHT]],        // (pairs, 32, 2)
    corrections: &'a [[i32; 4]], // (pairs, subs)
}

impl PairedRows {
    /// The rows of `x`, with their corrections `(block, row, subs)`.
    pub(super) fn new(x: &Activations, corrections: &[i32], subs: usize) -> Self {
        let pairs = x.rows().div_ceil(2);
        let mut paired = Self {
            pairs,
            subs,
            q: vec![[0; EIGHT]; x.blocks() * pairs * 2 * SUPER_BLOCK / EIGHT],
            corrections: vec![[0; 4]; x.blocks() * pairs * subs],
        };
        let mut pair_q = paired.q.chunks_exact_mut(2 * SUPER_BLOCK / EIGHT);
        let mut pair_corrections = paired.corrections.chunks_exact_mut(subs);
        for (block, corrections) in corrections.chunks_exact(x.rows() * subs).enumerate() {
            let pairs = x.block_q(block, 0).chunks(2 * SUPER_BLOCK).zip(corrections.chunks(2 * subs));
            for (((q, corrections), out_q), out_corrections) in pairs.zip(&mut pair_q).zip(&mut pair_corrections) {
                for (row, q) in q.chunks_exact(SUPER_BLOCK).enumerate() {
                    for (out, q) in out_q.as_chunks_mut::<2>().0.iter_mut().zip(q.as_chunks().0) {
                        out[row] = *q;
                    }
                }
                for (row, corrections) in corrections.chunks_exact(subs).enumerate() {
                    for (out, correction) in out_corrections.iter_mut().zip(corrections) {
                        out[2 * row..][..2].fill(*correction);
                    }
                }
            }
        }
        paired
    }

    pub(super) fn block(&self, block: usize) -> Pairs<'_> {
        let q = self.pairs * 2 * SUPER_BLOCK / EIGHT;
        let corrections = self.pairs * self.subs;
        Pairs {
            q: &self.q[block * q..][..q],
            corrections: &self.corrections[block * corrections..][..corrections],
        }
    }
}

/// Adds the products of all rows with a panel in groups of eight to `sums`. The machine must have `Isa::NeonI8mm`.
pub(super) fn multiply(
    panel: &Panel,
    layout: Layout,
    pairs: Pairs<'_>,
    scales: &[f32],
    sums: &mut [[f32; PANEL_ROWS]],
) {
    match (layout.sub_len, layout.has_min) {
        (32, true) => all_pairs::<8, true>(panel, pairs, scales, sums),
        (32, false) => all_pairs::<8, false>(panel, pairs, scales, sums),
        (_, true) => all_pairs::<16, true>(panel, pairs, scales, sums),
        (_, false) => all_pairs::<16, false>(panel, pairs, scales, sums),
    }
}

fn all_pairs<const SUBS: usize, const MIN: bool>(
    panel: &Panel,
    pairs: Pairs<'_>,
    scales: &[f32],
    sums: &mut [[f32; PANEL_ROWS]],
) {
    for (i, sums) in sums.chunks_mut(2 * PAIR_BLOCK).enumerate() {
        let (first, count) = (i * PAIR_BLOCK, sums.len().div_ceil(2));
        let pair_len = 2 * SUPER_BLOCK / EIGHT;
        let q = &pairs.q[first * pair_len..][..count * pair_len];
        let corrections = &pairs.corrections[first * SUBS..][..count * SUBS];
        let scales = &scales[2 * first..][..sums.len()];
        // SAFETY: the caller has found the level on this machine, and the slices have as many pairs.
        unsafe {
            match count {
                1 => some_pairs::<1, 4, SUBS, MIN>(panel, q, corrections, scales, sums),
                2 => some_pairs::<2, 4, SUBS, MIN>(panel, q, corrections, scales, sums),
                3 => some_pairs::<3, 2, SUBS, MIN>(panel, q, corrections, scales, sums),
                _ => some_pairs::<4, 2, SUBS, MIN>(panel, q, corrections, scales, sums),
            }
        }
    }
}

/// `PAIRS` pairs of rows over the panel, `WIDTH` pairs of weight rows at a time.
///
/// A vector of what they add up to is `(2 rows, 2 weight rows)`.
///
/// SAFETY: there must be `PAIRS` pairs in `q` and `corrections`.
#[target_feature(enable = "neon,i8mm")]
unsafe fn some_pairs<const PAIRS: usize, const WIDTH: usize, const SUBS: usize, const MIN: bool>(
    panel: &Panel,
    q: &[[i8; EIGHT]],        // (pairs, 32, 2)
    corrections: &[[i32; 4]], // (pairs, subs)
    scales: &[f32],           // (rows)
    sums: &mut [[f32; PANEL_ROWS]],
) {
    let steps = SUPER_BLOCK / EIGHT / SUBS;
    for strip in 0..PANEL_PAIRS / WIDTH {
        let column = strip * WIDTH * 2;
        let mut total = [[vdupq_n_f32(0.0); WIDTH]; PAIRS];
        // SAFETY: all reads are of the first `PAIRS` pairs, which the caller vouches for, and inside the panel's arrays.
        unsafe {
            for sub in 0..SUBS {
                let correction = |pair: usize| corrections.as_ptr().add(pair * SUBS + sub).cast();
                let mut dots = [[vdupq_n_s32(0); WIDTH]; PAIRS];
                if !MIN {
                    for (pair, dots) in dots.iter_mut().enumerate() {
                        *dots = [vld1q_s32(correction(pair)); WIDTH];
                    }
                }
                for step in sub * steps..(sub + 1) * steps {
                    let mut a = [vdupq_n_s8(0); PAIRS];
                    for (pair, a) in a.iter_mut().enumerate() {
                        *a = vld1q_s8(q.as_ptr().add((pair * SUPER_BLOCK / EIGHT + step) * 2).cast());
                    }
                    // Two groups of four are one of eight here.
                    let groups = panel.q.as_ptr().add(step * 2).cast::<i8>().add(column * EIGHT);
                    for other in 0..WIDTH {
                        let w = vld1q_s8(groups.add(other * 16));
                        for pair in 0..PAIRS {
                            dots[pair][other] = smmla(dots[pair][other], a[pair], w);
                        }
                    }
                }
                let scale = twice::<WIDTH>(&panel.scale[sub], column);
                for (total, dots) in total.iter_mut().zip(dots) {
                    for other in 0..WIDTH {
                        total[other] = vfmaq_f32(total[other], vcvtq_f32_s32(dots[other]), scale[other]);
                    }
                }
                if MIN {
                    let min = twice::<WIDTH>(&panel.min[sub], column);
                    for (pair, total) in total.iter_mut().enumerate() {
                        let activation_sum = vreinterpretq_f32_s32(vld1q_s32(correction(pair)));
                        for other in 0..WIDTH {
                            total[other] = vfmsq_f32(total[other], min[other], activation_sum);
                        }
                    }
                }
            }
        }
        for (pair, total) in total.iter().enumerate() {
            for row in 0..2 {
                let Some((sums, scale)) = sums.get_mut(2 * pair + row).zip(scales.get(2 * pair + row)) else {
                    break;
                };
                for (total, sums) in total.as_chunks().0.iter().zip(sums[column..].as_chunks_mut().0) {
                    add_row(*total, row, *scale, sums);
                }
            }
        }
    }
}

/// Values `column` on, two by two, each pair twice in a vector.
///
/// SAFETY: there must be `2 · WIDTH` of them, an even `WIDTH`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn twice<const WIDTH: usize>(values: &[f32; PANEL_ROWS], column: usize) -> [float32x4_t; WIDTH] {
    let mut pairs = [vdupq_n_f32(0.0); WIDTH];
    for (i, pairs) in pairs.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        // SAFETY: inside the array, as the caller vouches for.
        let four = vreinterpretq_f64_f32(unsafe { vld1q_f32(values.as_ptr().add(column + i * 4)) });
        *pairs = [vzip1q_f64(four, four), vzip2q_f64(four, four)].map(|pair| vreinterpretq_f32_f64(pair));
    }
    pairs
}

/// Adds row `row` of two vectors `(2 rows, 2 weight rows)`, scaled, to its sums.
#[inline]
#[target_feature(enable = "neon")]
fn add_row(total: [float32x4_t; 2], row: usize, scale: f32, sums: &mut [f32; 4]) {
    let [a, b] = total.map(|total| vreinterpretq_f64_f32(total));
    let of_row = vreinterpretq_f32_f64(if row == 0 { vzip1q_f64(a, b) } else { vzip2q_f64(a, b) });
    // SAFETY: four values.
    unsafe { vst1q_f32(sums.as_mut_ptr(), vfmaq_n_f32(vld1q_f32(sums.as_ptr()), of_row, scale)) };
}
