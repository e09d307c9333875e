//! One row of activations with weight rows as they stand in the file, with 512-bit VNNI dot products.
//!
//! A vector takes 64 quants of one weight row; what it has of each sub-block is scaled in its own lanes, and lanes are
//! added up at the row's end.

#![allow(unsafe_code, reason = "vector code; every block says why it is sound")]
#![allow(clippy::indexing_slicing, reason = "ranges of buffers that this module sized")]

use std::arch::x86_64::*;

use crate::TensorType;
use crate::activations::{Activations, SUMS};
use crate::tensor_type::SUPER_BLOCK;

/// `(a & b) | c`, as a truth table for `ternarylogic`.
pub(super) const AND_OR: i32 = 0xea;

/// A row of activations in the order in which a type's quants come out of their bits.
#[derive(Clone, Debug)]
pub(super) struct PreparedRow {
    q: Vec<i8>,       // (block, 256)
    scales: Vec<f32>, // (block)
    sums: Vec<i16>,   // (block, 8), of 32 each; only for types with minimums
    /// What the dot products begin with: the negative offset times the activations of each lane. Only for types with an
    /// offset.
    begin: Vec<i32>, // (block, 64)
}

/// Whether there is a kernel for a type.
pub(super) const fn handles(tensor_type: TensorType) -> bool {
    use TensorType::{Q4_0, Q4_K, Q5_K, Q6_K, Q8_0};
    matches!(tensor_type, Q4_K | Q5_K | Q6_K | Q8_0 | Q4_0)
}

impl PreparedRow {
    pub(super) fn new(tensor_type: TensorType, x: &Activations, row: usize) -> Self {
        let blocks = 0..x.blocks();
        let has_min = tensor_type.layout().is_some_and(|layout| layout.has_min);
        let offset = tensor_type.layout().map_or(0, |layout| layout.offset);
        let mut prepared = Self {
            q: Vec::with_capacity(x.blocks() * SUPER_BLOCK),
            scales: blocks.clone().map(|block| x.block_scales(block, row)[0]).collect(),
            sums: Vec::new(),
            begin: Vec::new(),
        };
        for block in blocks {
            let q = &x.block_q(block, row)[..SUPER_BLOCK];
            if has_min {
                // The lower nibbles of 64 bytes are sub-blocks 0 and 2, the upper ones 1 and 3.
                for chunk in [0, 2, 1, 3, 4, 6, 5, 7] {
                    prepared.q.extend_from_slice(&q[chunk * 32..][..32]);
                }
                let sums = x.block_sums(block, row)[..SUMS].as_chunks::<2>().0;
                prepared.sums.extend(sums.iter().map(|[a, b]| a + b));
            } else {
                prepared.q.extend_from_slice(q);
                let lanes = q.as_chunks::<4>().0;
                prepared
                    .begin
                    .extend(lanes.iter().map(|q| -offset * q.iter().copied().map(i32::from).sum::<i32>()));
            }
        }
        prepared
    }
}

/// Products of weight rows with the row of activations, for a type that [`handles`] takes. The machine must have
/// `Isa::Avx512Vnni`.
pub(super) fn dot_rows(tensor_type: TensorType, bytes: &[u8], row_bytes: usize, x: &PreparedRow, out: &mut [f32]) {
    let (block_bytes, rows): (usize, unsafe fn(&[u8], usize, &PreparedRow, &mut [f32])) = match tensor_type {
        TensorType::Q4_K => (144, rows::<Q4K>),
        TensorType::Q5_K => (176, rows::<Q5K>),
        TensorType::Q6_K => (210, rows::<Q6K>),
        TensorType::Q8_0 => (8 * 34, rows::<Q80>),
        TensorType::Q4_0 => (8 * 18, rows::<Q40>),
        _ => return,
    };
    assert_eq!((row_bytes, bytes.len()), (x.scales.len() * block_bytes, out.len() * row_bytes));
    // SAFETY: the caller has found the level on this machine, and every row has as many blocks as the activations.
    unsafe { rows(bytes, row_bytes, x, out) };
}

