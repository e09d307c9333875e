//! Blocks of the types, multiplied as they stand in the file with 256-bit vectors.

#![allow(unsafe_code, reason = "vector code; every block says why it is sound")]
#![allow(clippy::indexing_slicing, reason = "arrays indexed by constants")]
#![allow(clippy::needless_range_loop, reason = "arrays that are indexed by constants stay in registers")]

use std::arch::x86_64::*;

use super::avx2_dot::PreparedRow;
use super::avx2_level::Products;
use crate::activations::SUMS;
use crate::tensor_type::SUPER_BLOCK;

/// Vectors of a super-block.
const VECTORS: usize = SUPER_BLOCK / 32;

/// Sums of a row, in the lanes of two vectors, and of its minimums.
#[derive(Clone, Copy)]
pub(super) struct Sums {
    pub(super) lanes: [__m256; 2],
    pub(super) mins: __m128,
}

/// A type's super-block, or eight of its blocks.
pub(super) trait Block {
    const BYTES: usize;

    /// Adds the products of a block with each row of activations.
    ///
    /// SAFETY: the machine must have the level of `P`, and the caller be compiled for it; `w` must be readable for a block,
    /// and all of `x` have a block `block`, prepared for this type.
    unsafe fn add<P: Products, const X: usize>(
        w: *const u8,
        x: &[&PreparedRow; X],
        block: usize,
        sums: &mut [Sums; X],
    );
}

/// The f16 at `w`, in all lanes.
///
/// SAFETY: two bytes must be readable at `w`, and the caller be compiled for AVX2 and F16C.
#[inline(always)]
unsafe fn half(w: *const u8) -> __m256 {
    // SAFETY: as the caller vouches for.
    unsafe { _mm256_cvtph_ps(_mm_set1_epi16(w.cast::<i16>().read_unaligned())) }
}

/// The 16-bit scale `i` of each half of a vector, in all places of the half.
///
/// SAFETY: the caller must be compiled for AVX2.
#[inline(always)]
unsafe fn scale_of_halves(scales: __m256i, i: usize) -> __m256i {
    // SAFETY: as the caller vouches for.
    unsafe { _mm256_shuffle_epi8(scales, _mm256_set1_epi16(0x0100 + 0x0202 * i as i16)) }
}

/// Adds a super-block's integer sums.
///
/// SAFETY: the caller must be compiled for AVX2 and FMA.
#[inline(always)]
unsafe fn add_block<const X: usize>(
    sums: &mut [Sums; X],
    lanes: [[__m256i; 2]; X],
    d: __m256,
    x: &[&PreparedRow; X],
    block: usize,
) {
    for i in 0..X {
        // SAFETY: as the caller vouches for.
        unsafe {
            let lanes = _mm256_cvtepi32_ps(_mm256_add_epi32(lanes[i][0], lanes[i][1]));
            let scale = _mm256_mul_ps(d, _mm256_set1_ps(x[i].scale(block)));
            sums[i].lanes[0] = _mm256_fmadd_ps(lanes, scale, sums[i].lanes[0]);
        }
    }
}

/// Scales of Q4_K and Q5_K, all eight in each half of a vector; minimums are added to the sums.
///
/// SAFETY: as for [`Block::add`].
#[inline(always)]
unsafe fn scales_and_mins<const X: usize>(
    w: *const u8,
    x: &[&PreparedRow; X],
    block: usize,
    sums: &mut [Sums; X],
) -> __m256i {
    const SIX: u32 = 0x3f3f_3f3f;
    const FOUR: u32 = 0x0f0f_0f0f;
    const TOP: u32 = 0x3030_3030;
    let bytes = |low: u32, high: u32| (u64::from(high) << 32 | u64::from(low)).cast_signed();
    // SAFETY: as the caller vouches for: 16 bytes of weights, and 16 bytes of sums.
    unsafe {
        let [low_scales, low_mins, high] = w.add(4).cast::<[u32; 3]>().read_unaligned();
        let scales = bytes(low_scales & SIX, high & FOUR | low_scales >> 2 & TOP);
        let mins = bytes(low_mins & SIX, high >> 4 & FOUR | low_mins >> 2 & TOP);
        let mins = _mm_cvtepu8_epi16(_mm_cvtsi64_si128(mins));
        let dmin = _mm256_castps256_ps128(half(w.add(2)));
        for i in 0..X {
            let activation_sums = _mm_loadu_si128(x[i].sums.as_ptr().add(block * 8).cast());
            let mins = _mm_cvtepi32_ps(_mm_madd_epi16(mins, activation_sums));
            let scale = _mm_mul_ps(dmin, _mm_set1_ps(x[i].scale(block)));
            sums[i].mins = _mm_fmadd_ps(mins, scale, sums[i].mins);
        }
        _mm256_cvtepu8_epi16(_mm_set1_epi64x(scales))
    }
}

pub(super) struct Q4K;

impl Block for Q4K {
    const BYTES: usize = 144;

