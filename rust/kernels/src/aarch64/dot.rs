//! One row of activations with weight rows as they stand in the file.
//!
//! A sub-block's products are added up as integers. Those of the K types are scaled as integers too, so that a block of
//! 256 is converted once.

#![allow(unsafe_code, reason = "vector code; every block says why it is sound")]
#![allow(clippy::indexing_slicing, reason = "arrays indexed by constants")]

use std::arch::aarch64::*;

use super::instructions::{addp, sdot, widen};
use crate::activations::{Activations, SUMS};
use crate::tensor_type::SUPER_BLOCK;
use crate::{Isa, Kernels, TensorType};

/// Products of weight rows with row `row` of `x`, or false if there is no kernel for them.
pub(crate) fn dot_rows(
    kernels: Kernels,
    tensor_type: TensorType,
    bytes: &[u8],
    row_bytes: usize,
    x: &Activations,
    row: usize,
    out: &mut [f32],
) -> bool {
    let rows: Rows = match (kernels.isa(), tensor_type) {
        (Isa::Neon, TensorType::Q4_K) => neon::<Q4K>,
        (Isa::Neon, TensorType::Q5_K) => neon::<Q5K>,
        (Isa::Neon, TensorType::Q6_K) => neon::<Q6K>,
        (Isa::Neon, TensorType::Q8_0) => neon::<Q80>,
        (Isa::Neon, TensorType::Q4_0) => neon::<Q40>,
        (Isa::NeonDotprod | Isa::NeonI8mm, TensorType::Q4_K) => dotprod::<Q4K>,
        (Isa::NeonDotprod | Isa::NeonI8mm, TensorType::Q5_K) => dotprod::<Q5K>,
        (Isa::NeonDotprod | Isa::NeonI8mm, TensorType::Q6_K) => dotprod::<Q6K>,
        (Isa::NeonDotprod | Isa::NeonI8mm, TensorType::Q8_0) => dotprod::<Q80>,
        (Isa::NeonDotprod | Isa::NeonI8mm, TensorType::Q4_0) => dotprod::<Q40>,
        _ => return false,
    };
    // A row that ends inside a block of 256 is for the general kernel.
    if !x.row_len().is_multiple_of(SUPER_BLOCK) {
        return false;
    }
    assert_eq!(
        (tensor_type.row_bytes(x.row_len()), bytes.len()),
        (Some(row_bytes), out.len() * row_bytes),
        "bytes of the rows"
    );
    let x =
        Row { q: x.block_q(0, row), scales: x.block_scales(0, row), sums: x.block_sums(0, row), stride: x.rows() };
    // SAFETY: kernels only have levels that the machine has, and a row has as many blocks as the activations.
    unsafe { rows(bytes, row_bytes, x, out) };
    true
}

type Rows = unsafe fn(&[u8], usize, Row<'_>, &mut [f32]);

/// SAFETY: as for [`rows`].
#[target_feature(enable = "neon")]
unsafe fn neon<B: Block>(bytes: &[u8], row_bytes: usize, x: Row<'_>, out: &mut [f32]) {
    // SAFETY: as the caller vouches for.
    unsafe { rows::<B, Multiplied>(bytes, row_bytes, x, out) };
}

/// SAFETY: as for [`rows`].
#[target_feature(enable = "neon,dotprod")]
unsafe fn dotprod<B: Block>(bytes: &[u8], row_bytes: usize, x: Row<'_>, out: &mut [f32]) {
    // SAFETY: as the caller vouches for.
    unsafe { rows::<B, Dotted>(bytes, row_bytes, x, out) };
}

/// SAFETY: the machine must have what `D` needs, and the rows as many blocks as `x`.
#[inline(always)]
unsafe fn rows<B: Block, D: Dot>(bytes: &[u8], row_bytes: usize, x: Row<'_>, out: &mut [f32]) {
    for (bytes, out) in bytes.chunks_exact(row_bytes).zip(out) {
        // SAFETY: every block of the row is there, and its activations, as the caller vouches for.
        unsafe {
            let mut sum = vdupq_n_f32(0.0);
            for (block, w) in bytes.chunks_exact(B::BYTES).enumerate() {
                sum = B::add::<D>(w.as_ptr(), x.block(block), sum);
            }
            *out = vaddvq_f32(sum);
        }
    }
}

/// A row of activations: what [`Activations`] has from its first block on.
#[derive(Clone, Copy)]
struct Row<'a> {
    q: &'a [i8],
    scales: &'a [f32],
    sums: &'a [i16],
    /// Rows of a block.
    stride: usize,
}

