//! Panels out of sixteen weight rows: the packed bits are transposed first and unpacked then, which shuffles least.

#![allow(unsafe_code, reason = "vector code; every block says why it is sound")]
#![allow(clippy::indexing_slicing, reason = "arrays indexed by constants")]

use std::arch::x86_64::*;

use super::avx2_blocks::to_bit_4;
use crate::TensorType;
use crate::panel::{PANEL_ROWS, Panel, Tile};

/// Rows that a vector has values of.
const ROWS: usize = 8;

/// The same bytes of eight weight rows, and the place of the rows in a panel.
#[derive(Clone, Copy)]
struct EightRows {
    first: *const u8,
    stride: usize,
    /// The place of the first: 0 or 8.
    place: usize,
}

/// Fills a panel with the columns from `256 · block` on, or returns false for a type, a tile of fewer rows or a block at
/// a row's end that there is no kernel for. The machine must have `Isa::Avx2`.
pub(super) fn fill(tile: Tile<'_>, block: usize, panel: &mut Panel) -> bool {
    let (block_bytes, fill): (usize, unsafe fn(EightRows, &mut Panel)) = match tile.tensor_type {
        TensorType::Q4_K => (144, fill_q4_k),
        TensorType::Q5_K => (176, fill_q5_k),
        TensorType::Q6_K => (210, fill_q6_k),
        TensorType::Q8_0 => (8 * 34, fill_q8_0),
        TensorType::Q4_0 => (8 * 18, fill_q4_0),
        _ => return false,
    };
    if tile.bytes.len() != PANEL_ROWS * tile.row_bytes || (block + 1) * block_bytes > tile.row_bytes {
        return false;
    }
    for (place, rows) in [0, ROWS].into_iter().zip(tile.bytes.chunks_exact(ROWS * tile.row_bytes)) {
        let first = rows[block * block_bytes..].as_ptr();
        // SAFETY: the caller has found the level on this machine; there are eight rows `row_bytes` apart, and the block
        // lies inside each.
        unsafe { fill(EightRows { first, stride: tile.row_bytes, place }, panel) };
    }
    true
}

impl EightRows {
    /// The rows from `bytes` further on.
    fn skip(self, bytes: usize) -> Self {
        Self { first: self.first.wrapping_add(bytes), ..self }
    }

    /// Sixteen bytes of each row, transposed: vector `i` has those from `4 i` on.
    ///
    /// SAFETY: they must be readable.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn transposed(self) -> [__m256i; 4] {
        // Row i in the lower half of a vector, row i + 4 in the upper.
        // SAFETY: as the caller vouches for.
        let [a, b, c, d] = std::array::from_fn(|i| unsafe {
            let row = |row: usize| _mm_loadu_si128(self.first.add(row * self.stride).cast());
            _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(row(i)), row(i + 4))
        });
        let low = [_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d)];
        let high = [_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d)];
        [
            _mm256_unpacklo_epi64(low[0], low[1]),
            _mm256_unpackhi_epi64(low[0], low[1]),
            _mm256_unpacklo_epi64(high[0], high[1]),
            _mm256_unpackhi_epi64(high[0], high[1]),
        ]
    }

    /// The f16 at the beginning of each row.
    ///
    /// SAFETY: two bytes of each row must be readable.
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn halves(self) -> __m256 {
        // SAFETY: as the caller vouches for.
        let half = |row: usize| unsafe { self.first.add(row * self.stride).cast::<i16>().read_unaligned() };
        let halves = _mm_setr_epi16(half(0), half(1), half(2), half(3), half(4), half(5), half(6), half(7));
        _mm256_cvtph_ps(halves)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn store_group(self, panel: &mut Panel, group: usize, q: __m256i) {
        let rows = &mut panel.q[group][self.place..self.place + ROWS];
        // SAFETY: eight rows have 32 bytes; the panel is aligned to 64, and the rows to half of that.
        unsafe { _mm256_store_si256(rows.as_mut_ptr().cast(), q) };
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn store_scale(self, scales: &mut [f32; PANEL_ROWS], values: __m256) {
        let scales = &mut scales[self.place..self.place + ROWS];
        // SAFETY: eight scales have 32 bytes.
        unsafe { _mm256_storeu_ps(scales.as_mut_ptr(), values) };
    }

    /// Scales and minimums of Q4_K and Q5_K out of the first 16 bytes of each row's block.
    ///
    /// SAFETY: they must be readable.
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn fill_scales_and_mins(self, panel: &mut Panel) {
        // SAFETY: as the caller vouches for.
        let [halves, low_scales, low_mins, high] = unsafe { self.transposed() };
        let dmin = lower_halves(_mm256_srli_epi32::<16>(halves));
        let d = lower_halves(_mm256_and_si256(halves, _mm256_set1_epi32(0xffff)));
        let six = _mm256_set1_epi8(0x3f);
        let four = _mm256_set1_epi8(0x0f);
        let top = _mm256_set1_epi8(0x30);
        // The upper two bits of sub-blocks 4 to 7 stand above the six bits of sub-blocks 0 to 3.
        let with_top = |low: __m256i, top_of: __m256i| {
            let top = _mm256_and_si256(_mm256_srli_epi32::<2>(top_of), top);
            _mm256_or_si256(top, _mm256_and_si256(low, four))
        };
        let scales = [_mm256_and_si256(low_scales, six), with_top(high, low_scales)];
        let mins = [_mm256_and_si256(low_mins, six), with_top(_mm256_srli_epi32::<4>(high), low_mins)];
        for sub in 0..8 {
            self.store_scale(&mut panel.scale[sub], scaled_byte(scales[sub / 4], sub % 4, d));
            self.store_scale(&mut panel.min[sub], scaled_byte(mins[sub / 4], sub % 4, dmin));
        }
    }
}

/// The f16 in the lower halves of 32-bit values, whose upper halves are zero.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn lower_halves(values: __m256i) -> __m256 {
    let halves = _mm_packus_epi32(_mm256_castsi256_si128(values), _mm256_extracti128_si256::<1>(values));
    _mm256_cvtph_ps(halves)
}