    #[inline(always)]
    unsafe fn add<P: Products, const X: usize>(
        w: *const u8,
        x: &[&PreparedRow; X],
        block: usize,
        sums: &mut [Sums; X],
    ) {
        // SAFETY: as the caller vouches for: 144 bytes, and a block of activations.
        unsafe {
            let scales = scales_and_mins(w, x, block, sums);
            let four = _mm256_set1_epi8(0x0f);
            let mut lanes = [[_mm256_setzero_si256(); 2]; X];
            for pair in 0..4 {
                let packed = _mm256_loadu_si256(w.add(16 + pair * 32).cast());
                let nibbles =
                    [_mm256_and_si256(packed, four), _mm256_and_si256(_mm256_srli_epi16::<4>(packed), four)];
                for nibble in 0..2 {
                    let sub = pair * 2 + nibble;
                    let scale = scale_of_halves(scales, sub);
                    for i in 0..X {
                        let products = _mm256_maddubs_epi16(nibbles[nibble], x[i].quants(block, sub));
                        lanes[i][nibble] = P::add_scaled(lanes[i][nibble], products, scale);
                    }
                }
            }
            add_block(sums, lanes, half(w), x, block);
        }
    }
}

/// Bit `sub` of each byte moved to bit 4, the others anywhere.
///
/// SAFETY: the caller must be compiled for AVX2.
#[inline(always)]
pub(super) unsafe fn to_bit_4(bits: __m256i, sub: usize) -> __m256i {
    // SAFETY: as the caller vouches for.
    unsafe {
        match sub {
            0 => _mm256_slli_epi16::<4>(bits),
            1 => _mm256_slli_epi16::<3>(bits),
            2 => _mm256_slli_epi16::<2>(bits),
            3 => _mm256_add_epi8(bits, bits),
            4 => bits,
            5 => _mm256_srli_epi16::<1>(bits),
            6 => _mm256_srli_epi16::<2>(bits),
            _ => _mm256_srli_epi16::<3>(bits),
        }
    }
}

pub(super) struct Q5K;

impl Block for Q5K {
    const BYTES: usize = 176;

    #[inline(always)]
    unsafe fn add<P: Products, const X: usize>(
        w: *const u8,
        x: &[&PreparedRow; X],
        block: usize,
        sums: &mut [Sums; X],
    ) {
        // SAFETY: as the caller vouches for: 176 bytes, and a block of activations.
        unsafe {
            let scales = scales_and_mins(w, x, block, sums);
            let four = _mm256_set1_epi8(0x0f);
            let five = _mm256_set1_epi8(0x10);
            let high = _mm256_loadu_si256(w.add(16).cast());
            let mut lanes = [[_mm256_setzero_si256(); 2]; X];
            for pair in 0..4 {
                let packed = _mm256_loadu_si256(w.add(48 + pair * 32).cast());
                let nibbles =
                    [_mm256_and_si256(packed, four), _mm256_and_si256(_mm256_srli_epi16::<4>(packed), four)];
                for nibble in 0..2 {
                    let sub = pair * 2 + nibble;
                    let q = _mm256_or_si256(nibbles[nibble], _mm256_and_si256(to_bit_4(high, sub), five));
                    let scale = scale_of_halves(scales, sub);
                    for i in 0..X {
                        let products = _mm256_maddubs_epi16(q, x[i].quants(block, sub));
                        lanes[i][nibble] = P::add_scaled(lanes[i][nibble], products, scale);
                    }
                }
            }
            add_block(sums, lanes, half(w), x, block);
        }
    }
}

/// The order in which Q6_K's scales are for vectors of two sub-blocks: those of the lower halves, then of the upper.
pub(super) const EVEN_THEN_ODD: [i8; SUMS] = [0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15];

pub(super) struct Q6K;

impl Block for Q6K {
    const BYTES: usize = 210;