impl Row<'_> {
    /// SAFETY: there must be a block `block`.
    #[inline(always)]
    unsafe fn block(&self, block: usize) -> Values {
        let at = block * self.stride;
        // SAFETY: as the caller vouches for.
        unsafe {
            Values {
                q: self.q.as_ptr().add(at * SUPER_BLOCK),
                scale: *self.scales.as_ptr().add(at),
                sums: self.sums.as_ptr().add(at * SUMS),
            }
        }
    }
}

/// A block of activations, always a whole one: 256 quants, a scale and 16 sums.
#[derive(Clone, Copy)]
struct Values {
    q: *const i8,
    scale: f32,
    sums: *const i16,
}

impl Values {
    /// Quants `16 · i` on.
    ///
    /// SAFETY: `i` must be less than 16.
    #[inline(always)]
    unsafe fn q(&self, i: usize) -> int8x16_t {
        // SAFETY: inside the block.
        unsafe { vld1q_s8(self.q.add(i * 16)) }
    }

    /// Quants `32 · sub` on.
    ///
    /// SAFETY: `sub` must be less than 8.
    #[inline(always)]
    unsafe fn q_of_32(&self, sub: usize) -> [int8x16_t; 2] {
        // SAFETY: inside the block.
        unsafe { [self.q(sub * 2), self.q(sub * 2 + 1)] }
    }

    #[inline(always)]
    fn sums_of_16(&self) -> [int16x8_t; 2] {
        // SAFETY: a block has sixteen.
        unsafe { [vld1q_s16(self.sums), vld1q_s16(self.sums.add(8))] }
    }

    #[inline(always)]
    fn sums_of_32(&self) -> int16x8_t {
        let [first, second] = self.sums_of_16();
        // SAFETY: every AArch64 has it.
        unsafe { vpaddq_s16(first, second) }
    }
}

/// Dot products of signed bytes, in four partial sums.
trait Dot {
    /// SAFETY: the machine must have the level.
    unsafe fn of_16(w: int8x16_t, a: int8x16_t) -> int32x4_t;

    /// Of weights from -64 to 63.
    ///
    /// SAFETY: the machine must have the level.
    unsafe fn of_32_small(w: [int8x16_t; 2], a: [int8x16_t; 2]) -> int32x4_t;

    /// SAFETY: the machine must have the level.
    unsafe fn of_32(w: [int8x16_t; 2], a: [int8x16_t; 2]) -> int32x4_t;
}

/// With [`sdot`].
struct Dotted;

impl Dot for Dotted {
    #[inline(always)]
    unsafe fn of_16(w: int8x16_t, a: int8x16_t) -> int32x4_t {
        // SAFETY: as the caller vouches for.
        unsafe { sdot(vdupq_n_s32(0), w, a) }
    }

    #[inline(always)]
    unsafe fn of_32_small(w: [int8x16_t; 2], a: [int8x16_t; 2]) -> int32x4_t {
        // SAFETY: as the caller vouches for.
        unsafe { Self::of_32(w, a) }
    }

    #[inline(always)]
    unsafe fn of_32(w: [int8x16_t; 2], a: [int8x16_t; 2]) -> int32x4_t {
        // SAFETY: as the caller vouches for.
        unsafe { sdot(Self::of_16(w[0], a[0]), w[1], a[1]) }
    }
}

/// With products of 16 bits. Activations are from -127 to 127, so that two products with any byte fit, and four with
/// small weights.
struct Multiplied;

impl Multiplied {
    /// SAFETY: none, every AArch64 has it.
    #[inline(always)]
    unsafe fn products(w: int8x16_t, a: int8x16_t) -> int16x8_t {
        // SAFETY: every AArch64 has it.
        unsafe { vmlal_high_s8(vmull_s8(vget_low_s8(w), vget_low_s8(a)), w, a) }
    }
}

impl Dot for Multiplied {
    #[inline(always)]
    unsafe fn of_16(w: int8x16_t, a: int8x16_t) -> int32x4_t {
        // SAFETY: every AArch64 has it.
        unsafe { vpaddlq_s16(Self::products(w, a)) }
    }

