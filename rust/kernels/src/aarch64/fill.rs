//! Panels in the orders and with the signs of these levels.
//!
//! Four rows' packed bits are brought into the panel's order first and unpacked then, which shuffles least.

#![allow(unsafe_code, reason = "vector code; every block says why it is sound")]
#![allow(clippy::indexing_slicing, reason = "arrays indexed by constants")]

use std::arch::aarch64::*;

use super::dot::{five_high, five_low, six};
use super::instructions::widen;
use crate::panel::{self, GROUP, PANEL_ROWS, Panel, Tile};
use crate::{Isa, Kernels, TensorType};

/// Fills a panel with the columns from `256 · block` on.
pub(super) fn fill(kernels: Kernels, tile: Tile<'_>, block: usize, panel: &mut Panel) {
    if kernels.isa() == Isa::NeonI8mm {
        if !fill_whole::<Eights>(tile, block, panel) {
            fill_any(kernels, tile, block, panel);
            pair_groups(panel);
        }
    } else if !fill_whole::<Fours>(tile, block, panel) {
        fill_any(kernels, tile, block, panel);
    }
}

/// Any type, or fewer rows than a panel has, in groups of four.
fn fill_any(kernels: Kernels, tile: Tile<'_>, block: usize, panel: &mut Panel) {
    panel::fill(tile, block, panel);
    if kernels.panel_layout(tile.tensor_type).is_some_and(|layout| layout.signed) {
        // Without the offset that makes them unsigned.
        for q in panel.q.as_flattened_mut().as_flattened_mut() {
            *q ^= 0x80;
        }
    }
}

/// Makes groups of four groups of eight.
fn pair_groups(panel: &mut Panel) {
    for pair in panel.q.as_chunks_mut::<2>().0 {
        let [first, second] = *pair;
        let groups = pair.as_flattened_mut().as_chunks_mut::<2>().0;
        for (group, four) in groups.iter_mut().zip(first.into_iter().zip(second)) {
            *group = four.into();
        }
    }
}

/// Returns false for a type, a tile of fewer rows or a block at a row's end that there is no kernel for.
fn fill_whole<O: Order>(tile: Tile<'_>, block: usize, panel: &mut Panel) -> bool {
    type Fill = unsafe fn(*const u8, usize, usize, &mut Panel);
    let (block_bytes, fill): (usize, Fill) = match tile.tensor_type {
        TensorType::Q4_K => (144, q4_k::<O>),
        TensorType::Q5_K => (176, q5_k::<O>),
        TensorType::Q6_K => (210, q6_k::<O>),
        TensorType::Q8_0 => (8 * 34, q8_0::<O>),
        TensorType::Q4_0 => (8 * 18, q4_0::<O>),
        _ => return false,
    };
    if tile.bytes.len() != PANEL_ROWS * tile.row_bytes || (block + 1) * block_bytes > tile.row_bytes {
        return false;
    }
    for row in (0..PANEL_ROWS).step_by(4) {
        // SAFETY: every AArch64 has the instructions; there are sixteen rows `row_bytes` apart, and the block lies inside
        // each.
        unsafe {
            let first = tile.bytes.as_ptr().add(row * tile.row_bytes + block * block_bytes);
            fill(first, tile.row_bytes, row, panel);
        }
    }
    true
}

/// How many quants of a row stand together.
trait Order {
    /// Brings the sixteen bytes of four rows into order, in four vectors.
    fn arrange(rows: [uint8x16_t; 4]) -> [uint8x16_t; 4];

    /// Where vector `i` belongs in a panel: `rows` has the quants from `16 · chunk` on of row `row` and its successors.
    fn place(chunk: usize, row: usize, i: usize) -> usize;

    /// SAFETY: `chunk` must be less than 16, and `row` 0, 4, 8 or 12.
    #[inline(always)]
    unsafe fn store(panel: &mut Panel, chunk: usize, row: usize, rows: [uint8x16_t; 4]) {
        for (i, rows) in rows.into_iter().enumerate() {
            // SAFETY: sixteen bytes inside the panel.
            unsafe { vst1q_u8(panel.q.as_mut_ptr().cast::<u8>().add(Self::place(chunk, row, i)), rows) };
        }
    }
}

/// Four, as in every [`Panel`].
struct Fours;

impl Order for Fours {
    #[inline(always)]
    fn arrange(rows: [uint8x16_t; 4]) -> [uint8x16_t; 4] {
        // SAFETY: every AArch64 has it.
        unsafe { transposed(rows.map(|row| vreinterpretq_u32_u8(row))).map(|fours| vreinterpretq_u8_u32(fours)) }
    }

    #[inline(always)]
    fn place(chunk: usize, row: usize, i: usize) -> usize {
        ((chunk * 4 + i) * PANEL_ROWS + row) * GROUP
    }
}

/// Eight: what a matrix product takes of a row.
struct Eights;

