//! Groups of each type, unpacked in registers for few rows of activations.
//!
//! Everything here is inlined into functions compiled for the level.

#![allow(unsafe_code, reason = "vector code; every block says why it is sound")]
#![allow(clippy::indexing_slicing, reason = "arrays indexed by constants")]

use std::arch::x86_64::*;

use super::avx512_bits::{nibbles, scaled_byte, scaled_signed_byte, with_fifth_bit, with_upper_bits};
use super::avx512_few::{InRegisters, Packed, Place, read_four};
use super::avx512_fill::{Blocks, Q4K, Q5K, Q6K, Q40, Q80, Source};
use super::avx512_panel::{MinPairs, WidePanel};

impl InRegisters for Q4K {
    const STAGES: usize = 4;

    #[inline(always)]
    unsafe fn head(blocks: &Blocks<'_>, panel: &mut WidePanel) -> Option<MinPairs> {
        // SAFETY: as the caller vouches for.
        Some(unsafe { keep_scales(blocks, panel) })
    }

    #[inline(always)]
    unsafe fn scale(panel: &WidePanel, stage: usize, part: usize) -> __m512 {
        // SAFETY: as the caller vouches for: eight sub-blocks, two in a stage.
        unsafe { kept_scale(panel, 2 * stage + part) }
    }

    #[inline(always)]
    unsafe fn read(place: Place<'_>, _: &mut WidePanel) -> Packed {
        // SAFETY: as the caller vouches for: 32 of the 128 bytes of nibbles.
        unsafe { read_pair_of_sub_blocks(place, 16) }
    }

    #[inline(always)]
    unsafe fn group(packed: &Packed, _: &WidePanel, _: usize, part: usize, group: usize) -> __m512i {
        // SAFETY: as the caller vouches for.
        unsafe { nibbles(packed[group])[part] }
    }

    #[inline(always)]
    unsafe fn read_behind(
        packed: &mut Packed,
        _: Place<'_>,
        next: Place<'_>,
        group: (usize, usize),
        _: &mut WidePanel,
    ) {
        // SAFETY: as the caller vouches for: 32 of the 128 bytes of nibbles.
        unsafe { read_behind_upper_nibbles(packed, next, 16, group) };
    }
}

/// Keeps the scales of Q4_K and Q5_K as the bytes that they are, and gives the minimums: floats are made of scales where they
/// are needed, since storing eight vectors of them costs more than three of bytes.
///
/// SAFETY: as for [`InRegisters::head`], of one of the two types.
#[inline(always)]
unsafe fn keep_scales(blocks: &Blocks<'_>, panel: &mut WidePanel) -> MinPairs {
    // SAFETY: as the caller vouches for.
    unsafe {
        let header = blocks.header();
        panel.store_scale_bytes(header.scales(), header.scale());
        header.mins()
    }
}

/// Those of a sub-block.
///
/// SAFETY: as for [`InRegisters::scale`], behind [`keep_scales`].
#[inline(always)]
unsafe fn kept_scale(panel: &WidePanel, sub: usize) -> __m512 {
    // SAFETY: as the caller vouches for: eight sub-blocks.
    unsafe {
        let (bytes, scale) = panel.load_scale_bytes(sub / 4);
        scaled_byte(bytes, sub % 4, scale)
    }
}

/// The nibbles of two sub-blocks of Q4_K and Q5_K, from `at` on.
///
/// SAFETY: as for [`InRegisters::read`], of a block that has its nibbles there.
#[inline(always)]
unsafe fn read_pair_of_sub_blocks(place: Place<'_>, at: usize) -> Packed {
    // SAFETY: as the caller vouches for.
    unsafe {
        let mut packed = [_mm512_setzero_si512(); 8];
        read_four::<0>(&mut packed, &place.blocks, at + place.stage * 32);
        read_four::<4>(&mut packed, &place.blocks, at + place.stage * 32 + 16);
        packed
    }
}