    #[inline(always)]
    unsafe fn of_32_small(w: [int8x16_t; 2], a: [int8x16_t; 2]) -> int32x4_t {
        // SAFETY: every AArch64 has it.
        unsafe {
            let products = vmlal_s8(Self::products(w[0], a[0]), vget_low_s8(w[1]), vget_low_s8(a[1]));
            vpaddlq_s16(vmlal_high_s8(products, w[1], a[1]))
        }
    }

    #[inline(always)]
    unsafe fn of_32(w: [int8x16_t; 2], a: [int8x16_t; 2]) -> int32x4_t {
        // SAFETY: every AArch64 has it.
        unsafe { vpadalq_s16(Self::of_16(w[0], a[0]), Self::products(w[1], a[1])) }
    }
}

/// The totals of four dot products.
#[inline]
#[target_feature(enable = "neon")]
fn totals([a, b, c, d]: [int32x4_t; 4]) -> int32x4_t {
    addp(vpaddq_s32(a, b), vpaddq_s32(c, d))
}

#[inline]
#[target_feature(enable = "neon")]
fn widened(values: int16x8_t) -> [int32x4_t; 2] {
    [vmovl_s16(vget_low_s16(values)), vmovl_high_s16(values)]
}

/// Adds the products of eight values each, in four partial sums.
#[inline]
#[target_feature(enable = "neon")]
fn add_products(sum: int32x4_t, a: int16x8_t, b: int16x8_t) -> int32x4_t {
    vmlal_high_s16(vmlal_s16(sum, vget_low_s16(a), vget_low_s16(b)), a, b)
}

#[inline]
#[target_feature(enable = "neon")]
fn signed(q: uint8x16_t) -> int8x16_t {
    vreinterpretq_s8_u8(q)
}

/// A type's super-block, or eight of its blocks.
trait Block {
    const BYTES: usize;

    /// Adds the products of a block to `sum`, in its four lanes.
    ///
    /// SAFETY: the machine must have what `D` needs, and `w` be readable for a block.
    unsafe fn add<D: Dot>(w: *const u8, x: Values, sum: float32x4_t) -> float32x4_t;
}

/// What Q4_K and Q5_K have in the first 16 bytes of a block.
struct Scales {
    scales: [int32x4_t; 2],
    /// Minimums times the activations, in four partial sums.
    mins: int32x4_t,
    /// What those are scaled with, times the activations' scale.
    d: float32x2_t,
}

impl Scales {
    /// SAFETY: 16 bytes must be readable at `w`.
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn read(w: *const u8, x: Values) -> Self {
        const SIX: u32 = 0x3f3f_3f3f;
        const FOUR: u32 = 0x0f0f_0f0f;
        const TOP: u32 = 0x3030_3030;
        // SAFETY: as the caller vouches for.
        let [halves, low_scales, low_mins, high] = unsafe { w.cast::<[u32; 4]>().read_unaligned() };
        let bytes = |low: u32, high: u32| {
            let bytes = vcreate_u8(u64::from(high) << 32 | u64::from(low));
            vreinterpretq_s16_u16(vmovl_u8(bytes))
        };
        // The upper two bits of sub-blocks 4 to 7 stand above the six bits of sub-blocks 0 to 3.
        let scales = bytes(low_scales & SIX, high & FOUR | low_scales >> 2 & TOP);
        let mins = bytes(low_mins & SIX, high >> 4 & FOUR | low_mins >> 2 & TOP);
        let d = widen(vcreate_u16(u64::from(halves)));
        Self {
            scales: widened(scales),
            mins: add_products(vdupq_n_s32(0), mins, x.sums_of_32()),
            d: vmul_n_f32(vget_low_f32(d), x.scale),
        }
    }

    /// Adds the scaled dot products to `sum`, less the minimums.
    #[inline]
    #[target_feature(enable = "neon")]
    fn add(self, scaled: int32x4_t, sum: float32x4_t) -> float32x4_t {
        let sum = vfmaq_lane_f32::<0>(sum, vcvtq_f32_s32(scaled), self.d);
        vfmsq_lane_f32::<1>(sum, vcvtq_f32_s32(self.mins), self.d)
    }
}

struct Q4K;

impl Block for Q4K {
    const BYTES: usize = 144;