/// Sums of a row, in the lanes of four vectors, and of its minimums.
#[derive(Clone, Copy)]
struct Sums {
    lanes: [__m512; 4],
    mins: __m128,
}

/// A type's super-block, or eight of its blocks.
trait Block {
    const BYTES: usize;

    /// SAFETY: the machine must have `Isa::Avx512Vnni`, `w` must be readable for a block, and `x` have a block `block`.
    unsafe fn add(w: *const u8, x: &PreparedRow, block: usize, sums: &mut Sums);
}

/// Rows that a thread reads at once, from places far apart: each is a stream of its own for the hardware, which looks
/// ahead in all of them.
const STREAMS: usize = 4;

/// SAFETY: `bytes` must have `out.len()` rows of `row_bytes`, of as many blocks as `x` has.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn rows<B: Block>(bytes: &[u8], row_bytes: usize, x: &PreparedRow, out: &mut [f32]) {
    let apart = out.len() / STREAMS;
    for row in 0..apart {
        let rows: [usize; STREAMS] = std::array::from_fn(|stream| stream * apart + row);
        // SAFETY: as the caller vouches for; the last row is less than `STREAMS * apart`.
        let sums = unsafe { some_rows::<B, STREAMS>(bytes, row_bytes, x, rows) };
        for (row, sum) in rows.into_iter().zip(sums) {
            out[row] = sum;
        }
    }
    for row in STREAMS * apart..out.len() {
        // SAFETY: as the caller vouches for.
        [out[row]] = unsafe { some_rows::<B, 1>(bytes, row_bytes, x, [row]) };
    }
}

/// SAFETY: `bytes` must have the rows, of as many blocks as `x` has.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn some_rows<B: Block, const COUNT: usize>(
    bytes: &[u8],
    row_bytes: usize,
    x: &PreparedRow,
    rows: [usize; COUNT],
) -> [f32; COUNT] {
    let mut sums = [Sums { lanes: [_mm512_setzero_ps(); 4], mins: _mm_setzero_ps() }; COUNT];
    for block in 0..x.scales.len() {
        for (row, sums) in rows.iter().zip(&mut sums) {
            // SAFETY: as the caller vouches for.
            unsafe { B::add(bytes.as_ptr().add(row * row_bytes + block * B::BYTES), x, block, sums) };
        }
    }
    let mut out = [0.0; COUNT];
    for (out, sums) in out.iter_mut().zip(sums) {
        let [a, b, c, d] = sums.lanes;
        let lanes = _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d)));
        let mins = _mm_add_ps(sums.mins, _mm_movehl_ps(sums.mins, sums.mins));
        let mins = _mm_add_ss(mins, _mm_shuffle_ps::<1>(mins, mins));
        *out = lanes - _mm_cvtss_f32(mins);
    }
    out
}

impl PreparedRow {
    /// Quants `64 · quarter` on of a block.
    ///
    /// SAFETY: there must be a block `block`, and `quarter` be less than 4.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn quants(&self, block: usize, quarter: usize) -> __m512i {
        // SAFETY: inside the block.
        unsafe { _mm512_loadu_si512(self.q.as_ptr().add(block * SUPER_BLOCK + quarter * 64).cast()) }
    }

    /// What the dot product with those quants begins with.
    ///
    /// SAFETY: as for [`quants`](Self::quants), for a type with an offset.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn begin(&self, block: usize, quarter: usize) -> __m512i {
        // SAFETY: inside the block, which has 64 lanes.
        unsafe { _mm512_loadu_si512(self.begin.as_ptr().add(block * 64 + quarter * 16).cast()) }
    }

    /// SAFETY: there must be a block `block`.
    #[inline]
    unsafe fn scale(&self, block: usize) -> f32 {
        // SAFETY: as the caller vouches for.
        unsafe { *self.scales.get_unchecked(block) }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn half(bits: u16) -> f32 {
    _mm512_cvtss_f32(_mm512_cvtph_ps(_mm256_castsi128_si256(_mm_cvtsi32_si128(i32::from(bits)))))
}

/// Adds integer dot products, scaled lane by lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn add_scaled(dots: __m512i, scales: __m512, sum: &mut __m512) {
    *sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots), scales, *sum);
}