/// Byte `i` of each 32-bit value, unsigned, times `d`.
#[inline]
#[target_feature(enable = "avx2")]
fn scaled_byte(bytes: __m256i, i: usize, d: __m256) -> __m256 {
    let shifted = _mm256_srl_epi32(bytes, _mm_cvtsi32_si128(8 * i as i32));
    _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_and_si256(shifted, _mm256_set1_epi32(255))), d)
}

/// SAFETY: a block of Q4_K must be readable in each row.
#[target_feature(enable = "avx2,f16c")]
unsafe fn fill_q4_k(rows: EightRows, panel: &mut Panel) {
    // SAFETY: the first 16 of the block's 144 bytes.
    unsafe { rows.fill_scales_and_mins(panel) };
    let four = _mm256_set1_epi8(0x0f);
    for part in 0..8 {
        // SAFETY: the bytes 16 to 144.
        let packed = unsafe { rows.skip(16 + part * 16).transposed() };
        for (i, packed) in packed.into_iter().enumerate() {
            let group = part / 2 * 16 + part % 2 * 4 + i;
            rows.store_group(panel, group, _mm256_and_si256(packed, four));
            rows.store_group(panel, group + 8, _mm256_and_si256(_mm256_srli_epi16::<4>(packed), four));
        }
    }
}

/// SAFETY: a block of Q5_K must be readable in each row.
#[target_feature(enable = "avx2,f16c")]
unsafe fn fill_q5_k(rows: EightRows, panel: &mut Panel) {
    // SAFETY: the first 16 of the block's 176 bytes.
    unsafe { rows.fill_scales_and_mins(panel) };
    for half in 0..2 {
        // SAFETY: the bytes 16 to 48, and 48 to 176.
        unsafe {
            let bits = rows.skip(16 + half * 16).transposed();
            let low = rows.skip(48 + half * 16);
            fill_five_bits::<0>(low, bits, half * 4, panel);
            fill_five_bits::<1>(low, bits, half * 4, panel);
            fill_five_bits::<2>(low, bits, half * 4, panel);
            fill_five_bits::<3>(low, bits, half * 4, panel);
        }
    }
}

