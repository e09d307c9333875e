//! The two 256-bit levels, and what tells them apart: how quants are multiplied with activations.
//!
//! Code for both is generic over [`Products`] and always inlined, into one function compiled for each level. The products
//! are exact at either level, so that both find the same sums to the last bit.

#![allow(unsafe_code, reason = "vector code; every block says why it is sound")]

use std::arch::x86_64::*;

use crate::{Isa, Kernels};

/// A level with 256-bit vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Avx2,
    AvxVnni,
    /// The instructions of AVX-VNNI in their other encoding, that of AVX-512 VL: machines that have one of the two often
    /// lack the other, and tests on either then run everything but the encoding.
    #[cfg(test)]
    Avx512Vl,
}

impl Level {
    /// The level of kernels that have 256-bit vectors and no wider ones.
    pub(super) fn of(kernels: Kernels) -> Option<Self> {
        match kernels.isa() {
            Isa::Avx2 => Some(Self::Avx2),
            Isa::AvxVnni => Some(Self::AvxVnni),
            _ => None,
        }
    }

    /// Every level that the machine has.
    #[cfg(test)]
    pub(super) fn available() -> Vec<Self> {
        let mut levels: Vec<_> = Isa::available().filter_map(|isa| Self::of(Kernels::new(isa).unwrap())).collect();
        if Isa::Avx512Vnni.is_available() {
            levels.push(Self::Avx512Vl);
        }
        levels
    }
}

/// Products of sixteen weight rows' or one weight row's quants `w`, unsigned, with activations `a` of -127 to 127.
pub(super) trait Products {
    /// `begin` plus the products, four to a lane. Quants are 128 at most: two products of 128 and 127 fit into 16 bits.
    ///
    /// SAFETY: the machine must have the level, and the caller be compiled for it.
    unsafe fn dot(begin: __m256i, w: __m256i, a: __m256i) -> __m256i;

    /// `begin` plus sums of two products, `pairs`, times their scales, two to a lane.
    ///
    /// SAFETY: as for [`dot`](Self::dot).
    unsafe fn add_scaled(begin: __m256i, pairs: __m256i, scales: __m256i) -> __m256i;
}

/// AVX2: products are added up in 16 bits first.
pub(super) struct Avx2;

impl Products for Avx2 {
    #[inline(always)]
    unsafe fn dot(begin: __m256i, w: __m256i, a: __m256i) -> __m256i {
        // SAFETY: as the caller vouches for.
        unsafe { Self::add_scaled(begin, _mm256_maddubs_epi16(w, a), _mm256_set1_epi16(1)) }
    }

    #[inline(always)]
    unsafe fn add_scaled(begin: __m256i, pairs: __m256i, scales: __m256i) -> __m256i {
        // SAFETY: as the caller vouches for.
        unsafe { _mm256_add_epi32(begin, _mm256_madd_epi16(pairs, scales)) }
    }
}

/// AVX-VNNI.
pub(super) struct AvxVnni;

impl Products for AvxVnni {
    #[inline(always)]
    unsafe fn dot(begin: __m256i, w: __m256i, a: __m256i) -> __m256i {
        // SAFETY: as the caller vouches for.
        unsafe { _mm256_dpbusd_avx_epi32(begin, w, a) }
    }

    #[inline(always)]
    unsafe fn add_scaled(begin: __m256i, pairs: __m256i, scales: __m256i) -> __m256i {
        // SAFETY: as the caller vouches for.
        unsafe { _mm256_dpwssd_avx_epi32(begin, pairs, scales) }
    }
}

/// As [`AvxVnni`], see [`Level::Avx512Vl`].
#[cfg(test)]
pub(super) struct Avx512Vl;

#[cfg(test)]
impl Products for Avx512Vl {
    #[inline(always)]
    unsafe fn dot(begin: __m256i, w: __m256i, a: __m256i) -> __m256i {
        // SAFETY: as the caller vouches for.
        unsafe { _mm256_dpbusd_epi32(begin, w, a) }
    }

    #[inline(always)]
    unsafe fn add_scaled(begin: __m256i, pairs: __m256i, scales: __m256i) -> __m256i {
        // SAFETY: as the caller vouches for.
        unsafe { _mm256_dpwssd_epi32(begin, pairs, scales) }
    }
}