/// Lanes that pick the scale of sub-block `first` for the lower half of a vector, `second` for the upper.
#[inline]
#[target_feature(enable = "avx512f")]
fn by_halves(first: i32, second: i32) -> __m512i {
    _mm512_inserti64x4::<1>(_mm512_set1_epi32(first), _mm256_set1_epi32(second))
}

/// 16-bit shift counts, one for the lower half of a vector and one for the upper.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn shifts(lower: i16, upper: i16) -> __m512i {
    _mm512_inserti64x4::<1>(_mm512_set1_epi16(lower), _mm256_set1_epi16(upper))
}

/// Sub-blocks that the lower and upper halves of the four vectors of Q4_K and Q5_K belong to.
const NIBBLE_SUBS: [(i32, i32); 4] = [(0, 2), (1, 3), (4, 6), (5, 7)];

/// Scales of Q4_K and Q5_K times the activations' scale; their minimums are added to the sums.
///
/// SAFETY: 16 bytes must be readable at `w`, and `x` have a block `block`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn scales_and_mins(w: *const u8, x: &PreparedRow, block: usize, sums: &mut Sums) -> __m512 {
    // SAFETY: as the caller vouches for; the sums of a block are 16 bytes.
    let (d, dmin, packed, scale, activation_sums) = unsafe {
        let packed: [u32; 3] = w.add(4).cast::<[u32; 3]>().read_unaligned();
        let halves = w.cast::<[u16; 2]>().read_unaligned();
        let activation_sums = _mm_loadu_si128(x.sums.as_ptr().add(block * 8).cast());
        (half(halves[0]), half(halves[1]), packed, x.scale(block), activation_sums)
    };
    const SIX: u32 = 0x3f3f_3f3f;
    const FOUR: u32 = 0x0f0f_0f0f;
    const TOP: u32 = 0x3030_3030;
    let [low_scales, low_mins, high] = packed;
    let bytes = |low: u32, high: u32| _mm_cvtsi64_si128((u64::from(high) << 32 | u64::from(low)).cast_signed());
    let scales = bytes(low_scales & SIX, high & FOUR | low_scales >> 2 & TOP);
    let mins = bytes(low_mins & SIX, high >> 4 & FOUR | low_mins >> 2 & TOP);
    let mins = _mm_cvtepi32_ps(_mm_madd_epi16(_mm_cvtepu8_epi16(mins), activation_sums));
    sums.mins = _mm_fmadd_ps(mins, _mm_set1_ps(dmin * scale), sums.mins);
    let scales = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(scales));
    _mm512_castps256_ps512(_mm256_mul_ps(scales, _mm256_set1_ps(d * scale)))
}

struct Q4K;

impl Block for Q4K {
    const BYTES: usize = 144;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    unsafe fn add(w: *const u8, x: &PreparedRow, block: usize, sums: &mut Sums) {
        // SAFETY: as the caller vouches for: 144 bytes, and a block of activations.
        unsafe {
            let scales = scales_and_mins(w, x, block, sums);
            let four = _mm512_set1_epi8(0x0f);
            for half in 0..2 {
                let packed = _mm512_loadu_si512(w.add(16 + half * 64).cast());
                let nibbles =
                    [_mm512_and_si512(packed, four), _mm512_and_si512(_mm512_srli_epi16::<4>(packed), four)];
                for (i, q) in nibbles.into_iter().enumerate() {
                    let quarter = half * 2 + i;
                    let (lower, upper) = NIBBLE_SUBS[quarter];
                    let dots = _mm512_dpbusd_epi32(_mm512_setzero_si512(), q, x.quants(block, quarter));
                    let scales = _mm512_permutexvar_ps(by_halves(lower, upper), scales);
                    add_scaled(dots, scales, &mut sums.lanes[quarter]);
                }
            }
        }
    }
}

