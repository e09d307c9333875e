//! A few rows of activations with weight rows as they stand in the file, with 256-bit vectors.
//!
//! A vector takes 32 quants of one weight row. Where scales of sub-blocks are integers, products are scaled and added up
//! as integers over a super-block; lanes are added up at the row's end.

#![allow(unsafe_code, reason = "vector code; every block says why it is sound")]
#![allow(clippy::indexing_slicing, reason = "ranges of buffers that this module sized")]
#![allow(clippy::needless_range_loop, reason = "arrays that are indexed by constants stay in registers")]

use std::arch::x86_64::*;

use super::avx2_blocks::{Block, EVEN_THEN_ODD, Q4K, Q5K, Q6K, Q40, Q80, Sums};
#[cfg(test)]
use super::avx2_level::Avx512Vl;
use super::avx2_level::{Avx2, AvxVnni, Level, Products};
use crate::TensorType;
use crate::activations::{Activations, SUMS};
use crate::tensor_type::SUPER_BLOCK;

/// Rows of activations that go over weight rows together, at most.
const TOGETHER: usize = 2;

/// A row of activations with what a type needs of it.
#[derive(Clone, Debug)]
pub(super) struct PreparedRow {
    q: Vec<i8>,       // (block, 256)
    scales: Vec<f32>, // (block)
    /// Sums that minimums or the offset are multiplied with, in the order of the type's scales: of 32 for Q4_K and Q5_K,
    /// of 16 for Q6_K.
    pub(super) sums: Vec<i16>, // (block, subs)
    /// What the dot products begin with: the negative offset times the activations of each lane. Only for Q4_0.
    begin: Vec<i32>, // (block, 32)
}

/// Whether there is a kernel for a type.
pub(super) const fn handles(tensor_type: TensorType) -> bool {
    use TensorType::{Q4_0, Q4_K, Q5_K, Q6_K, Q8_0};
    matches!(tensor_type, Q4_K | Q5_K | Q6_K | Q8_0 | Q4_0)
}

impl PreparedRow {
    pub(super) fn new(tensor_type: TensorType, x: &Activations, row: usize) -> Self {
        let blocks = 0..x.blocks();
        let mut prepared = Self {
            q: Vec::with_capacity(x.blocks() * SUPER_BLOCK),
            scales: blocks.clone().map(|block| x.block_scales(block, row)[0]).collect(),
            sums: Vec::new(),
            begin: Vec::new(),
        };
        for block in blocks {
            let mut q = [0; SUPER_BLOCK];
            q.copy_from_slice(&x.block_q(block, row)[..SUPER_BLOCK]);
            let sums = &x.block_sums(block, row)[..SUMS];
            match tensor_type {
                TensorType::Q4_K | TensorType::Q5_K => {
                    prepared.sums.extend(sums.as_chunks::<2>().0.iter().map(|[a, b]| a + b));
                }
                TensorType::Q6_K => prepared.sums.extend((0..SUMS).map(|i| sums[EVEN_THEN_ODD[i] as usize])),
                TensorType::Q4_0 => {
                    // Lower nibbles of two blocks are a vector, and the upper ones another.
                    for pair in q.as_chunks_mut::<64>().0 {
                        let (first, second) = pair.split_at_mut(32);
                        first[16..].swap_with_slice(&mut second[..16]);
                        let lanes = first.as_chunks::<4>().0.iter().zip(second.as_chunks::<4>().0);
                        let sums = lanes.map(|(a, b)| a.iter().chain(b).copied().map(i32::from).sum::<i32>());
                        prepared.begin.extend(sums.map(|sum| -8 * sum));
                    }
                }
                _ => {}
            }
            prepared.q.extend_from_slice(&q);
        }
        prepared
    }
}

/// A kernel for rows of a type, see [`some_rows`].
type Rows = unsafe fn(&[u8], usize, &[PreparedRow], &mut [f32]);

/// Products of weight rows with rows of activations, `(x rows, weight rows)`, for a type that [`handles`] takes. The machine
/// must have the level.
pub(super) fn dot_rows(
    level: Level,
    tensor_type: TensorType,
    bytes: &[u8],
    row_bytes: usize,
    x: &[PreparedRow],
    out: &mut [f32],
) {
    let (block_bytes, rows) = match tensor_type {
        TensorType::Q4_K => (Q4K::BYTES, rows_at::<Q4K>(level)),
        TensorType::Q5_K => (Q5K::BYTES, rows_at::<Q5K>(level)),
        TensorType::Q6_K => (Q6K::BYTES, rows_at::<Q6K>(level)),
        TensorType::Q8_0 => (Q80::BYTES, rows_at::<Q80>(level)),
        TensorType::Q4_0 => (Q40::BYTES, rows_at::<Q40>(level)),
        _ => return,
    };
    let weight_rows = bytes.len() / row_bytes;
    assert_eq!(out.len(), x.len() * weight_rows);
    if weight_rows == 0 {
        return;
    }
    for (x, out) in x.chunks(TOGETHER).zip(out.chunks_mut(TOGETHER * weight_rows)) {
        assert!(x.iter().all(|x| x.scales.len() * block_bytes == row_bytes));
        // SAFETY: the caller has found the level on this machine, and every row has as many blocks as the activations.
        unsafe { rows(bytes, row_bytes, x, out) };
    }
}

