//! Half precision by the instructions for it.

#![allow(unsafe_code, reason = "vector code; every block says why it is sound")]

use std::arch::x86_64::*;

use crate::attention::{LANES, Widen};

/// With F16C. Only for code that is compiled for a level which has it.
pub(crate) struct WidenAvx2;

impl Widen for WidenAvx2 {
    #[inline(always)]
    fn widen(halves: &[u16; LANES]) -> [f32; LANES] {
        #[inline]
        #[target_feature(enable = "avx,f16c")]
        fn eight(halves: &[u16; LANES], first: usize, out: &mut [f32; LANES]) {
            // SAFETY: `first` is 0 or 8, and both arrays have eight values from there.
            unsafe {
                let halves = _mm_loadu_si128(halves.as_ptr().add(first).cast());
                _mm256_storeu_ps(out.as_mut_ptr().add(first), _mm256_cvtph_ps(halves));
            }
        }
        let mut out = [0.0; LANES];
        // SAFETY: attention over pages takes this only where it has found the level on this machine.
        unsafe {
            eight(halves, 0, &mut out);
            eight(halves, 8, &mut out);
        }
        out
    }
}

/// With AVX-512. Only for code that is compiled for a level which has it.
pub(crate) struct WidenAvx512;

impl Widen for WidenAvx512 {
    #[inline(always)]
    fn widen(halves: &[u16; LANES]) -> [f32; LANES] {
        #[inline]
        #[target_feature(enable = "avx512f")]
        fn sixteen(halves: &[u16; LANES]) -> [f32; LANES] {
            let mut out = [0.0; LANES];
            // SAFETY: both arrays have sixteen values.
            unsafe {
                let halves = _mm256_loadu_si256(halves.as_ptr().cast());
                _mm512_storeu_ps(out.as_mut_ptr(), _mm512_cvtph_ps(halves));
            }
            out
        }
        // SAFETY: attention over pages takes this only where it has found the level on this machine.
        unsafe { sixteen(halves) }
    }
}
