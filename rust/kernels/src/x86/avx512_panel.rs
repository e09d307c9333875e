//! Panels as 512-bit products read them.

#![allow(unsafe_code, reason = "vector code; every block says why it is sound")]

use std::arch::x86_64::*;

use crate::panel::{PANEL_ROWS, Panel};

/// A panel, and beside it what only 512-bit products read.
#[repr(C, align(64))]
pub(super) struct WidePanel {
    /// Quants and scales; minimums of types whose minimums are floats.
    pub(super) panel: Panel,
    /// Integer minimums, see [`Mins::Pairs`].
    pub(super) min_pairs: [[[i16; 2]; PANEL_ROWS]; PAIRS.len()],
    /// What integer minimums are multiplied with.
    pub(super) min_scale: [f32; PANEL_ROWS],
    /// Bits that several steps need.
    bits: [[u8; 64]; 8],
    /// Scales that are integers, four sub-blocks' in a lane.
    scale_bytes: [[u8; 64]; 4],
    /// What they are multiplied with.
    scale_of_bytes: [f32; PANEL_ROWS],
}

/// Which sub-blocks' minimums, and sums of activations, stand together in a lane.
pub(super) const PAIRS: [[usize; 2]; 4] = [[0, 2], [1, 3], [4, 6], [5, 7]];

/// How minimums are subtracted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mins {
    /// There are none.
    None,
    /// A float of each sub-block, times the sum of its activations.
    Floats,
    /// Integers of two sub-blocks in a lane, times two 16-bit sums of activations, in one instruction.
    Pairs,
}

/// Integer minimums of sixteen rows.
#[derive(Clone, Copy)]
pub(super) struct MinPairs {
    /// Two sub-blocks' in each lane.
    pub(super) pairs: [__m512i; PAIRS.len()],
    /// What they are multiplied with.
    pub(super) scale: __m512,
}

impl WidePanel {
    pub(super) const ZERO: Self = Self {
        panel: Panel::ZERO,
        min_pairs: [[[0; 2]; PANEL_ROWS]; PAIRS.len()],
        min_scale: [0.0; PANEL_ROWS],
        bits: [[0; 64]; 8],
        scale_bytes: [[0; 64]; 4],
        scale_of_bytes: [0.0; PANEL_ROWS],
    };

    /// SAFETY: the machine must have `Isa::Avx512Vnni`, and a panel have the group.
    #[inline(always)]
    pub(super) unsafe fn store_group(&mut self, group: usize, q: __m512i) {
        // SAFETY: a group has 64 bytes, and the panel is aligned to 64.
        unsafe { _mm512_store_si512(self.panel.q.as_mut_ptr().add(group).cast(), q) };
    }

    /// SAFETY: as for [`store_group`](Self::store_group), and `index` less than eight.
    #[inline(always)]
    pub(super) unsafe fn store_bits(&mut self, index: usize, bits: __m512i) {
        // SAFETY: arrays of 64 bytes, and the panel is aligned to 64.
        unsafe { _mm512_store_si512(self.bits.as_mut_ptr().add(index).cast(), bits) };
    }

    /// SAFETY: as for [`store_bits`](Self::store_bits).
    #[inline(always)]
    pub(super) unsafe fn load_bits(&self, index: usize) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_load_si512(self.bits.as_ptr().add(index).cast()) }
    }

    /// SAFETY: as for [`store_group`](Self::store_group), of a sub-block.
    #[inline(always)]
    pub(super) unsafe fn store_scale(&mut self, sub: usize, scale: __m512) {
        // SAFETY: a sub-block's scales have 64 bytes.
        unsafe { _mm512_storeu_ps(self.panel.scale.as_mut_ptr().add(sub).cast(), scale) };
    }

    /// SAFETY: as for [`store_scale`](Self::store_scale).
    #[inline(always)]
    pub(super) unsafe fn load_scale(&self, sub: usize) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_loadu_ps(self.panel.scale.as_ptr().add(sub).cast()) }
    }

    /// SAFETY: the machine must have `Isa::Avx512Vnni`.
    #[inline(always)]
    pub(super) unsafe fn store_mins(&mut self, mins: MinPairs) {
        // SAFETY: arrays of 64 bytes each.
        unsafe {
            for (pair, min) in mins.pairs.into_iter().enumerate() {
                _mm512_storeu_si512(self.min_pairs.as_mut_ptr().add(pair).cast(), min);
            }
            _mm512_storeu_ps(self.min_scale.as_mut_ptr(), mins.scale);
        }
    }

    /// SAFETY: as for [`store_mins`](Self::store_mins).
    #[inline(always)]
    pub(super) unsafe fn load_mins(&self) -> MinPairs {
        // SAFETY: as above.
        unsafe {
            let pair = |pair: usize| _mm512_loadu_si512(self.min_pairs.as_ptr().add(pair).cast());
            MinPairs {
                pairs: [pair(0), pair(1), pair(2), pair(3)],
                scale: _mm512_loadu_ps(self.min_scale.as_ptr()),
            }
        }
    }

    /// Scales that are integers, and what they are multiplied with.
    ///
    /// SAFETY: the machine must have `Isa::Avx512Vnni`.
    #[inline(always)]
    pub(super) unsafe fn store_scale_bytes<const N: usize>(&mut self, bytes: [__m512i; N], scale: __m512) {
        const { assert!(N <= 4) };
        // SAFETY: arrays of 64 bytes each.
        unsafe {
            for (index, bytes) in bytes.into_iter().enumerate() {
                _mm512_storeu_si512(self.scale_bytes.as_mut_ptr().add(index).cast(), bytes);
            }
            _mm512_storeu_ps(self.scale_of_bytes.as_mut_ptr(), scale);
        }
    }

    /// The bytes of sub-blocks from `4 · index` on, and what they are multiplied with.
    ///
    /// SAFETY: as for [`store_scale_bytes`](Self::store_scale_bytes), and `index` less than four.
    #[inline(always)]
    pub(super) unsafe fn load_scale_bytes(&self, index: usize) -> (__m512i, __m512) {
        // SAFETY: as above.
        unsafe {
            let bytes = _mm512_loadu_si512(self.scale_bytes.as_ptr().add(index).cast());
            (bytes, _mm512_loadu_ps(self.scale_of_bytes.as_ptr()))
        }
    }
}
