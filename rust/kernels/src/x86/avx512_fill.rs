//! Panels out of sixteen weight rows: the packed bits are transposed first and unpacked then, which shuffles least.

#![allow(unsafe_code, reason = "vector code; every block says why it is sound")]
#![allow(clippy::indexing_slicing, reason = "arrays indexed by constants")]

use std::arch::x86_64::*;

use super::avx512_blocks::AND_OR;
use super::transpose::transpose_16x16;
use crate::TensorType;
use crate::panel::{PANEL_ROWS, Panel, Tile};

/// Fills a panel with the columns from `256 · block` on, or returns false for a type, a tile of fewer rows or a block at
/// a row's end that there is no kernel for. The machine must have `Isa::Avx512Vnni`.
pub(super) fn fill(tile: Tile<'_>, block: usize, panel: &mut Panel) -> bool {
    let (block_bytes, fill): (usize, unsafe fn(*const u8, usize, &mut Panel)) = match tile.tensor_type {
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
    // SAFETY: the caller has found the level on this machine; there are sixteen rows `row_bytes` apart, and the block
    // lies inside each.
    unsafe { fill(tile.bytes.as_ptr().add(block * block_bytes), tile.row_bytes, panel) };
    true
}

/// The same 64 bytes of sixteen rows, transposed: vector `i` has the bytes from `4 i` on of each row.
///
/// SAFETY: 64 bytes must be readable at `first` and at 15 strides from there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn transposed(first: *const u8, stride: usize) -> [__m512i; 16] {
    // SAFETY: as the caller vouches for.
    transpose_16x16(std::array::from_fn(|row| unsafe { _mm512_loadu_si512(first.add(row * stride).cast()) }))
}

/// The same 16 bytes of sixteen rows, transposed: vector `i` has the bytes from `4 i` on of each row.
///
/// SAFETY: 16 bytes must be readable at `first` and at 15 strides from there.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn transposed_16(first: *const u8, stride: usize) -> [__m512i; 4] {
    // SAFETY: as the caller vouches for.
    let row = |row: usize| unsafe { _mm_loadu_si128(first.add(row * stride).cast()) };
    // Row 4 l + j in the 128-bit part l of vector j.
    let z: [__m512i; 4] = std::array::from_fn(|j| {
        let z = _mm512_castsi128_si512(row(j));
        let z = _mm512_inserti32x4::<1>(z, row(4 + j));
        let z = _mm512_inserti32x4::<2>(z, row(8 + j));
        _mm512_inserti32x4::<3>(z, row(12 + j))
    });
    let low = [_mm512_unpacklo_epi32(z[0], z[1]), _mm512_unpacklo_epi32(z[2], z[3])];
    let high = [_mm512_unpackhi_epi32(z[0], z[1]), _mm512_unpackhi_epi32(z[2], z[3])];
    [
        _mm512_unpacklo_epi64(low[0], low[1]),
        _mm512_unpackhi_epi64(low[0], low[1]),
        _mm512_unpacklo_epi64(high[0], high[1]),
        _mm512_unpackhi_epi64(high[0], high[1]),
    ]
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_group(panel: &mut Panel, group: usize, q: __m512i) {
    // SAFETY: a group of the panel has 64 bytes, and the panel is aligned to 64.
    unsafe { _mm512_store_si512((&raw mut panel.q[group]).cast(), q) };
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_scale(scales: &mut [f32; PANEL_ROWS], values: __m512) {
    // SAFETY: the array has 64 bytes.
    unsafe { _mm512_storeu_ps(scales.as_mut_ptr(), values) };
}

/// Byte `I` of each 32-bit value, unsigned, times `d`.
#[inline]
#[target_feature(enable = "avx512f")]
fn scaled_byte(bytes: __m512i, i: usize, d: __m512) -> __m512 {
    let shifted = _mm512_srl_epi32(bytes, _mm_cvtsi32_si128(8 * i as i32));
    _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_and_si512(shifted, _mm512_set1_epi32(255))), d)
}

