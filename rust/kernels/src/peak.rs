//! What the machine gives at most, for benchmarks to be held against.

#![allow(unsafe_code, reason = "vector code; every block says why it is sound")]

use crate::{Isa, Kernels};

impl Kernels {
    /// Reads `memory` once, without what is less than 256 bytes at its end, and returns a sum that keeps the compiler
    /// from leaving it out: how fast it returns is how fast a thread reads.
    #[must_use]
    pub fn read_memory(self, memory: &[u8]) -> u64 {
        #[cfg(target_arch = "x86_64")]
        match self.isa() {
            // SAFETY: kernels only have levels that the machine has.
            Isa::Avx512Vnni => return unsafe { x86::read_avx512(memory) },
            // SAFETY: as above.
            Isa::Avx2 | Isa::AvxVnni => return unsafe { x86::read_avx2(memory) },
            _ => {}
        }
        memory.as_chunks::<8>().0.iter().fold(0, |sum, word| sum ^ u64::from_le_bytes(*word))
    }

    /// Multiplies and adds eight-bit integers in registers, back to back, and returns how many it has; `None` where the
    /// level has no measure of its own.
    #[must_use]
    pub fn multiply_in_registers(self, rounds: usize) -> Option<u64> {
        #[cfg(target_arch = "x86_64")]
        match self.isa() {
            // SAFETY: kernels only have levels that the machine has.
            Isa::Avx512Vnni => return Some(unsafe { x86::avx512_vnni(rounds) }),
            // SAFETY: as above.
            Isa::AvxVnni => return Some(unsafe { x86::avx_vnni(rounds) }),
            // SAFETY: as above.
            Isa::Avx2 => return Some(unsafe { x86::avx2(rounds) }),
            _ => {}
        }
        let _ = (rounds, Isa::Scalar);
        None
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    #![allow(clippy::indexing_slicing, reason = "arrays indexed by constants")]
    #![allow(clippy::wildcard_imports, reason = "the names of intrinsics say where they come from")]

    use std::arch::asm;
    use std::arch::x86_64::*;
    use std::hint::black_box;

    /// Sums that do not wait for each other.
    const CHAINS: usize = 12;

    #[target_feature(enable = "avx512f")]
    pub(super) fn read_avx512(memory: &[u8]) -> u64 {
        let mut sums = [_mm512_setzero_si512(); 4];
        for chunk in memory.as_chunks::<256>().0 {
            for (sum, lanes) in sums.iter_mut().zip(chunk.as_chunks::<64>().0) {
                // SAFETY: 64 bytes.
                *sum = _mm512_xor_si512(*sum, unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) });
            }
        }
        let [a, b, c, d] = sums;
        let sum = _mm512_xor_si512(_mm512_xor_si512(a, b), _mm512_xor_si512(c, d));
        _mm512_reduce_add_epi64(sum).cast_unsigned()
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn read_avx2(memory: &[u8]) -> u64 {
        let mut sums = [_mm256_setzero_si256(); 4];
        for chunk in memory.as_chunks::<128>().0 {
            for (sum, lanes) in sums.iter_mut().zip(chunk.as_chunks::<32>().0) {
                // SAFETY: 32 bytes.
                *sum = _mm256_xor_si256(*sum, unsafe { _mm256_loadu_si256(lanes.as_ptr().cast()) });
            }
        }
        let [a, b, c, d] = sums;
        let sum = _mm256_xor_si256(_mm256_xor_si256(a, b), _mm256_xor_si256(c, d));
        (_mm256_extract_epi64::<0>(sum) ^ _mm256_extract_epi64::<2>(sum)).cast_unsigned()
    }

    /// Keeps the compiler from knowing what is in the registers, or it would multiply by the number of rounds.
    macro_rules! hide {
        ($class:ident, $sums:expr) => {
            for sum in &mut $sums {
                // SAFETY: no instruction at all.
                unsafe { asm!("/* {0} */", inout($class) * sum, options(nomem, nostack, preserves_flags)) };
            }
        };
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn avx512_vnni(rounds: usize) -> u64 {
        let (w, a) = (_mm512_set1_epi8(3), _mm512_set1_epi8(1));
        let mut sums = [_mm512_setzero_si512(); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, w, a);
            }
            hide!(zmm_reg, sums);
        }
        black_box(sums);
        (rounds * CHAINS * 64) as u64
    }

    #[target_feature(enable = "avx2,avxvnni")]
    pub(super) fn avx_vnni(rounds: usize) -> u64 {
        let (w, a) = (_mm256_set1_epi8(3), _mm256_set1_epi8(1));
        let mut sums = [_mm256_setzero_si256(); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_dpbusd_avx_epi32(*sum, w, a);
            }
            hide!(ymm_reg, sums);
        }
        black_box(sums);
        (rounds * CHAINS * 32) as u64
    }

    /// Two instructions for each 32 products; the sum of sixteen bits to 32 is left out, as it is shared by several
    /// products in the kernels.
    #[target_feature(enable = "avx2")]
    pub(super) fn avx2(rounds: usize) -> u64 {
        let (w, mut a) = (_mm256_set1_epi8(3), [_mm256_set1_epi8(1)]);
        let mut sums = [_mm256_setzero_si256(); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                hide!(ymm_reg, a);
                *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(w, a[0]));
            }
            hide!(ymm_reg, sums);
        }
        black_box(sums);
        (rounds * CHAINS * 32) as u64
    }
}
