//! Sixteen f32 lanes, for code that is written once for all levels.
//!
//! A level's lanes are only for functions that are compiled for the level. Such code is `#[inline(always)]` down from
//! those, without closures and iterator adapters, which would be compiled without the level's instructions.

use crate::panel::fused;

/// Lanes of a vector.
pub(crate) const LANES: usize = 16;

/// Sixteen f32.
pub(crate) trait Lanes: Copy {
    /// Registers that a value takes.
    const REGISTERS: usize;
    /// Whether there are fused multiply-adds.
    const FMA: bool;

    /// The same value in each lane.
    fn splat(value: f32) -> Self;
    fn load(values: &[f32; LANES]) -> Self;
    /// From half precision.
    fn widen(halves: &[u16; LANES]) -> Self;
    /// From integers.
    fn convert(values: &[i8; LANES]) -> Self;
    fn store(self, values: &mut [f32; LANES]);
    fn mul(self, other: Self) -> Self;
    fn max(self, other: Self) -> Self;
    /// `self + a · b`
    fn add_product(self, a: Self, b: Self) -> Self;
}

/// Lanes in an array, on the target's baseline.
impl Lanes for [f32; LANES] {
    const REGISTERS: usize = 4;
    const FMA: bool = cfg!(target_arch = "aarch64");

    #[inline(always)]
    fn splat(value: f32) -> Self {
        [value; LANES]
    }

    #[inline(always)]
    fn load(values: &[f32; LANES]) -> Self {
        *values
    }

    /// By integer arithmetic without branches, so that it vectorizes; exact, subnormals and infinities included.
    #[inline(always)]
    fn widen(halves: &[u16; LANES]) -> Self {
        // 2^112, by which the exponents' biases differ.
        const REBIAS: f32 = f32::from_bits(0x7780_0000);
        let mut lanes = [0.0; LANES];
        for (lane, half) in lanes.iter_mut().zip(halves) {
            let magnitude = u32::from(half & 0x7fff) << 13;
            let finite = (f32::from_bits(magnitude) * REBIAS).to_bits();
            let special = magnitude | 0x7f80_0000;
            let bits = if half & 0x7c00 == 0x7c00 { special } else { finite };
            *lane = f32::from_bits(bits | u32::from(half & 0x8000) << 16);
        }
        lanes
    }

    #[inline(always)]
    fn convert(values: &[i8; LANES]) -> Self {
        let mut lanes = [0.0; LANES];
        for (lane, value) in lanes.iter_mut().zip(values) {
            *lane = f32::from(*value);
        }
        lanes
    }

    #[inline(always)]
    fn store(self, values: &mut [f32; LANES]) {
        *values = self;
    }

    #[inline(always)]
    fn mul(mut self, other: Self) -> Self {
        for (lane, other) in self.iter_mut().zip(&other) {
            *lane *= other;
        }
        self
    }

    #[inline(always)]
    fn max(mut self, other: Self) -> Self {
        for (lane, other) in self.iter_mut().zip(other) {
            *lane = if *lane > other { *lane } else { other };
        }
        self
    }

    #[inline(always)]
    fn add_product(mut self, a: Self, b: Self) -> Self {
        for (lane, (a, b)) in self.iter_mut().zip(a.iter().zip(&b)) {
            *lane = fused::<{ cfg!(target_arch = "aarch64") }>(*a, *b, *lane);
        }
        self
    }
}