    #[inline(always)]
    unsafe fn add<D: Dot>(w: *const u8, x: Values, sum: float32x4_t) -> float32x4_t {
        // SAFETY: as the caller vouches for: 144 bytes.
        unsafe {
            let scales = Scales::read(w, x);
            let four = vdupq_n_u8(0x0f);
            let mut scaled = vdupq_n_s32(0);
            for (half, scales) in scales.scales.into_iter().enumerate() {
                let mut dots = [vdupq_n_s32(0); 4];
                for (i, dots) in dots.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                    let pair = half * 2 + i;
                    let packed = [vld1q_u8(w.add(16 + pair * 32)), vld1q_u8(w.add(32 + pair * 32))];
                    let low = packed.map(|packed| signed(vandq_u8(packed, four)));
                    let high = packed.map(|packed| signed(vshrq_n_u8::<4>(packed)));
                    *dots =
                        [D::of_32_small(low, x.q_of_32(pair * 2)), D::of_32_small(high, x.q_of_32(pair * 2 + 1))];
                }
                scaled = vmlaq_s32(scaled, totals(dots), scales);
            }
            scales.add(scaled, sum)
        }
    }
}

struct Q5K;

impl Block for Q5K {
    const BYTES: usize = 176;

    #[inline(always)]
    unsafe fn add<D: Dot>(w: *const u8, x: Values, sum: float32x4_t) -> float32x4_t {
        // SAFETY: as the caller vouches for: 176 bytes.
        unsafe {
            let scales = Scales::read(w, x);
            let mut fifth = [vld1q_u8(w.add(16)), vld1q_u8(w.add(32))];
            let mut scaled = vdupq_n_s32(0);
            for (half, scales) in scales.scales.into_iter().enumerate() {
                let mut dots = [vdupq_n_s32(0); 4];
                for (i, dots) in dots.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                    let pair = half * 2 + i;
                    let packed = [vld1q_u8(w.add(48 + pair * 32)), vld1q_u8(w.add(64 + pair * 32))];
                    let low = [five_low(packed[0], fifth[0]), five_low(packed[1], fifth[1])];
                    let high = [five_high(packed[0], fifth[0]), five_high(packed[1], fifth[1])];
                    // Bit s is that of sub-block s.
                    fifth = fifth.map(|fifth| vshrq_n_u8::<2>(fifth));
                    *dots = [
                        D::of_32_small(low.map(|q| signed(q)), x.q_of_32(pair * 2)),
                        D::of_32_small(high.map(|q| signed(q)), x.q_of_32(pair * 2 + 1)),
                    ];
                }
                scaled = vmlaq_s32(scaled, totals(dots), scales);
            }
            scales.add(scaled, sum)
        }
    }
}

/// The lower nibbles, below bit 0 of `fifth`.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn five_low(packed: uint8x16_t, fifth: uint8x16_t) -> uint8x16_t {
    vsliq_n_u8::<4>(packed, vandq_u8(fifth, vdupq_n_u8(1)))
}

/// The upper nibbles, below bit 1 of `fifth`.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn five_high(packed: uint8x16_t, fifth: uint8x16_t) -> uint8x16_t {
    vsriq_n_u8::<4>(vandq_u8(vshlq_n_u8::<3>(fifth), vdupq_n_u8(0x10)), packed)
}

/// The quants of one place in the four quarters of half a block of Q6_K: of the lower nibbles of two vectors, then of
/// their upper ones, each below two bits of `top`.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn six(packed: [uint8x16_t; 2], top: uint8x16_t) -> [uint8x16_t; 4] {
    let (low, high) = (vdupq_n_u8(0x03), vdupq_n_u8(0x30));
    let shifted = vshrq_n_u8::<2>(top);
    [
        vsliq_n_u8::<4>(packed[0], vandq_u8(top, low)),
        vsliq_n_u8::<4>(packed[1], vandq_u8(shifted, low)),
        vsriq_n_u8::<4>(vandq_u8(top, high), packed[0]),
        vsriq_n_u8::<4>(vandq_u8(shifted, high), packed[1]),
    ]
}

struct Q6K;

impl Block for Q6K {
    const BYTES: usize = 210;