/// Scales and minimums of Q4_K and Q5_K out of the first 16 bytes of each row's block.
///
/// SAFETY: 16 bytes must be readable at `first` and at 15 strides from there.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn fill_scales_and_mins(first: *const u8, stride: usize, panel: &mut Panel) {
    // SAFETY: as the caller vouches for.
    let [d, low_scales, low_mins, high] = unsafe { transposed_16(first, stride) };
    let dmin = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(d)));
    let d = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(d));
    let six = _mm512_set1_epi8(0x3f);
    let four = _mm512_set1_epi8(0x0f);
    let top = _mm512_set1_epi8(0x30);
    // The upper two bits of sub-blocks 4 to 7 stand above the six bits of sub-blocks 0 to 3.
    let with_top = |low: __m512i, top_of: __m512i| {
        _mm512_ternarylogic_epi32::<AND_OR>(_mm512_srli_epi32::<2>(top_of), top, _mm512_and_si512(low, four))
    };
    let scales = [_mm512_and_si512(low_scales, six), with_top(high, low_scales)];
    let mins = [_mm512_and_si512(low_mins, six), with_top(_mm512_srli_epi32::<4>(high), low_mins)];
    for sub in 0..8 {
        store_scale(&mut panel.scale[sub], scaled_byte(scales[sub / 4], sub % 4, d));
        store_scale(&mut panel.min[sub], scaled_byte(mins[sub / 4], sub % 4, dmin));
    }
}

/// SAFETY: a block of Q4_K must be readable at `first` and at 15 strides from there.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn fill_q4_k(first: *const u8, stride: usize, panel: &mut Panel) {
    // SAFETY: the first 16 of the block's 144 bytes.
    unsafe { fill_scales_and_mins(first, stride, panel) };
    let four = _mm512_set1_epi8(0x0f);
    for half in 0..2 {
        // SAFETY: the bytes 16 to 80, and 80 to 144.
        let packed = unsafe { transposed(first.add(16 + half * 64), stride) };
        for (i, packed) in packed.into_iter().enumerate() {
            let group = (half * 2 + i / 8) * 16 + i % 8;
            store_group(panel, group, _mm512_and_si512(packed, four));
            store_group(panel, group + 8, _mm512_and_si512(_mm512_srli_epi16::<4>(packed), four));
        }
    }
}

/// SAFETY: a block of Q5_K must be readable at `first` and at 15 strides from there.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn fill_q5_k(first: *const u8, stride: usize, panel: &mut Panel) {
    // SAFETY: the first 16 of the block's 176 bytes.
    unsafe { fill_scales_and_mins(first, stride, panel) };
    // SAFETY: the bytes 16 to 48.
    let (a, b) = unsafe { (transposed_16(first.add(16), stride), transposed_16(first.add(32), stride)) };
    let fifth = [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]];
    let four = _mm512_set1_epi8(0x0f);
    let five = _mm512_set1_epi8(0x10);
    for half in 0..2 {
        // SAFETY: the bytes 48 to 112, and 112 to 176.
        let packed = unsafe { transposed(first.add(48 + half * 64), stride) };
        for (i, packed) in packed.into_iter().enumerate() {
            let sub = (half * 2 + i / 8) * 2;
            let group = sub * 8 + i % 8;
            // The fifth bit of sub-block s is bit s of its byte; a neighbour's bits that come along are masked off.
            let bits = to_fifth(fifth[i % 8], sub);
            let low = _mm512_and_si512(packed, four);
            store_group(panel, group, _mm512_ternarylogic_epi32::<AND_OR>(bits, five, low));
            let bits = to_fifth(fifth[i % 8], sub + 1);
            let high = _mm512_and_si512(_mm512_srli_epi16::<4>(packed), four);
            store_group(panel, group + 8, _mm512_ternarylogic_epi32::<AND_OR>(bits, five, high));
        }
    }
}

/// Bit `bit` of each byte moved to bit 4, the others anywhere.
#[inline]
#[target_feature(enable = "avx512f")]
fn to_fifth(v: __m512i, bit: usize) -> __m512i {
    _mm512_rolv_epi32(v, _mm512_set1_epi32((36 - bit as i32) % 32))
}

