//! Quants, scales and minimums out of the bits of sixteen weight rows, which stand in the lanes of a vector.
//!
//! Everything here is inlined into functions compiled for the level.

#![allow(unsafe_code, reason = "vector code; every block says why it is sound")]

use std::arch::x86_64::*;

use super::avx512_blocks::AND_OR;
use super::avx512_panel::MinPairs;

/// What sixteen blocks of Q4_K or Q5_K have before the quants: the two f16; six bits of each of the scales 0 to 3, and of the
/// minimums, and four of 4 to 7, whose upper two stand above the six.
pub(super) struct Header([__m512i; 4]);

impl Header {
    /// Out of the 16 bytes of each row, transposed.
    #[inline(always)]
    pub(super) fn new(transposed: [__m512i; 4]) -> Self {
        Self(transposed)
    }

    /// Four bits out of each byte of `low`, with the top two of `top_of` above them.
    ///
    /// SAFETY: the machine must have `Isa::Avx512Vnni`.
    #[inline(always)]
    unsafe fn with_top(low: __m512i, top_of: __m512i) -> __m512i {
        // SAFETY: as the caller vouches for.
        unsafe {
            let low = _mm512_and_si512(low, _mm512_set1_epi8(0x0f));
            _mm512_ternarylogic_epi32::<AND_OR>(_mm512_srli_epi32::<2>(top_of), _mm512_set1_epi8(0x30), low)
        }
    }

    /// The scales' six bits, those of sub-blocks 0 to 3 in the bytes of the first vector's lanes.
    ///
    /// SAFETY: the machine must have `Isa::Avx512Vnni`.
    #[inline(always)]
    pub(super) unsafe fn scales(&self) -> [__m512i; 2] {
        let Self([_, low, _, high]) = *self;
        // SAFETY: as the caller vouches for.
        unsafe { [_mm512_and_si512(low, _mm512_set1_epi8(0x3f)), Self::with_top(high, low)] }
    }

    /// What they are multiplied with.
    ///
    /// SAFETY: the machine must have `Isa::Avx512Vnni`.
    #[inline(always)]
    pub(super) unsafe fn scale(&self) -> __m512 {
        // SAFETY: as the caller vouches for.
        unsafe { f16_of_lanes(self.0[0]) }
    }

    /// The minimums.
    ///
    /// SAFETY: the machine must have `Isa::Avx512Vnni`.
    #[inline(always)]
    pub(super) unsafe fn mins(&self) -> MinPairs {
        let Self([d, _, low, high]) = *self;
        // SAFETY: as the caller vouches for.
        unsafe {
            let mins =
                [_mm512_and_si512(low, _mm512_set1_epi8(0x3f)), Self::with_top(_mm512_srli_epi32::<4>(high), low)];
            // Every other byte, as 16 bits.
            let even = |mins: __m512i| _mm512_and_si512(mins, _mm512_set1_epi16(255));
            let odd = |mins: __m512i| _mm512_srli_epi16::<8>(mins);
            MinPairs {
                pairs: [even(mins[0]), odd(mins[0]), even(mins[1]), odd(mins[1])],
                scale: f16_of_lanes(_mm512_srli_epi32::<16>(d)),
            }
        }
    }
}

/// A byte of each lane, times `scale`.
///
/// SAFETY: the machine must have `Isa::Avx512Vnni`.
#[inline(always)]
pub(super) unsafe fn scaled_byte(lanes: __m512i, byte: usize, scale: __m512) -> __m512 {
    // SAFETY: as the caller vouches for.
    unsafe {
        let byte = _mm512_srlv_epi32(lanes, _mm512_set1_epi32(8 * byte as i32));
        _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_and_si512(byte, _mm512_set1_epi32(255))), scale)
    }
}

/// The same, of bytes that have a sign.
///
/// SAFETY: the machine must have `Isa::Avx512Vnni`.
#[inline(always)]
pub(super) unsafe fn scaled_signed_byte(lanes: __m512i, byte: usize, scale: __m512) -> __m512 {
    // SAFETY: as the caller vouches for.
    unsafe {
        // To the top, and back with the sign.
        let byte = _mm512_sllv_epi32(lanes, _mm512_set1_epi32(24 - 8 * byte as i32));
        _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_srai_epi32::<24>(byte)), scale)
    }
}

/// The f16 in the lower half of each lane.
///
/// SAFETY: the machine must have `Isa::Avx512Vnni`.
#[inline(always)]
pub(super) unsafe fn f16_of_lanes(lanes: __m512i) -> __m512 {
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

/// Nibbles of sub-block `sub` of Q5_K with the fifth bits, out of the bytes that have those of all sub-blocks. Where `sub` is
/// a constant, they are moved by a constant.
///
/// SAFETY: the machine must have `Isa::Avx512Vnni`.
#[inline(always)]
pub(super) unsafe fn with_fifth_bit(nibbles: __m512i, bits: __m512i, sub: usize) -> __m512i {
    // SAFETY: as the caller vouches for.
    unsafe {
        // The fifth bit of sub-block s is bit s of its byte; a neighbour's bits that come along are masked off. A rotation, or
        // a shift by what is no constant, takes a multiplication's place on some processors.
        let bit = match sub {
            0 => _mm512_slli_epi32::<4>(bits),
            1 => _mm512_slli_epi32::<3>(bits),
            2 => _mm512_slli_epi32::<2>(bits),
            3 => _mm512_slli_epi32::<1>(bits),
            4 => bits,
            5 => _mm512_srli_epi32::<1>(bits),
            6 => _mm512_srli_epi32::<2>(bits),
            _ => _mm512_srli_epi32::<3>(bits),
        };
        _mm512_ternarylogic_epi32::<AND_OR>(bit, _mm512_set1_epi8(0x10), nibbles)
    }
}

/// Nibbles of Q6_K with the two bits above them, out of bytes that have those of four sub-blocks: `part` is which of them, in
/// the [order](super::avx512_fill::Source::sub_of) in which they are multiplied.
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
