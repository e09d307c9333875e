//! Panels out of sixteen weight rows, in steps between which products of another panel are computed: moving bits and
//! multiplying use different parts of a processor, and side by side they take little more than the longer of the two.
//!
//! Everything here is inlined into functions compiled for the level, as steps stand in the middle of loops there.

#![allow(unsafe_code, reason = "vector code; every block says why it is sound")]
#![allow(clippy::indexing_slicing, reason = "arrays indexed by constants")]

use std::arch::x86_64::*;

use super::avx512_bits::{
    Header, f16_of_lanes, nibbles, scaled_byte, scaled_signed_byte, with_fifth_bit, with_upper_bits,
};
use super::avx512_panel::{Mins, WidePanel};
use crate::panel::{PANEL_ROWS, Tile};

/// A type that panels are filled from in steps.
pub(super) trait Source {
    /// Bytes of 256 columns of a row.
    const BLOCK_BYTES: usize;
    /// Sub-blocks of a super-block.
    const SUBS: usize;
    const MINS: Mins;
    const STEPS: usize;

    /// The order in which sub-blocks are multiplied.
    fn sub_of(step: usize) -> usize {
        step
    }

    /// What comes before the steps.
    ///
    /// SAFETY: the machine must have `Isa::Avx512Vnni`, and the blocks be whole and of the type.
    unsafe fn begin(blocks: &Blocks<'_>, panel: &mut WidePanel);

    /// A step; each comes once, and in this order.
    ///
    /// SAFETY: as for [`begin`](Self::begin), and `step` less than `STEPS`.
    unsafe fn step(blocks: &Blocks<'_>, step: usize, panel: &mut WidePanel);
}

/// Fills all of a panel.
///
/// SAFETY: the machine must have `Isa::Avx512Vnni`, and whole blocks be of the type.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) unsafe fn fill<S: Source>(blocks: &Blocks<'_>, panel: &mut WidePanel) {
    if !blocks.are_whole::<S>() {
        blocks.fill(panel);
        return;
    }
    // SAFETY: as the caller vouches for, and the blocks are whole.
    unsafe {
        S::begin(blocks, panel);
        for step in 0..S::STEPS {
            S::step(blocks, step, panel);
        }
    }
}

/// A block of each of sixteen weight rows.
#[derive(Clone, Copy)]
pub(super) struct Blocks<'a> {
    tile: Tile<'a>,
    /// Columns from `256 · block` on.
    block: usize,
    /// Where the first row's block begins.
    first: *const u8,
}

impl<'a> Blocks<'a> {
    /// Blocks of a tile that has sixteen rows.
    pub(super) fn new<S: Source>(tile: Tile<'a>, block: usize) -> Self {
        debug_assert_eq!(tile.bytes.len(), PANEL_ROWS * tile.row_bytes);
        Self { tile, block, first: tile.bytes.as_ptr().wrapping_add(block * S::BLOCK_BYTES) }
    }

    /// The blocks behind these.
    pub(super) fn next<S: Source>(&self) -> Self {
        Self { block: self.block + 1, first: self.first.wrapping_add(S::BLOCK_BYTES), ..*self }
    }

    /// Where the tile behind this one begins, if there is one.
    pub(super) fn ahead(&self) -> *const u8 {
        self.tile.bytes.as_ptr_range().end
    }

    /// Bytes of a tile.
    pub(super) fn tile_bytes(&self) -> usize {
        self.tile.bytes.len()
    }

    /// Whether all of the 256 columns are there, which steps need.
    pub(super) fn are_whole<S: Source>(&self) -> bool {
        (self.block + 1) * S::BLOCK_BYTES <= self.tile.row_bytes
    }

    /// Fills a panel as the portable code does.
    pub(super) fn fill(&self, panel: &mut WidePanel) {
        crate::panel::fill(self.tile, self.block, &mut panel.panel);
    }