/// Groups `group` to `group + 4` of two sub-blocks of Q5_K out of their nibbles and of all sub-blocks' fifth bits. The
/// pair of sub-blocks is a constant, as shifts by it are.
///
/// SAFETY: 16 bytes must be readable from `32 · PAIR` on in each row.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn fill_five_bits<const PAIR: usize>(rows: EightRows, bits: [__m256i; 4], group: usize, panel: &mut Panel) {
    let four = _mm256_set1_epi8(0x0f);
    let five = _mm256_set1_epi8(0x10);
    // SAFETY: as the caller vouches for; this is compiled for AVX2.
    let packed = unsafe { rows.skip(PAIR * 32).transposed() };
    for (i, (packed, bits)) in packed.into_iter().zip(bits).enumerate() {
        let nibbles = [packed, _mm256_srli_epi16::<4>(packed)];
        for (nibble, low) in nibbles.into_iter().enumerate() {
            let sub = PAIR * 2 + nibble;
            // SAFETY: this is compiled for AVX2.
            let bit = unsafe { to_bit_4(bits, sub) };
            let q = _mm256_or_si256(_mm256_and_si256(low, four), _mm256_and_si256(bit, five));
            rows.store_group(panel, sub * 8 + group + i, q);
        }
    }
}

/// SAFETY: a block of Q6_K must be readable in each row.
#[target_feature(enable = "avx2,f16c")]
unsafe fn fill_q6_k(rows: EightRows, panel: &mut Panel) {
    // SAFETY: the bytes 192 to 208, and 208 to 210, of the block's 210.
    let (scales, d) = unsafe { (rows.skip(192).transposed(), rows.skip(208).halves()) };
    for sub in 0..16 {
        // To the top, and back with the sign.
        let up = _mm256_sll_epi32(scales[sub / 4], _mm_cvtsi32_si128(24 - 8 * (sub as i32 % 4)));
        let scale = _mm256_cvtepi32_ps(_mm256_srai_epi32::<24>(up));
        rows.store_scale(&mut panel.scale[sub], _mm256_mul_ps(d, scale));
    }
    let four = _mm256_set1_epi8(0x0f);
    let two = _mm256_set1_epi8(0x30);
    for part in 0..4 {
        let (half, place) = (part / 2, part % 2 * 16);
        // SAFETY: the bytes 128 to 192, and 0 to 128.
        let (high, low) = unsafe {
            let low = rows.skip(half * 64 + place);
            (rows.skip(128 + half * 32 + place).transposed(), [low.transposed(), low.skip(32).transposed()])
        };
        for i in 0..4 {
            let group = half * 32 + part % 2 * 4 + i;
            let quarters = [
                (low[0][i], _mm256_slli_epi16::<4>(high[i])),
                (low[1][i], _mm256_slli_epi16::<2>(high[i])),
                (_mm256_srli_epi16::<4>(low[0][i]), high[i]),
                (_mm256_srli_epi16::<4>(low[1][i]), _mm256_srli_epi16::<2>(high[i])),
            ];
            for (quarter, (low, high)) in quarters.into_iter().enumerate() {
                let q = _mm256_or_si256(_mm256_and_si256(low, four), _mm256_and_si256(high, two));
                rows.store_group(panel, group + quarter * 8, q);
            }
        }
    }
}

/// SAFETY: eight blocks of Q8_0 must be readable in each row.
#[target_feature(enable = "avx2,f16c")]
unsafe fn fill_q8_0(rows: EightRows, panel: &mut Panel) {
    let sign = _mm256_set1_epi8(-128);
    for block in 0..8 {
        let rows = rows.skip(block * 34);
        // SAFETY: blocks of 34 bytes: a scale and 32 quants.
        rows.store_scale(&mut panel.scale[block], unsafe { rows.halves() });
        for half in 0..2 {
            // SAFETY: as above.
            let quants = unsafe { rows.skip(2 + half * 16).transposed() };
            for (i, q) in quants.into_iter().enumerate() {
                rows.store_group(panel, block * 8 + half * 4 + i, _mm256_xor_si256(q, sign));
            }
        }
    }
}

/// SAFETY: eight blocks of Q4_0 must be readable in each row.
#[target_feature(enable = "avx2,f16c")]
unsafe fn fill_q4_0(rows: EightRows, panel: &mut Panel) {
    let four = _mm256_set1_epi8(0x0f);
    for block in 0..8 {
        // SAFETY: blocks of 18 bytes: a scale and 16 bytes of two quants each.
        let (scale, packed) = unsafe {
            let rows = rows.skip(block * 18);
            (rows.halves(), rows.skip(2).transposed())
        };
        rows.store_scale(&mut panel.scale[block], scale);
        for (i, packed) in packed.into_iter().enumerate() {
            rows.store_group(panel, block * 8 + i, _mm256_and_si256(packed, four));
            rows.store_group(panel, block * 8 + 4 + i, _mm256_and_si256(_mm256_srli_epi16::<4>(packed), four));
        }
    }
}
