//! Rows of activations over a panel, with dot products.

#![allow(unsafe_code, reason = "vector code; every block says why it is sound")]
#![allow(clippy::indexing_slicing, reason = "arrays indexed by constants, and rows cut to whole blocks")]

use std::arch::aarch64::*;

use super::instructions::sdot_lane;
use crate::panel::{GROUP, PANEL_ROWS, Panel, Rows};
use crate::tensor_type::SUPER_BLOCK;
use crate::unpack::Layout;

/// Rows of activations that go over a panel together: with eight weight rows they have what they add up to in registers,
/// the integers of a sub-block and the floats of a block.
const ROW_BLOCK: usize = 4;
/// Vectors of a group of a panel.
const VECS: usize = PANEL_ROWS / 4;

/// Adds the products of all rows with a panel in groups of four to `sums`. The machine must have `Isa::NeonDotprod`.
pub(super) fn multiply(panel: &Panel, layout: Layout, rows: Rows<'_>, sums: &mut [[f32; PANEL_ROWS]]) {
    match (layout.sub_len, layout.has_min) {
        (32, true) => all_rows::<8, true>(panel, rows, sums),
        (32, false) => all_rows::<8, false>(panel, rows, sums),
        (_, true) => all_rows::<16, true>(panel, rows, sums),
        (_, false) => all_rows::<16, false>(panel, rows, sums),
    }
}

fn all_rows<const SUBS: usize, const MIN: bool>(panel: &Panel, rows: Rows<'_>, sums: &mut [[f32; PANEL_ROWS]]) {
    for (i, sums) in sums.chunks_mut(ROW_BLOCK).enumerate() {
        let first = i * ROW_BLOCK;
        let q = &rows.q[first * SUPER_BLOCK..][..sums.len() * SUPER_BLOCK];
        let scales = &rows.scales[first..][..sums.len()];
        let corrections = &rows.corrections[first * SUBS..][..sums.len() * SUBS];
        // SAFETY: the caller has found the level on this machine, and the slices have as many rows.
        unsafe {
            match sums.len() {
                1 => some_rows::<1, 4, SUBS, MIN>(panel, q, scales, corrections, sums),
                2 => some_rows::<2, 4, SUBS, MIN>(panel, q, scales, corrections, sums),
                3 => some_rows::<3, 2, SUBS, MIN>(panel, q, scales, corrections, sums),
                _ => some_rows::<4, 2, SUBS, MIN>(panel, q, scales, corrections, sums),
            }
        }
    }
}

/// `ROWS` rows over the panel, `WIDTH` vectors of weight rows at a time.
///
/// SAFETY: there must be `ROWS` rows in `q`, `scales`, `corrections` and `sums`.
#[target_feature(enable = "neon,dotprod")]
unsafe fn some_rows<const ROWS: usize, const WIDTH: usize, const SUBS: usize, const MIN: bool>(
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
                let correction = |row: usize| corrections.as_ptr().add(row * SUBS + sub);
                let mut dots = [[vdupq_n_s32(0); WIDTH]; ROWS];
                if !MIN {
                    for (row, dots) in dots.iter_mut().enumerate() {
                        *dots = [vdupq_n_s32(*correction(row)); WIDTH];
                    }
                }
                // As many groups as there are in sixteen quants, the bytes of one vector of activations.
                for chunk in sub * 16 / SUBS..(sub + 1) * 16 / SUBS {
                    let mut a = [vdupq_n_s8(0); ROWS];
                    for (row, a) in a.iter_mut().enumerate() {
                        *a = vld1q_s8(q.as_ptr().add(row * SUPER_BLOCK + chunk * 16));
                    }
                    let groups = panel.q.as_ptr().add(chunk * 4).cast::<i8>().add(column * GROUP);
                    add_group::<0, ROWS, WIDTH>(groups, a, &mut dots);
                    add_group::<1, ROWS, WIDTH>(groups, a, &mut dots);
                    add_group::<2, ROWS, WIDTH>(groups, a, &mut dots);
                    add_group::<3, ROWS, WIDTH>(groups, a, &mut dots);
                }
                for vec in 0..WIDTH {
                    let scale = vld1q_f32(panel.scale.as_ptr().add(sub).cast::<f32>().add(column + vec * 4));
                    let min = vld1q_f32(panel.min.as_ptr().add(sub).cast::<f32>().add(column + vec * 4));
                    for row in 0..ROWS {
                        let total = &mut total[row][vec];
                        *total = vfmaq_f32(*total, vcvtq_f32_s32(dots[row][vec]), scale);
                        if MIN {
                            *total = vfmsq_n_f32(*total, min, *correction(row).cast::<f32>());
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

/// Adds the products of group `I` of the four at `groups` with the bytes `4 · I` on of each row.
///
/// SAFETY: the machine must have `Isa::NeonDotprod`, and the group's vectors be readable.
#[inline(always)]
unsafe fn add_group<const I: usize, const ROWS: usize, const WIDTH: usize>(
    groups: *const i8,
    a: [int8x16_t; ROWS],
    dots: &mut [[int32x4_t; WIDTH]; ROWS],
) {
    for vec in 0..WIDTH {
        // SAFETY: as the caller vouches for.
        unsafe {
            let w = vld1q_s8(groups.add(I * PANEL_ROWS * GROUP + vec * 16));
            for row in 0..ROWS {
                dots[row][vec] = sdot_lane::<I>(dots[row][vec], w, a[row]);
            }
        }
    }
}