struct Q5K;

impl Block for Q5K {
    const BYTES: usize = 176;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    unsafe fn add(w: *const u8, x: &PreparedRow, block: usize, sums: &mut Sums) {
        // SAFETY: as the caller vouches for: 176 bytes, and a block of activations.
        unsafe {
            let scales = scales_and_mins(w, x, block, sums);
            let four = _mm512_set1_epi8(0x0f);
            let five = _mm512_set1_epi8(0x10);
            let high = _mm512_broadcast_i64x4(_mm256_loadu_si256(w.add(16).cast()));
            // Bit s of a byte is the fifth of sub-block s: moved to bit 4, with neighbours masked off.
            let fifth = [
                _mm512_sllv_epi16(high, shifts(4, 2)),
                _mm512_sllv_epi16(high, shifts(3, 1)),
                _mm512_srlv_epi16(high, shifts(0, 2)),
                _mm512_srlv_epi16(high, shifts(1, 3)),
            ];
            for half in 0..2 {
                let packed = _mm512_loadu_si512(w.add(48 + half * 64).cast());
                let nibbles =
                    [_mm512_and_si512(packed, four), _mm512_and_si512(_mm512_srli_epi16::<4>(packed), four)];
                for (i, low) in nibbles.into_iter().enumerate() {
                    let quarter = half * 2 + i;
                    let (lower, upper) = NIBBLE_SUBS[quarter];
                    let q = _mm512_ternarylogic_epi32::<AND_OR>(fifth[quarter], five, low);
                    let dots = _mm512_dpbusd_epi32(_mm512_setzero_si512(), q, x.quants(block, quarter));
                    let scales = _mm512_permutexvar_ps(by_halves(lower, upper), scales);
                    add_scaled(dots, scales, &mut sums.lanes[quarter]);
                }
            }
        }
    }
}

struct Q6K;

impl Block for Q6K {
    const BYTES: usize = 210;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    unsafe fn add(w: *const u8, x: &PreparedRow, block: usize, sums: &mut Sums) {
        // SAFETY: as the caller vouches for: 210 bytes, and a block of activations.
        unsafe {
            let d = half(w.add(208).cast::<u16>().read_unaligned()) * x.scale(block);
            let scales = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(w.add(192).cast())));
            let scales = _mm512_mul_ps(scales, _mm512_set1_ps(d));
            let high = _mm512_loadu_si512(w.add(128).cast());
            let high = [_mm512_shuffle_i64x2::<0x44>(high, high), _mm512_shuffle_i64x2::<0xee>(high, high)];
            let four = _mm512_set1_epi8(0x0f);
            let two = _mm512_set1_epi8(0x30);
            // Each scale is for 16 quants, four lanes.
            let of_lanes = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
            for half in 0..2 {
                let packed = _mm512_loadu_si512(w.add(half * 64).cast());
                let nibbles =
                    [_mm512_and_si512(packed, four), _mm512_and_si512(_mm512_srli_epi16::<4>(packed), four)];
                let top =
                    [_mm512_sllv_epi16(high[half], shifts(4, 2)), _mm512_srlv_epi16(high[half], shifts(0, 2))];
                for (i, (low, top)) in nibbles.into_iter().zip(top).enumerate() {
                    let quarter = half * 2 + i;
                    let q = _mm512_ternarylogic_epi32::<AND_OR>(top, two, low);
                    let dots = _mm512_dpbusd_epi32(x.begin(block, quarter), q, x.quants(block, quarter));
                    let lanes = _mm512_add_epi32(of_lanes, _mm512_set1_epi32(4 * quarter as i32));
                    add_scaled(dots, _mm512_permutexvar_ps(lanes, scales), &mut sums.lanes[quarter]);
                }
            }
        }
    }
}