    /// The same 16 bytes of sixteen rows, transposed: vector `i` has the bytes from `at + 4 i` on of each row.
    ///
    /// SAFETY: the machine must have `Isa::Avx512Vnni`, and the blocks the bytes `at` to `at + 16`.
    #[inline(always)]
    pub(super) unsafe fn transposed(&self, at: usize) -> [__m512i; 4] {
        // SAFETY: as the caller vouches for.
        unsafe {
            let row = |row: usize| _mm_loadu_si128(self.first.add(row * self.tile.row_bytes + at).cast());
            // Row 4 l + j in the 128-bit part l of vector j.
            let four = |j: usize| {
                let lower = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(row(j)), row(4 + j));
                let upper = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(row(8 + j)), row(12 + j));
                _mm512_inserti64x4::<1>(_mm512_castsi256_si512(lower), upper)
            };
            let z = [four(0), four(1), four(2), four(3)];
            let low = [_mm512_unpacklo_epi32(z[0], z[1]), _mm512_unpacklo_epi32(z[2], z[3])];
            let high = [_mm512_unpackhi_epi32(z[0], z[1]), _mm512_unpackhi_epi32(z[2], z[3])];
            [
                _mm512_unpacklo_epi64(low[0], low[1]),
                _mm512_unpackhi_epi64(low[0], low[1]),
                _mm512_unpacklo_epi64(high[0], high[1]),
                _mm512_unpackhi_epi64(high[0], high[1]),
            ]
        }
    }

    /// The f16 at the same place of sixteen rows.
    ///
    /// SAFETY: as for [`transposed`](Self::transposed).
    #[inline(always)]
    pub(super) unsafe fn halves(&self, at: usize) -> __m512 {
        // SAFETY: as the caller vouches for.
        unsafe { f16_of_lanes(self.transposed(at)[0]) }
    }

    /// Scales and minimums of Q4_K and Q5_K.
    ///
    /// SAFETY: the machine must have `Isa::Avx512Vnni`, and the blocks be whole and of one of the two.
    #[inline(always)]
    unsafe fn fill_scales_and_mins(&self, panel: &mut WidePanel) {
        // SAFETY: as the caller vouches for; eight sub-blocks.
        unsafe {
            let header = self.header();
            let scales = header.scales();
            for sub in 0..8 {
                panel.store_scale(sub, scaled_byte(scales[sub / 4], sub % 4, header.scale()));
            }
            panel.store_mins(header.mins());
        }
    }

    /// What Q4_K and Q5_K have before the quants.
    ///
    /// SAFETY: as for [`fill_scales_and_mins`](Self::fill_scales_and_mins).
    #[inline(always)]
    pub(super) unsafe fn header(&self) -> Header {
        // SAFETY: as the caller vouches for: the first 16 bytes.
        Header::new(unsafe { self.transposed(0) })
    }
}

/// Types that only the portable code unpacks, with `SUBS` sub-blocks and perhaps minimums.
pub(super) struct Portable<const SUBS: usize, const MIN: bool>;

impl<const SUBS: usize, const MIN: bool> Source for Portable<SUBS, MIN> {
    /// More than a row has: no block is whole.
    const BLOCK_BYTES: usize = 1 << 40;
    const SUBS: usize = SUBS;
    const MINS: Mins = if MIN { Mins::Floats } else { Mins::None };
    /// Never taken.
    const STEPS: usize = 1;

