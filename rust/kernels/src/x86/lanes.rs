//! Lanes in AVX2's and AVX-512's registers.

#![allow(unsafe_code, reason = "vector code; every block says why it is sound")]

use std::arch::x86_64::*;

use crate::lanes::{LANES, Lanes};

/// For code that is compiled for AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(crate) struct Avx2Lanes(__m256, __m256);

/// For code that is compiled for AVX-512 F.
#[derive(Clone, Copy)]
pub(crate) struct Avx512Lanes(__m512);

// SAFETY of all blocks: attention takes a level's lanes only in functions that it calls where the level is on this
// machine, and all loads and stores are of whole arrays of sixteen.

impl Lanes for Avx2Lanes {
    const REGISTERS: usize = 2;
    const FMA: bool = true;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm256_set1_ps(value), _mm256_set1_ps(value)) }
    }

    #[inline(always)]
    fn load(values: &[f32; LANES]) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm256_loadu_ps(values.as_ptr()), _mm256_loadu_ps(values.as_ptr().add(8))) }
    }

    #[inline(always)]
    fn widen(halves: &[u16; LANES]) -> Self {
        // SAFETY: see above.
        unsafe {
            let low = _mm_loadu_si128(halves.as_ptr().cast());
            let high = _mm_loadu_si128(halves.as_ptr().add(8).cast());
            Self(_mm256_cvtph_ps(low), _mm256_cvtph_ps(high))
        }
    }

    #[inline(always)]
    fn convert(values: &[i8; LANES]) -> Self {
        // SAFETY: see above.
        unsafe {
            let values = _mm_loadu_si128(values.as_ptr().cast());
            let low = _mm256_cvtepi8_epi32(values);
            let high = _mm256_cvtepi8_epi32(_mm_srli_si128::<8>(values));
            Self(_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high))
        }
    }

    #[inline(always)]
    fn store(self, values: &mut [f32; LANES]) {
        // SAFETY: see above.
        unsafe {
            _mm256_storeu_ps(values.as_mut_ptr(), self.0);
            _mm256_storeu_ps(values.as_mut_ptr().add(8), self.1);
        }
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm256_mul_ps(self.0, other.0), _mm256_mul_ps(self.1, other.1)) }
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm256_max_ps(self.0, other.0), _mm256_max_ps(self.1, other.1)) }
    }

    #[inline(always)]
    fn add_product(self, a: Self, b: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm256_fmadd_ps(a.0, b.0, self.0), _mm256_fmadd_ps(a.1, b.1, self.1)) }
    }
}

impl Lanes for Avx512Lanes {
    const REGISTERS: usize = 1;
    const FMA: bool = true;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm512_set1_ps(value)) }
    }

    #[inline(always)]
    fn load(values: &[f32; LANES]) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm512_loadu_ps(values.as_ptr())) }
    }

    #[inline(always)]
    fn widen(halves: &[u16; LANES]) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm512_cvtph_ps(_mm256_loadu_si256(halves.as_ptr().cast()))) }
    }

    #[inline(always)]
    fn convert(values: &[i8; LANES]) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(values.as_ptr().cast())))) }
    }

    #[inline(always)]
    fn store(self, values: &mut [f32; LANES]) {
        // SAFETY: see above.
        unsafe { _mm512_storeu_ps(values.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm512_mul_ps(self.0, other.0)) }
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm512_max_ps(self.0, other.0)) }
    }

    #[inline(always)]
    fn add_product(self, a: Self, b: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm512_fmadd_ps(a.0, b.0, self.0)) }
    }
}
