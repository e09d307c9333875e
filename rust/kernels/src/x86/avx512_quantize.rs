//! Activations of eight bits, with 512-bit vectors: what the portable code gives, bit for bit.

#![allow(unsafe_code, reason = "vector code; every block says why it is sound")]

use std::arch::x86_64::*;

use crate::activations::SUMS;
use crate::tensor_type::SUPER_BLOCK;

/// Quantizes a block and returns its scale. The machine must have `Isa::Avx512Vnni`.
pub(super) fn quantize(values: &[f32; SUPER_BLOCK], q: &mut [i8; SUPER_BLOCK], sums: &mut [i16; SUMS]) -> f32 {
    // SAFETY: the caller has found the level on this machine.
    unsafe { block(values, q, sums) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn block(values: &[f32; SUPER_BLOCK], q: &mut [i8; SUPER_BLOCK], sums: &mut [i16; SUMS]) -> f32 {
    let values = values.as_chunks::<16>().0;
    // SAFETY: loads of sixteen values each.
    let load = |values: &[f32; 16]| unsafe { _mm512_loadu_ps(values.as_ptr()) };
    // Of what is finite, the bits without the sign are in the order of the magnitudes, and the rest is above them.
    let sign = _mm512_set1_epi32(i32::MIN);
    let magnitude = |values| _mm512_andnot_si512(sign, _mm512_castps_si512(load(values)));
    let largest =
        values.iter().fold(_mm512_setzero_si512(), |most, values| _mm512_max_epu32(most, magnitude(values)));
    let largest = f32::from_bits(_mm512_reduce_max_epu32(largest));
    let scale = largest / 127.0;
    let inverse = _mm512_set1_ps(if scale > 0.0 { 127.0 / largest } else { 0.0 });

    // Lane 4 p + i goes to 4 i + p.
    let transposed = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    let mut dots = [_mm512_setzero_si512(); 4];
    let parts = values.as_chunks::<4>().0.iter().zip(q.as_chunks_mut::<64>().0);
    for ((values, q), dot) in parts.zip(&mut dots) {
        // To the nearest, ties to even.
        let [a, b, c, d] =
            values.each_ref().map(|values| _mm512_cvtps_epi32(_mm512_mul_ps(load(values), inverse)));
        // Each of the four 128-bit parts has four of each vector.
        let bytes = _mm512_packs_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
        let bytes = _mm512_permutexvar_epi32(transposed, bytes);
        // SAFETY: 64 bytes.
        unsafe { _mm512_storeu_si512(q.as_mut_ptr().cast(), bytes) };
        // Sums of four neighbours.
        *dot = _mm512_dpbusd_epi32(*dot, _mm512_set1_epi8(1), bytes);
    }
    let [a, b, c, d] = dots;
    let add = |a, b| _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let (low, high) = (add(a, b), add(c, d));
    // Lane 4 p + i has the sum of the sixteen from 64 i + 16 p on.
    let total = _mm512_add_epi32(_mm512_unpacklo_epi64(low, high), _mm512_unpackhi_epi64(low, high));
    let total = _mm512_permutexvar_epi32(transposed, total);
    // SAFETY: sixteen sums of 16 bits.
    unsafe { _mm256_storeu_si256(sums.as_mut_ptr().cast(), _mm512_cvtepi32_epi16(total)) };
    if largest.is_finite() { scale } else { f32::NAN }
}
