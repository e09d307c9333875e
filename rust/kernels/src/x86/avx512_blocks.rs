//! Blocks of four weight rows, multiplied as they stand in the file with 512-bit VNNI dot products.
//!
//! Where scales of sub-blocks are integers, dot products of four quants, which 16 bits hold, are scaled and added up as
//! integers over a super-block.

#![allow(unsafe_code, reason = "vector code; every block says why it is sound")]
#![allow(clippy::indexing_slicing, reason = "arrays indexed by constants")]

use std::arch::x86_64::*;

use super::avx512_dot::{Block, PreparedRow, ROWS, Sums};

/// `(a & b) | c`, as a truth table for `ternarylogic`.
pub(super) const AND_OR: i32 = 0xea;

/// 16 bytes, in all 128-bit lanes.
#[inline]
#[target_feature(enable = "avx512f")]
fn all_lanes(bytes: [i8; 16]) -> __m512i {
    // SAFETY: an array of 16 bytes is read whole.
    _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}

/// Indices of 32 bits, four times each.
#[inline]
#[target_feature(enable = "avx512f")]
fn four_each(a: i32, b: i32, c: i32, d: i32) -> __m512i {
    _mm512_setr_epi32(a, a, a, a, b, b, b, b, c, c, c, c, d, d, d, d)
}

/// 16-bit shift counts, one for the lower half of a vector and one for the upper.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn shifts(lower: i16, upper: i16) -> __m512i {
    _mm512_inserti64x4::<1>(_mm512_set1_epi16(lower), _mm256_set1_epi16(upper))
}

/// The lower and the upper nibbles of bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn nibbles(packed: __m512i) -> [__m512i; 2] {
    let four = _mm512_set1_epi8(0x0f);
    [_mm512_and_si512(packed, four), _mm512_and_si512(_mm512_srli_epi16::<4>(packed), four)]
}

/// Adds the scaled dot products of 64 quants each in `q` with quarters `first` and `first + 1` of a block: scales are of 16
/// bits, four for `q[0]` and four for `q[1]` in each 128-bit lane.
///
/// SAFETY: `x` must have a block `block`, and `first` be 0 or 2.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn add_two_quarters(
    sum: __m512i,
    q: [__m512i; 2],
    scales: __m512i,
    x: &PreparedRow,
    block: usize,
    first: usize,
) -> __m512i {
    // SAFETY: as the caller vouches for.
    let (x0, x1) = unsafe { (x.quants(block, first), x.quants(block, first + 1)) };
    let zero = _mm512_setzero_si512();
    // At most 4 · 63 · 127 each, which is less than 2^15.
    let dots = _mm512_packs_epi32(_mm512_dpbusd_epi32(zero, q[0], x0), _mm512_dpbusd_epi32(zero, q[1], x1));
    _mm512_dpwssd_epi32(sum, dots, scales)
}

/// What Q4_K and Q5_K have before the quants, of four rows.
#[derive(Clone, Copy)]
struct Headers {
    /// The eight scales and eight minimums of a row in each 128-bit lane.
    bytes: __m512i,
    /// Scale and minimum scale of each row in turn, times the activations' scale.
    d: __m512,
}

