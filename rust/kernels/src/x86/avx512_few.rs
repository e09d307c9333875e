//! Few rows of activations: weights are unpacked into registers, group by group, and multiplied from there.
//!
//! What a panel costs is mostly that it is stored: that takes time from products, as moving bits does not. More rows of
//! activations pay it back, and a few do not.

#![allow(unsafe_code, reason = "vector code; every block says why it is sound")]
#![allow(clippy::indexing_slicing, reason = "arrays indexed by constants")]

use std::arch::asm;
use std::arch::x86_64::*;
use std::sync::atomic::{Ordering, compiler_fence};

use super::avx512::Tiles;
use super::avx512_fill::{Blocks, Q4K, Q5K, Q6K, Q40, Q80, Source};
use super::avx512_many::add_panel;
use super::avx512_panel::{MinPairs, Mins, WidePanel};
use super::avx512_run::{Run, Sums, add_scaled, add_to_sums, ask_for, begin_dots, subtract_pairs};
use crate::TensorType;
use crate::panel::{GROUP, GROUPS};
use crate::products::Products;
use crate::tensor_type::SUPER_BLOCK;

/// A type whose groups are unpacked in registers.
pub(super) trait InRegisters: Source {
    /// Parts of a block that are read one behind the other; each is of as many sub-blocks.
    const STAGES: usize;

    /// What comes before a block's first stage is multiplied: what all of them need goes into the panel. Gives the integer
    /// minimums, if that is what the type [has](Source::MINS).
    ///
    /// SAFETY: the machine must have `Isa::Avx512Vnni`, and the blocks be whole and of the type.
    #[inline(always)]
    unsafe fn head(_: &Blocks<'_>, _: &mut WidePanel) -> Option<MinPairs> {
        None
    }

    /// Scales of the sub-block that is `part` of a stage.
    ///
    /// SAFETY: as for [`head`](Self::head), of this block, of a stage and a part that there are.
    #[inline(always)]
    unsafe fn scale(panel: &WidePanel, stage: usize, part: usize) -> __m512 {
        // SAFETY: as the caller vouches for.
        unsafe { panel.load_scale(Self::sub_of(stage * (Self::SUBS / Self::STAGES) + part)) }
    }

    /// What the first groups of a stage are unpacked from.
    ///
    /// SAFETY: as for [`head`](Self::head), and `stage` less than `STAGES`.
    unsafe fn read(place: Place<'_>, panel: &mut WidePanel) -> Packed;

    /// Quants of a group of four of the sub-block that is `part` of the stage.
    ///
    /// SAFETY: as for [`head`](Self::head), of this stage.
    unsafe fn group(packed: &Packed, panel: &WidePanel, stage: usize, part: usize, group: usize) -> __m512i;

    /// What is read behind a group: what it was unpacked from may have been needed for the last time.
    ///
    /// SAFETY: as for [`read`](Self::read), of both places.
    unsafe fn read_behind(
        packed: &mut Packed,
        this: Place<'_>,
        next: Place<'_>,
        group: (usize, usize),
        panel: &mut WidePanel,
    );
}

/// Vectors of four bytes of each of sixteen rows.
pub(super) type Packed = [__m512i; 8];

/// A stage of some blocks.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) blocks: Blocks<'a>,
    pub(super) stage: usize,
}

/// Reads 16 bytes of sixteen rows into four of the vectors, here and not where they are needed: there, the processor would
/// wait for them.
///
/// SAFETY: as for [`Blocks::transposed`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) unsafe fn read_four<const FIRST: usize>(packed: &mut Packed, blocks: &Blocks<'_>, at: usize) {
    // SAFETY: as the caller vouches for; the assembly is empty, and stands for a use of the vectors.
    unsafe {
        let [mut a, mut b, mut c, mut d] = blocks.transposed(at);
        asm!("/* {0} {1} {2} {3} */", inout(zmm_reg) a, inout(zmm_reg) b, inout(zmm_reg) c, inout(zmm_reg) d,
            options(nomem, nostack, preserves_flags));
        [packed[FIRST], packed[FIRST + 1], packed[FIRST + 2], packed[FIRST + 3]] = [a, b, c, d];
    }
}

/// Computes a vector where this stands, and not later.
#[inline]
#[target_feature(enable = "avx512f")]
fn stays_here(mut vector: __m512) -> __m512 {
    // SAFETY: the assembly is empty, and stands for a use of the vector and of memory.
    unsafe { asm!("/* {0} */", inout(zmm_reg) vector, options(nostack, preserves_flags)) };
    vector
}

/// What [`multiply_tile`] is of a type and a number of rows. It may be called where the machine has `Isa::Avx512Vnni`, with
/// at least one block, all of them whole and of the type, and a run of so many rows whose activations have the blocks.
pub(super) type MultiplyTile = unsafe fn(Blocks<'_>, usize, &Run<'_>, &mut WidePanel, &mut [Sums]);

/// How a run of so many rows is multiplied with tiles of a type, if they are few enough and the type is one of these.
pub(super) fn tiles_of(tensor_type: TensorType, rows: usize) -> Option<MultiplyTile> {
    fn of_type<S: InRegisters>(rows: usize) -> Option<MultiplyTile> {
        Some(match rows {
            3 => multiply_tile::<S, 3>,
            4 => multiply_tile::<S, 4>,
            5 => multiply_tile::<S, 5>,
            6 => multiply_tile::<S, 6>,
            7 => multiply_tile::<S, 7>,
            8 => multiply_tile::<S, 8>,
            _ => return None,
        })
    }
    match tensor_type {
        TensorType::Q4_K => of_type::<Q4K>(rows),
        TensorType::Q5_K => of_type::<Q5K>(rows),
        TensorType::Q6_K => of_type::<Q6K>(rows),
        TensorType::Q8_0 => of_type::<Q80>(rows),
        TensorType::Q4_0 => of_type::<Q40>(rows),
        _ => None,
    }
}