/// The same, as soon as the upper nibbles of those before are multiplied.
///
/// SAFETY: as for [`read_pair_of_sub_blocks`].
#[inline(always)]
unsafe fn read_behind_upper_nibbles(packed: &mut Packed, next: Place<'_>, at: usize, group: (usize, usize)) {
    // SAFETY: as the caller vouches for.
    unsafe {
        match group {
            (1, 3) => read_four::<0>(packed, &next.blocks, at + next.stage * 32),
            (1, 7) => read_four::<4>(packed, &next.blocks, at + next.stage * 32 + 16),
            _ => {}
        }
    }
}

impl InRegisters for Q5K {
    const STAGES: usize = 4;

    #[inline(always)]
    unsafe fn head(blocks: &Blocks<'_>, panel: &mut WidePanel) -> Option<MinPairs> {
        // SAFETY: as the caller vouches for: 32 bytes of fifth bits, of which all stages need some.
        unsafe {
            for half in 0..2 {
                let bits = blocks.transposed(16 + half * 16);
                for i in 0..4 {
                    panel.store_bits(half * 4 + i, bits[i]);
                }
            }
            Some(keep_scales(blocks, panel))
        }
    }

    #[inline(always)]
    unsafe fn scale(panel: &WidePanel, stage: usize, part: usize) -> __m512 {
        // SAFETY: as the caller vouches for: eight sub-blocks, two in a stage.
        unsafe { kept_scale(panel, 2 * stage + part) }
    }

    #[inline(always)]
    unsafe fn read(place: Place<'_>, _: &mut WidePanel) -> Packed {
        // SAFETY: as the caller vouches for: 32 of the 128 bytes of nibbles.
        unsafe { read_pair_of_sub_blocks(place, 48) }
    }

    #[inline(always)]
    unsafe fn group(packed: &Packed, panel: &WidePanel, stage: usize, part: usize, group: usize) -> __m512i {
        // SAFETY: as the caller vouches for.
        unsafe { with_fifth_bit(nibbles(packed[group])[part], panel.load_bits(group), 2 * stage + part) }
    }

    #[inline(always)]
    unsafe fn read_behind(
        packed: &mut Packed,
        _: Place<'_>,
        next: Place<'_>,
        group: (usize, usize),
        _: &mut WidePanel,
    ) {
        // SAFETY: as the caller vouches for: 32 of the 128 bytes of nibbles.
        unsafe { read_behind_upper_nibbles(packed, next, 48, group) };
    }
}

/// A stage is four sub-blocks: those whose upper bits are in the same 16 bytes.
impl InRegisters for Q6K {
    const STAGES: usize = 4;

    #[inline(always)]
    unsafe fn head(blocks: &Blocks<'_>, panel: &mut WidePanel) -> Option<MinPairs> {
        // SAFETY: as the caller vouches for.
        unsafe {
            let (bytes, scale) = Self::scales(blocks);
            panel.store_scale_bytes(bytes, scale);
        }
        None
    }

    #[inline(always)]
    unsafe fn scale(panel: &WidePanel, stage: usize, part: usize) -> __m512 {
        let sub = Self::sub_of(4 * stage + part);
        // SAFETY: as the caller vouches for: sixteen sub-blocks, four in a stage.
        unsafe {
            let (bytes, scale) = panel.load_scale_bytes(sub / 4);
            scaled_signed_byte(bytes, sub % 4, scale)
        }
    }

    #[inline(always)]
    unsafe fn read(place: Place<'_>, _: &mut WidePanel) -> Packed {
        let (half, at) = (place.stage / 2, place.stage % 2 * 16);
        // SAFETY: as the caller vouches for: 16 of 128 bytes of nibbles, and 16 of 64 bytes of upper bits.
        unsafe {
            let mut packed = [_mm512_setzero_si512(); 8];
            read_four::<0>(&mut packed, &place.blocks, half * 64 + at);
            read_four::<4>(&mut packed, &place.blocks, 128 + half * 32 + at);
            packed
        }
    }