impl Headers {
    /// Reads them, and adds the products of minimums to the sums.
    ///
    /// SAFETY: 16 bytes must be readable at each `w`, and `x` have a block `block`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,f16c")]
    unsafe fn read(w: [*const u8; ROWS], x: &PreparedRow, block: usize, mins: __m512) -> (Self, __m512) {
        // SAFETY: as the caller vouches for.
        let (rows, activation_sums, scale) = unsafe {
            let row = |i: usize| _mm_loadu_si128(w[i].cast());
            let rows = _mm512_castsi128_si512(row(0));
            let rows = _mm512_inserti32x4::<1>(rows, row(1));
            let rows = _mm512_inserti32x4::<2>(rows, row(2));
            (_mm512_inserti32x4::<3>(rows, row(3)), x.eight_sums(block), x.scale(block))
        };
        // Bytes 4 to 7 have the low six bits of scales 0 to 3, 8 to 11 those of minimums 0 to 3; 12 to 15 have the low four
        // bits of scales 4 to 7, and above them those of the minimums; the top two are above the first twelve's.
        let low = all_lanes([4, 5, 6, 7, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15]);
        let low =
            _mm512_srlv_epi32(_mm512_shuffle_epi8(rows, low), _mm512_broadcast_i32x4(_mm_setr_epi32(0, 0, 0, 4)));
        let kept = _mm_setr_epi32(0x3f3f_3f3f, 0x0f0f_0f0f, 0x3f3f_3f3f, 0x0f0f_0f0f);
        let low = _mm512_and_si512(low, _mm512_broadcast_i32x4(kept));
        let top = all_lanes([-1, -1, -1, -1, 4, 5, 6, 7, -1, -1, -1, -1, 8, 9, 10, 11]);
        let top = _mm512_srli_epi16::<2>(_mm512_shuffle_epi8(rows, top));
        let bytes = _mm512_ternarylogic_epi32::<AND_OR>(top, _mm512_set1_epi8(0x30), low);

        let halves =
            _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), rows);
        let d = _mm256_mul_ps(_mm256_cvtph_ps(_mm512_castsi512_si128(halves)), _mm256_set1_ps(scale));
        let d = _mm512_castps256_ps512(d);

        let products = _mm512_madd_epi16(_mm512_unpackhi_epi8(bytes, _mm512_setzero_si512()), activation_sums);
        let of_rows = _mm512_permutexvar_ps(four_each(1, 3, 5, 7), d);
        (Self { bytes, d }, _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), of_rows, mins))
    }

    /// The scales of a row, in all 128-bit lanes.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn scales<const ROW: i32>(self) -> __m512i {
        match ROW {
            0 => _mm512_shuffle_i32x4::<0x00>(self.bytes, self.bytes),
            1 => _mm512_shuffle_i32x4::<0x55>(self.bytes, self.bytes),
            2 => _mm512_shuffle_i32x4::<0xaa>(self.bytes, self.bytes),
            _ => _mm512_shuffle_i32x4::<0xff>(self.bytes, self.bytes),
        }
    }

    /// Adds the sums of a row.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn add<const ROW: i32>(self, dots: __m512i, sum: __m512) -> __m512 {
        _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots), _mm512_permutexvar_ps(_mm512_set1_epi32(2 * ROW), self.d), sum)
    }
}

/// The scales, of 16 bits each, of the two quarters that 64 bytes of nibbles are: the lower ones are a sub-block and the
/// next but one, the upper ones those after them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn scales_of_nibbles(scales: __m512i, half: usize) -> __m512i {
    let lanes = |a: i8| _mm_setr_epi8(a, -1, a, -1, a, -1, a, -1, a + 1, -1, a + 1, -1, a + 1, -1, a + 1, -1);
    let first = 4 * half as i8;
    let lower = _mm512_broadcast_i32x4(lanes(first));
    let control = _mm512_inserti64x4::<1>(lower, _mm256_broadcastsi128_si256(lanes(first + 2)));
    _mm512_shuffle_epi8(scales, control)
}

/// Types whose blocks begin with a header of scales and minimums.
trait Headed {
    const BYTES: usize;

    /// The quants of a block, in quarters.
    ///
    /// SAFETY: the machine must have `Isa::Avx512Vnni`, and `w` be readable for a block.
    unsafe fn unpack(w: *const u8) -> [[__m512i; 2]; 2];
}

/// SAFETY: as for [`Block::add`], of row `ROW`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn add_row<T: Headed, const ROW: i32>(
    w: *const u8,
    headers: Headers,
    x: &PreparedRow,
    block: usize,
    sum: __m512,
) -> __m512 {
    let scales = headers.scales::<ROW>();
    let mut dots = _mm512_setzero_si512();
    // SAFETY: as the caller vouches for.
    unsafe {
        let q = T::unpack(w);
        for half in 0..2 {
            dots = add_two_quarters(dots, q[half], scales_of_nibbles(scales, half), x, block, 2 * half);
        }
    }
    headers.add::<ROW>(dots, sum)
}

impl<T: Headed> Block for T {
    const BYTES: usize = T::BYTES;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,f16c")]
    unsafe fn add(w: [*const u8; ROWS], x: &PreparedRow, block: usize, sums: Sums) -> Sums {
        // SAFETY: as the caller vouches for.
        unsafe {
            let (headers, mins) = Headers::read(w, x, block, sums.mins);
            let [a, b, c, d] = sums.rows;
            let a = add_row::<T, 0>(w[0], headers, x, block, a);
            let b = add_row::<T, 1>(w[1], headers, x, block, b);
            let c = add_row::<T, 2>(w[2], headers, x, block, c);
            let d = add_row::<T, 3>(w[3], headers, x, block, d);
            Sums { rows: [a, b, c, d], mins }
        }
    }
}