    #[inline(always)]
    unsafe fn begin(_: &Blocks<'_>, _: &mut WidePanel) {}

    #[inline(always)]
    unsafe fn step(_: &Blocks<'_>, _: usize, _: &mut WidePanel) {}
}

pub(super) struct Q4K;

impl Source for Q4K {
    const BLOCK_BYTES: usize = 144;
    const SUBS: usize = 8;
    const MINS: Mins = Mins::Pairs;
    const STEPS: usize = 8;

    #[inline(always)]
    unsafe fn begin(blocks: &Blocks<'_>, panel: &mut WidePanel) {
        // SAFETY: as the caller vouches for.
        unsafe { blocks.fill_scales_and_mins(panel) };
    }

    #[inline(always)]
    unsafe fn step(blocks: &Blocks<'_>, step: usize, panel: &mut WidePanel) {
        // 32 bytes are a sub-block in the lower nibbles and the next in the upper.
        let first = step / 2 * 16 + step % 2 * 4;
        // SAFETY: 16 of the 128 bytes of quants; 64 groups.
        unsafe {
            let packed = blocks.transposed(16 + step * 16);
            for i in 0..4 {
                let [lower, upper] = nibbles(packed[i]);
                panel.store_group(first + i, lower);
                panel.store_group(first + 8 + i, upper);
            }
        }
    }
}

pub(super) struct Q5K;

impl Source for Q5K {
    const BLOCK_BYTES: usize = 176;
    const SUBS: usize = 8;
    const MINS: Mins = Mins::Pairs;
    const STEPS: usize = 8;

    #[inline(always)]
    unsafe fn begin(blocks: &Blocks<'_>, panel: &mut WidePanel) {
        // SAFETY: as the caller vouches for.
        unsafe { blocks.fill_scales_and_mins(panel) };
    }

    #[inline(always)]
    unsafe fn step(blocks: &Blocks<'_>, step: usize, panel: &mut WidePanel) {
        // First what needs the fifth bits of each sub-block's first half, then the second halves.
        let (half, pair) = (step / 4, step % 4);
        let first = pair * 16 + half * 4;
        // SAFETY: 16 of the 32 bytes of fifth bits and of the 128 of nibbles; arrays of 64 bytes, and 64 groups.
        unsafe {
            if pair == 0 {
                let bits = blocks.transposed(16 + half * 16);
                for i in 0..4 {
                    panel.store_bits(i, bits[i]);
                }
            }
            let packed = blocks.transposed(48 + pair * 32 + half * 16);
            for i in 0..4 {
                let bits = panel.load_bits(i);
                let [lower, upper] = nibbles(packed[i]);
                panel.store_group(first + i, with_fifth_bit(lower, bits, 2 * pair));
                panel.store_group(first + 8 + i, with_fifth_bit(upper, bits, 2 * pair + 1));
            }
        }
    }
}

pub(super) struct Q6K;

impl Q6K {
    /// The scales' bytes, four sub-blocks' in the lanes of a vector, and what they are multiplied with.
    ///
    /// SAFETY: the machine must have `Isa::Avx512Vnni`, and the blocks be whole and of the type.
    #[inline(always)]
    pub(super) unsafe fn scales(blocks: &Blocks<'_>) -> ([__m512i; 4], __m512) {
        // SAFETY: as the caller vouches for: of 210 bytes the last 18.
        unsafe {
            let [.., last] = blocks.transposed(194);
            (blocks.transposed(192), f16_of_lanes(_mm512_srli_epi32::<16>(last)))
        }
    }
}

impl Source for Q6K {
    const BLOCK_BYTES: usize = 210;
    const SUBS: usize = 16;
    const MINS: Mins = Mins::None;
    const STEPS: usize = 4;

    /// Those whose quants have upper bits in the same bytes are next to each other, and of these, those that have the same
    /// bytes for their nibbles.
    #[inline(always)]
    fn sub_of(step: usize) -> usize {
        let (half, at, part) = (step / 8, step / 4 % 2, step % 4);
        half * 8 + part % 2 * 4 + part / 2 * 2 + at
    }

    #[inline(always)]
    unsafe fn begin(blocks: &Blocks<'_>, panel: &mut WidePanel) {
        // SAFETY: as the caller vouches for; sixteen sub-blocks.
        unsafe {
            let (scales, d) = Self::scales(blocks);
            for sub in 0..16 {
                panel.store_scale(sub, scaled_signed_byte(scales[sub / 4], sub % 4, d));
            }
        }
    }

    #[inline(always)]
    unsafe fn step(blocks: &Blocks<'_>, step: usize, panel: &mut WidePanel) {
        // Of half a block, 16 bytes of upper bits with the two times 16 of nibbles that they belong to.
        let (half, at) = (step / 2, step % 2 * 16);
        let first = half * 32 + at / 4;
        // SAFETY: of 128 bytes of nibbles and 64 of upper bits; 64 groups.
        unsafe {
            let bits = blocks.transposed(128 + half * 32 + at);
            for quarter in 0..2 {
                let packed = blocks.transposed(half * 64 + quarter * 32 + at);
                for i in 0..4 {
                    let [lower, upper] = nibbles(packed[i]);
                    let group = first + quarter * 8 + i;
                    panel.store_group(group, with_upper_bits(lower, bits[i], quarter * 2));
                    panel.store_group(group + 16, with_upper_bits(upper, bits[i], quarter * 2 + 1));
                }
            }
        }
    }
}

pub(super) struct Q80;

impl Source for Q80 {
    const BLOCK_BYTES: usize = 8 * 34;
    const SUBS: usize = 8;
    const MINS: Mins = Mins::None;
    const STEPS: usize = 8;

    #[inline(always)]
    unsafe fn begin(_: &Blocks<'_>, _: &mut WidePanel) {}

    #[inline(always)]
    unsafe fn step(blocks: &Blocks<'_>, step: usize, panel: &mut WidePanel) {
        let at = step * 34;
        // SAFETY: a block of 34 bytes, a scale and 32 quants; 64 groups.
        unsafe {
            panel.store_scale(step, blocks.halves(at));
            let sign = _mm512_set1_epi8(-128);
            for half in 0..2 {
                let q = blocks.transposed(at + 2 + 16 * half);
                for i in 0..4 {
                    panel.store_group(step * 8 + half * 4 + i, _mm512_xor_si512(q[i], sign));
                }
            }
        }
    }
}

pub(super) struct Q40;

impl Source for Q40 {
    const BLOCK_BYTES: usize = 8 * 18;
    const SUBS: usize = 8;
    const MINS: Mins = Mins::None;
    const STEPS: usize = 8;

    #[inline(always)]
    unsafe fn begin(_: &Blocks<'_>, _: &mut WidePanel) {}

    #[inline(always)]
    unsafe fn step(blocks: &Blocks<'_>, step: usize, panel: &mut WidePanel) {
        let at = step * 18;
        // SAFETY: a block of 18 bytes, a scale and 16 bytes of two quants each; 64 groups.
        unsafe {
            panel.store_scale(step, blocks.halves(at));
            let packed = blocks.transposed(at + 2);
            for i in 0..4 {
                let [lower, upper] = nibbles(packed[i]);
                panel.store_group(step * 8 + i, lower);
                panel.store_group(step * 8 + 4 + i, upper);
            }
        }
    }
}