    #[inline(always)]
    unsafe fn add<P: Products, const X: usize>(
        w: *const u8,
        x: &[&PreparedRow; X],
        block: usize,
        sums: &mut [Sums; X],
    ) {
        // SAFETY: as the caller vouches for: 210 bytes, and a block of activations with 32 bytes of sums.
        unsafe {
            let order = _mm_loadu_si128(EVEN_THEN_ODD.as_ptr().cast());
            let scales = _mm_shuffle_epi8(_mm_loadu_si128(w.add(192).cast()), order);
            let scales = _mm256_cvtepi8_epi16(scales);
            let mut lanes = [[_mm256_setzero_si256(); 2]; X];
            for i in 0..X {
                let activation_sums = _mm256_loadu_si256(x[i].sums.as_ptr().add(block * SUMS).cast());
                let offset = _mm256_slli_epi32::<5>(_mm256_madd_epi16(scales, activation_sums));
                lanes[i][0] = _mm256_sub_epi32(lanes[i][0], offset);
            }
            let four = _mm256_set1_epi8(0x0f);
            let two = _mm256_set1_epi8(0x30);
            for half in 0..2 {
                let high = _mm256_loadu_si256(w.add(128 + half * 32).cast());
                let tops = [
                    _mm256_slli_epi16::<4>(high),
                    _mm256_slli_epi16::<2>(high),
                    high,
                    _mm256_srli_epi16::<2>(high),
                ];
                let packed = [
                    _mm256_loadu_si256(w.add(half * 64).cast()),
                    _mm256_loadu_si256(w.add(half * 64 + 32).cast()),
                ];
                for quarter in 0..4 {
                    let low = packed[quarter % 2];
                    let low = if quarter < 2 { low } else { _mm256_srli_epi16::<4>(low) };
                    let q = _mm256_or_si256(_mm256_and_si256(low, four), _mm256_and_si256(tops[quarter], two));
                    let vector = half * 4 + quarter;
                    let scale = scale_of_halves(scales, vector);
                    for i in 0..X {
                        let products = _mm256_maddubs_epi16(q, x[i].quants(block, vector));
                        lanes[i][quarter % 2] = P::add_scaled(lanes[i][quarter % 2], products, scale);
                    }
                }
            }
            add_block(sums, lanes, self::half(w.add(208)), x, block);
        }
    }
}

/// Adds a super-block's scaled sums.
///
/// SAFETY: the caller must be compiled for AVX2 and FMA.
#[inline(always)]
unsafe fn add_floats<const X: usize>(
    sums: &mut [Sums; X],
    lanes: [[__m256; 2]; X],
    x: &[&PreparedRow; X],
    block: usize,
) {
    for i in 0..X {
        // SAFETY: as the caller vouches for.
        unsafe {
            let scale = _mm256_set1_ps(x[i].scale(block));
            for part in 0..2 {
                sums[i].lanes[part] = _mm256_fmadd_ps(lanes[i][part], scale, sums[i].lanes[part]);
            }
        }
    }
}

pub(super) struct Q80;

impl Block for Q80 {
    const BYTES: usize = VECTORS * 34;

    #[inline(always)]
    unsafe fn add<P: Products, const X: usize>(
        w: *const u8,
        x: &[&PreparedRow; X],
        block: usize,
        sums: &mut [Sums; X],
    ) {
        // SAFETY: as the caller vouches for: eight blocks of 34 bytes, and a block of activations.
        unsafe {
            let mut lanes = [[_mm256_setzero_ps(); 2]; X];
            for vector in 0..VECTORS {
                let q = _mm256_loadu_si256(w.add(vector * 34 + 2).cast());
                // Magnitudes are unsigned, and activations have the signs.
                let magnitudes = _mm256_abs_epi8(q);
                let scale = half(w.add(vector * 34));
                for i in 0..X {
                    let a = _mm256_sign_epi8(x[i].quants(block, vector), q);
                    let dots = _mm256_cvtepi32_ps(P::dot(_mm256_setzero_si256(), magnitudes, a));
                    lanes[i][vector % 2] = _mm256_fmadd_ps(dots, scale, lanes[i][vector % 2]);
                }
            }
            add_floats(sums, lanes, x, block);
        }
    }
}

pub(super) struct Q40;

impl Block for Q40 {
    const BYTES: usize = VECTORS * 18;

    #[inline(always)]
    unsafe fn add<P: Products, const X: usize>(
        w: *const u8,
        x: &[&PreparedRow; X],
        block: usize,
        sums: &mut [Sums; X],
    ) {
        // SAFETY: as the caller vouches for: eight blocks of 18 bytes, and a block of activations.
        unsafe {
            let h = |i: usize| w.add(i * 18).cast::<i16>().read_unaligned();
            let scales = _mm256_cvtph_ps(_mm_setr_epi16(h(0), h(1), h(2), h(3), h(4), h(5), h(6), h(7)));
            let four = _mm256_set1_epi8(0x0f);
            let mut lanes = [[_mm256_setzero_ps(); 2]; X];
            for pair in 0..VECTORS / 2 {
                let packed = |i: usize| _mm_loadu_si128(w.add((pair * 2 + i) * 18 + 2).cast());
                let packed = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(packed(0)), packed(1));
                let low = _mm256_and_si256(packed, four);
                let high = _mm256_and_si256(_mm256_srli_epi16::<4>(packed), four);
                // The scale of the first block for the lower half of the lanes, of the second for the upper.
                let first = 2 * pair as i32;
                let of_lanes = _mm256_setr_m128i(_mm_set1_epi32(first), _mm_set1_epi32(first + 1));
                let scale = _mm256_permutevar8x32_ps(scales, of_lanes);
                for i in 0..X {
                    let dots = P::dot(x[i].begin(block, pair), low, x[i].quants(block, pair * 2));
                    let dots = P::dot(dots, high, x[i].quants(block, pair * 2 + 1));
                    lanes[i][pair % 2] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), scale, lanes[i][pair % 2]);
                }
            }
            add_floats(sums, lanes, x, block);
        }
    }
}