/// The nibbles of 128 bytes, in quarters.
///
/// SAFETY: 128 bytes must be readable at `w`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn nibbles_of_block(w: *const u8) -> [[__m512i; 2]; 2] {
    // SAFETY: as the caller vouches for.
    unsafe { [nibbles(_mm512_loadu_si512(w.cast())), nibbles(_mm512_loadu_si512(w.add(64).cast()))] }
}

pub(super) struct Q4K;

impl Headed for Q4K {
    const BYTES: usize = 144;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn unpack(w: *const u8) -> [[__m512i; 2]; 2] {
        // SAFETY: as the caller vouches for: 144 bytes.
        unsafe { nibbles_of_block(w.add(16)) }
    }
}

pub(super) struct Q5K;

impl Headed for Q5K {
    const BYTES: usize = 176;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn unpack(w: *const u8) -> [[__m512i; 2]; 2] {
        // SAFETY: as the caller vouches for: 176 bytes.
        let (high, [a, b]) = unsafe { (_mm256_loadu_si256(w.add(16).cast()), nibbles_of_block(w.add(48))) };
        let high = _mm512_broadcast_i64x4(high);
        let five = _mm512_set1_epi8(0x10);
        // Bit s of a byte is the fifth of sub-block s: moved to bit 4, with neighbours masked off.
        [
            [
                _mm512_ternarylogic_epi32::<AND_OR>(_mm512_sllv_epi16(high, shifts(4, 2)), five, a[0]),
                _mm512_ternarylogic_epi32::<AND_OR>(_mm512_sllv_epi16(high, shifts(3, 1)), five, a[1]),
            ],
            [
                _mm512_ternarylogic_epi32::<AND_OR>(_mm512_srlv_epi16(high, shifts(0, 2)), five, b[0]),
                _mm512_ternarylogic_epi32::<AND_OR>(_mm512_srlv_epi16(high, shifts(1, 3)), five, b[1]),
            ],
        ]
    }
}

pub(super) struct Q6K;

impl Q6K {
    /// SAFETY: as for [`Block::add`], of one row.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    unsafe fn row(w: *const u8, x: &PreparedRow, block: usize) -> __m512i {
        // SAFETY: as the caller vouches for: 210 bytes, and a block of activations.
        unsafe {
            let scales = _mm256_cvtepi8_epi16(_mm_loadu_si128(w.add(192).cast()));
            let offset = _mm256_slli_epi32::<5>(_mm256_madd_epi16(scales, x.sixteen_sums(block)));
            let mut dots = _mm512_zextsi256_si512(offset);
            let scales = _mm512_castsi256_si512(scales);
            let high = _mm512_loadu_si512(w.add(128).cast());
            let high = [_mm512_shuffle_i64x2::<0x44>(high, high), _mm512_shuffle_i64x2::<0xee>(high, high)];
            let two = _mm512_set1_epi8(0x30);
            for half in 0..2 {
                let [lower, upper] = nibbles(_mm512_loadu_si512(w.add(half * 64).cast()));
                let q = [
                    _mm512_ternarylogic_epi32::<AND_OR>(_mm512_sllv_epi16(high[half], shifts(4, 2)), two, lower),
                    _mm512_ternarylogic_epi32::<AND_OR>(_mm512_srlv_epi16(high[half], shifts(0, 2)), two, upper),
                ];
                // A scale is for 16 quants, which are a 128-bit lane: of the first quarter, then of the second.
                let lanes = _mm512_setr_epi64(
                    0x0000_0000_0000_0000,
                    0x0004_0004_0004_0004,
                    0x0001_0001_0001_0001,
                    0x0005_0005_0005_0005,
                    0x0002_0002_0002_0002,
                    0x0006_0006_0006_0006,
                    0x0003_0003_0003_0003,
                    0x0007_0007_0007_0007,
                );
                let lanes = _mm512_add_epi16(lanes, _mm512_set1_epi16(8 * half as i16));
                dots = add_two_quarters(dots, q, _mm512_permutexvar_epi16(lanes, scales), x, block, 2 * half);
            }
            dots
        }
    }
}

