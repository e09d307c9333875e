//! Rows of activations over a panel, with 256-bit vectors: two for the sixteen weight rows.

#![allow(unsafe_code, reason = "vector code; every block says why it is sound")]
#![allow(clippy::indexing_slicing, reason = "arrays indexed by constants, and rows cut to whole blocks")]
#![allow(clippy::needless_range_loop, reason = "arrays that are indexed by constants stay in registers")]

use std::arch::asm;
use std::arch::x86_64::*;
use std::marker::PhantomData;

#[cfg(test)]
use super::avx2_level::Avx512Vl;
use super::avx2_level::{AvxVnni, Level, Products};
use crate::panel::{GROUP, GROUPS, PANEL_ROWS, Panel, Rows};
use crate::tensor_type::SUPER_BLOCK;
use crate::unpack::Layout;

/// Vectors of a group of a panel.
const VECTORS: usize = 2;

/// Integer sums of some rows with a panel.
type Sums<const ROWS: usize> = [[__m256i; VECTORS]; ROWS];

/// All rows over a panel, see [`all_rows`].
type Kernel = unsafe fn(&Panel, Rows<'_>, &mut [[f32; PANEL_ROWS]]);

/// Adds the products of all rows with a panel to `sums`. The machine must have the level.
pub(super) fn multiply(
    level: Level,
    panel: &Panel,
    layout: Layout,
    rows: Rows<'_>,
    sums: &mut [[f32; PANEL_ROWS]],
) {
    // How many rows go over a panel together was measured: with more, sums leave the sixteen registers.
    macro_rules! kernel {
        ($level:ident, $sub_block:ty, $together:literal, $subs:literal) => {
            if layout.has_min {
                $level::<$sub_block, $together, $subs, true>
            } else {
                $level::<$sub_block, $together, $subs, false>
            }
        };
    }
    macro_rules! direct {
        ($level:ident, $products:ty) => {
            match layout.sub_len {
                32 => kernel!($level, Direct<$products>, 4, 8),
                _ => kernel!($level, Direct<$products>, 3, 16),
            }
        };
    }
    let kernel: Kernel = match level {
        Level::Avx2 => match (layout.sub_len, layout.largest) {
            // As many sums of two products as fit into 16 bits: twice the largest quant times 127 each.
            (32, ..=15) => kernel!(avx2, Pairs<8>, 3, 8),
            (32, ..=31) => kernel!(avx2, Pairs<4>, 4, 8),
            (32, _) => avx2::<Signed, 4, 8, false>,
            (_, ..=31) => kernel!(avx2, Pairs<4>, 3, 16),
            (_, _) => kernel!(avx2, Pairs<2>, 3, 16),
        },
        Level::AvxVnni => direct!(avx_vnni, AvxVnni),
        #[cfg(test)]
        Level::Avx512Vl => direct!(avx512_vl, Avx512Vl),
    };
    let (count, subs) = (sums.len(), SUPER_BLOCK / layout.sub_len);
    assert!(
        rows.q.len() >= count * SUPER_BLOCK
            && rows.scales.len() >= count
            && rows.corrections.len() >= count * subs
    );
    // SAFETY: the caller has found the level on this machine, and the lengths were just checked.
    unsafe { kernel(panel, rows, sums) };
}

/// Defines [`all_rows`] as compiled for a level.
macro_rules! compiled {
    ($($(#[$meta:meta])* $level:ident: $features:literal;)*) => {$(
        /// SAFETY: as for [`all_rows`].
        $(#[$meta])*
        #[target_feature(enable = $features)]
        unsafe fn $level<S: SubBlock, const TOGETHER: usize, const SUBS: usize, const MIN: bool>(
            panel: &Panel,
            rows: Rows<'_>,
            sums: &mut [[f32; PANEL_ROWS]],
        ) {
            // SAFETY: as the caller vouches for.
            unsafe { all_rows::<S, TOGETHER, SUBS, MIN>(panel, rows, sums) }
        }
    )*};
}

compiled! {
    avx2: "avx2,fma,f16c";
    avx_vnni: "avx2,fma,f16c,avxvnni";
    #[cfg(test)]
    avx512_vl: "avx2,fma,f16c,avx512vl,avx512vnni";
}

/// How the products of a sub-block are added up.
trait SubBlock {
    /// Whether the type's offset, 128, is taken from the quants before they are multiplied, and not from the sums.
    const TAKES_OFFSET: bool = false;

    /// Adds the products of `LEN` groups of a panel, from `w` on, with those of rows of activations from `q` on.
    ///
    /// SAFETY: the machine must have the level, and the caller be compiled for it; there must be `LEN` groups at `w`, and
    /// at `q` and `ROWS - 1` strides of 256 from there.
    unsafe fn add<const ROWS: usize, const LEN: usize>(sums: &mut Sums<ROWS>, w: *const __m256i, q: *const i8);
}

/// A group of a panel.
///
/// SAFETY: it must be readable at `w`, and the caller be compiled for AVX2.
#[inline(always)]
unsafe fn weights(w: *const __m256i, group: usize) -> [__m256i; VECTORS] {
    // SAFETY: as the caller vouches for.
    unsafe { [_mm256_load_si256(w.add(group * VECTORS)), _mm256_load_si256(w.add(group * VECTORS + 1))] }
}

/// A group of a row of activations, in all lanes.
///
/// SAFETY: it must be readable at `q`, and the caller be compiled for AVX2.
#[inline(always)]
unsafe fn activations(q: *const i8, row: usize, group: usize) -> __m256i {
    // SAFETY: as the caller vouches for.
    unsafe { _mm256_set1_epi32(q.add(row * SUPER_BLOCK + group * GROUP).cast::<i32>().read_unaligned()) }
}

/// Has all sums ready here, at no cost. The compiler takes the vectors of a group one after the other otherwise, through
/// all groups, and what both are multiplied with through memory: that is a third slower.
#[inline]
#[target_feature(enable = "avx2")]
fn all_ready<const ROWS: usize>(sums: &mut Sums<ROWS>) {
    macro_rules! ready {
        ($text:literal $($sum:ident)*) => {
            // SAFETY: there is nothing but a comment.
            unsafe { asm!($text, $(inout(ymm_reg) *$sum,)* options(pure, nomem, nostack, preserves_flags)) }
        };
    }
    match sums.as_mut_slice() {
        [[a, b]] => ready!("/* {} {} */" a b),
        [[a, b], [c, d]] => ready!("/* {} {} {} {} */" a b c d),
        [[a, b], [c, d], [e, f]] => ready!("/* {} {} {} {} {} {} */" a b c d e f),
        [[a, b], [c, d], [e, f], [g, h]] => ready!("/* {} {} {} {} {} {} {} {} */" a b c d e f g h),
        _ => {}
    }
}

/// AVX2, for quants that are so small that sums of two products of `RUN` groups fit into 16 bits.
struct Pairs<const RUN: usize>;

impl<const RUN: usize> SubBlock for Pairs<RUN> {
    #[inline(always)]
    unsafe fn add<const ROWS: usize, const LEN: usize>(sums: &mut Sums<ROWS>, w: *const __m256i, q: *const i8) {
        // SAFETY: as the caller vouches for.
        unsafe {
            for run in 0..LEN / RUN {
                let mut pairs = [[_mm256_setzero_si256(); VECTORS]; ROWS];
                for group in run * RUN..(run + 1) * RUN {
                    let w = weights(w, group);
                    for row in 0..ROWS {
                        let a = activations(q, row, group);
                        for i in 0..VECTORS {
                            pairs[row][i] = _mm256_add_epi16(pairs[row][i], _mm256_maddubs_epi16(w[i], a));
                        }
                    }
                    all_ready(&mut pairs);
                }
                for row in 0..ROWS {
                    for i in 0..VECTORS {
                        let fours = _mm256_madd_epi16(pairs[row][i], _mm256_set1_epi16(1));
                        sums[row][i] = _mm256_add_epi32(sums[row][i], fours);
                    }
                }
            }
        }
    }
}

/// AVX2, for quants of eight bits, which are multiplied as magnitudes with activations that have their signs: 128 times
/// 127, twice, fits into 16 bits.
struct Signed;

impl SubBlock for Signed {
    const TAKES_OFFSET: bool = true;

    #[inline(always)]
    unsafe fn add<const ROWS: usize, const LEN: usize>(sums: &mut Sums<ROWS>, w: *const __m256i, q: *const i8) {
        // SAFETY: as the caller vouches for.
        unsafe {
            for group in 0..LEN {
                let w = weights(w, group);
                let offset = _mm256_set1_epi8(-128);
                let w = [_mm256_xor_si256(w[0], offset), _mm256_xor_si256(w[1], offset)];
                let magnitudes = [_mm256_abs_epi8(w[0]), _mm256_abs_epi8(w[1])];
                for row in 0..ROWS {
                    let a = activations(q, row, group);
                    for i in 0..VECTORS {
                        let pairs = _mm256_maddubs_epi16(magnitudes[i], _mm256_sign_epi8(a, w[i]));
                        let fours = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
                        sums[row][i] = _mm256_add_epi32(sums[row][i], fours);
                    }
                }
                all_ready(sums);
            }
        }
    }
}

/// A level with an instruction for dot products of four.
struct Direct<P>(PhantomData<P>);

impl<P: Products> SubBlock for Direct<P> {
    #[inline(always)]
    unsafe fn add<const ROWS: usize, const LEN: usize>(sums: &mut Sums<ROWS>, w: *const __m256i, q: *const i8) {
        // SAFETY: as the caller vouches for.
        unsafe {
            for group in 0..LEN {
                let w = weights(w, group);
                for row in 0..ROWS {
                    let a = activations(q, row, group);
                    for i in 0..VECTORS {
                        sums[row][i] = P::dot(sums[row][i], w[i], a);
                    }
                }
            }
        }
    }
}

/// SAFETY: the machine must have the level of `S`, and the caller be compiled for it; `rows` must be as many as `sums`.
#[inline(always)]
unsafe fn all_rows<S: SubBlock, const TOGETHER: usize, const SUBS: usize, const MIN: bool>(
    panel: &Panel,
    rows: Rows<'_>,
    sums: &mut [[f32; PANEL_ROWS]],
) {
    let (blocks, rest) = sums.as_chunks_mut::<TOGETHER>();
    let whole = blocks.len() * TOGETHER;
    macro_rules! rest {
        ($($count:literal)*) => {
            $(if $count < TOGETHER && rest.len() == $count {
                if let Some(rest) = rest.first_chunk_mut() {
                    // SAFETY: as the caller vouches for.
                    unsafe { some_rows::<S, $count, SUBS, MIN>(panel, rows, whole, rest) };
                }
            })*
        };
    }
    for (i, sums) in blocks.iter_mut().enumerate() {
        // SAFETY: as the caller vouches for.
        unsafe { some_rows::<S, TOGETHER, SUBS, MIN>(panel, rows, i * TOGETHER, sums) };
    }
    rest!(1 2 3);
}

/// SAFETY: as for [`all_rows`], with `ROWS` rows from `first` on.
#[inline(always)]
unsafe fn some_rows<S: SubBlock, const ROWS: usize, const SUBS: usize, const MIN: bool>(
    panel: &Panel,
    rows: Rows<'_>,
    first: usize,
    sums: &mut [[f32; PANEL_ROWS]; ROWS],
) {
    // SAFETY: all reads are of `ROWS` rows from the first, which the caller vouches for, and inside the panel's arrays.
    unsafe {
        // The quants are a panel's first field, so that they are aligned as it is.
        let w = std::ptr::from_ref(panel).cast::<__m256i>();
        let q = rows.q.as_ptr().add(first * SUPER_BLOCK);
        let corrections = rows.corrections.as_ptr().add(first * SUBS);
        let lanes = |values: &[f32; PANEL_ROWS]| {
            [_mm256_load_ps(values.as_ptr()), _mm256_load_ps(values.as_ptr().add(PANEL_ROWS / VECTORS))]
        };
        let mut total = [[_mm256_setzero_ps(); VECTORS]; ROWS];
        for sub in 0..SUBS {
            let correction = |row: usize| _mm256_set1_epi32(*corrections.add(row * SUBS + sub));
            let mut dots = [[_mm256_setzero_si256(); VECTORS]; ROWS];
            if !MIN && !S::TAKES_OFFSET {
                for row in 0..ROWS {
                    dots[row] = [correction(row); VECTORS];
                }
            }
            let group = sub * (GROUPS / SUBS);
            let (w, q) = (w.add(group * VECTORS), q.add(group * GROUP));
            if SUBS == 8 {
                S::add::<ROWS, { GROUPS / 8 }>(&mut dots, w, q);
            } else {
                S::add::<ROWS, { GROUPS / 16 }>(&mut dots, w, q);
            }
            let scale = lanes(panel.scale.get_unchecked(sub));
            for row in 0..ROWS {
                for i in 0..VECTORS {
                    total[row][i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[row][i]), scale[i], total[row][i]);
                }
            }
            if MIN {
                let min = lanes(panel.min.get_unchecked(sub));
                for row in 0..ROWS {
                    let sum = _mm256_castsi256_ps(correction(row));
                    for i in 0..VECTORS {
                        total[row][i] = _mm256_fnmadd_ps(min[i], sum, total[row][i]);
                    }
                }
            }
        }
        for row in 0..ROWS {
            let scale = _mm256_set1_ps(*rows.scales.as_ptr().add(first + row));
            for i in 0..VECTORS {
                let sums = sums[row].as_mut_ptr().add(i * (PANEL_ROWS / VECTORS));
                _mm256_storeu_ps(sums, _mm256_fmadd_ps(total[row][i], scale, _mm256_loadu_ps(sums)));
            }
        }
    }
}
