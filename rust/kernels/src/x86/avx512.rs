//! Rows of activations over a panel, with 512-bit VNNI dot products.

#![allow(unsafe_code, reason = "vector code; every block says why it is sound")]
#![allow(clippy::indexing_slicing, reason = "arrays indexed by constants, and rows cut to whole blocks")]

use std::arch::x86_64::*;

use crate::panel::{GROUP, GROUPS, PANEL_ROWS, Panel, ROW_BLOCK, Rows};
use crate::tensor_type::SUPER_BLOCK;
use crate::unpack::Layout;

/// Adds the products of all rows with a panel to `sums`, and asks for the bytes `ahead` meanwhile: a few at a time, since
/// what is under way from memory at once is limited. The machine must have `Isa::Avx512Vnni`.
pub(super) fn multiply(
    panel: &Panel,
    layout: Layout,
    rows: Rows<'_>,
    sums: &mut [[f32; PANEL_ROWS]],
    ahead: &[u8],
) {
    match (layout.sub_len, layout.has_min) {
        (32, true) => all_rows::<8, true>(panel, rows, sums, ahead),
        (32, false) => all_rows::<8, false>(panel, rows, sums, ahead),
        (_, true) => all_rows::<16, true>(panel, rows, sums, ahead),
        (_, false) => all_rows::<16, false>(panel, rows, sums, ahead),
    }
}

fn all_rows<const SUBS: usize, const MIN: bool>(
    panel: &Panel,
    rows: Rows<'_>,
    sums: &mut [[f32; PANEL_ROWS]],
    ahead: &[u8],
) {
    let mut ahead = ahead;
    for (i, sums) in sums.chunks_mut(ROW_BLOCK).enumerate() {
        let first = i * ROW_BLOCK;
        let q = &rows.q[first * SUPER_BLOCK..];
        let scales = &rows.scales[first..];
        let corrections = &rows.corrections[first * SUBS..];
        macro_rules! rows {
            ($($count:literal)*) => {
                match sums.len() {
                    $($count => {
                        assert!(
                            q.len() >= $count * SUPER_BLOCK
                                && scales.len() >= $count
                                && corrections.len() >= $count * SUBS
                        );
                        // SAFETY: the caller has found the level on this machine, and the lengths were just checked.
                        unsafe {
                            some_rows::<$count, SUBS, MIN>(panel, q, scales, corrections, sums, std::mem::take(&mut ahead));
                        }
                    })*
                    _ => {}
                }
            };
        }
        rows!(1 2 3 4 5 6 7 8);
    }
}

/// SAFETY: there must be at least `ROWS` rows in `q`, `scales`, `corrections` and `sums`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn some_rows<const ROWS: usize, const SUBS: usize, const MIN: bool>(
    panel: &Panel,
    q: &[i8],            // (rows, 256)
    scales: &[f32],      // (rows)
    corrections: &[i32], // (rows, subs)
    sums: &mut [[f32; PANEL_ROWS]],
    ahead: &[u8],
) {
    /// Lines that a sub-block's products have time to ask for.
    const LINES: usize = 10;
    let mut ahead = ahead.chunks(LINES * 8 / SUBS * 64);
    let groups = GROUPS / SUBS;
    // SAFETY: all reads are of the first `ROWS` rows, which the caller vouches for, and inside the panel's arrays.
    unsafe {
        let mut total = [_mm512_setzero_ps(); ROWS];
        for sub in 0..SUBS {
            for line in ahead.next().unwrap_or_default().chunks(64) {
                _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast());
            }
            let correction = |row: usize| *corrections.as_ptr().add(row * SUBS + sub);
            let mut dots = [_mm512_setzero_si512(); ROWS];
            if !MIN {
                for (row, dot) in dots.iter_mut().enumerate() {
                    *dot = _mm512_set1_epi32(correction(row));
                }
            }
            for group in sub * groups..(sub + 1) * groups {
                let w = _mm512_load_si512(panel.q.as_ptr().add(group).cast());
                for (row, dot) in dots.iter_mut().enumerate() {
                    let a = q.as_ptr().add(row * SUPER_BLOCK + group * GROUP).cast::<i32>().read_unaligned();
                    *dot = _mm512_dpbusd_epi32(*dot, w, _mm512_set1_epi32(a));
                }
            }
            let scale = _mm512_load_ps(panel.scale.as_ptr().add(sub).cast());
            for (total, dot) in total.iter_mut().zip(dots) {
                *total = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, *total);
            }
            if MIN {
                let min = _mm512_load_ps(panel.min.as_ptr().add(sub).cast());
                for (row, total) in total.iter_mut().enumerate() {
                    let sum = _mm512_castsi512_ps(_mm512_set1_epi32(correction(row)));
                    *total = _mm512_fnmadd_ps(min, sum, *total);
                }
            }
        }
        for row in 0..ROWS {
            let sums = sums.as_mut_ptr().add(row).cast();
            let scale = _mm512_set1_ps(*scales.as_ptr().add(row));
            _mm512_storeu_ps(sums, _mm512_fmadd_ps(total[row], scale, _mm512_loadu_ps(sums)));
        }
    }
}