    #[inline(always)]
    unsafe fn add<D: Dot>(w: *const u8, x: Values, sum: float32x4_t) -> float32x4_t {
        // SAFETY: as the caller vouches for: 210 bytes.
        unsafe {
            let scales = vld1q_s8(w.add(192).cast());
            let scales = [vmovl_s8(vget_low_s8(scales)), vmovl_high_s8(scales)];
            let sums = x.sums_of_16();
            let offset = add_products(add_products(vdupq_n_s32(0), scales[0], sums[0]), scales[1], sums[1]);
            let mut scaled = vnegq_s32(vshlq_n_s32::<5>(offset));
            for (half, scales) in scales.into_iter().enumerate() {
                let mut dots = [vdupq_n_s32(0); 8];
                for place in 0..2 {
                    let packed = w.add(half * 64 + place * 16);
                    let top = vld1q_u8(w.add(128 + half * 32 + place * 16));
                    let quarters = six([vld1q_u8(packed), vld1q_u8(packed.add(32))], top);
                    for (quarter, q) in quarters.into_iter().enumerate() {
                        let i = quarter * 2 + place;
                        dots[i] = D::of_16(signed(q), x.q(half * 8 + i));
                    }
                }
                for (dots, scales) in dots.as_chunks().0.iter().zip(widened(scales)) {
                    scaled = vmlaq_s32(scaled, totals(*dots), scales);
                }
            }
            let d = widen(vcreate_u16(u64::from(w.add(208).cast::<u16>().read_unaligned())));
            vfmaq_lane_f32::<0>(sum, vcvtq_f32_s32(scaled), vmul_n_f32(vget_low_f32(d), x.scale))
        }
    }
}

/// The scales of four blocks that stand `BYTES` apart.
///
/// SAFETY: two bytes must be readable at `w` and at three strides from there.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn scales_of_four<const BYTES: usize>(w: *const u8) -> float32x4_t {
    // SAFETY: as the caller vouches for.
    let half = |i: usize| unsafe { u64::from(w.add(i * BYTES).cast::<u16>().read_unaligned()) };
    widen(vcreate_u16(half(0) | half(1) << 16 | half(2) << 32 | half(3) << 48))
}

struct Q80;

impl Block for Q80 {
    const BYTES: usize = 8 * 34;

    #[inline(always)]
    unsafe fn add<D: Dot>(w: *const u8, x: Values, sum: float32x4_t) -> float32x4_t {
        // SAFETY: as the caller vouches for: eight blocks of 34 bytes.
        unsafe {
            let mut scaled = vdupq_n_f32(0.0);
            for half in 0..2 {
                let w = w.add(half * 4 * 34);
                let mut dots = [vdupq_n_s32(0); 4];
                for (i, dot) in dots.iter_mut().enumerate() {
                    let w: *const i8 = w.add(i * 34 + 2).cast();
                    *dot = D::of_32([vld1q_s8(w), vld1q_s8(w.add(16))], x.q_of_32(half * 4 + i));
                }
                scaled = vfmaq_f32(scaled, vcvtq_f32_s32(totals(dots)), scales_of_four::<34>(w));
            }
            vfmaq_n_f32(sum, scaled, x.scale)
        }
    }
}

struct Q40;

impl Block for Q40 {
    const BYTES: usize = 8 * 18;

    #[inline(always)]
    unsafe fn add<D: Dot>(w: *const u8, x: Values, sum: float32x4_t) -> float32x4_t {
        // SAFETY: as the caller vouches for: eight blocks of 18 bytes.
        unsafe {
            let sums = x.sums_of_32();
            let mut scaled = vdupq_n_f32(0.0);
            for (half, sums) in [vget_low_s16(sums), vget_high_s16(sums)].into_iter().enumerate() {
                let w = w.add(half * 4 * 18);
                let mut dots = [vdupq_n_s32(0); 4];
                for (i, dot) in dots.iter_mut().enumerate() {
                    let packed = vld1q_u8(w.add(i * 18 + 2));
                    let q = [signed(vandq_u8(packed, vdupq_n_u8(0x0f))), signed(vshrq_n_u8::<4>(packed))];
                    *dot = D::of_32_small(q, x.q_of_32(half * 4 + i));
                }
                let dots = vmlal_n_s16(totals(dots), sums, -8);
                scaled = vfmaq_f32(scaled, vcvtq_f32_s32(dots), scales_of_four::<18>(w));
            }
            vfmaq_n_f32(sum, scaled, x.scale)
        }
    }
}