impl Order for Eights {
    #[inline(always)]
    fn arrange(rows: [uint8x16_t; 4]) -> [uint8x16_t; 4] {
        // SAFETY: every AArch64 has it.
        unsafe {
            let [a, b, c, d] = rows.map(|row| vreinterpretq_u64_u8(row));
            [vzip1q_u64(a, b), vzip1q_u64(c, d), vzip2q_u64(a, b), vzip2q_u64(c, d)]
                .map(|eights| vreinterpretq_u8_u64(eights))
        }
    }

    #[inline(always)]
    fn place(chunk: usize, row: usize, i: usize) -> usize {
        ((chunk * 2 + i / 2) * PANEL_ROWS + row + i % 2 * 2) * 2 * GROUP
    }
}

/// Makes vector `i` of the result the values `i` of the four vectors.
#[inline]
#[target_feature(enable = "neon")]
fn transposed([a, b, c, d]: [uint32x4_t; 4]) -> [uint32x4_t; 4] {
    let doubles = vreinterpretq_u64_u32;
    let (ab, cd) = ([vtrn1q_u32(a, b), vtrn2q_u32(a, b)], [vtrn1q_u32(c, d), vtrn2q_u32(c, d)]);
    [
        vreinterpretq_u32_u64(vzip1q_u64(doubles(ab[0]), doubles(cd[0]))),
        vreinterpretq_u32_u64(vzip1q_u64(doubles(ab[1]), doubles(cd[1]))),
        vreinterpretq_u32_u64(vzip2q_u64(doubles(ab[0]), doubles(cd[0]))),
        vreinterpretq_u32_u64(vzip2q_u64(doubles(ab[1]), doubles(cd[1]))),
    ]
}

/// The same sixteen bytes of four rows.
///
/// SAFETY: 16 bytes must be readable at `first` and at three strides from there.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn four_rows(first: *const u8, stride: usize) -> [uint8x16_t; 4] {
    // SAFETY: as the caller vouches for.
    [0, 1, 2, 3].map(|row| unsafe { vld1q_u8(first.add(row * stride)) })
}

/// The f16 at the same place of four rows.
///
/// SAFETY: two bytes must be readable at `first` and at three strides from there.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn halves(first: *const u8, stride: usize) -> float32x4_t {
    // SAFETY: as the caller vouches for.
    let half = |row: usize| unsafe { u64::from(first.add(row * stride).cast::<u16>().read_unaligned()) };
    widen(vcreate_u16(half(0) | half(1) << 16 | half(2) << 32 | half(3) << 48))
}

/// SAFETY: `row` must be 0, 4, 8 or 12.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn store_four(values: &mut [f32; PANEL_ROWS], row: usize, four: float32x4_t) {
    // SAFETY: four values inside the array.
    unsafe { vst1q_f32(values.as_mut_ptr().add(row), four) };
}

/// Byte `i` of each of four times 2^24, and nothing below: an index behind a table's end gives zero.
#[inline]
#[target_feature(enable = "neon")]
fn top_byte(bytes: uint8x16_t, i: usize) -> uint32x4_t {
    let none = 0xff;
    let index = [0, 4, 8, 12].map(|first| u32::from_le_bytes([none, none, none, first + i as u8]));
    // SAFETY: four values.
    vreinterpretq_u32_u8(vqtbl1q_u8(bytes, vreinterpretq_u8_u32(unsafe { vld1q_u32(index.as_ptr()) })))
}

/// Scales and minimums of Q4_K and Q5_K out of the first 16 bytes of each row's block.
///
/// SAFETY: 16 bytes must be readable at `first` and at three strides from there, and `row` be 0, 4, 8 or 12.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn fill_scales_and_mins(first: *const u8, stride: usize, row: usize, panel: &mut Panel) {
    // SAFETY: as the caller vouches for.
    let rows = unsafe { four_rows(first, stride) };
    let [d, low_scales, low_mins, high] = transposed(rows.map(|row| vreinterpretq_u32_u8(row)));
    let dmin = widen(vshrn_n_u32::<16>(d));
    let d = widen(vmovn_u32(d));
    let [low_scales, low_mins, high] = [low_scales, low_mins, high].map(|bytes| vreinterpretq_u8_u32(bytes));
    let six = vdupq_n_u8(0x3f);
    // The upper two bits of sub-blocks 4 to 7 stand above the six bits of sub-blocks 0 to 3.
    let top = |top_of: uint8x16_t| vandq_u8(vshrq_n_u8::<2>(top_of), vdupq_n_u8(0x30));
    let scales = [vandq_u8(low_scales, six), vorrq_u8(vandq_u8(high, vdupq_n_u8(0x0f)), top(low_scales))];
    let mins = [vandq_u8(low_mins, six), vorrq_u8(vshrq_n_u8::<4>(high), top(low_mins))];
    let scaled = |bytes, i, d| vmulq_f32(vcvtq_n_f32_u32::<24>(top_byte(bytes, i)), d);
    for sub in 0..8 {
        // SAFETY: as the caller vouches for.
        unsafe {
            store_four(&mut panel.scale[sub], row, scaled(scales[sub / 4], sub % 4, d));
            store_four(&mut panel.min[sub], row, scaled(mins[sub / 4], sub % 4, dmin));
        }
    }
}

