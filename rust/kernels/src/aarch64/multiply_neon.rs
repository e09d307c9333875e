//! Rows of activations over a panel, with products of 16 bits.

#![allow(unsafe_code, reason = "vector code; every block says why it is sound")]
#![allow(clippy::indexing_slicing, reason = "arrays indexed by constants, and rows cut to whole blocks")]

use std::arch::aarch64::*;

use super::instructions::{addp, repeated};
use crate::panel::{GROUP, GROUPS, PANEL_ROWS, Panel, Rows};
use crate::tensor_type::SUPER_BLOCK;
use crate::unpack::Layout;

/// Rows of activations that go over a panel together: what they add up to stays in registers.
const ROW_BLOCK: usize = 2;
/// Vectors of a group of a panel.
const VECS: usize = PANEL_ROWS / 4;

/// Adds the products of all rows with a panel in groups of four to `sums`.
///
/// Activations are from -127 to 127. A lane takes one product of a group, and what fits in its 16 bits is: all groups of
/// a sub-block of 32 for weights up to 31, or of 16 for weights up to 63; two groups of signed bytes.
pub(super) fn multiply(panel: &Panel, layout: Layout, rows: Rows<'_>, sums: &mut [[f32; PANEL_ROWS]]) {
    match (layout.sub_len, layout.has_min, layout.signed) {
        (_, _, true) => all_rows::<2, 8, 2, false>(panel, rows, sums),
        (32, true, _) => all_rows::<4, 8, 8, true>(panel, rows, sums),
        (32, false, _) => all_rows::<4, 8, 8, false>(panel, rows, sums),
        (_, true, _) => all_rows::<4, 16, 4, true>(panel, rows, sums),
        (_, false, _) => all_rows::<4, 16, 4, false>(panel, rows, sums),
    }
}

fn all_rows<const WIDTH: usize, const SUBS: usize, const CHAIN: usize, const MIN: bool>(
    panel: &Panel,
    rows: Rows<'_>,
    sums: &mut [[f32; PANEL_ROWS]],
) {
    for (i, sums) in sums.chunks_mut(ROW_BLOCK).enumerate() {
        let first = i * ROW_BLOCK;
        let q = &rows.q[first * SUPER_BLOCK..][..sums.len() * SUPER_BLOCK];
        let scales = &rows.scales[first..][..sums.len()];
        let corrections = &rows.corrections[first * SUBS..][..sums.len() * SUBS];
        // SAFETY: every AArch64 has the instructions, and the slices have as many rows.
        unsafe {
            match sums.len() {
                1 => some_rows::<1, WIDTH, SUBS, CHAIN, MIN>(panel, q, scales, corrections, sums),
                _ => some_rows::<2, WIDTH, SUBS, CHAIN, MIN>(panel, q, scales, corrections, sums),
            }
        }
    }
}

/// `ROWS` rows over the panel, `WIDTH` vectors of weight rows at a time. `CHAIN` groups fit in 16 bits.
///
/// SAFETY: there must be `ROWS` rows in `q`, `scales`, `corrections` and `sums`.
#[target_feature(enable = "neon")]
unsafe fn some_rows<
    const ROWS: usize,
    const WIDTH: usize,
    const SUBS: usize,
    const CHAIN: usize,
    const MIN: bool,
>(
    panel: &Panel,
    q: &[i8],            // (rows, 256)
    scales: &[f32],      // (rows)
    corrections: &[i32], // (rows, subs)
    sums: &mut [[f32; PANEL_ROWS]],
) {
    for strip in 0..VECS / WIDTH {
        // SAFETY: all reads are of the first `ROWS` rows, which the caller vouches for, and inside the panel's arrays.
        unsafe {
            let column = strip * WIDTH * 4;
            let mut total = [[vdupq_n_f32(0.0); WIDTH]; ROWS];
            for sub in 0..SUBS {
                // Two lanes for each weight row.
                let mut dots = [[[vdupq_n_s32(0); 2]; WIDTH]; ROWS];
                for chain in 0..GROUPS / SUBS / CHAIN {
                    let group = sub * GROUPS / SUBS + chain * CHAIN;
                    let w = panel.q.as_ptr().add(group).cast::<i8>().add(column * GROUP);
                    let products = products::<ROWS, WIDTH, CHAIN>(w, q.as_ptr().add(group * GROUP));
                    for (dots, products) in dots.as_flattened_mut().iter_mut().zip(products.as_flattened()) {
                        *dots = [vpadalq_s16(dots[0], products[0]), vpadalq_s16(dots[1], products[1])];
                    }
                }
                for vec in 0..WIDTH {
                    let scale = vld1q_f32(panel.scale.as_ptr().add(sub).cast::<f32>().add(column + vec * 4));
                    let min = vld1q_f32(panel.min.as_ptr().add(sub).cast::<f32>().add(column + vec * 4));
                    for row in 0..ROWS {
                        let correction = corrections.as_ptr().add(row * SUBS + sub);
                        let total = &mut total[row][vec];
                        let dot = addp(dots[row][vec][0], dots[row][vec][1]);
                        let dot = if MIN { dot } else { vaddq_s32(dot, vdupq_n_s32(*correction)) };
                        *total = vfmaq_f32(*total, vcvtq_f32_s32(dot), scale);
                        if MIN {
                            *total = vfmsq_n_f32(*total, min, *correction.cast::<f32>());
                        }
                    }
                }
            }
            for row in 0..ROWS {
                let scale = *scales.as_ptr().add(row);
                for vec in 0..WIDTH {
                    let sums = sums.as_mut_ptr().add(row).cast::<f32>().add(column + vec * 4);
                    vst1q_f32(sums, vfmaq_n_f32(vld1q_f32(sums), total[row][vec], scale));
                }
            }
        }
    }
}

/// The products of `CHAIN` groups, added up: in four lanes for each weight row, two rows in a vector.
///
/// SAFETY: the groups must be readable from `w` on, and the rows' quants from `a` on.
#[inline(always)]
unsafe fn products<const ROWS: usize, const WIDTH: usize, const CHAIN: usize>(
    w: *const i8,
    a: *const i8,
) -> [[[int16x8_t; 2]; WIDTH]; ROWS] {
    // SAFETY: as the caller vouches for.
    unsafe {
        let mut products = [[[vdupq_n_s16(0); 2]; WIDTH]; ROWS];
        for group in 0..CHAIN {
            let mut four = [vdupq_n_s8(0); ROWS];
            for (row, four) in four.iter_mut().enumerate() {
                *four = repeated(a.add(row * SUPER_BLOCK + group * GROUP));
            }
            for vec in 0..WIDTH {
                let w = vld1q_s8(w.add(group * PANEL_ROWS * GROUP + vec * 16));
                for row in 0..ROWS {
                    let [low, high] = &mut products[row][vec];
                    *low = vmlal_s8(*low, vget_low_s8(w), vget_low_s8(four[row]));
                    *high = vmlal_high_s8(*high, w, four[row]);
                }
            }
        }
        products
    }
}