impl Block for Q6K {
    const BYTES: usize = 210;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,f16c")]
    unsafe fn add(w: [*const u8; ROWS], x: &PreparedRow, block: usize, mut sums: Sums) -> Sums {
        // SAFETY: as the caller vouches for.
        unsafe {
            let half = |i: usize| w[i].add(208).cast::<i16>().read_unaligned();
            let d = _mm_cvtph_ps(_mm_setr_epi16(half(0), half(1), half(2), half(3), 0, 0, 0, 0));
            let d = _mm512_castps128_ps512(_mm_mul_ps(d, _mm_set1_ps(x.scale(block))));
            for row in 0..ROWS {
                let dots = _mm512_cvtepi32_ps(Self::row(w[row], x, block));
                let scale = _mm512_permutexvar_ps(_mm512_set1_epi32(row as i32), d);
                sums.rows[row] = _mm512_fmadd_ps(dots, scale, sums.rows[row]);
            }
        }
        sums
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

pub(super) struct Q80;

impl Block for Q80 {
    const BYTES: usize = 8 * 34;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,f16c")]
    unsafe fn add(w: [*const u8; ROWS], x: &PreparedRow, block: usize, mut sums: Sums) -> Sums {
        // SAFETY: as the caller vouches for: eight blocks of 34 bytes, and a block of activations.
        unsafe {
            for row in 0..ROWS {
                let w = w[row];
                let scales = scales_of_eight::<34>(w, x, block);
                let sign = _mm512_set1_epi8(-128);
                for pair in 0..4 {
                    let first = 2 * pair as i32;
                    let w = w.add(pair * 68);
                    let q = _mm512_castsi256_si512(_mm256_loadu_si256(w.add(2).cast()));
                    let q = _mm512_inserti64x4::<1>(q, _mm256_loadu_si256(w.add(36).cast()));
                    let q = _mm512_xor_si512(q, sign);
                    let dots = _mm512_dpbusd_epi32(x.begin::<4>(block, pair), q, x.quants(block, pair));
                    let lanes = four_each(first, first, first + 1, first + 1);
                    sums.rows[row] = _mm512_fmadd_ps(
                        _mm512_cvtepi32_ps(dots),
                        _mm512_permutexvar_ps(lanes, scales),
                        sums.rows[row],
                    );
                }
            }
        }
        sums
    }
}

/// The scales of eight blocks of Q4_0, times the activations' scale.
///
/// SAFETY: 128 bytes must be readable at `w`, and `x` have a block `block`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,f16c")]
unsafe fn scales_of_q4_0(w: *const u8, x: &PreparedRow, block: usize) -> __m512 {
    // SAFETY: as the caller vouches for.
    let (first, second, scale) =
        unsafe { (_mm512_loadu_si512(w.cast()), _mm512_loadu_si512(w.add(64).cast()), x.scale(block)) };
    // Blocks are nine 16-bit words.
    let words = _mm512_castsi128_si512(_mm_setr_epi16(0, 9, 18, 27, 36, 45, 54, 63));
    let halves = _mm512_castsi512_si128(_mm512_permutex2var_epi16(first, words, second));
    _mm512_castps256_ps512(_mm256_mul_ps(_mm256_cvtph_ps(halves), _mm256_set1_ps(scale)))
}

pub(super) struct Q40;

impl Block for Q40 {
    const BYTES: usize = 8 * 18;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,f16c")]
    unsafe fn add(w: [*const u8; ROWS], x: &PreparedRow, block: usize, mut sums: Sums) -> Sums {
        for row in 0..ROWS {
            // SAFETY: as the caller vouches for: eight blocks of 18 bytes, and a block of activations.
            unsafe {
                let scales = scales_of_q4_0(w[row], x, block);
                for half in 0..2 {
                    // Four blocks, one in each 128-bit lane.
                    let w = w[row].add(half * 72 + 2);
                    let packed = _mm512_castsi128_si512(_mm_loadu_si128(w.cast()));
                    let packed = _mm512_inserti32x4::<1>(packed, _mm_loadu_si128(w.add(18).cast()));
                    let packed = _mm512_inserti32x4::<2>(packed, _mm_loadu_si128(w.add(36).cast()));
                    let packed = _mm512_inserti32x4::<3>(packed, _mm_loadu_si128(w.add(54).cast()));
                    let [lower, upper] = nibbles(packed);
                    let dots = _mm512_dpbusd_epi32(x.begin::<2>(block, half), lower, x.quants(block, 2 * half));
                    let dots = _mm512_dpbusd_epi32(dots, upper, x.quants(block, 2 * half + 1));
                    let first = 4 * half as i32;
                    let scales = _mm512_permutexvar_ps(four_each(first, first + 1, first + 2, first + 3), scales);
                    sums.rows[row] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots), scales, sums.rows[row]);
                }
            }
        }
        sums
    }
}