/// SAFETY: a block of Q4_K must be readable at `first` and at three strides from there, and `row` be 0, 4, 8 or 12.
#[target_feature(enable = "neon")]
unsafe fn q4_k<O: Order>(first: *const u8, stride: usize, row: usize, panel: &mut Panel) {
    // SAFETY: the 144 bytes of a block.
    unsafe {
        fill_scales_and_mins(first, stride, row, panel);
        for i in 0..8 {
            let packed = O::arrange(four_rows(first.add(16 + i * 16), stride));
            let chunk = i / 2 * 4 + i % 2;
            O::store(panel, chunk, row, packed.map(|packed| vandq_u8(packed, vdupq_n_u8(0x0f))));
            O::store(panel, chunk + 2, row, packed.map(|packed| vshrq_n_u8::<4>(packed)));
        }
    }
}

/// SAFETY: a block of Q5_K must be readable at `first` and at three strides from there, and `row` be 0, 4, 8 or 12.
#[target_feature(enable = "neon")]
unsafe fn q5_k<O: Order>(first: *const u8, stride: usize, row: usize, panel: &mut Panel) {
    // SAFETY: the 176 bytes of a block.
    unsafe {
        fill_scales_and_mins(first, stride, row, panel);
        for place in 0..2 {
            let mut fifth = O::arrange(four_rows(first.add(16 + place * 16), stride));
            for pair in 0..4 {
                let packed = O::arrange(four_rows(first.add(48 + pair * 32 + place * 16), stride));
                let chunk = pair * 4 + place;
                O::store(panel, chunk, row, [0, 1, 2, 3].map(|i| five_low(packed[i], fifth[i])));
                O::store(panel, chunk + 2, row, [0, 1, 2, 3].map(|i| five_high(packed[i], fifth[i])));
                // Bit s is that of sub-block s.
                fifth = fifth.map(|fifth| vshrq_n_u8::<2>(fifth));
            }
        }
    }
}

/// SAFETY: a block of Q6_K must be readable at `first` and at three strides from there, and `row` be 0, 4, 8 or 12.
#[target_feature(enable = "neon")]
unsafe fn q6_k<O: Order>(first: *const u8, stride: usize, row: usize, panel: &mut Panel) {
    // SAFETY: the 210 bytes of a block.
    unsafe {
        let d = halves(first.add(208), stride);
        let scales = transposed(four_rows(first.add(192), stride).map(|row| vreinterpretq_u32_u8(row)));
        for sub in 0..16 {
            let scale = vreinterpretq_s32_u32(top_byte(vreinterpretq_u8_u32(scales[sub / 4]), sub % 4));
            store_four(&mut panel.scale[sub], row, vmulq_f32(vcvtq_n_f32_s32::<24>(scale), d));
        }
        for half in 0..2 {
            for place in 0..2 {
                let at = half * 64 + place * 16;
                let packed = [at, at + 32].map(|at| O::arrange(four_rows(first.add(at), stride)));
                let top = O::arrange(four_rows(first.add(128 + half * 32 + place * 16), stride));
                let quarters = [0, 1, 2, 3].map(|i| six([packed[0][i], packed[1][i]], top[i]));
                for quarter in 0..4 {
                    let chunk = half * 8 + quarter * 2 + place;
                    O::store(panel, chunk, row, quarters.map(|quarters| quarters[quarter]));
                }
            }
        }
    }
}

/// SAFETY: eight blocks of Q8_0 must be readable at `first` and at three strides from there, and `row` be 0, 4, 8 or 12.
#[target_feature(enable = "neon")]
unsafe fn q8_0<O: Order>(first: *const u8, stride: usize, row: usize, panel: &mut Panel) {
    for block in 0..8 {
        // SAFETY: blocks of 34 bytes: a scale and 32 quants.
        unsafe {
            let first = first.add(block * 34);
            store_four(&mut panel.scale[block], row, halves(first, stride));
            for place in 0..2 {
                let quants = four_rows(first.add(2 + place * 16), stride);
                O::store(panel, block * 2 + place, row, O::arrange(quants));
            }
        }
    }
}

/// SAFETY: eight blocks of Q4_0 must be readable at `first` and at three strides from there, and `row` be 0, 4, 8 or 12.
#[target_feature(enable = "neon")]
unsafe fn q4_0<O: Order>(first: *const u8, stride: usize, row: usize, panel: &mut Panel) {
    for block in 0..8 {
        // SAFETY: blocks of 18 bytes: a scale and 16 bytes of two quants each.
        unsafe {
            let first = first.add(block * 18);
            store_four(&mut panel.scale[block], row, halves(first, stride));
            let packed = O::arrange(four_rows(first.add(2), stride));
            O::store(panel, block * 2, row, packed.map(|packed| vandq_u8(packed, vdupq_n_u8(0x0f))));
            O::store(panel, block * 2 + 1, row, packed.map(|packed| vshrq_n_u8::<4>(packed)));
        }
    }
}