    #[inline(always)]
    unsafe fn group(packed: &Packed, _: &WidePanel, _: usize, part: usize, group: usize) -> __m512i {
        // SAFETY: as the caller vouches for.
        unsafe { with_upper_bits(nibbles(packed[group])[part % 2], packed[4 + group], part) }
    }

    #[inline(always)]
    unsafe fn read_behind(
        packed: &mut Packed,
        this: Place<'_>,
        next: Place<'_>,
        group: (usize, usize),
        panel: &mut WidePanel,
    ) {
        // SAFETY: as the caller vouches for: 16 of 128 bytes of nibbles.
        unsafe {
            match group {
                // The nibbles of the other two sub-blocks.
                (1, 3) => {
                    let (half, at) = (this.stage / 2, this.stage % 2 * 16);
                    read_four::<0>(packed, &this.blocks, half * 64 + 32 + at);
                }
                (3, 3) => *packed = Self::read(next, panel),
                _ => {}
            }
        }
    }
}

impl InRegisters for Q80 {
    const STAGES: usize = 8;

    #[inline(always)]
    unsafe fn read(place: Place<'_>, panel: &mut WidePanel) -> Packed {
        let at = place.stage * 34;
        // SAFETY: as the caller vouches for: a block of 34 bytes, a scale and 32 quants.
        unsafe {
            panel.store_scale(place.stage, place.blocks.halves(at));
            let mut packed = [_mm512_setzero_si512(); 8];
            read_four::<0>(&mut packed, &place.blocks, at + 2);
            read_four::<4>(&mut packed, &place.blocks, at + 18);
            packed
        }
    }

    #[inline(always)]
    unsafe fn group(packed: &Packed, _: &WidePanel, _: usize, _: usize, group: usize) -> __m512i {
        // SAFETY: as the caller vouches for.
        unsafe { _mm512_xor_si512(packed[group], _mm512_set1_epi8(-128)) }
    }

    #[inline(always)]
    unsafe fn read_behind(
        packed: &mut Packed,
        _: Place<'_>,
        next: Place<'_>,
        group: (usize, usize),
        panel: &mut WidePanel,
    ) {
        let at = next.stage * 34;
        // SAFETY: as the caller vouches for: a block of 34 bytes, a scale and 32 quants.
        unsafe {
            match group.1 {
                3 => read_four::<0>(packed, &next.blocks, at + 2),
                7 => {
                    read_four::<4>(packed, &next.blocks, at + 18);
                    panel.store_scale(next.stage, next.blocks.halves(at));
                }
                _ => {}
            }
        }
    }
}

impl InRegisters for Q40 {
    const STAGES: usize = 8;

    #[inline(always)]
    unsafe fn read(place: Place<'_>, panel: &mut WidePanel) -> Packed {
        let at = place.stage * 18;
        // SAFETY: as the caller vouches for: a block of 18 bytes, a scale and 16 bytes of two quants each.
        unsafe {
            panel.store_scale(place.stage, place.blocks.halves(at));
            let mut packed = [_mm512_setzero_si512(); 8];
            read_four::<0>(&mut packed, &place.blocks, at + 2);
            packed
        }
    }

    #[inline(always)]
    unsafe fn group(packed: &Packed, _: &WidePanel, _: usize, _: usize, group: usize) -> __m512i {
        // SAFETY: as the caller vouches for.
        unsafe { nibbles(packed[group % 4])[group / 4] }
    }

    #[inline(always)]
    unsafe fn read_behind(
        packed: &mut Packed,
        _: Place<'_>,
        next: Place<'_>,
        group: (usize, usize),
        panel: &mut WidePanel,
    ) {
        if group.1 == 7 {
            // SAFETY: as the caller vouches for.
            *packed = unsafe { Self::read(next, panel) };
        }
    }
}