fn rows_at<B: Block>(level: Level) -> Rows {
    match level {
        Level::Avx2 => avx2::<B>,
        Level::AvxVnni => avx_vnni::<B>,
        #[cfg(test)]
        Level::Avx512Vl => avx512_vl::<B>,
    }
}

/// Defines [`some_rows`] as compiled for a level.
macro_rules! compiled {
    ($($(#[$meta:meta])* $level:ident: $features:literal, $products:ty;)*) => {$(
        /// SAFETY: as for [`some_rows`].
        $(#[$meta])*
        #[target_feature(enable = $features)]
        unsafe fn $level<B: Block>(bytes: &[u8], row_bytes: usize, x: &[PreparedRow], out: &mut [f32]) {
            // SAFETY: as the caller vouches for.
            unsafe { some_rows::<$products, B>(bytes, row_bytes, x, out) }
        }
    )*};
}

compiled! {
    avx2: "avx2,fma,f16c", Avx2;
    avx_vnni: "avx2,fma,f16c,avxvnni", AvxVnni;
    #[cfg(test)]
    avx512_vl: "avx2,fma,f16c,avx512vl,avx512vnni", Avx512Vl;
}

/// SAFETY: as for [`rows`], with at most [`TOGETHER`] of `x`.
#[inline(always)]
unsafe fn some_rows<P: Products, B: Block>(bytes: &[u8], row_bytes: usize, x: &[PreparedRow], out: &mut [f32]) {
    // SAFETY: as the caller vouches for.
    unsafe {
        match x {
            [a] => rows::<P, B, 1>(bytes, row_bytes, [a], out),
            [a, b] => rows::<P, B, 2>(bytes, row_bytes, [a, b], out),
            _ => {}
        }
    }
}

/// SAFETY: the machine must have the level of `P`, and the caller be compiled for it; `bytes` must have `out.len() / X` rows
/// of `row_bytes`, of as many blocks as each of `x` has, prepared for this type.
#[inline(always)]
unsafe fn rows<P: Products, B: Block, const X: usize>(
    bytes: &[u8],
    row_bytes: usize,
    x: [&PreparedRow; X],
    out: &mut [f32],
) {
    let weight_rows = out.len() / X;
    for row in 0..weight_rows {
        // SAFETY: the caller vouches for the row and its blocks, and there are `X` times the weight rows in `out`.
        unsafe {
            let mut sums = [Sums { lanes: [_mm256_setzero_ps(); 2], mins: _mm_setzero_ps() }; X];
            for block in 0..x[0].scales.len() {
                B::add::<P, X>(bytes.as_ptr().add(row * row_bytes + block * B::BYTES), &x, block, &mut sums);
            }
            for i in 0..X {
                let lanes = _mm256_add_ps(sums[i].lanes[0], sums[i].lanes[1]);
                let four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps::<1>(lanes));
                let four = _mm_sub_ps(four, sums[i].mins);
                let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
                *out.get_unchecked_mut(i * weight_rows + row) =
                    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
            }
        }
    }
}

impl PreparedRow {
    /// Quants `32 · vector` on of a block.
    ///
    /// SAFETY: there must be a block `block`, `vector` be less than 8, and the caller be compiled for AVX2.
    #[inline(always)]
    pub(super) unsafe fn quants(&self, block: usize, vector: usize) -> __m256i {
        // SAFETY: inside the block.
        unsafe { _mm256_loadu_si256(self.q.as_ptr().add(block * SUPER_BLOCK + vector * 32).cast()) }
    }

    /// What the dot product with quants `64 · pair` on of a block begins with.
    ///
    /// SAFETY: there must be a block `block`, prepared for a type that has it, `pair` be less than 4, and the caller be
    /// compiled for AVX2.
    #[inline(always)]
    pub(super) unsafe fn begin(&self, block: usize, pair: usize) -> __m256i {
        // SAFETY: inside the block, which has 32 lanes.
        unsafe { _mm256_loadu_si256(self.begin.as_ptr().add(block * 32 + pair * 8).cast()) }
    }

    /// SAFETY: there must be a block `block`.
    #[inline(always)]
    pub(super) unsafe fn scale(&self, block: usize) -> f32 {
        // SAFETY: as the caller vouches for.
        unsafe { *self.scales.get_unchecked(block) }
    }
}