/// Scales of eight blocks of 32 that stand `bytes` apart, times the activations' scale.
///
/// SAFETY: two bytes must be readable at `w` and at seven strides of `BYTES` from there, and `x` have a block `block`.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,f16c")]
unsafe fn scales_of_eight<const BYTES: usize>(w: *const u8, x: &PreparedRow, block: usize) -> __m512 {
    // SAFETY: as the caller vouches for.
    unsafe {
        let halves: [u16; 8] = std::array::from_fn(|i| w.add(i * BYTES).cast::<u16>().read_unaligned());
        let scales = _mm256_cvtph_ps(_mm_loadu_si128(halves.as_ptr().cast()));
        _mm512_castps256_ps512(_mm256_mul_ps(scales, _mm256_set1_ps(x.scale(block))))
    }
}

struct Q80;

impl Block for Q80 {
    const BYTES: usize = 8 * 34;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,f16c")]
    unsafe fn add(w: *const u8, x: &PreparedRow, block: usize, sums: &mut Sums) {
        // SAFETY: as the caller vouches for: eight blocks of 34 bytes, and a block of activations.
        unsafe {
            let scales = scales_of_eight::<34>(w, x, block);
            let sign = _mm512_set1_epi8(-128);
            for pair in 0..4 {
                let w = w.add(pair * 68);
                let q = _mm512_castsi256_si512(_mm256_loadu_si256(w.add(2).cast()));
                let q = _mm512_inserti64x4::<1>(q, _mm256_loadu_si256(w.add(36).cast()));
                let q = _mm512_xor_si512(q, sign);
                let dots = _mm512_dpbusd_epi32(x.begin(block, pair), q, x.quants(block, pair));
                let lanes = by_halves(2 * pair as i32, 2 * pair as i32 + 1);
                add_scaled(dots, _mm512_permutexvar_ps(lanes, scales), &mut sums.lanes[pair]);
            }
        }
    }
}

struct Q40;

impl Block for Q40 {
    const BYTES: usize = 8 * 18;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,f16c")]
    unsafe fn add(w: *const u8, x: &PreparedRow, block: usize, sums: &mut Sums) {
        // SAFETY: as the caller vouches for: eight blocks of 18 bytes, and a block of activations.
        unsafe {
            let scales = scales_of_eight::<18>(w, x, block);
            let four = _mm512_set1_epi8(0x0f);
            // The upper nibbles are the block's second 16 quants.
            let nibble = _mm512_inserti64x4::<1>(
                _mm512_castsi256_si512(_mm256_setr_epi64x(0, 0, 0x0004_0004_0004_0004, 0x0004_0004_0004_0004)),
                _mm256_setr_epi64x(0, 0, 0x0004_0004_0004_0004, 0x0004_0004_0004_0004),
            );
            for pair in 0..4 {
                let w = w.add(pair * 36);
                let first = _mm256_broadcastsi128_si256(_mm_loadu_si128(w.add(2).cast()));
                let second = _mm256_broadcastsi128_si256(_mm_loadu_si128(w.add(20).cast()));
                let packed = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(first), second);
                let q = _mm512_and_si512(_mm512_srlv_epi16(packed, nibble), four);
                let dots = _mm512_dpbusd_epi32(x.begin(block, pair), q, x.quants(block, pair));
                let lanes = by_halves(2 * pair as i32, 2 * pair as i32 + 1);
                add_scaled(dots, _mm512_permutexvar_ps(lanes, scales), &mut sums.lanes[pair]);
            }
        }
    }
}
