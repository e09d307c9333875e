//! One row of activations with weight rows as they stand in the file, with 512-bit VNNI dot products.
//!
//! Four weight rows go together. A vector takes 64 quants of one of them; lanes are added up at the row's end.

#![allow(unsafe_code, reason = "vector code; every block says why it is sound")]
#![allow(clippy::indexing_slicing, reason = "ranges of buffers that this module sized")]

use std::arch::x86_64::*;

use super::avx512_blocks::{Q4K, Q5K, Q6K, Q40, Q80};
use crate::TensorType;
use crate::activations::{Activations, SUMS};
use crate::tensor_type::SUPER_BLOCK;

/// A row of activations in the order in which a type's quants come out of their bits.
#[derive(Clone, Debug)]
pub(super) struct PreparedRow {
    q: Vec<i8>,       // (block, 256)
    scales: Vec<f32>, // (block)
    /// Sums that minimums or the offset are multiplied with: of 32 for Q4_K and Q5_K, the negative ones of 16 for Q6_K.
    sums: Vec<i16>, // (block, subs)
    /// What the dot products begin with: the negative offset times the activations of each lane. Only for Q8_0 and Q4_0.
    begin: Vec<i32>, // (block, 64), or (block, 32) for Q4_0, whose two nibbles share a sum
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
                    // The lower nibbles of 64 bytes are sub-blocks 0 and 2, the upper ones 1 and 3.
                    for pairs in q.as_chunks_mut::<128>().0 {
                        let (first, second) = pairs.split_at_mut(64);
                        first[32..].swap_with_slice(&mut second[..32]);
                    }
                    prepared.sums.extend(sums.as_chunks::<2>().0.iter().map(|[a, b]| a + b));
                }
                TensorType::Q6_K => prepared.sums.extend(sums.iter().map(|sum| -sum)),
                TensorType::Q4_0 => {
                    // The lower nibbles of four blocks are their first 16 quants, and a vector.
                    let mut lanes = [[0; 16]; SUPER_BLOCK / 16];
                    for (i, lane) in q.as_chunks::<16>().0.iter().enumerate() {
                        lanes[i / 8 * 8 + i % 2 * 4 + i % 8 / 2] = *lane;
                    }
                    q.copy_from_slice(lanes.as_flattened());
                    for pair in q.as_chunks::<128>().0 {
                        let (lower, upper) = pair.split_at(64);
                        let lanes = lower.as_chunks::<4>().0.iter().zip(upper.as_chunks::<4>().0);
                        let sums = lanes.map(|(a, b)| a.iter().chain(b).copied().map(i32::from).sum::<i32>());
                        prepared.begin.extend(sums.map(|sum| -8 * sum));
                    }
                }
                _ => {
                    let lanes = q.as_chunks::<4>().0.iter();
                    prepared.begin.extend(lanes.map(|q| -128 * q.iter().copied().map(i32::from).sum::<i32>()));
                }
            }
            prepared.q.extend_from_slice(&q);
        }
        prepared
    }
}

/// Products of weight rows with the row of activations, for a type that [`handles`] takes. The machine must have
/// `Isa::Avx512Vnni`.
pub(super) fn dot_rows(tensor_type: TensorType, bytes: &[u8], row_bytes: usize, x: &PreparedRow, out: &mut [f32]) {
    let (block_bytes, rows): (usize, unsafe fn(&[u8], usize, &PreparedRow, &mut [f32])) = match tensor_type {
        TensorType::Q4_K => (Q4K::BYTES, rows::<Q4K>),
        TensorType::Q5_K => (Q5K::BYTES, rows::<Q5K>),
        TensorType::Q6_K => (Q6K::BYTES, rows::<Q6K>),
        TensorType::Q8_0 => (Q80::BYTES, rows::<Q80>),
        TensorType::Q4_0 => (Q40::BYTES, rows::<Q40>),
        _ => return,
    };
    assert_eq!((row_bytes, bytes.len()), (x.scales.len() * block_bytes, out.len() * row_bytes));
    // SAFETY: the caller has found the level on this machine, and every row has as many blocks as the activations.
    unsafe { rows(bytes, row_bytes, x, out) };
}

/// Weight rows that are multiplied together: what they have of scales stands in the 128-bit lanes of one vector. They are
/// far apart, so that each is a stream of its own for the hardware, which looks ahead in all of them.
pub(super) const ROWS: usize = 4;

/// Sums of weight rows.
#[derive(Clone, Copy)]
pub(super) struct Sums {
    /// Of each row, in all lanes.
    pub(super) rows: [__m512; ROWS],
    /// What is taken off for minimums, of row `i` in the four lanes from `4 · i` on.
    pub(super) mins: __m512,
}

