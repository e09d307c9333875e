//! Panels out of sixteen weight rows, in steps between which products of another panel are computed: moving bits and
//! multiplying use different parts of a processor, and side by side they take little more than the longer of the two.
//!
//! Everything here is inlined into functions compiled for the level, as steps stand in the middle of loops there.

#![allow(unsafe_code, reason = "vector code; every block says why it is sound")]
#![allow(clippy::indexing_slicing, reason = "arrays indexed by constants")]

use std::arch::x86_64::*;

use super::avx512_blocks::AND_OR;
use super::avx512_panel::{Mins, PAIRS, WidePanel};
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
    /// SAFETY: the machine must have `Isa::Avx512Vnni`, and the blocks be of one of the two.
    #[inline(always)]
    pub(super) unsafe fn fill_scales_and_mins(&self, panel: &mut WidePanel) {
        // SAFETY: the first 16 bytes; eight sub-blocks, and arrays of 64 bytes.
        unsafe {
            let [d, low_scales, low_mins, high] = self.transposed(0);
            let six = _mm512_set1_epi8(0x3f);
            let four = _mm512_set1_epi8(0x0f);
            let top = _mm512_set1_epi8(0x30);
            // The upper two bits of sub-blocks 4 to 7 stand above the six bits of sub-blocks 0 to 3.
            let with_top = |low: __m512i, top_of: __m512i| {
                let low = _mm512_and_si512(low, four);
                _mm512_ternarylogic_epi32::<AND_OR>(_mm512_srli_epi32::<2>(top_of), top, low)
            };
            let scales = [_mm512_and_si512(low_scales, six), with_top(high, low_scales)];
            let scale = f16_of_lanes(d);
            for sub in 0..8 {
                let shifted = _mm512_srl_epi32(scales[sub / 4], _mm_cvtsi32_si128(8 * (sub as i32 % 4)));
                let byte = _mm512_and_si512(shifted, _mm512_set1_epi32(255));
                panel.store_scale(sub, _mm512_mul_ps(_mm512_cvtepi32_ps(byte), scale));
            }
            let mins = [_mm512_and_si512(low_mins, six), with_top(_mm512_srli_epi32::<4>(high), low_mins)];
            for pair in 0..PAIRS.len() {
                // Every other byte, as 16 bits.
                let bytes = if pair % 2 == 0 { mins[pair / 2] } else { _mm512_srli_epi16::<8>(mins[pair / 2]) };
                let bytes = _mm512_and_si512(bytes, _mm512_set1_epi16(255));
                _mm512_storeu_si512(panel.min_pairs.as_mut_ptr().add(pair).cast(), bytes);
            }
            _mm512_storeu_ps(panel.min_scale.as_mut_ptr(), f16_of_lanes(_mm512_srli_epi32::<16>(d)));
        }
    }
}

/// The f16 in the lower half of each lane.
///
/// SAFETY: the machine must have `Isa::Avx512Vnni`.
#[inline(always)]
unsafe fn f16_of_lanes(lanes: __m512i) -> __m512 {
    // SAFETY: as the caller vouches for.
    unsafe { _mm512_cvtph_ps(_mm512_cvtepi32_epi16(lanes)) }
}

/// The lower and the upper nibbles of bytes.
///
/// SAFETY: the machine must have `Isa::Avx512Vnni`.
#[inline(always)]
pub(super) unsafe fn nibbles(packed: __m512i) -> [__m512i; 2] {
    // SAFETY: as the caller vouches for.
    unsafe {
        let four = _mm512_set1_epi8(0x0f);
        [_mm512_and_si512(packed, four), _mm512_and_si512(_mm512_srli_epi16::<4>(packed), four)]
    }
}

/// Nibbles of sub-block `sub` of Q5_K with the fifth bits, out of the bytes that have those of all sub-blocks.
///
/// SAFETY: the machine must have `Isa::Avx512Vnni`.
#[inline(always)]
pub(super) unsafe fn with_fifth_bit(nibbles: __m512i, bits: __m512i, sub: usize) -> __m512i {
    // SAFETY: as the caller vouches for.
    unsafe {
        // The fifth bit of sub-block s is bit s of its byte; a neighbour's bits that come along are masked off.
        let bit = _mm512_rolv_epi32(bits, _mm512_set1_epi32((36 - sub as i32) % 32));
        _mm512_ternarylogic_epi32::<AND_OR>(bit, _mm512_set1_epi8(0x10), nibbles)
    }
}

/// Nibbles of Q6_K with the two bits above them, out of bytes that have those of four sub-blocks: `part` is which of them, in
/// the [order](Source::sub_of) in which they are multiplied.
///
/// SAFETY: the machine must have `Isa::Avx512Vnni`.
#[inline(always)]
pub(super) unsafe fn with_upper_bits(nibbles: __m512i, bits: __m512i, part: usize) -> __m512i {
    // SAFETY: as the caller vouches for.
    unsafe {
        // Moved to bits 4 and 5.
        let bits = match part {
            0 => _mm512_slli_epi32::<4>(bits),
            1 => bits,
            2 => _mm512_slli_epi32::<2>(bits),
            _ => _mm512_srli_epi32::<2>(bits),
        };
        _mm512_ternarylogic_epi32::<AND_OR>(bits, _mm512_set1_epi8(0x30), nibbles)
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
        // SAFETY: of 210 bytes the last 18; sixteen sub-blocks.
        unsafe {
            let (scales, [.., last]) = (blocks.transposed(192), blocks.transposed(194));
            let d = f16_of_lanes(_mm512_srli_epi32::<16>(last));
            for sub in 0..16 {
                // To the top, and back with the sign.
                let up = _mm512_sll_epi32(scales[sub / 4], _mm_cvtsi32_si128(24 - 8 * (sub as i32 % 4)));
                let scale = _mm512_cvtepi32_ps(_mm512_srai_epi32::<24>(up));
                panel.store_scale(sub, _mm512_mul_ps(d, scale));
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
