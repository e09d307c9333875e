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

impl WidePanel {
    pub(super) const ZERO: Self = Self {
        panel: Panel::ZERO,
        min_pairs: [[[0; 2]; PANEL_ROWS]; PAIRS.len()],
        min_scale: [0.0; PANEL_ROWS],
        bits: [[0; 64]; 8],
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
}
