//! Products of f32 rows.

#![allow(clippy::indexing_slicing, reason = "lanes of arrays")]

use crate::multiversion::multiversion;
use crate::panel::fused;

multiversion! {
    /// The dot product of two rows of one length.
    pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 = dot_any;
}

#[inline(always)]
fn dot_any<const FMA: bool>(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 64;
    let mut sums = [0f32; LANES];
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..LANES {
            sums[lane] = fused::<FMA>(a[lane], b[lane], sums[lane]);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    // In halves, so that it vectorizes and rounds little.
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    sums[0] + rest
}
