//! Instructions that the oldest Rust of this crate has no stable functions for, or not such as lead to them.

#![allow(unsafe_code, reason = "inline assembly; every block says why it is sound")]

use std::arch::aarch64::*;
use std::arch::asm;

/// Adds to each lane of `sums` the four products of its bytes.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn sdot(mut sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: one instruction on registers, of a feature that the function has.
    unsafe {
        asm!(
            "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inlateout(vreg) sums,
            in(vreg) a,
            in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}

/// Adds to each lane of `sums` the four products of its bytes in `a` with the bytes `4 · LANE` on of `b`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn sdot_lane<const LANE: usize>(mut sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: one instruction on registers, of a feature that the function has.
    unsafe {
        asm!(
            "sdot {0:v}.4s, {1:v}.16b, {2:v}.4b[{3}]",
            inlateout(vreg) sums,
            in(vreg) a,
            in(vreg) b,
            const LANE,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}

/// Adds to `sums`, `(2, 2)`, the products of the two rows of eight in `a` with the two rows of eight in `b`.
#[inline]
#[target_feature(enable = "neon,i8mm")]
pub(super) fn smmla(mut sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: one instruction on registers, of a feature that the function has.
    unsafe {
        asm!(
            "smmla {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inlateout(vreg) sums,
            in(vreg) a,
            in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}

/// The sums of neighbours. Not by the function that there is for it: the compiler would see shuffles and an addition in
/// it, and add what is added to the sums before them.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn addp(a: int32x4_t, b: int32x4_t) -> int32x4_t {
    let sums: int32x4_t;
    // SAFETY: one instruction on registers, of a feature that the function has.
    unsafe {
        asm!(
            "addp {0:v}.4s, {1:v}.4s, {2:v}.4s",
            lateout(vreg) sums,
            in(vreg) a,
            in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}

/// The same four bytes four times. Not by the function that there is for it: the compiler would see that the halves of
/// the result are equal, and cut the other factor in halves rather than multiply upper halves.
///
/// SAFETY: four bytes must be readable at `bytes`.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn repeated(bytes: *const i8) -> int8x16_t {
    let four: int8x16_t;
    // SAFETY: one load of four bytes, which the caller vouches for.
    unsafe {
        asm!(
            "ld1r {{{0:v}.4s}}, [{1}]",
            lateout(vreg) four,
            in(reg) bytes,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    four
}

/// Asks for what stands at a place to be brought into the second-level cache. Nothing need be there.
pub(crate) fn prefetch(place: *const u8) {
    // SAFETY: a hint has no effect that a program could tell.
    unsafe {
        asm!("prfm pldl2keep, [{0}]", in(reg) place, options(readonly, nostack, preserves_flags));
    }
}

/// The values of four f16. Every AArch64 has it, without arithmetic in half precision.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn widen(halves: uint16x4_t) -> float32x4_t {
    let values: float32x4_t;
    // SAFETY: one instruction on registers, of a feature that the function has.
    unsafe {
        asm!(
            "fcvtl {0:v}.4s, {1:v}.4h",
            lateout(vreg) values,
            in(vreg) halves,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    values
}