/// Products of a run, which is all their rows, with all tiles. The machine must have `Isa::Avx512Vnni`, and `multiply_tile` be
/// for the weight's type, which is the source's, and so many rows.
pub(super) fn multiply<S: Source>(
    tiles: &Tiles<'_>,
    run: &Run<'_>,
    multiply_tile: MultiplyTile,
    products: &mut Products,
) {
    let mut panel = WidePanel::ZERO;
    for (first, sums) in tiles.firsts().zip(products.by_columns()) {
        let tile = tiles.at(first);
        let whole = tile.row_bytes / S::BLOCK_BYTES;
        // SAFETY: the caller has found the level on this machine, and the blocks are whole, and of the source's type and
        // the activations.
        unsafe {
            if whole > 0 {
                multiply_tile(Blocks::new::<S>(tile, 0), whole, run, &mut panel, sums);
            }
            for block in whole..tiles.blocks {
                Blocks::new::<S>(tile, block).fill(&mut panel);
                add_panel::<S>(&panel, run, block, sums);
            }
        }
    }
}

/// The products of a run of `ROWS` rows with the first `blocks` blocks of a tile, at least one. `panel` is room to work in.
///
/// SAFETY: the machine must have `Isa::Avx512Vnni`; `first` be whole and of the type, and the blocks behind it too; the run
/// have `ROWS` rows, and the activations the blocks.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) unsafe fn multiply_tile<S: InRegisters, const ROWS: usize>(
    first: Blocks<'_>,
    blocks: usize,
    run: &Run<'_>,
    panel: &mut WidePanel,
    sums: &mut [Sums],
) {
    // The next tile is brought into the cache meanwhile, and the one behind it is asked for a first time: of what a processor is
    // asked for while enough is under way, it forgets some. There may be none: nothing is read.
    let (mut ahead, tile_bytes) = (first.ahead(), first.tile_bytes());
    let parts = S::SUBS / S::STAGES;
    let groups = GROUPS / S::SUBS;
    // As many as are written out below.
    const { assert!(S::STAGES <= 8 && S::SUBS / S::STAGES <= 4 && GROUPS / S::SUBS <= 8) };
    // SAFETY: the caller vouches for the level, the blocks and the run; reads of activations are of the run's blocks, and
    // others inside the panel's arrays.
    unsafe {
        let mut this = first;
        let mut packed = S::read(Place { blocks: this, stage: 0 }, panel);
        for block in 0..blocks {
            let mins = S::head(&this, panel);
            debug_assert_eq!(mins.is_some(), S::MINS == Mins::Pairs);
            let next = if block + 1 < blocks { this.next::<S>() } else { this };
            let (q, corrections) = run.of_block::<S>(block);
            let mut total = [_mm512_setzero_ps(); ROWS];
            if let Some(mins) = mins {
                total = subtract_pairs(total, mins, corrections);
            }
            // Written out: vectors in an array are only in registers where its indices are constants, and bits that are moved
            // by a constant are moved beside multiplications.
            macro_rules! part {
                ($stage:literal $this:ident $behind:ident $part:literal: $($group:literal)*) => {
                    if $part < parts {
                        let sub = S::sub_of($stage * parts + $part);
                        ask_for::<S>(ahead.wrapping_add(tile_bytes));
                        ahead = ask_for::<S>(ahead);
                        let scale = S::scale(panel, $stage, $part);
                        let mut dots = begin_dots::<S, ROWS>(corrections, sub);
                        $(if $group < groups {
                            let w = S::group(&packed, panel, $stage, $part, $group);
                            let q = q.add((sub * groups + $group) * GROUP);
                            for (row, dot) in dots.iter_mut().enumerate() {
                                let a = q.add(row * SUPER_BLOCK).cast::<i32>().read_unaligned();
                                *dot = _mm512_dpbusd_epi32(*dot, w, _mm512_set1_epi32(a));
                            }
                            S::read_behind(&mut packed, $this, $behind, ($part, $group), panel);
                            // Reads stay where they are.
                            compiler_fence(Ordering::SeqCst);
                        })*
                        total = add_scaled(total, dots, scale);
                        // Nor may this wait: registers are not enough for these dots and the next ones.
                        for total in &mut total {
                            *total = stays_here(*total);
                        }
                    }
                };
            }
            macro_rules! stages {
                ($($stage:literal)*) => {$(
                    if $stage < S::STAGES {
                        let place = Place { blocks: this, stage: $stage };
                        let behind = if $stage + 1 < S::STAGES {
                            Place { blocks: this, stage: $stage + 1 }
                        } else {
                            Place { blocks: next, stage: 0 }
                        };
                        part!($stage place behind 0: 0 1 2 3 4 5 6 7);
                        part!($stage place behind 1: 0 1 2 3 4 5 6 7);
                        part!($stage place behind 2: 0 1 2 3 4 5 6 7);
                        part!($stage place behind 3: 0 1 2 3 4 5 6 7);
                    }
                )*};
            }
            stages!(0 1 2 3 4 5 6 7);
            if let Some(sums) = sums.first_chunk_mut() {
                add_to_sums(total, run.scales_of(block), block == 0, sums);
            }
            this = next;
        }
    }
}