/// SAFETY: a block of Q6_K must be readable at `first` and at 15 strides from there.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn fill_q6_k(first: *const u8, stride: usize, panel: &mut Panel) {
    // SAFETY: the bytes 192 to 208, and 208 to 210, of the block's 210.
    let (scales, d) = unsafe { (transposed_16(first.add(192), stride), halves(first.add(208), stride)) };
    for sub in 0..16 {
        // To the top, and back with the sign.
        let up = _mm512_sll_epi32(scales[sub / 4], _mm_cvtsi32_si128(24 - 8 * (sub as i32 % 4)));
        let scale = _mm512_cvtepi32_ps(_mm512_srai_epi32::<24>(up));
        store_scale(&mut panel.scale[sub], _mm512_mul_ps(d, scale));
    }
    // SAFETY: the bytes 128 to 192.
    let high = unsafe { transposed(first.add(128), stride) };
    let four = _mm512_set1_epi8(0x0f);
    let two = _mm512_set1_epi8(0x30);
    for half in 0..2 {
        // SAFETY: the bytes 0 to 64, and 64 to 128.
        let packed = unsafe { transposed(first.add(half * 64), stride) };
        for (i, packed) in packed.into_iter().enumerate() {
            // Quarter i / 8 has the lower nibbles, the one two further the upper ones.
            let group = half * 32 + i;
            let bits = high[half * 8 + i % 8];
            let (bits_low, bits_high) = if i < 8 {
                (_mm512_slli_epi32::<4>(bits), bits)
            } else {
                (_mm512_slli_epi32::<2>(bits), _mm512_srli_epi32::<2>(bits))
            };
            let low = _mm512_and_si512(packed, four);
            store_group(panel, group, _mm512_ternarylogic_epi32::<AND_OR>(bits_low, two, low));
            let low = _mm512_and_si512(_mm512_srli_epi16::<4>(packed), four);
            store_group(panel, group + 16, _mm512_ternarylogic_epi32::<AND_OR>(bits_high, two, low));
        }
    }
}

/// The f16 at the same place of sixteen rows.
///
/// SAFETY: two bytes must be readable at `first` and at 15 strides from there.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn halves(first: *const u8, stride: usize) -> __m512 {
    let halves: [u16; 16] =
        // SAFETY: as the caller vouches for.
        std::array::from_fn(|row| unsafe { first.add(row * stride).cast::<u16>().read_unaligned() });
    // SAFETY: the array has 32 bytes.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(halves.as_ptr().cast()) })
}

/// SAFETY: eight blocks of Q8_0 must be readable at `first` and at 15 strides from there.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn fill_q8_0(first: *const u8, stride: usize, panel: &mut Panel) {
    let sign = _mm512_set1_epi8(-128);
    for pair in 0..4 {
        // SAFETY: blocks of 34 bytes: a scale and 32 quants.
        let rows = std::array::from_fn(|row| unsafe {
            let block = first.add(row * stride + pair * 68);
            let quants = _mm512_castsi256_si512(_mm256_loadu_si256(block.add(2).cast()));
            _mm512_inserti64x4::<1>(quants, _mm256_loadu_si256(block.add(36).cast()))
        });
        for (i, q) in transpose_16x16(rows).into_iter().enumerate() {
            store_group(panel, pair * 16 + i, _mm512_xor_si512(q, sign));
        }
        for block in 2 * pair..2 * pair + 2 {
            // SAFETY: as above.
            store_scale(&mut panel.scale[block], unsafe { halves(first.add(block * 34), stride) });
        }
    }
}

/// SAFETY: eight blocks of Q4_0 must be readable at `first` and at 15 strides from there.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn fill_q4_0(first: *const u8, stride: usize, panel: &mut Panel) {
    let four = _mm512_set1_epi8(0x0f);
    for half in 0..2 {
        // SAFETY: blocks of 18 bytes: a scale and 16 bytes of two quants each.
        let rows = std::array::from_fn(|row| unsafe {
            let quants =
                |block: usize| _mm_loadu_si128(first.add(row * stride + (half * 4 + block) * 18 + 2).cast());
            let z = _mm512_castsi128_si512(quants(0));
            let z = _mm512_inserti32x4::<1>(z, quants(1));
            let z = _mm512_inserti32x4::<2>(z, quants(2));
            _mm512_inserti32x4::<3>(z, quants(3))
        });
        for (i, packed) in transpose_16x16(rows).into_iter().enumerate() {
            let group = half * 32 + i / 4 * 8 + i % 4;
            store_group(panel, group, _mm512_and_si512(packed, four));
            store_group(panel, group + 4, _mm512_and_si512(_mm512_srli_epi16::<4>(packed), four));
        }
        for block in 4 * half..4 * half + 4 {
            // SAFETY: as above.
            store_scale(&mut panel.scale[block], unsafe { halves(first.add(block * 18), stride) });
        }
    }
}