/// A type's super-block, or eight of its blocks.
pub(super) trait Block {
    const BYTES: usize;

    /// Adds the products of a block of each row.
    ///
    /// SAFETY: the machine must have `Isa::Avx512Vnni`, every `w` must be readable for a block, and `x` have a block
    /// `block`, prepared for this type.
    unsafe fn add(w: [*const u8; ROWS], x: &PreparedRow, block: usize, sums: Sums) -> Sums;
}

/// SAFETY: `bytes` must have `out.len()` rows of `row_bytes`, of as many blocks as `x` has.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn rows<B: Block>(bytes: &[u8], row_bytes: usize, x: &PreparedRow, out: &mut [f32]) {
    let apart = out.len() / ROWS;
    for row in 0..apart {
        let rows: [usize; ROWS] = std::array::from_fn(|stream| stream * apart + row);
        // SAFETY: as the caller vouches for; the last row is less than `ROWS * apart`.
        let sums = unsafe { some_rows::<B>(bytes, row_bytes, x, rows) };
        for (row, sum) in rows.into_iter().zip(sums) {
            out[row] = sum;
        }
    }
    let rest = &mut out[ROWS * apart..];
    if let Some(last) = rest.len().checked_sub(1) {
        let rows = std::array::from_fn(|i| ROWS * apart + i.min(last));
        // SAFETY: as the caller vouches for: the last row is there, and others before it.
        let sums = unsafe { some_rows::<B>(bytes, row_bytes, x, rows) };
        rest.copy_from_slice(&sums[..=last]);
    }
}

/// SAFETY: `bytes` must have the rows, of as many blocks as `x` has.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn some_rows<B: Block>(
    bytes: &[u8],
    row_bytes: usize,
    x: &PreparedRow,
    rows: [usize; ROWS],
) -> [f32; ROWS] {
    let mut sums = Sums { rows: [_mm512_setzero_ps(); ROWS], mins: _mm512_setzero_ps() };
    // SAFETY: as the caller vouches for.
    let starts = rows.map(|row| unsafe { bytes.as_ptr().add(row * row_bytes) });
    for block in 0..x.scales.len() {
        // SAFETY: as the caller vouches for.
        sums = unsafe { B::add(starts.map(|row| row.add(block * B::BYTES)), x, block, sums) };
    }
    let mut out = sums.rows.map(|row| _mm512_reduce_add_ps(row));
    let mut mins = [0.0; 4 * ROWS];
    // SAFETY: there is room for a vector.
    unsafe { _mm512_storeu_ps(mins.as_mut_ptr(), sums.mins) };
    for (out, mins) in out.iter_mut().zip(mins.as_chunks::<4>().0) {
        *out -= mins.iter().sum::<f32>();
    }
    out
}

impl PreparedRow {
    /// Quants `64 · quarter` on of a block.
    ///
    /// SAFETY: there must be a block `block`, and `quarter` be less than 4.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn quants(&self, block: usize, quarter: usize) -> __m512i {
        // SAFETY: inside the block.
        unsafe { _mm512_loadu_si512(self.q.as_ptr().add(block * SUPER_BLOCK + quarter * 64).cast()) }
    }

    /// What dot product `i` of the `COUNT` of a block begins with.
    ///
    /// SAFETY: there must be a block `block`, prepared for a type that begins `COUNT`, and `i` be less than that.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn begin<const COUNT: usize>(&self, block: usize, i: usize) -> __m512i {
        // SAFETY: inside the block.
        unsafe { _mm512_loadu_si512(self.begin.as_ptr().add((block * COUNT + i) * 16).cast()) }
    }

    /// Eight of the sums of a block, in all 128-bit lanes.
    ///
    /// SAFETY: there must be a block `block` of eight sums.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn eight_sums(&self, block: usize) -> __m512i {
        // SAFETY: inside the block.
        _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(self.sums.as_ptr().add(block * 8).cast()) })
    }

    /// The 16 sums of a block.
    ///
    /// SAFETY: there must be a block `block` of 16 sums.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn sixteen_sums(&self, block: usize) -> __m256i {
        // SAFETY: inside the block.
        unsafe { _mm256_loadu_si256(self.sums.as_ptr().add(block * SUMS).cast()) }
    }

    /// SAFETY: there must be a block `block`.
    #[inline]
    pub(super) unsafe fn scale(&self, block: usize) -> f32 {
        // SAFETY: as the caller vouches for.
        unsafe { *self.scales.get_unchecked(block) }
    }
}
