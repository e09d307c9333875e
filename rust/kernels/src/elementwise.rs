//! What stands between the products: norms and activation functions.

#![allow(clippy::indexing_slicing, reason = "lanes of arrays")]

use crate::lanes::LANES;
use crate::multiversion::multiversion;
use crate::panel::fused;

multiversion! {
    /// `out = x / sqrt(mean(x²) + ε) · weight`
    pub(crate) fn rms_norm_row(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) = rms_norm_any;
    /// `out = (x - mean(x)) / sqrt(var(x) + ε) · weight + bias`
    pub(crate) fn layer_norm_row(x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32, out: &mut [f32]) =
        layer_norm_any;
    /// `gate = gate / (1 + exp(-gate)) · up`
    pub(crate) fn swiglu_row(gate: &mut [f32], up: &[f32]) = swiglu_any;
    /// `x = gelu(x)`, by tanh
    pub(crate) fn gelu_row(x: &mut [f32]) = gelu_any;
}

impl crate::Kernels {
    /// `out = x / sqrt(mean(x²) + ε) · weight`, all of one length.
    pub fn rms_norm(self, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
        rms_norm_row(self, x, weight, epsilon, out);
    }

    /// `out = (x - mean(x)) / sqrt(var(x) + ε) · weight + bias`, all of one length.
    pub fn layer_norm(self, x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32, out: &mut [f32]) {
        layer_norm_row(self, x, weight, bias, epsilon, out);
    }

    /// `gate = silu(gate) · up`, the gated linear unit of arXiv:2002.05202.
    pub fn swiglu(self, gate: &mut [f32], up: &[f32]) {
        swiglu_row(self, gate, up);
    }

    /// `x = gelu(x)` by tanh (arXiv:1606.08415), `gelu_new` in the models' configurations.
    pub fn gelu(self, x: &mut [f32]) {
        gelu_row(self, x);
    }
}

/// Sums in lanes that do not depend on the level: of all values, or of the squares of their distances from `center`.
#[inline(always)]
fn sum_of<const FMA: bool, const SQUARES: bool>(x: &[f32], center: f32) -> f32 {
    let mut sums = [0f32; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for x in chunks {
        for lane in 0..LANES {
            let distance = x[lane] - center;
            sums[lane] =
                if SQUARES { fused::<FMA>(distance, distance, sums[lane]) } else { sums[lane] + distance };
        }
    }
    for lane in 0..rest.len() {
        let distance = rest[lane] - center;
        sums[lane] += if SQUARES { distance * distance } else { distance };
    }
    sum_of_lanes(sums)
}

/// Adds up lanes: the upper half to the lower one, and so on.
#[inline(always)]
pub(crate) fn sum_of_lanes(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

#[inline(always)]
fn rms_norm_any<const FMA: bool>(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    let mean = sum_of::<FMA, true>(x, 0.0) / x.len() as f32;
    let factor = 1.0 / (mean + epsilon).sqrt();
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * factor * weight;
    }
}

#[inline(always)]
fn layer_norm_any<const FMA: bool>(x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32, out: &mut [f32]) {
    let mean = sum_of::<FMA, false>(x, 0.0) / x.len() as f32;
    let variance = sum_of::<FMA, true>(x, mean) / x.len() as f32;
    let factor = 1.0 / (variance + epsilon).sqrt();
    for (((out, x), weight), bias) in out.iter_mut().zip(x).zip(weight).zip(bias) {
        *out = fused::<FMA>((x - mean) * factor, *weight, *bias);
    }
}

#[inline(always)]
fn swiglu_any<const FMA: bool>(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = *gate / (1.0 + exp::<FMA>(-*gate)) * up;
    }
}

#[inline(always)]
fn gelu_any<const FMA: bool>(x: &mut [f32]) {
    // sqrt(2 / π)
    const SCALE: f32 = 0.797_884_6;
    for x in x {
        // (1 + tanh(u)) / 2 = 1 / (1 + exp(-2 u))
        let u = SCALE * fused::<FMA>(0.044_715 * *x * *x, *x, *x);
        *x /= 1.0 + exp::<FMA>(-2.0 * u);
    }
}

/// `e^x` to about two units in the last place; zero below -87, no more than e^88, not a number for what is none.
///
/// 2^n · p(r) with n the nearest integer to x / ln 2 and r the rest, after Cephes' `expf`.
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    const LOWEST: f32 = -87.0;
    const HIGHEST: f32 = 88.0;
    // ln 2 in two parts, the first with few bits, so that n times it is exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // Adding it rounds to the nearest integer and leaves that in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let clamped = if x < LOWEST { LOWEST } else { x };
    let clamped = if clamped > HIGHEST { HIGHEST } else { clamped };
    let shifted = fused::<FMA>(clamped, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = fused::<FMA>(n, -LN_2_LOW, fused::<FMA>(n, -LN_2_HIGH, clamped));
    let mut p = 1.987_569_1e-4;
    p = fused::<FMA>(p, r, 1.398_199_9e-3);
    p = fused::<FMA>(p, r, 8.333_452e-3);
    p = fused::<FMA>(p, r, 4.166_579_6e-2);
    p = fused::<FMA>(p, r, 1.666_666_5e-1);
    p = fused::<FMA>(p, r, 0.5);
    p = fused::<FMA>(p, r * r, r + 1.0);
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1f32.to_bits()));
    if x < LOWEST { 0.0 } else { p * power }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Isa, Kernels};

    fn close(found: f32, expected: f64, relative: f64) -> bool {
        (f64::from(found) - expected).abs() <= relative * expected.abs() + 1e-37
    }

    #[test]
    fn exp_is_that_of_double_precision() {
        let mut x = -86.9f32;
        while x < 88.0 {
            for found in [exp::<true>(x), exp::<false>(x)] {
                assert!(close(found, f64::from(x).exp(), 3e-7), "e^{x}: {found}");
            }
            x += 0.0137;
        }
        assert_eq!(exp::<true>(0.0), 1.0);
        assert_eq!(exp::<true>(f32::NEG_INFINITY), 0.0);
        assert!(exp::<true>(f32::NAN).is_nan());
        assert!(exp::<true>(1e30) > 1e38);
    }

    #[test]
    fn rows_come_out_as_their_formulas_say() {
        for isa in Isa::available() {
            let Ok(kernels) = Kernels::new(isa) else { continue };
            for len in [1, 15, 16, 100] {
                let x: Vec<f32> = (0..len).map(|i| (i as f32 * 0.7).sin() * 3.0).collect();
                let w: Vec<f32> = (0..len).map(|i| (i as f32 * 0.3).cos()).collect();
                let wide = |x: &[f32]| x.iter().copied().map(f64::from).collect::<Vec<_>>();
                let (x64, w64) = (wide(&x), wide(&w));
                let n = len as f64;
                let mut out = vec![0.0; len];
                kernels.rms_norm(&x, &w, 1e-5, &mut out);
                let rms = (x64.iter().map(|x| x * x).sum::<f64>() / n + 1e-5).sqrt();
                assert!((0..len).all(|i| (f64::from(out[i]) - x64[i] / rms * w64[i]).abs() < 1e-6));
                kernels.layer_norm(&x, &w, &x, 1e-5, &mut out);
                let mean = x64.iter().sum::<f64>() / n;
                let deviation = (x64.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n + 1e-5).sqrt();
                let expected = |i: usize| (x64[i] - mean) / deviation * w64[i] + x64[i];
                assert!((0..len).all(|i| (f64::from(out[i]) - expected(i)).abs() < 2e-5), "{isa} {len}");
                out.copy_from_slice(&x);
                kernels.swiglu(&mut out, &w);
                let silu = |x: f64| x / (1.0 + (-x).exp());
                assert!((0..len).all(|i| (f64::from(out[i]) - silu(x64[i]) * w64[i]).abs() < 2e-6));
                out.copy_from_slice(&x);
                kernels.gelu(&mut out);
                let gelu = |x: f64| {
                    let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
                    0.5 * x * (1.0 + u.tanh())
                };
                assert!((0..len).all(|i| (f64::from(out[i]) - gelu(x64[i])).abs() < 2e-6));
            }
        }
    }
}
